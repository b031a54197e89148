"""What a row's user would set by hand, chosen on the training set: residual, least inliers, and the threshold.

A row that is ranked by inliers stands or falls with two settings that suit one kind of feature and not another: how far
a point may lie from where the map puts it, and how many inliers mean anything. Both are chosen for every such row, by
mAP on the training set. The threshold of any row is the lowest that names at most 1 % of the training set's strangers.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from benchmarks.data.datasets import Dataset
from benchmarks.data.feature_cache import FeatureCache
from benchmarks.data.trainset import training_dataset
from benchmarks.lab.code import code_digest
from benchmarks.lab.figures import rankings
from benchmarks.lab.records import jsonable
from benchmarks.lab.runner import Progress, Run, run, silent
from benchmarks.metrics import stats
from benchmarks.metrics.protocols import score_rankings
from benchmarks.systems.base import Result, System
from benchmarks.systems.local import inliers_first

FALSE_ACCEPTS = 0.01
MIN_INLIERS = (4, 6, 8, 10, 12, 15, 20, 30)
Build = Callable[[Dataset], System]


@dataclass(frozen=True, slots=True)
class Tuned:
    """What was chosen for a row.

    Attributes:
        threshold: of `Result.confidence`.
        tolerance: residual as a share of the longer side; 0 where the row has none to choose.
        min_inliers: inliers from which on a photo is ranked by them; 0 where the row has none to choose.
        map: mAP on the training set with these.
    """

    threshold: float
    tolerance: float
    min_inliers: int
    map: float

    def apply(self, system: System) -> None:
        """Set them."""
        if system.tolerances:
            system.tune(self.tolerance, self.min_inliers)


def tuned(build: Build, data: Path, cache: FeatureCache, progress: Progress = silent) -> Tuned:
    """Choose a row's settings; found once for this code and these photos, then loaded.

    Args:
        build: makes a fresh, fitted system for a dataset.
        data: folder of train.csv.
        cache: features, and what was found.
        progress: told how far it is.
    """
    dataset = training_dataset(data)
    system = build(dataset)
    asked = "\n".join([*dataset.database, *(q.name for q in dataset.queries)])
    settings = json.dumps(jsonable(system.describe()), sort_keys=True)
    content = hashlib.sha256(f"{asked}\n{settings}\n{code_digest()}".encode()).digest()
    found = cache.get(
        f"tuned 1 {system.name} {system.fit_key()}",
        content,
        lambda: {k: np.array(v) for k, v in asdict(choose(build, dataset, cache, progress)).items()},
    )
    return Tuned(float(found["threshold"]), float(found["tolerance"]), int(found["min_inliers"]), float(found["map"]))


def choose(build: Build, dataset: Dataset, cache: FeatureCache, progress: Progress = silent) -> Tuned:
    """Settings of highest mAP on a dataset, of equal ones the first; then the threshold for its strangers."""
    system = build(dataset)
    if not system.tolerances:
        done = run(system, dataset, cache, progress, timed=False)
        return Tuned(_threshold(done), 0.0, 0, training_map(dataset, done))
    tried = []
    for tolerance in system.tolerances:
        system = build(dataset)
        system.tune(tolerance, MIN_INLIERS[0])
        done = run(system, dataset, cache, progress, strangers=False, timed=False)
        for least in MIN_INLIERS:
            known = [reranked(r, least) for r in done.known]
            tried.append(Tuned(0.0, tolerance, least, map_of(dataset, known)))
    best = max(tried, key=lambda t: t.map)
    system = build(dataset)
    best.apply(system)
    done = run(system, dataset, cache, progress, known=False, timed=False)
    return Tuned(_threshold(done), best.tolerance, best.min_inliers, best.map)


def reranked(result: Result, min_inliers: int) -> Result:
    """A result as it would be with another least number of inliers."""
    if result.inliers is None:
        raise ValueError("the row does not count inliers")
    scores = inliers_first(result.stages["candidates"], result.inliers, min_inliers)
    return Result(scores, result.confidence, result.stages, result.inliers)


def map_of(dataset: Dataset, known: list[Result]) -> float:
    """mAP of answers under the dataset's first setting."""
    scored = score_rankings(dataset, rankings(dataset, (r.scores for r in known)))
    return scored[dataset.settings[0].name].map


def training_map(dataset: Dataset, done: Run) -> float:
    """mAP of a run."""
    return map_of(dataset, done.known)


def _threshold(done: Run) -> float:
    confidence = np.array([r.confidence for r in done.stranger])
    return stats.threshold_at_false_accepts(confidence, FALSE_ACCEPTS)
