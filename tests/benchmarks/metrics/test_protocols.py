"""Every score against a hand-computed case, and the ones with reference code against that code's formula."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.data.datasets import LANDMARKS, OXFORD, REVISITED, Dataset, Query
from benchmarks.metrics import protocols


def test_trapezoid_by_hand() -> None:
    # positives at places 1 and 3 of 4: (1 + 1)/2 * 1/2 + (1/2 + 2/3)/2 * 1/2
    assert protocols.trapezoid_ap(np.array([0, 2]), 2) == pytest.approx(0.5 + (0.5 + 2 / 3) / 4)
    assert protocols.trapezoid_ap(np.array([0, 1, 2]), 3) == 1.0
    assert protocols.trapezoid_ap(np.array([], int), 3) == 0.0
    assert math.isnan(protocols.trapezoid_ap(np.array([], int), 0))


def test_trapezoid_counts_positives_that_were_never_found() -> None:
    assert protocols.trapezoid_ap(np.array([0]), 2) == 0.5


def oxford_reference(ranked: list[int], positives: set[int], junk: set[int]) -> float:
    """compute_ap.cpp of the Oxford buildings benchmark, line by line."""
    old_recall, old_precision, ap, found, j = 0.0, 1.0, 0.0, 0, 0
    for image in ranked:
        if image in junk:
            continue
        if image in positives:
            found += 1
        recall, precision = found / len(positives), found / (j + 1.0)
        ap += (recall - old_recall) * ((old_precision + precision) / 2.0)
        old_recall, old_precision = recall, precision
        j += 1
    return ap


@given(st.permutations(range(12)), st.lists(st.sampled_from("pjn"), min_size=12, max_size=12))
def test_trapezoid_equals_the_published_code(ranked: list[int], kinds: list[str]) -> None:
    positives = {i for i, k in enumerate(kinds) if k == "p"}
    junk = {i for i, k in enumerate(kinds) if k == "j"}
    if positives:
        ranks = protocols.positions(np.array(ranked), positives, junk)
        ours = protocols.trapezoid_ap(ranks, len(positives))
        assert ours == pytest.approx(oxford_reference(ranked, positives, junk))


def revisited_reference(ranked: list[int], positives: set[int], junk: set[int], k: int) -> float:
    """The mP@k part of the revisited benchmark's evaluate.py."""
    pos = np.array([i for i, image in enumerate(ranked) if image in positives])
    jun = np.array([i for i, image in enumerate(ranked) if image in junk])
    pos = pos - np.array([np.count_nonzero(jun < p) for p in pos], int) + 1
    kq = min(max(pos), k)
    return float((pos <= kq).sum() / kq)


@given(
    st.permutations(range(12)), st.lists(st.sampled_from("pjn"), min_size=12, max_size=12), st.sampled_from([1, 5, 10])
)
def test_precision_at_k_equals_the_published_code(ranked: list[int], kinds: list[str], k: int) -> None:
    positives = {i for i, kind in enumerate(kinds) if kind == "p"}
    junk = {i for i, kind in enumerate(kinds) if kind == "j"}
    if positives:
        ranks = protocols.positions(np.array(ranked), positives, junk)
        assert protocols.precision_at(ranks, k) == pytest.approx(revisited_reference(ranked, positives, junk, k))


def test_junk_is_removed_before_ranks_are_counted() -> None:
    ranking = np.array([7, 3, 8, 1, 2])
    assert protocols.positions(ranking, {3, 1}, {7, 8}).tolist() == [0, 1]
    assert protocols.positions(ranking, {3, 1}, {7, 3}).tolist() == [1]  # both positive and junk: junk


def test_a_tie_never_helps() -> None:
    assert protocols.rank(np.zeros(4), {0, 1}).tolist() == [2, 3, 0, 1]
    assert protocols.rank(np.array([0.5, 1.0, 1.0]), {1}).tolist() == [2, 1, 0]
    assert protocols.rank(np.array([np.nan, 0.0, -np.inf]), {1}).tolist()[0] == 1


def dataset(settings: object, **grades: tuple[int, ...]) -> Dataset:
    names = tuple(f"{i}.jpg" for i in range(6))
    return Dataset("mini", Path(), names, (Query("q.jpg", grades),), settings)  # type: ignore[arg-type]


