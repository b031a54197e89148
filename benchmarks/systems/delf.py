"""DELF rows of the lab: a bundle's extraction and index, with the ranking of the paper or the fused one.

The runtime's own path is the row `delf-edge` (see `runtime`). These rows take the same stages apart, so that each can
be left out or replaced and its worth be seen.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from benchmarks.data.feature_cache import Arrays
from benchmarks.systems.base import Result, System, best_two_places
from benchmarks.systems.global_descriptors import Expansion, expand
from benchmarks.systems.local import LocalIndex, LocalOptions, Verifier
from delf_edge.bundle.calibration import Calibration
from delf_edge.features.extractor import Extractor, project_descriptors
from delf_edge.query import query_expansion
from delf_edge.types import Codebook, Features, Float32Array, Image, UInt8Array
from delf_edge.verification import verify

if TYPE_CHECKING:
    from delf_edge.bundle.bundle import Bundle
    from delf_edge.features.extractor import ExtractOptions

Ranking = Literal["inliers", "fused"]


class DelfSystem(System):
    """A bundle's features through the lab's index.

    Args:
        bundle: network and codebook.
        extract: extraction options.
        ranking: "inliers" (the paper: inliers decide) or "fused" (votes, global cosine and inliers, weighted by
            `calibration`; the paper's last row when `expansion` is given).
        label: the row's name.
        calibration: weights of the fused ranking; None takes the bundle's.
        expansion: query expansion of the global descriptor before fusion.
        options: search options.
        verifier: geometric model.
        codebook: for the index, in place of the bundle's; its PCA applies to the bundle's descriptors (an ablation).
    """

    stages = ("candidates", "global")

    def __init__(
        self,
        bundle: Bundle,
        extract: ExtractOptions,
        *,
        ranking: Ranking = "fused",
        label: str = "DELF",
        calibration: Calibration | None = None,
        expansion: Expansion | None = None,
        options: LocalOptions | None = None,
        verifier: Verifier = verify,
        codebook: Codebook | None = None,
    ) -> None:
        self.name, self.ranking, self.expansion = label, ranking, expansion or Expansion()
        self.role = "DELF+DIR+QE" if ranking == "fused" else "DELF"
        self._extractor = Extractor(bundle, num_threads=1)
        self._extract_options, self.options = extract, options or LocalOptions()
        settings = hashlib.sha256(repr(extract).encode()).hexdigest()[:12]
        self.key = f"delf 1 {bundle.id} {bundle.variant} {settings}"
        self.calibration = calibration or Calibration.from_mapping(bundle.calibration)
        if ranking == "fused" and self.calibration.votes > 0:  # candidates in the order of their score, as the runtime
            balance = self.calibration.similarity / self.calibration.votes
            self.options = replace(self.options, search=replace(self.options.search, global_weight=balance))
        self.tolerances = (self.options.verify.tolerance,) if ranking == "inliers" else ()
        self._codebook, self._verifier = codebook, verifier
        self._index = LocalIndex(codebook or bundle.codebook, self.options, verifier)
        self.global_descriptors: Float32Array = np.zeros((0, bundle.codebook.global_dim), np.float32)

    def extract(self, pixels: UInt8Array) -> Arrays:
        """The runtime's own features."""
        image = Image(pixels, (pixels.shape[1], pixels.shape[0]))
        return to_arrays(self._extractor.extract(image, self._extract_options))

    def features(self, arrays: Arrays) -> Features:
        """Stored arrays as the index' codebook wants them."""
        features = from_arrays(arrays)
        if self._codebook is None:
            return features
        return replace(features, descriptors=project_descriptors(self._codebook, features.descriptors))

    def add(self, database: Sequence[Arrays]) -> None:
        """Encode and index."""
        self._index.add([self.features(d) for d in database])
        rows = [np.asarray(d["global_descriptor"], np.float32) for d in database]
        self.global_descriptors = np.stack(rows) if rows else self.global_descriptors

    def search(self, query: Arrays, absent: NDArray[np.bool_] | None = None) -> Result:
        """Votes, RANSAC, and the ranking asked for."""
        features = self.features(query)
        found = self._index.search(features, absent)
        similarity = self._similarity(features, absent)
        stages = {"candidates": found.stages["candidates"], "global": np.asarray(similarity, np.float64)}
        if found.inliers is None or not len(found.scores):
            return Result(found.scores, float("-inf"), stages, found.inliers)
        per_feature = found.stages["votes"] / max(1, min(len(features), self.options.query_features))
        scores = found.scores
        if self.ranking == "fused":
            seen = expand_proven(
                self.calibration,
                per_feature,
                similarity,
                found.inliers,
                self.global_descriptors,
                features.global_descriptor,
            )
            scores = fuse(self.calibration, per_feature, seen, found.inliers)
        best = int(np.argmax(scores))
        first, second = best_two_places(scores, self.places)
        margin = self.calibration.margin(first, second)
        evidence = {
            "inliers": float(found.inliers[best]),
            "votes": float(per_feature[best]),
            "similarity": float(similarity[best]),
            "score": first,
            "margin": margin,
        }
        confidence = self.calibration.probability(first, margin) if self.ranking == "fused" else evidence["inliers"]
        stages["votes"] = per_feature
        return Result(np.asarray(scores, np.float64), confidence, stages, found.inliers, evidence)

    def _similarity(self, features: Features, absent: NDArray[np.bool_] | None) -> NDArray[np.float64]:
        q: NDArray[Any] = features.global_descriptor
        similarity = np.asarray(self.global_descriptors @ q, np.float64)
        if absent is not None:
            similarity[absent] = -np.inf
        if self.expansion.kind != "none" and len(similarity):
            expanded: NDArray[Any] = expand(
                features.global_descriptor, self.global_descriptors, similarity, self.expansion
            )
            similarity = np.asarray(self.global_descriptors @ expanded, np.float64)
            if absent is not None:
                similarity[absent] = -np.inf
        return similarity

    def tune(self, tolerance: float, min_inliers: int) -> None:
        """To the index."""
        self._index.tune(tolerance, min_inliers)

    def bytes_per_image(self) -> float:
        """Packed codes, global descriptor included."""
        return self._index.bytes_per_image

    def describe(self) -> dict[str, Any]:
        """Options and weights."""
        return {
            "key": self.key,
            "extract": asdict(self._extract_options),
            "ranking": self.ranking,
            "expansion": asdict(self.expansion),
            "calibration": asdict(self.calibration),
            "options": asdict(self._index.options),
            "model": getattr(self._verifier, "__name__", ""),
            "codebook": "the bundle's" if self._codebook is None else _digest(self._codebook),
        }


def _digest(codebook: Codebook) -> str:
    digest = hashlib.sha256()
    for part in (codebook.pca_basis, codebook.centroids, codebook.pq, codebook.rotation):
        digest.update(np.ascontiguousarray(part).tobytes())
    return digest.hexdigest()[:12]


def fuse(
    calibration: Calibration, per_feature: NDArray[Any], similarity: NDArray[Any], inliers: NDArray[Any]
) -> NDArray[np.float64]:
    """`Calibration.score` of many photos at once; -inf stays -inf (a photo that is absent)."""
    c = calibration
    found = np.maximum(0.0, np.log((1 + inliers) / (1 + c.floor)))
    out = c.votes * np.sqrt(np.maximum(per_feature, 0)) + c.inliers * found
    return np.where(
        np.isfinite(similarity), out + c.similarity * np.where(np.isfinite(similarity), similarity, 0), -np.inf
    )


def expand_proven(
    calibration: Calibration,
    per_feature: NDArray[Any],
    similarity: NDArray[Any],
    inliers: NDArray[Any],
    vectors: Float32Array,
    query: Float32Array,
) -> NDArray[np.float64]:
    """Similarities (N,) after the runtime's query expansion and support.

    Photos come in the order before RANSAC, absent ones (similarity -inf) last and untouched.
    """
    before = fuse(calibration, per_feature, similarity, np.zeros(len(similarity)))
    order = np.argsort(-before, kind="stable")
    order = order[np.isfinite(similarity[order])]
    out = np.array(similarity, np.float64)
    out[order] = query_expansion.expand(calibration, query, vectors[order], out[order], inliers[order])
    return out


def to_arrays(features: Features) -> Arrays:
    """What the cache keeps."""
    return {
        "keypoints": features.keypoints,
        "scales": features.scales,
        "scores": features.scores,
        "descriptors": features.descriptors,
        "global_descriptor": features.global_descriptor,
        "size": np.array(features.image_size, np.int64),
    }


def from_arrays(arrays: Mapping[str, NDArray[Any]]) -> Features:
    """The inverse of `to_arrays`."""
    width, height = (int(v) for v in arrays["size"])
    return Features(
        keypoints=np.asarray(arrays["keypoints"], np.float32),
        scales=np.asarray(arrays["scales"], np.float32),
        scores=np.asarray(arrays["scores"], np.float32),
        descriptors=np.asarray(arrays["descriptors"], np.float32),
        global_descriptor=np.asarray(arrays["global_descriptor"], np.float32),
        image_size=(width, height),
    )
