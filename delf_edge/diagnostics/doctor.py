"""Is this machine fit? Versions, processor, bundle, and a self-test against the bundle's golden vectors."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from delf_edge.bundle.bundle import Bundle, default_bundle_path, read_arrays
from delf_edge.diagnostics.machine import describe_machine, library_versions
from delf_edge.errors import BundleError, EngineError
from delf_edge.features.extractor import Extractor, extract_options
from delf_edge.quantization.coarse_quantizer import CoarseIndex
from delf_edge.quantization.hnsw import library_version
from delf_edge.quantization.product_quantizer import decode
from delf_edge.types import Codes, Features, Float32Array, Image

LEAST_RECALL = 0.9  # of the words that exact search finds; the default bundle's graph has 0.98
_PROBES, _ASKED = 8, 300


@dataclass(frozen=True, slots=True)
class Check:
    """One check: its name, whether it passed, and what was found."""

    name: str
    passed: bool
    detail: str


@dataclass(frozen=True, slots=True)
class Report:
    """What `delf-edge doctor` prints.

    Attributes:
        versions: library -> version, "absent" where it is not installed.
        machine: facts about the processor and the memory.
        bundle: facts about the model bundle; empty where it cannot be loaded.
        checks: what was tried.
    """

    versions: Mapping[str, str]
    machine: Mapping[str, str]
    bundle: Mapping[str, str]
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether every check passed."""
        return all(check.passed for check in self.checks)


def diagnose(bundle: str | os.PathLike[str] | None = None, *, num_threads: int = 1) -> Report:
    """Describe the machine and run the bundle's network on the input whose output is known.

    Args:
        bundle: folder of a model bundle; default: the one that came with the package.
        num_threads: threads of the network.
    """
    facts: dict[str, str] = {}
    checks: list[Check] = []
    try:
        folder = Path(bundle) if bundle is not None else default_bundle_path()
        manifest = Bundle.verify(folder)
        loaded = Bundle.load(folder)
        facts = {
            "folder": str(folder),
            "bundle": f"{manifest.name} {manifest.version}",
            "bundle id": loaded.id,
            "network": f"{loaded.variant}, {len(loaded.network)} bytes",
            "licence": manifest.licence,
        }
        if manifest.calibration_of is not None:
            facts["probability"] = (
                f"fitted for bundle {manifest.calibration_of}, whose codebook is another one; fit it again before you "
                "rely on the threshold (`benchmarks.calibrate`, `fit-codebook --probability`)"
            )
        checks.append(Check("bundle", True, "every file has the SHA-256 that the manifest names"))
        checks += self_test(loaded, num_threads=num_threads)
        checks.append(words_check(loaded))
    except (BundleError, EngineError) as e:
        checks.append(Check("bundle", False, str(e)))
    return Report(library_versions(), describe_machine(num_threads), facts, tuple(checks))


def self_test(bundle: Bundle, *, num_threads: int = 1) -> list[Check]:
    """Extract the features of the bundle's golden image and compare them with its golden vectors.

    Machines differ in the last bits of the network's output, so a few keypoints at the edge of being selected may
    differ; the bundle states the tolerance.
    """
    golden = _golden(bundle)
    if "image" not in golden:
        return [Check("golden vectors", False, "the bundle has none; pack it again with `delf-edge-convert`")]
    pixels = golden["image"]
    extractor = Extractor(bundle, num_threads=num_threads)
    began = time.perf_counter()
    found = extractor.extract(Image(pixels, (pixels.shape[1], pixels.shape[0])), extract_options(bundle, None))
    elapsed = (time.perf_counter() - began) * 1000
    return _compare(found, golden, golden["tolerance"].item(), f"{elapsed:.0f} ms, first run")


def words_check(bundle: Bundle) -> Check:
    """How queries find their words on this machine, and how many of the right ones a graph finds.

    Asked are stored features of the bundle's cohort, else the features of its golden image, else the words themselves.
    """
    codebook = bundle.codebook
    coarse = CoarseIndex(codebook.centroids, graph=bundle.graph)
    if coarse.method == "exact":
        absent = " (the bundle has no graph over them)" if bundle.graph is None else ""
        absent = " (the bundle's graph is of other words)" if bundle.graph is not None else absent
        passed = bundle.graph is None
        return Check("words", passed, f"{coarse.n_words} words, each query compared with all of them{absent}")
    asked = _asked(bundle)
    n, found = min(_PROBES, coarse.n_words), {}
    spent: dict[bool, float] = {}
    for exact in (True, False) * 3:  # the first time is slower, whatever is asked
        began = time.perf_counter()
        found[exact] = coarse.assign(asked, n, exact=exact)[0]
        spent[exact] = min(spent.get(exact, np.inf), (time.perf_counter() - began) * 1000)
    there = (found[True][:, :, None] == found[False][:, None, :]).any(axis=2)
    recall = float(there.mean())
    return Check(
        "words",
        recall >= LEAST_RECALL,
        f"HNSW in use (hnswlib {library_version()}) over {coarse.n_words} words: recall {recall:.3f} of the {n} "
        f"nearest, at least {LEAST_RECALL:g}; {len(asked)} features in {spent[False]:.1f} ms, by exact search in "
        f"{spent[True]:.1f} ms",
    )


