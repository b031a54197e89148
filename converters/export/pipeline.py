"""From a network to a bundle: export, quantise, extract, fit, pack. What takes long is kept in a work folder.

Everything kept is named after a digest of what it was made from, so that a second run with another checkpoint or
other options makes what changed and takes the rest from the folder.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from delf_edge.bundle.bundle import Bundle
from delf_edge.codebooks import fit as codebook_fit
from delf_edge.codebooks.projections import Projection
from delf_edge.converters.export import raw_features, recipes, tflite
from delf_edge.converters.export.model_card import model_card
from delf_edge.converters.export.parity import Parity, local_parity, tail_parity
from delf_edge.converters.networks.delf import INPUT_MEAN, INPUT_SCALE, DelfNetwork
from delf_edge.converters.training import matches
from delf_edge.converters.training.photos import Photo, balanced
from delf_edge.errors import ImageError
from delf_edge.features.network import Engine
from delf_edge.features.pyramid import build_pyramid
from delf_edge.images.decode import load_image
from delf_edge.types import Float32Array

Report = Callable[[str], None]
_PARITY_SCALE = 0.707


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """What is exported, and how int8 is calibrated.

    Attributes:
        variants: variants of the local network; the first is the default.
        tails: variants of the tail; the first is the default. Empty: no tail.
        calibration_photos: photos that set the ranges of int8.
        calibration_scales: pyramid scales the calibration photos take turns at.
        parity_photos: photos of the parity report, none of them used for calibration.
        level_scale: pyramid scale of the map that the tail sees.
        selection: "attention" or "l2norm": which cells the parity report compares.
        mean, scale: the network's input is (RGB - mean) / scale.
    """

    variants: tuple[str, ...] = ("float16", "int8")
    tails: tuple[str, ...] = ("dynamic_range",)
    calibration_photos: int = 200
    calibration_scales: tuple[float, ...] = (0.354, 0.5, 0.707)
    parity_photos: int = 24
    level_scale: float = 0.5
    selection: str = "l2norm"
    mean: float = INPUT_MEAN
    scale: float = INPUT_SCALE


@dataclass(frozen=True, slots=True)
class Exported:
    """TFLite models by variant, and their parity reports."""

    local: dict[str, bytes]
    tail: dict[str, bytes]
    parity: list[Parity] = field(default_factory=list)
    tail_parity: list[Parity] = field(default_factory=list)


def network_digest(network: DelfNetwork) -> str:
    """Short name of a network's weights."""
    digest = hashlib.sha256(network.spec.name.encode())
    for name, value in sorted(network.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def _kept(path: Path, make: Callable[[], bytes]) -> bytes:
    if path.exists():
        return path.read_bytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    data = make()
    partial = path.with_suffix(".partial")
    partial.write_bytes(data)
    partial.replace(path)
    return data


def inputs(
    photos: Sequence[Photo], scales: Sequence[float], mean: float = INPUT_MEAN, scale: float = INPUT_SCALE
) -> Iterator[Float32Array]:
    """Normalised levels float32 (1, H, W, 3) of photos that take turns at `scales`; unreadable photos are skipped."""
    for i, photo in enumerate(photos):
        try:
            level = build_pyramid(load_image(photo.path), [scales[i % len(scales)]])[0]
        except (ImageError, OSError):
            continue
        yield tflite.normalise(level.pixels, mean, scale)


def _spread(photos: Sequence[Photo], n: int) -> list[Photo]:
    """At most n photos at even steps through the list."""
    step = max(1.0, len(photos) / max(n, 1))
    return [photos[int(i * step)] for i in range(min(n, len(photos)))]


def held_out(photos: Sequence[Photo], options: ExportOptions) -> tuple[list[Photo], list[Photo]]:
    """Photos to calibrate int8 on, and others (at most a tenth) for the parity report."""
    judged = _spread(photos, min(options.parity_photos, max(1, len(photos) // 10)))
    taken = {p.path for p in judged}
    rest = [p for p in photos if p.path not in taken]
    return _spread(rest or photos, options.calibration_photos), judged


def export(
    network: DelfNetwork, photos: Sequence[Photo], options: ExportOptions, work: Path, report: Report
) -> Exported:
    """Export and quantise both networks, and compare each with PyTorch.

    Args:
        network: in eval mode.
        photos: for the calibration of int8 and the parity report.
        options: what to export.
        work: folder where finished models are kept.
        report: called with a line per step.
    """
    folder = work / f"export-{network_digest(network)}"
    calibration, judged = held_out(photos, options)
    named = json.dumps([str(p.path) for p in calibration] + [list(options.calibration_scales), options.level_scale])
    tag = hashlib.sha256(named.encode()).hexdigest()[:8]
    report("exporting the local network")
    local32 = _kept(folder / "local_float32.tflite", lambda: tflite.convert_local(network))
    tail32 = b""
    if options.tails:
        report("exporting the tail")
        tail32 = _kept(folder / "tail_float32.tflite", lambda: tflite.convert_tail(network))

    def maps(of: Sequence[Photo]) -> Iterator[Float32Array]:
        engine = Engine(local32)
        for x in inputs(of, [options.level_scale], options.mean, options.scale):
            yield engine.run(x)["features"]

    def local_variant(variant: str) -> bytes:
        return tflite.quantise(
            local32, variant, lambda: inputs(calibration, options.calibration_scales, options.mean, options.scale)
        )

    def tail_variant(variant: str) -> bytes:
        return tflite.quantise(tail32, variant, lambda: maps(calibration), input_name="features")

    local, tail = {}, {}
    for variant in options.variants:
        report(f"local network: {variant}")
        local[variant] = _kept(folder / f"local_{variant}-{tag}.tflite", lambda v=variant: local_variant(v))  # type: ignore[misc]
    for variant in options.tails:
        report(f"tail: {variant}")
        tail[variant] = _kept(folder / f"tail_{variant}-{tag}.tflite", lambda v=variant: tail_variant(v))  # type: ignore[misc]
    return _with_parity(network, Exported(local, tail), judged, maps, options, report)


def _with_parity(
    network: DelfNetwork,
    models: Exported,
    photos: Sequence[Photo],
    maps: Callable[[Sequence[Photo]], Iterator[Float32Array]],
    options: ExportOptions,
    report: Report,
) -> Exported:
    seen, tail_seen = (
        list(inputs(photos, [_PARITY_SCALE], options.mean, options.scale)),
        list(maps(photos)) if models.tail else [],
    )
    for variant, model in models.local.items():
        models.parity.append(local_parity(network, variant, model, seen, selection=options.selection))
        report(f"parity, local: {models.parity[-1]}")
    for variant, model in models.tail.items():
        models.tail_parity.append(tail_parity(network, variant, model, tail_seen))
        report(f"parity, tail: {models.tail_parity[-1]}")
    return models


def fit_codebook(
    local: bytes,
    tail: bytes | None,
    head: Mapping[str, Any],
    photos: Sequence[Photo],
    options: codebook_fit.CodebookOptions,
    work: Path,
    report: Report,
    *,
    workers: int = 2,
    projection: Projection | None = None,
) -> codebook_fit.Fit:
    """Extract raw features at the default preset (or take them from `work`) and fit the codebook.

    Args:
        local: the local network that features are extracted with.
        tail: the tail, or None.
        head: the manifest without files.
        photos: fitting data, already balanced.
        options: what to fit.
        work: folder where raw features are kept.
        report: called with a line per step.
        workers: threads of the extraction.
        projection: a PCA to use instead of fitting one.
    """
    folder = work / f"features-{raw_features.key(photos, local, tail, head)}"
    raw = raw_features.collect(
        photos,
        local,
        tail,
        head,
        folder,
        workers=workers,
        report=lambda done, total: report(f"features of {done} of {total} photos"),
        say=report,
    )
    report("fitting the codebook")

    def matched() -> Iterator[tuple[Float32Array, Float32Array]]:
        return matches.matched_descriptors(photos, local, head, folder / "matches", seed=options.seed, report=report)

    return codebook_fit.fit(raw.local, raw.pooled(), options, projection=projection, matches=matched)


def build(
    out: Path,
    network: DelfNetwork,
    photos: Sequence[Photo],
    recipe: recipes.Recipe,
    export_options: ExportOptions,
    codebook_options: codebook_fit.CodebookOptions,
    work: Path,
    command: str,
    report: Report,
    *,
    per_place: int = 40,
    workers: int = 2,
    projection: Projection | None = None,
) -> Bundle:
    """The whole way: network and photos to a bundle at `out`.

    Args:
        out: the bundle's folder; replaced when the new one is complete.
        network: in eval mode.
        photos: calibration and fitting data.
        recipe: what the bundle says about itself.
        export_options: what to export.
        codebook_options: what to fit.
        work: folder for what takes long.
        command: the command line, for the model card.
        report: called with a line per step.
        per_place: photos of one place that are used at most.
        workers: threads of the extraction.
        projection: a PCA to use instead of fitting one.
    """
    chosen = balanced(photos, per_place)
    report(f"{len(chosen)} of {len(photos)} photos, at most {per_place} a place")
    models = export(network, chosen, export_options, work, report)
    head = recipes.manifest(recipe, tuple(models.local), tuple(models.tail))
    tail = models.tail.get(recipe.default_tail)
    default = models.local[recipe.default_variant]
    fitted = fit_codebook(
        default, tail, head, chosen, codebook_options, work, report, workers=workers, projection=projection
    )
    figures = {
        "parity": [p.as_dict() for p in models.parity],
        "tail_parity": [p.as_dict() for p in models.tail_parity],
        "codebook": fitted.report,
        "photos": len(chosen),
        "places": len({p.place for p in chosen}),
    }
    for name, value in fitted.report.items():
        report(f"codebook: {name.replace('_', ' ')} {value:.6g}")
    card = model_card(recipe, figures, command)
    return recipes.pack(out, recipe, models.local, models.tail, fitted.arrays, card)
