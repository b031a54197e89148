"""Intervals, thresholds, reliability and the logistic fit, each on cases with a known answer."""

from __future__ import annotations

import math

import numpy as np
import pytest

from benchmarks.metrics import logistic, stats


def test_bootstrap_covers_the_mean_and_repeats() -> None:
    values = np.random.default_rng(0).random(86)
    low, high = stats.bootstrap(values)
    assert low < values.mean() < high
    assert (high - low) / 2 == pytest.approx(1.96 * values.std() / math.sqrt(86), rel=0.1)
    assert stats.bootstrap(values) == (low, high)
    assert stats.bootstrap(np.array([0.5, np.nan, 0.5])) == (0.5, 0.5)
    assert all(math.isnan(v) for v in stats.bootstrap(np.array([np.nan])))


def test_paired_difference_sees_what_single_intervals_cannot() -> None:
    a = np.random.default_rng(0).random(50)
    difference, low, high = stats.paired_difference(a, a - 0.01)
    assert difference == pytest.approx(0.01)
    assert low == pytest.approx(0.01)
    assert high == pytest.approx(0.01)


def test_threshold_at_recall() -> None:
    confidence = np.arange(100) / 100
    threshold = stats.threshold_at_recall(confidence, 0.95)
    assert stats.accept_rate(confidence, threshold) == 0.95
    assert stats.threshold_at_recall(np.array([0.3]), 0.95) == 0.3
    assert math.isnan(stats.threshold_at_recall(np.array([]), 0.95))


def test_threshold_at_false_accepts_is_the_lowest_that_keeps_the_rate() -> None:
    strangers = np.arange(200) / 200
    threshold = stats.threshold_at_false_accepts(strangers, 0.01)
    assert stats.accept_rate(strangers, threshold) == 0.01
    assert stats.accept_rate(strangers, np.nextafter(threshold, 0)) > 0.01
    ties = np.zeros(50)
    assert stats.accept_rate(ties, stats.threshold_at_false_accepts(ties, 0.01)) == 0.0
    assert stats.threshold_at_false_accepts(np.array([]), 0.01) == -math.inf


def test_reliability_by_hand() -> None:
    r = stats.reliability(np.array([0.05, 0.05, 0.95, 1.0]), np.array([False, True, True, True]))
    assert r.count.tolist() == [2, 0, 0, 0, 0, 0, 0, 0, 0, 2]
    assert r.right[0] == 0.5
    assert r.right[9] == 1.0
    assert math.isnan(r.right[4])
    assert r.error == pytest.approx((2 * 0.45 + 2 * 0.025) / 4)
    assert r.brier == pytest.approx((0.05**2 + 0.95**2 + 0.05**2) / 4)
    with pytest.raises(ValueError, match=r"expected 0\.\.1"):
        stats.reliability(np.array([1.5]), np.array([True]))


def test_the_fit_finds_the_weights_that_made_the_data() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(20000, 2)) * [1, 10] + [0, 50]
    y = rng.random(20000) < logistic.sigmoid(1.5 * x[:, 0] - 0.2 * (x[:, 1] - 50) + 0.5)
    model = logistic.fit(x, y, ("a", "b"), ridge=0)
    assert model.weights == pytest.approx([1.5, -0.2], rel=0.05)
    assert model.bias == pytest.approx(0.5 + 0.2 * 50, rel=0.05)
    # At the optimum the probabilities sum to the number of right answers.
    assert model.probability(x).sum() == pytest.approx(y.sum(), abs=1e-3)
    assert stats.reliability(model.probability(x), y).error < 0.02


def test_the_fit_of_a_constant_is_the_log_odds() -> None:
    y = np.array([True] * 3 + [False] * 7)
    model = logistic.fit(np.zeros((10, 1)), y, ("nothing",))
    assert model.bias == pytest.approx(math.log(3 / 7))
    assert model.weights[0] == 0


def test_weights_of_examples_count_like_repetition() -> None:
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(60, 2)), rng.random(60) < 0.5
    times = rng.integers(1, 4, 60)
    weighted = logistic.fit(x, y, ("a", "b"), ridge=0, weight=times)
    repeated = logistic.fit(np.repeat(x, times, axis=0), np.repeat(y, times), ("a", "b"), ridge=0)
    assert weighted.weights == pytest.approx(repeated.weights, abs=1e-6)


def test_separable_data_stays_finite() -> None:
    model = logistic.fit(np.array([[0.0], [1], [10], [11]]), np.array([0, 0, 1, 1]), ("x",))
    assert np.isfinite(model.weights).all()
    assert model.probability(np.array([[0.5], [10.5]])) == pytest.approx([0.05, 0.95], abs=0.05)


def test_a_model_survives_its_json() -> None:
    model = logistic.Logistic(("a", "b"), np.array([1.0, -2.0]), 0.5)
    again = logistic.Logistic.from_json(model.to_json())
    assert again.logit(np.array([[1.0, 1.0]])) == pytest.approx([-0.5])
    assert logistic.sigmoid(np.array([-1e4, 1e4])).tolist() == [0.0, 1.0]


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (np.zeros((2, 2)), np.array([0, 1]), "do not fit"),
        (np.array([[np.nan], [0]]), np.array([0, 1]), "not finite"),
        (np.zeros((2, 1)), np.array([1, 1]), "all outcomes are the same"),
    ],
)
def test_what_cannot_be_fitted(x: np.ndarray, y: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        logistic.fit(x, y, ("x",))


def test_conformal_threshold_counts_the_new_stranger() -> None:
    confidence = np.linspace(0.01, 0.99, 99)
    at = stats.conformal_threshold(confidence, 0.01)  # 0.01 * 100 - 1 = 0 of 99 may be accepted
    assert stats.accept_rate(confidence, at) == 0
    assert stats.conformal_threshold(confidence, 0.05) < at
    assert np.count_nonzero(confidence >= stats.conformal_threshold(confidence, 0.05)) == 4
    assert stats.conformal_threshold(confidence[:5], 0.01) > confidence[4]
