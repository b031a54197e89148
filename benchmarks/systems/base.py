"""The contract every system of the table keeps: extract, add, search."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.data.feature_cache import Arrays
from benchmarks.metrics.protocols import Floats
from delf_edge.types import UInt8Array


class NotInstalledError(RuntimeError):
    """An optional peer is missing; the message is one line and says how to get it."""


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """What a system answers to one query.

    Attributes:
        scores: float64 (N,), one score for every database photo, higher is better, -inf for absent ones.
        confidence: how sure the best answer is; compared with thresholds and across queries.
        stages: scores (N,) as they were after earlier stages: "candidates" (before RANSAC), "global".
        inliers: int (N,) RANSAC inliers, 0 where a photo was not verified.
        evidence: figures of the best answer that a probability can be fitted on.
    """

    scores: Floats
    confidence: float
    stages: Mapping[str, Floats] = field(default_factory=dict)
    inliers: NDArray[np.int64] | None = None
    evidence: Mapping[str, float] = field(default_factory=dict)


class System(ABC):
    """One row of the table.

    A system is used in three steps, by one thread: `fit` on the features of training photos (where `needs_fit`), then
    `add` of the whole database at once, then `search`.

    Attributes:
        name: the row's name.
        role: the row of the paper's table whose place it takes.
        key: everything that its features depend on; names the cached features.
        needs_fit: whether it learns a whitening or a codebook from training photos.
        stages: names of the stages that `Result.stages` has.
        places: place of each database photo, where a margin to the next place enters the confidence.
        tolerances: residuals of RANSAC, as a share of the longer side, of which the best is chosen on the training set;
            none for a row that is not ranked by inliers alone.
        wants: names of the extracted arrays that this row uses; None for all. Rows may share extracted features.
    """

    name: str
    role: str = ""
    key: str
    needs_fit: bool = False
    stages: tuple[str, ...] = ()
    places: Sequence[str | None] | None = None
    tolerances: tuple[float, ...] = ()
    wants: tuple[str, ...] | None = None

    @abstractmethod
    def extract(self, pixels: UInt8Array) -> Arrays:
        """Features of one photo, uint8 (H, W, 3) RGB."""

    def extract_only(self, pixels: UInt8Array) -> object:
        """What is timed: the work for this row alone, where `extract` also does that of rows that share features."""
        return self.extract(pixels)

    def fit_key(self) -> str:
        """What a fit depends on beside the photos; systems that share features may share a fit."""
        return self.key

    def fit(self, training: Sequence[Arrays]) -> Arrays:
        """Learn from features of training photos; returns what was learned, for `load_fit`."""
        return {}

    def load_fit(self, learned: Arrays) -> None:  # noqa: B027  a system without a fit has nothing to load
        """Take what an earlier `fit` returned."""

    def tune(self, tolerance: float, min_inliers: int) -> None:  # noqa: B027  only rows with `tolerances` have these
        """Take what was chosen on the training set."""

    @abstractmethod
    def add(self, database: Sequence[Arrays]) -> None:
        """Index the database; a photo's id is its place in the sequence."""

    @abstractmethod
    def search(self, query: Arrays, absent: NDArray[np.bool_] | None = None) -> Result:
        """Rank the database for one query.

        Args:
            query: features of the query.
            absent: bool (N,), photos to be treated as if they were not in the database; None for none.
        """

    @abstractmethod
    def bytes_per_image(self) -> float:
        """Mean size of what the index keeps of one photo, without what is shared by all."""

    def describe(self) -> dict[str, Any]:
        """Settings worth recording beside the figures."""
        return {"key": self.key}


def best_two_places(scores: Floats, places: Sequence[str | None] | None = None) -> tuple[float, float]:
    """The best score, and the best score of a photo of another place (or of another photo, without places)."""
    if not len(scores):
        return float("-inf"), float("-inf")
    order = np.argsort(-scores, kind="stable")
    first = order[0]
    for i in order[1:]:
        if places is None or places[first] is None or places[i] != places[first]:
            return float(scores[first]), float(scores[i])
    return float(scores[first]), float("-inf")


def chunks(n: int, size: int) -> Iterator[slice]:
    """Slices that cover range(n)."""
    for i in range(0, n, size):
        yield slice(i, i + size)


def unit(x: NDArray[Any]) -> NDArray[np.float32]:
    """Rows of unit L2 norm; zero rows stay zero."""
    norms = np.linalg.norm(x, axis=-1, keepdims=True)
    return np.asarray(x / np.maximum(norms, 1e-12), np.float32)
