"""The calibration finds what it should in evidence made up for the purpose."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.calibrate import (
    Evidence,
    calibrate,
    climb,
    fit_ranking,
    rounded,
    training_map,
    wrong_inliers,
)
from benchmarks.data.datasets import Dataset, DatasetError, Query
from benchmarks.data.trainset import fitting_photos, training_dataset
from benchmarks.systems.base import Result
from delf_edge.bundle.calibration import Calibration

N_PLACES, VIEWS, FILLER = 20, 4, 40


def made_up(seed: int = 0) -> tuple[Dataset, list[Evidence], list[Evidence]]:
    """Two queries a place. Positives have more of everything, but votes are noise: their weight should be small."""
    rng = np.random.default_rng(seed)
    places = [f"p{i}" for i in range(N_PLACES) for _ in range(VIEWS)] + [None] * FILLER
    n = len(places)
    queries, known, strangers = [], [], []
    for k in range(2 * N_PLACES):
        place = f"p{k % N_PLACES}"
        positive = np.array([p == place for p in places])
        votes = rng.random(n) * 0.1
        similarity = np.where(positive, rng.normal(0.5, 0.15, n), rng.normal(0.1, 0.15, n))
        inliers = np.where(positive & (rng.random(n) < 0.6), rng.integers(15, 80, n), rng.integers(0, 10, n))
        queries.append(Query(f"q{k}", {"positive": tuple(np.flatnonzero(positive).tolist())}, place))
        known.append(Evidence(votes, similarity, inliers.astype(np.int64)))
        strangers.append(
            Evidence(
                np.where(positive, 0, votes),
                np.where(positive, -np.inf, similarity),
                np.where(positive, 0, inliers).astype(np.int64),
            )
        )
    return Dataset("made up", Path(), tuple(map(str, range(n))), tuple(queries), places=tuple(places)), known, strangers


def test_calibration_beats_its_start_and_keeps_strangers_out() -> None:
    dataset, known, strangers = made_up()
    start = Calibration()
    fitted, report = calibrate(dataset, known, strangers, start)
    assert training_map(dataset, known, fitted) > training_map(dataset, known, start)
    assert report["map"] == training_map(dataset, known, fitted)
    assert report["map"] > report["map_before_ransac"]
    assert report["false_accepts"] <= 0.01
    assert report["named_right"] > 0.6
    assert report["expected_calibration_error"] < 0.1
    assert fitted.similarity > 0
    assert fitted.inliers > 0
    assert 0 < fitted.threshold < 1
    other, known2, strangers2 = made_up(1)  # and it holds for evidence that it has not seen
    assert training_map(other, known2, fitted) > training_map(other, known2, start)
    p = [max(fitted.probability(float(s.max()), 0.0) for s in [e.score(fitted)]) for e in strangers2]
    assert np.mean(np.array(p) >= fitted.threshold) < 0.2


def test_the_floor_is_what_wrong_pairs_stay_below() -> None:
    dataset, known, _ = made_up()
    floor = fit_ranking(dataset, known, Calibration()).floor
    assert 8 <= floor <= 9
    assert wrong_inliers(dataset, known).max() <= 9


def test_the_search_never_lowers_map() -> None:
    dataset, known, _ = made_up()
    start = Calibration(votes=10.0)
    assert training_map(dataset, known, climb(dataset, known, start)) >= training_map(dataset, known, start)


def test_the_runtime_reads_what_is_written() -> None:
    written = rounded(replace(Calibration(), slope=1.23456789, expansion=3))
    again = Calibration.from_mapping(written)
    assert again.slope == 1.2346
    assert again.expansion == 3
    assert set(written) == set(Calibration.__dataclass_fields__)


def test_a_system_without_inliers_is_refused() -> None:
    with pytest.raises(ValueError, match="calibrate a DELF row"):
        Evidence.of(Result(np.zeros(1), 0.0))


def csv_of(tmp_path: Path, **places: int) -> Path:
    rows = [f"train/{p}/{i}.jpg,{p.replace('__', '/')}" for p, n in places.items() for i in range(n)]
    (tmp_path / "train.csv").write_text("path,place\n" + "\n".join(rows) + "\n")
    return tmp_path


def test_the_training_set_splits_views_and_leaves_filler_without_a_place(tmp_path: Path) -> None:
    data = csv_of(tmp_path, a=4, b=30, c=3, stitching__d=9)
    dataset = training_dataset(data, filler=5)
    asked = [q.place for q in dataset.queries]
    assert asked.count("a") == 2
    assert asked.count("b") == 6
    assert set(asked) == {"a", "b"}
    assert dataset.places.count("b") == 14
    assert sum(p not in ("a", "b") for p in dataset.places) == 5
    assert not {q.name for q in dataset.queries} & set(dataset.database)
    for q in dataset.queries:
        assert {dataset.places[i] for i in q.graded("positive")} == {q.place}
    assert training_dataset(data, filler=5) == dataset
    few = training_dataset(data, only=("a",), strangers=3, filler=100)
    assert [q.place for q in few.queries] == ["a", "a", "b", "b", "b"]
    assert [len(q.graded("positive")) for q in few.queries] == [2, 2, 0, 0, 0]
    assert few.places.count("b") == 27
    assert not {q.name for q in few.queries} & set(few.database)


def test_fitting_photos_take_turns_between_places(tmp_path: Path) -> None:
    chosen = fitting_photos(csv_of(tmp_path, a=100, b=3, c=2), n=7)
    assert [p.parent.name for p in chosen] == ["a", "b", "c", "a", "b", "c", "a"]


def test_no_training_list(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"train\.csv"):
        training_dataset(tmp_path)
