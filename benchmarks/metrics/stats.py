"""Uncertainty of small sets, thresholds, and reliability of probabilities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.metrics.protocols import Floats, mean

RESAMPLES = 2000


def bootstrap(
    values: NDArray[Any], *, resamples: int = RESAMPLES, level: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """Percentile confidence interval of the mean over queries (Efron and Tibshirani 1993, chapter 13).

    Args:
        values: (Q,) one figure per query; NaN entries are left out.
        resamples: bootstrap samples.
        level: coverage.
        seed: of the resampling, so that a figure can be repeated.

    Returns:
        (low, high), NaN where there is no value.
    """
    kept = np.asarray(values, np.float64)
    kept = kept[~np.isnan(kept)]
    if not len(kept):
        return float("nan"), float("nan")
    drawn = kept[np.random.default_rng(seed).integers(0, len(kept), (resamples, len(kept)))].mean(axis=1)
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def paired_difference(a: NDArray[Any], b: NDArray[Any], *, seed: int = 0) -> tuple[float, float, float]:
    """Mean of a - b over the same queries and its 95 % interval: what decides between two systems on a small set."""
    difference = np.asarray(a, np.float64) - np.asarray(b, np.float64)
    return (mean(difference), *bootstrap(difference, seed=seed))


def threshold_at_recall(confidence: NDArray[Any], recall: float) -> float:
    """The highest threshold that still accepts a share of `recall` of these (right) answers; NaN without any."""
    ordered = np.sort(np.asarray(confidence, np.float64))[::-1]
    if not len(ordered):
        return float("nan")
    return float(ordered[min(len(ordered), int(np.ceil(recall * len(ordered) - 1e-9))) - 1])


def threshold_at_false_accepts(strangers: NDArray[Any], rate: float) -> float:
    """The lowest threshold that accepts at most a share of `rate` of these strangers (accepted: >= threshold)."""
    ordered = np.sort(np.asarray(strangers, np.float64))[::-1]
    allowed = int(np.floor(rate * len(ordered) + 1e-9))
    if allowed >= len(ordered):
        return float("-inf")
    return float(np.nextafter(ordered[allowed], np.inf))


def conformal_threshold(strangers: NDArray[Any], rate: float) -> float:
    """A threshold at which a new stranger is accepted with a probability of at most `rate`.

    A few hundred strangers say little about their strongest hundredth; counting the new one among them (split
    conformal prediction, Vovk et al., 2005) makes up for it: of n, at most rate (n + 1) - 1 may be accepted. With fewer
    than 1 / rate - 1 of them none may.
    """
    n = len(strangers)
    return threshold_at_false_accepts(strangers, max(0.0, (rate * (n + 1) - 1) / n)) if n else float("-inf")


def accept_rate(confidence: NDArray[Any], threshold: float) -> float:
    """Share of answers at or above the threshold; NaN without any."""
    confidence = np.asarray(confidence, np.float64)
    return float(np.mean(confidence >= threshold)) if len(confidence) else float("nan")


@dataclass(frozen=True, slots=True, eq=False)
class Reliability:
    """How often answers of a stated probability are right.

    Attributes:
        edges: (B + 1,) bin borders over 0..1.
        count: (B,) answers in each bin.
        stated: (B,) their mean probability, NaN where empty.
        right: (B,) share of them that is right, NaN where empty.
        error: expected calibration error, the mean of |stated - right| weighted by count (Naeini et al. 2015).
        brier: mean squared difference of probability and outcome.
    """

    edges: Floats
    count: NDArray[np.int64]
    stated: Floats
    right: Floats
    error: float
    brier: float


def reliability(probability: NDArray[Any], right: NDArray[Any], bins: int = 10) -> Reliability:
    """Bin answers by probability.

    Args:
        probability: (P,) in 0..1.
        right: bool (P,).
        bins: equal bins.

    Raises:
        ValueError: a probability lies outside 0..1.
    """
    p, y = np.asarray(probability, np.float64), np.asarray(right, np.float64)
    if len(p) and not (p.min() >= 0 and p.max() <= 1):
        raise ValueError(f"probabilities from {p.min()} to {p.max()}; expected 0..1")
    which = np.minimum((p * bins).astype(np.int64), bins - 1)
    count = np.bincount(which, minlength=bins)
    with np.errstate(invalid="ignore"):
        stated = np.bincount(which, p, bins) / count
        share = np.bincount(which, y, bins) / count
    filled = count > 0
    error = float(np.sum(count[filled] * np.abs(stated - share)[filled]) / len(p)) if len(p) else float("nan")
    brier = float(np.mean((p - y) ** 2)) if len(p) else float("nan")
    return Reliability(np.linspace(0, 1, bins + 1), count.astype(np.int64), stated, share, error, brier)
