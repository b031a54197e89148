"""What is chosen for a row on the training set, on answers made up for the purpose."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from benchmarks.data.datasets import Dataset, Query
from benchmarks.data.feature_cache import Arrays, FeatureCache
from benchmarks.lab import code, runner, tuning
from benchmarks.systems import registry
from benchmarks.systems.base import Result, System
from benchmarks.systems.local import inliers_first

# Photo 0 is right and has 20 inliers, or 9 at the strict residual; photo 1 is wrong and has 12 or 10. Votes favour 0.
INLIERS = {8 / 1024: [9, 10, 0], 20 / 1024: [20, 12, 0]}
VOTES = np.array([0.9, 0.5, 0.1])


class Planted(System):
    """Answers every query alike."""

    name, key, stages, tolerances = "planted", "planted 1", ("candidates",), (8 / 1024, 20 / 1024)

    def __init__(self) -> None:
        self.tolerance, self.min_inliers = 20 / 1024, 6

    def extract(self, pixels: np.ndarray) -> Arrays:
        return {"x": np.zeros(1)}

    def add(self, database: Sequence[Arrays]) -> None:
        pass

    def tune(self, tolerance: float, min_inliers: int) -> None:
        self.tolerance, self.min_inliers = tolerance, min_inliers

    def search(self, query: Arrays, absent: np.ndarray | None = None) -> Result:
        votes, inliers = VOTES.copy(), np.array(INLIERS[self.tolerance])
        if absent is not None:
            votes[absent], inliers[absent] = -np.inf, 0
        scores = inliers_first(votes, inliers, self.min_inliers)
        return Result(scores, float(inliers[np.argmax(scores)]), {"candidates": votes}, inliers)

    def bytes_per_image(self) -> float:
        return 1.0


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    import cv2

    for i in range(4):
        cv2.imwrite(str(tmp_path / f"{i}.png"), np.full((8, 8, 3), 10 * i, np.uint8))
    query = Query("3.png", {"positive": (0,)}, "p")
    return Dataset("train", tmp_path, ("0.png", "1.png", "2.png"), (query,), places=("p", None, None))


def test_residual_and_least_inliers_are_those_of_highest_map(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = FeatureCache(None)
    chosen = tuning.choose(lambda _: Planted(), dataset, cache)
    assert chosen.map == 1.0
    assert chosen.tolerance == 8 / 1024  # the first that is right: at 12 inliers only votes decide there
    assert chosen.min_inliers == 12
    assert chosen.threshold > 10  # the stranger has photo 1, with 10 inliers
    monkeypatch.setattr(Planted, "tolerances", (20 / 1024,))
    wide = tuning.choose(lambda _: Planted(), dataset, cache)
    assert (wide.tolerance, wide.min_inliers) == (20 / 1024, 4)
    system = Planted()
    wide.apply(system)
    assert (system.tolerance, system.min_inliers) == (20 / 1024, 4)


def test_a_row_without_inliers_gets_a_threshold_only(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Planted, "tolerances", ())
    chosen = tuning.choose(lambda _: Planted(), dataset, FeatureCache(None))
    assert (chosen.tolerance, chosen.min_inliers) == (0.0, 0)
    with pytest.raises(ValueError, match="does not count inliers"):
        tuning.reranked(Result(np.zeros(2), 0.0), 6)


def test_only_what_is_missing_is_extracted(dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    system, cache = Planted(), FeatureCache(tmp_path / "cache")
    made: list[object] = []

    def extract(self: Planted, pixels: object) -> Arrays:
        made.append(pixels)
        return {"x": np.zeros(1)}

    monkeypatch.setattr(Planted, "extract", extract)
    photos = runner.photos_of(dataset)
    runner.extract_missing(system, photos[:2], cache)
    runner.extract_missing(system, photos, cache)
    assert len(made) == len(photos) == 4


def test_a_row_depends_on_its_code_and_not_on_what_lies_above() -> None:
    names = {p.name for p in code.row_code()}
    assert {"recognizer.py", "pipeline.py", "ranking.py", "inverted_index.py", "verification.py"} <= names
    assert {"local.py", "runner.py"} <= names
    assert not {"main.py", "watcher.py", "speed.py", "calibrate.py"} & names
    assert all(p.is_file() for p in code.row_code())
    assert len(code.code_digest()) == 16


def test_rows_of_one_backbone_share_their_extraction() -> None:
    groups = registry.sharing(registry.names())
    assert sum(len(g) for g in groups) == len(registry.names())
    assert sorted(len(g) for g in groups) == [1, 1, 1, 1, 1, 3, 12]
    assert not registry.needs_bundle("XFeat")
    assert registry.needs_bundle("GeM + DBA + alpha-QE")
    assert registry.names(("x",))[-2:] == ["delf-edge (x)", "delf-edge"]
    assert "DELF (x)" in registry.names(("x",))


def test_times_are_medians() -> None:
    timer = runner.Timer()
    assert np.isnan(timer.done.wall)
    assert timer(lambda: 7) == 7
    assert timer.done.processor >= 0
    assert timer.done.wall > 0