def test_oxford_takes_good_and_ok_and_removes_junk() -> None:
    d = dataset(OXFORD, good=(1,), ok=(2,), junk=(0,))
    score = protocols.score_rankings(d, [np.array([0, 1, 5, 2, 3, 4])])["map"]
    assert score.map == pytest.approx(0.5 + (0.5 + 2 / 3) / 4)  # without 0: places 1 and 3
    assert score.top1 == 1.0
    assert score.precision[5].tolist() == [pytest.approx(2 / 3)]


def test_revisited_settings_move_grades_between_positive_and_junk() -> None:
    d = dataset(REVISITED, easy=(1,), hard=(2,), junk=(0,))
    score = protocols.score_rankings(d, [np.array([0, 2, 5, 1, 3, 4])])
    assert score["easy"].map == pytest.approx((0 / 1 + 1 / 2) / 2)  # 5, 1: rank 1
    assert score["hard"].map == 1.0  # 2 first
    assert score["medium"].map == pytest.approx(0.5 + (0.5 + 2 / 3) / 4)
    assert score["easy"].top1 == 0.0
    assert score["hard"].top1 == 1.0


def test_a_query_without_positives_is_left_out_of_the_mean() -> None:
    names = tuple(f"{i}.jpg" for i in range(3))
    d = Dataset("mini", Path(), names, (Query("a", {"easy": (0,)}), Query("b", {"hard": (1,)})), REVISITED)
    score = protocols.score_rankings(d, [np.array([0, 1, 2])] * 2)
    assert score["easy"].map == 1.0
    assert math.isnan(score["easy"].ap[1])
    assert score["hard"].map == pytest.approx(0.25)


def test_landmarks_map_at_100_stops_at_the_depth() -> None:
    d = Dataset("gld", Path(), tuple(map(str, range(150))), (Query("q", {"positive": (0, 120)}),), LANDMARKS)
    score = protocols.score_rankings(d, [np.arange(150)])["map@100"]
    assert score.map == pytest.approx(0.5)  # 1/min(2, 100) * P(1); the one at place 121 is beyond the depth
    many = Dataset(
        "gld", Path(), tuple(map(str, range(150))), (Query("q", {"positive": tuple(range(120))}),), LANDMARKS
    )
    assert protocols.score_rankings(many, [np.arange(150)])["map@100"].map == 1.0


def test_gap_by_hand() -> None:
    # sorted: right 1/1, wrong, right 2/3; three queries are answerable
    value = protocols.gap(np.array([0.2, 0.9, 0.5]), np.array([True, True, False]), 3)
    assert value == pytest.approx((1 + 2 / 3) / 3)
    assert protocols.gap(np.array([]), np.array([], bool), 2) == 0.0
    assert math.isnan(protocols.gap(np.array([0.3]), np.array([False]), 0))
    # equal confidence: the wrong one counts first
    assert protocols.gap(np.array([0.5, 0.5]), np.array([True, False]), 1) == pytest.approx(0.5)
    with pytest.raises(ValueError, match="2 right predictions but only 1"):
        protocols.gap(np.array([1.0, 1.0]), np.array([True, True]), 1)


def test_precision_recall_counts_and_merges_equal_scores() -> None:
    curve = protocols.precision_recall(np.array([0.9, 0.5, 0.5, 0.1]), np.array([True, False, True, False]))
    assert curve.threshold.tolist() == [0.9, 0.5, 0.1]
    assert curve.retrieved.tolist() == [1, 3, 4]
    assert curve.right.tolist() == [1, 2, 2]
    assert curve.precision.tolist() == pytest.approx([1, 2 / 3, 1 / 2])
    assert len(protocols.precision_recall(np.array([]), np.array([], bool)).threshold) == 0


def test_best_of_each_place_keeps_one_photo_a_place() -> None:
    scores = np.array([0.1, 0.9, 0.8, 0.7, 0.6])
    assert protocols.best_of_each_place(scores, ["a", "a", "a", None, None]).tolist() == [1, 3, 4]


def test_recall_at_and_finite_ap() -> None:
    assert protocols.recall_at(np.array([0, 3]), 4, 3) == 0.25
    assert protocols.finite_ap(np.array([1]), 1) == 0.5
    assert protocols.ap_at(np.array([0, 5]), 2, 3) == 0.5


def test_the_number_of_rankings_must_fit() -> None:
    with pytest.raises(ValueError, match="0 rankings for 1 queries"):
        protocols.score_rankings(dataset(OXFORD, good=(1,), ok=(), junk=()), [])