def _asked(bundle: Bundle) -> Float32Array:
    """Descriptors to ask for words, float32 (N, D), at most `_ASKED`."""
    cohort, codebook = bundle.cohort, bundle.codebook
    if cohort is not None and len(cohort.words):
        rows = np.linspace(0, len(cohort.words) - 1, min(_ASKED, len(cohort.words))).astype(int)
        n = len(rows)
        stored = Codes(
            np.zeros((n, 2), np.float32), cohort.words[rows], cohort.codes[rows], np.zeros(0, np.int8), (1, 1)
        )
        return decode(stored, codebook)
    golden = _golden(bundle)
    return golden["descriptors"][:_ASKED] if golden and len(golden["descriptors"]) else codebook.centroids[:_ASKED]


def golden_image(bundle: Bundle) -> NDArray[np.uint8]:
    """The picture whose features a bundle states: uint8 (H, W, 3), RGB.

    Raises:
        BundleError: it has none.
    """
    pixels = _golden(bundle).get("image")
    if pixels is None:
        raise BundleError(f"bundle {bundle.id} has no golden vectors; pack it again with `delf-edge-convert`")
    return np.asarray(pixels, np.uint8)


def _golden(bundle: Bundle) -> dict[str, NDArray[Any]]:
    """What the bundle says its golden image looks like; without an image it says nothing.

    Raises:
        BundleError: it is not what `self_test` compares.
    """
    golden = read_arrays(bundle.golden, f"bundle {bundle.id}: its golden vectors")
    if "image" not in golden:
        return {}
    n = golden["scales"].size if "scales" in golden else 0
    shapes: dict[str, tuple[int, ...]] = {
        "image": (*golden["image"].shape[:2], 3),
        "keypoints": (n, 2),
        "scales": (n,),
        "descriptors": (n, len(bundle.codebook.pca_basis)),
        "global_descriptor": (len(bundle.codebook.global_basis),),
        "tolerance": (1,),
    }
    for name, shape in shapes.items():
        found = np.atleast_1d(golden.get(name, np.zeros(0, bool)))
        kind = np.dtype(np.uint8 if name == "image" else np.float32)
        empty = name == "image" and found.size == 0
        if found.shape != shape or found.dtype != kind or empty or not np.isfinite(found).all():
            raise BundleError(
                f"bundle {bundle.id}: golden {name}: {found.dtype} {found.shape}, expected {kind} {shape}, finite; "
                "pack it again with `delf-edge-convert`"
            )
    return golden


def _compare(found: Features, golden: Mapping[str, NDArray[Any]], tolerance: float, note: str) -> list[Check]:
    """Features against golden ones: which keypoints are there, and how well their descriptors agree."""
    there = _places(found.keypoints, found.scales)
    wanted = _places(golden["keypoints"], golden["scales"])
    pairs = [(i, there[place]) for place, i in wanted.items() if place in there]
    n = len(golden["keypoints"])
    share = len(pairs) / n if n else float(len(found) == 0)
    checks = [Check("keypoints", share >= 1 - tolerance, f"{len(pairs)} of {n} at their place ({note})")]
    if pairs:
        rows, columns = np.array(pairs).T
        cosines = np.einsum("nd,nd->n", golden["descriptors"][rows], found.descriptors[columns])
        checks.append(_similar("local descriptors", float(cosines.mean()), tolerance))
    cosine = golden["global_descriptor"] @ found.global_descriptor
    checks.append(_similar("global descriptor", float(cosine), tolerance))
    return checks


def _places(keypoints: NDArray[np.float32], scales: NDArray[np.float32]) -> dict[tuple[int, ...], int]:
    """(x, y, 1000 * scale), rounded -> index of the feature there."""
    rows = np.rint(np.column_stack([keypoints, 1000 * scales])).astype(int).tolist()
    return {tuple(row): i for i, row in enumerate(rows)}


def _similar(name: str, cosine: float, tolerance: float) -> Check:
    return Check(name, cosine >= 1 - tolerance, f"cosine {cosine:.4f} to the golden one, at least {1 - tolerance:g}")
