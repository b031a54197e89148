"""Leave-places-out: which photos are asked, what is fitted on the answers, what is counted; on the demo's photos."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import honest
from benchmarks.data.datasets import DatasetError
from benchmarks.data.places import Places, folds, split, training_places
from benchmarks.lab.evidence import Found, Lab, choose_cohort, code_cohort
from delf_edge.bundle.bundle import Bundle, default_bundle_path
from delf_edge.bundle.calibration import Calibration
from delf_edge.codebooks.bundle_writer import with_cohort
from testing.paths import DEMO, TINY_BUNDLE


def rows(path: Path, columns: list[str], lines: list[list[str]]) -> None:
    with path.open("w", newline="") as f:
        csv.writer(f).writerows([columns, *lines])


def test_places_that_the_network_may_know_are_left_out(tmp_path: Path) -> None:
    rows(
        tmp_path / "train_more.csv",
        ["path", "place", "split", "same_as"],
        [
            ["a/1.jpg", "more/a", "train", ""],
            ["v/1.jpg", "more/v", "val", ""],
            ["t/1.jpg", "more/taj_mahal", "train", "taj_mahal"],
            ["g/1.jpg", "more/yh_grandcanyon2", "train", ""],
        ],
    )
    rows(tmp_path / "train.csv", ["path", "place"], [["p/1.jpg", "porto/camara"], ["p/2.jpg", "porto/musica"]])
    assert training_places(tmp_path) == {
        "more/a": ["a/1.jpg"],
        "more/yh_grandcanyon1": ["g/1.jpg"],
        "porto/camara": ["p/1.jpg"],
    }
    (tmp_path / "train.csv").unlink()
    with pytest.raises(DatasetError, match=r"train\.csv"):
        training_places(tmp_path)


def test_no_photo_is_asked_and_stored_and_every_place_is_in_one_fold() -> None:
    photos = {f"place {i}": [f"{i}/{k}.jpg" for k in range(2 + i)] for i in range(11)}
    world = split(photos)
    asked, stored = dict(world.asked), dict(world.stored)
    assert not asked.keys() & stored.keys()
    assert set(asked.values()) == set(stored.values()) == set(photos)
    parts = folds(photos)
    assert sorted(place for part in parts for place in part) == sorted(photos)
    assert {len(part) for part in parts} == {2, 3}


def answers(seed: int, size: int | None, n: int = 400, lift: float = 0.0, n_photos: int = 1) -> list[Found]:
    rng = np.random.default_rng(seed)
    out = []
    for i in range(n):
        known, strangers = bool(i % 2), float(rng.uniform(0.5, 0.9))
        score = float(rng.normal(2.0 if known else 0.8, 0.2)) + strangers + lift
        out.append(Found(size, None, f"place {i % 20}", known, known, score, 0.7, strangers, 20, n_photos, 1))
    return out


def test_the_fit_separates_and_names_no_more_strangers_than_asked_for() -> None:
    found = answers(1, None) + answers(2, 1)
    fitted = honest.fit(found, Calibration())
    assert fitted.slope > 0
    assert fitted.cohort_slope == fitted.slope
    least = np.log(fitted.threshold / (1 - fitted.threshold))
    for size in (None, 1):
        named = [f.logit(fitted) >= least for f in found if f.size == size and not f.known]
        assert np.mean(named) <= honest.STRANGERS
    figures = honest.figures(answers(3, None), [fitted] * 400)
    assert figures["named at the threshold"][0] > 0.95
    assert figures["strangers named"][0] < 0.03
    low, high = figures["named at the threshold"][1:]
    assert low <= figures["named at the threshold"][0] <= high


def test_where_many_photos_lift_every_score_their_number_is_held_against_them() -> None:
    few, many = answers(1, 1), answers(2, None, lift=0.5, n_photos=1000)
    fitted = honest.fit(few + many, Calibration())
    assert fitted.size_slope > 0
    blind = replace(fitted, size_slope=0.0)
    least = np.log(fitted.threshold / (1 - fitted.threshold))
    known = [f for f in few if f.known]
    assert np.mean([f.logit(fitted) >= least for f in known]) > 0.9
    loss = {
        c: np.mean([np.logaddexp(0, f.logit(c) * (-1 if f.known else 1)) for f in few + many]) for c in (fitted, blind)
    }
    assert loss[fitted] < loss[blind]


def test_an_answer_without_proof_is_never_named() -> None:
    answer = answers(1, None)[1]
    assert answer.logit(Calibration()) > -np.inf
    assert replace(answer, inliers=5).logit(Calibration()) == -np.inf


def test_the_demo_is_asked_as_the_sdk_would_and_a_cohort_is_written(tmp_path: Path) -> None:
    stored = ["Brandenburg Gate", "Colosseum", "Eiffel Tower"]
    queries = {"brandenburgGate": stored[0], "colosseum": stored[1], "eiffelTower": stored[2]}
    world = Places(
        tuple((f"references/{place}/photo.webp", place) for place in stored),
        tuple((f"queries/{name}.webp", place) for name, place in queries.items()),
    )
    lab = Lab(DEMO, Bundle.load(default_bundle_path()), tmp_path / "out")
    strangers = {n: [f"queries/{n}.webp"] for n in ("burj", "monument1") if (DEMO / f"queries/{n}.webp").is_file()}
    names = choose_cohort(lab, strangers, n=5)
    cohort = code_cohort(lab, names, n_features=20)
    assert len(cohort) == len(strangers)
    assert cohort.counts.max() <= 20
    calibration = Calibration.from_mapping(lab.bundle.calibration)
    found = lab.whole(world, cohort, calibration)
    known = [f for f in found if f.known]
    assert all(f.right and f.first and f.ap == 1.0 for f in known)
    assert min(f.score for f in known) > max(f.score for f in found if not f.known)
    small = lab.small(world, cohort, calibration, 1, seed=1)
    assert {f.size for f in small} == {1, 5, 30}
    made = with_cohort(
        default_bundle_path(), tmp_path / "b", cohort, calibration={"cohort_slope": 1.0}, data="Cohort: x"
    )
    assert made.cohort is not None
    np.testing.assert_array_equal(made.cohort.codes, cohort.codes)
    assert made.id != lab.bundle.id
    assert made.manifest.training_data[-1] == "Cohort: x"


def test_without_the_photos_it_says_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert honest.main([str(tmp_path), "--bundle", str(TINY_BUNDLE)]) == 2
    assert "train_more.csv" in capsys.readouterr().err
