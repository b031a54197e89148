"""Local features through delf-edge's own index: words, PQ codes, votes, RANSAC.

The detector and its codebook are all that differs between the rows, so a row says what the feature is worth, not whose
index was better tuned.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.data.feature_cache import Arrays
from benchmarks.systems.base import Result, System
from benchmarks.systems.keypoints import Detector, at_base_size
from delf_edge.features.extractor import project_descriptors
from delf_edge.index.inverted_index import InvertedIndex
from delf_edge.index.search import SearchOptions
from delf_edge.quantization.coarse_quantizer import CoarseIndex
from delf_edge.quantization.packed_codes import CodeBatch, CodeLayout, pack_codes
from delf_edge.quantization.product_quantizer import decode, encode
from delf_edge.types import Codebook, Codes, Features, Float32Array, UInt8Array, Verification
from delf_edge.verification import VerifyOptions, verify

Verifier = Callable[[int, Features, Float32Array, Float32Array, tuple[int, int], VerifyOptions], Verification]


@dataclass(frozen=True, slots=True)
class LocalOptions:
    """How a local row searches.

    Attributes:
        search: candidate search.
        verify: geometric check.
        verified: candidates that are checked, K of the ablations.
        min_inliers: a candidate with fewer stays where its votes put it.
        query_features: features of a query that are used, best first.
        stored_features: features of a stored photo that are kept, best first.
        float_codes: keep float descriptors in place of PQ codes for the check (an ablation).
    """

    search: SearchOptions = field(default_factory=lambda: SearchOptions(global_weight=0.0, attention=0.0))
    verify: VerifyOptions = field(default_factory=VerifyOptions)
    verified: int = 40
    min_inliers: int = 6
    query_features: int = 1000
    stored_features: int = 1000
    float_codes: bool = False


class LocalIndex:
    """The part of a local row that is common to every detector: `Features` in, ranked photos out.

    Args:
        codebook: words and PQ.
        options: see `LocalOptions`.
        verifier: `delf_edge.verification.verify`, or another model in an ablation.
    """

    def __init__(self, codebook: Codebook, options: LocalOptions, verifier: Verifier = verify) -> None:
        self.codebook, self.options, self.verifier = codebook, options, verifier
        self.layout = CodeLayout.of(codebook)
        self.coarse = CoarseIndex(codebook.centroids)
        self.index = InvertedIndex(self.layout)
        self.codes: list[Codes] = []
        self._floats: list[Float32Array] = []

    def add(self, database: Sequence[Features]) -> None:
        """Quantise and index everything; ids are the places in the sequence."""
        for features in database:
            kept = cut(features, self.options.stored_features)
            words = self.coarse.assign(kept.descriptors, 1, exact=True)[0][:, 0]
            self.codes.append(encode(kept, words, self.codebook))
            if self.options.float_codes:
                self._floats.append(kept.descriptors)
        for start in range(0, len(self.codes), 256):
            part = list(enumerate(self.codes))[start : start + 256]
            self.index.apply(CodeBatch.of(part, self.layout))

    def search(self, query: Features, absent: NDArray[np.bool_] | None = None) -> Result:
        """Votes for all, RANSAC for the best; those with enough inliers come first, in order of their inliers."""
        o, n = self.options, len(self.codes)
        query = cut(query, o.query_features)
        everything = SearchOptions(**(asdict(o.search) | {"top": max(1, n)}))
        without = [] if absent is None else np.flatnonzero(absent).tolist()
        found = self.index.search(query, self.codebook, self.coarse, everything, without=without)
        candidates = np.full(n, -np.inf)
        similarity = np.zeros(n)
        votes = np.zeros(n)
        for c in found:
            candidates[c.image_id], votes[c.image_id], similarity[c.image_id] = c.score, c.votes, c.similarity
        inliers = np.zeros(n, np.int64)
        for c in found[: o.verified]:
            codes = self.codes[c.image_id]
            stored = self._floats[c.image_id] if o.float_codes else decode(codes, self.codebook)
            checked = self.verifier(c.image_id, query, stored, codes.keypoints, codes.image_size, o.verify)
            inliers[c.image_id] = checked.n_inliers
        scores = inliers_first(candidates, inliers, o.min_inliers)
        best = int(np.argmax(scores)) if n else -1
        evidence = {}
        if best >= 0:
            evidence = {
                "inliers": float(inliers[best]),
                "votes": float(votes[best]),
                "similarity": float(similarity[best]),
            }
        confidence = evidence.get("inliers", float("-inf"))
        stages = {"candidates": candidates, "votes": votes, "similarity": similarity}
        return Result(scores, confidence, stages, inliers, evidence)

    def tune(self, tolerance: float, min_inliers: int) -> None:
        """Replace these two options."""
        verify = replace(self.options.verify, tolerance=tolerance)
        self.options = replace(self.options, verify=verify, min_inliers=min_inliers)

    @property
    def bytes_per_image(self) -> float:
        """Mean packed size."""
        return float(np.mean([len(pack_codes(c)) for c in self.codes])) if self.codes else 0.0


def cut(features: Features, n: int) -> Features:
    """The best n features."""
    if len(features) <= n:
        return features
    return Features(
        features.keypoints[:n],
        features.scales[:n],
        features.scores[:n],
        features.descriptors[:n],
        features.global_descriptor,
        features.image_size,
    )


def inliers_first(candidates: NDArray[Any], inliers: NDArray[Any], min_inliers: int) -> NDArray[np.float64]:
    """Verified photos before all others and by their inliers; equal inliers and the rest by the candidates' score."""
    finite = np.isfinite(candidates)
    peak = max(float(np.abs(candidates[finite]).max()), 1e-12) if finite.any() else 1.0
    return np.where(finite, np.where(inliers >= min_inliers, inliers, 0) + 0.5 * candidates / peak, -np.inf)


