"""Judge the networks of a bundle: parity with PyTorch and mAP on a benchmark, on every runtime there is.

What is "float" is the PyTorch network. Its mAP is that of its float32 export, or, where the network was itself taken
back from the bundle's float32 or float16 variant (`restore`), of that variant: its weights are then the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from delf_edge.codebooks.bundle_writer import verified_manifest
from delf_edge.converters.export import pipeline, tflite
from delf_edge.converters.export.parity import local_parity
from delf_edge.converters.export.runtimes import Benchmark, Runtime, Score
from delf_edge.converters.networks import from_tflite
from delf_edge.converters.networks.delf import BackboneSpec, DelfNetwork
from delf_edge.converters.training.photos import Photo
from delf_edge.errors import BundleError, EngineError
from delf_edge.types import Float32Array

SCALE = 0.707  # of the photos that are compared: the largest level of the preset `balanced`


@dataclass(frozen=True, slots=True)
class Bounds:
    """What passes.

    Attributes:
        cosine: least mean cosine between descriptors of the same cell.
        agreement: least share of equal keypoints.
        map_loss: most that mAP may lose against float.
    """

    cosine: float = 0.95
    agreement: float = 0.8
    map_loss: float = 0.01


@dataclass(frozen=True, slots=True, eq=False)
class Reference:
    """The float network, and the TFLite model that stands for it where a whole benchmark is run.

    Attributes:
        network: in eval mode.
        model: float32 or float16 TFLite model of the same weights.
        origin: where the network comes from, for the report.
    """

    network: DelfNetwork
    model: Callable[[], bytes]
    origin: str


def exported(network: DelfNetwork, origin: str) -> Reference:
    """A network whose checkpoint is at hand."""
    return Reference(network, lambda: tflite.convert_local(network), origin)


def restored(bundle: Path, spec: BackboneSpec) -> Reference:
    """The network that a bundle's own float variant holds.

    Raises:
        BundleError: it has none, or is of another backbone.
    """
    variants = verified_manifest(bundle)["network"]["variants"]
    name = next((v for v in from_tflite.PREFERRED if v in variants), None)
    if name is None:
        raise BundleError(
            f"{bundle} has only {', '.join(variants)}: PyTorch's weights cannot be taken back from these; "
            "name the checkpoint it was made of with --checkpoint"
        )
    model = (bundle / variants[name]).read_bytes()
    return Reference(from_tflite.from_tflite(model, None, spec), lambda: model, f"{name} of the bundle")


def inputs(bundle: Path, photos: Sequence[Photo], count: int) -> list[Float32Array]:
    """At most `count` photos at even steps through the list, as the local network sees them."""
    normal = verified_manifest(bundle)["network"]["input"]
    chosen = photos[:: max(1, len(photos) // count)][:count]
    return list(pipeline.inputs(chosen, [SCALE], normal["mean"], normal["scale"]))


def check(
    bundle: Path,
    reference: Reference,
    seen: Sequence[Float32Array],
    bounds: Bounds,
    runtimes: Sequence[Runtime],
    benchmark: Benchmark | None,
    report: Callable[[str], None],
) -> dict[str, Any]:
    """The report, JSON-ready; `passed` says whether every row is within the bounds.

    Args:
        bundle: folder of a bundle.
        reference: what its networks are compared with.
        seen: normalised photos, float32 (1, H, W, 3).
        bounds: what passes.
        runtimes: each gets a row per variant; the first also measures the float network.
        benchmark: what mAP is measured on; None leaves it out.
        report: called with a line per step.
    """
    head = verified_manifest(bundle)
    float_score: Score | None = None
    if benchmark is not None:
        report(f"float ({reference.origin}): {benchmark.file}")
        float_score = runtimes[0].score(bundle, reference.model(), benchmark)
    rows = []
    for runtime in runtimes:
        for variant, file in head["network"]["variants"].items():
            row: dict[str, Any] = {"runtime": runtime.name, "variant": variant}
            report(f"{variant} on {runtime.name}")
            model = (bundle / file).read_bytes()
            try:
                found = local_parity(
                    reference.network, variant, model, seen, selection=head["selection"], runtime=runtime
                )
                row |= found.as_dict()
                passed = found.cosine_mean >= bounds.cosine and found.keypoint_agreement >= bounds.agreement
                if benchmark is not None and float_score is not None:
                    score = runtime.score(bundle, model, benchmark)
                    row |= {"map": score.map, "top1": score.top1, "map_loss": float_score.map - score.map}
                    passed = passed and row["map_loss"] <= bounds.map_loss
            except EngineError as e:
                row, passed = {**row, "error": str(e)}, False
            rows.append({**row, "passed": passed})
    return {
        "bundle": str(bundle),
        "float": {"from": reference.origin} | ({} if float_score is None else asdict(float_score)),
        "photos_compared": len(seen),
        "bounds": asdict(bounds),
        "local": rows,
        "passed": all(row["passed"] for row in rows),
    }