class LocalSystem(System):
    """A detector of the peers with a codebook fitted on training photos.

    Args:
        detector: the local feature.
        options: how it searches.
        dim: dimension after PCA.
        n_words: coarse centroids.
        code_size: bytes of a PQ code.
    """

    needs_fit = True
    stages = ("candidates",)
    tolerances = (8 / 1024, 20 / 1024)

    def __init__(
        self,
        detector: Detector,
        options: LocalOptions | None = None,
        *,
        dim: int = 64,
        n_words: int = 4096,
        code_size: int = 16,
    ) -> None:
        self.detector, self.options = detector, options or LocalOptions()
        self.dim, self.n_words, self.code_size = dim, n_words, code_size
        self.name, self.role, self.key = detector.name, detector.role, detector.key
        self._codebook: Codebook | None = None
        self._index: LocalIndex | None = None

    def extract(self, pixels: UInt8Array) -> Arrays:
        """Raw features of the photo at 640 px."""
        small = at_base_size(pixels)
        return dict(self.detector.detect(small)) | {"size": np.array([small.shape[1], small.shape[0]], np.int64)}

    def fit_key(self) -> str:
        """The codebook's sizes."""
        return f"{self.key} codebook 1 {self.dim} {self.n_words} {self.code_size}"

    def fit(self, training: Sequence[Arrays]) -> Arrays:
        """A codebook, with the same code that makes a bundle's."""
        from delf_edge.codebooks.fit import CodebookOptions, fit

        rows = [np.asarray(t["raw"], np.float32) for t in training if len(t["raw"])]
        dim = min(self.dim, rows[0].shape[1])
        options = CodebookOptions(
            dim=dim,
            n_words=min(self.n_words, sum(map(len, rows)) // 8),
            code_size=self.code_size,
            sample=150_000,
            pq_iterations=10,
            global_dim=1,
        )
        book = fit(lambda: rows, np.stack([r.mean(axis=0) for r in rows]), options).codebook
        names = ("pca_mean", "pca_basis", "centroids", "pq", "rotation", "global_mean", "global_basis")
        learned = {name: np.asarray(getattr(book, name)) for name in names}
        self.load_fit(learned)
        return learned

    def load_fit(self, learned: Arrays) -> None:
        """Take a codebook."""
        self._codebook = Codebook(**{k: np.asarray(v, np.float32) for k, v in learned.items()})
        self._index = LocalIndex(self._codebook, self.options)

    def features(self, raw: Arrays) -> Features:
        """Projected features."""
        book = self._fitted()[0]
        return Features(
            keypoints=np.array(raw["keypoints"], np.float32),
            scales=np.array(raw["scales"], np.float32),
            scores=np.array(raw["scores"], np.float32),
            descriptors=project_descriptors(book, np.asarray(raw["raw"], np.float32)),
            global_descriptor=np.zeros(book.global_dim, np.float32),
            image_size=(int(raw["size"][0]), int(raw["size"][1])),
        )

    def add(self, database: Sequence[Arrays]) -> None:
        """Encode and index."""
        self._fitted()[1].add([self.features(d) for d in database])

    def search(self, query: Arrays, absent: NDArray[np.bool_] | None = None) -> Result:
        """Votes, then RANSAC."""
        return self._fitted()[1].search(self.features(query), absent)

    def tune(self, tolerance: float, min_inliers: int) -> None:
        """To the index."""
        self._fitted()[1].tune(tolerance, min_inliers)

    def bytes_per_image(self) -> float:
        """Packed codes."""
        return self._fitted()[1].bytes_per_image

    def describe(self) -> dict[str, Any]:
        """Options."""
        options = self.options if self._index is None else self._index.options
        sizes = {"dim": self.dim, "n_words": self.n_words, "code_size": self.code_size}
        return {"key": self.key} | sizes | asdict(options)

    def _fitted(self) -> tuple[Codebook, LocalIndex]:
        if self._codebook is None or self._index is None:
            raise RuntimeError(f"{self.name} has no codebook yet: call fit or load_fit before add and search")
        return self._codebook, self._index
