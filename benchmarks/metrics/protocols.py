"""The field's scores, each from its definition.

Rankings are of database indices, best first. Every function takes plain arrays, so each score can be checked by hand.

Sources:
    Oxford/Paris: Philbin et al., CVPR 2007, and its `compute_ap.cpp` (trapezoid, junk removed).
    Revisited Oxford/Paris: Radenovic et al., CVPR 2018, section 3 and its `evaluate.py` (mAP, mP@k).
    GAP (micro-AP): Perronnin et al., CVPR 2009; Weyand et al., CVPR 2020, eq. 1. mAP@100: eq. 2 there.
    Precision-recall with absolute counts: Noh et al., ICCV 2017, section 5.1 and Figure 5.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.data.datasets import Dataset, Query, Setting

Ranking = NDArray[np.int64]
Floats = NDArray[np.float64]


def rank(scores: NDArray[Any], positives: Collection[int] = ()) -> Ranking:
    """Database indices, best score first; among equal scores the positives come last.

    A tie must not help: databases list positives together and first, so an order by index would make a system that
    answers nothing look good.

    Args:
        scores: (N,), higher is better; NaN counts as the lowest.
        positives: indices that are right.
    """
    scores = np.asarray(scores, np.float64)
    right = np.zeros(len(scores), bool)
    right[list(positives)] = True
    order = np.lexsort((np.arange(len(scores)), right, -np.where(np.isnan(scores), -np.inf, scores)))
    return order.astype(np.int64)


def positions(ranking: NDArray[Any], positives: Collection[int], junk: Collection[int] = ()) -> Ranking:
    """0-based ranks of the positives in a ranking from which junk has been removed, ascending.

    A positive that is also junk is junk. A positive that the ranking leaves out is absent from the result.
    """
    ranking = np.asarray(ranking, np.int64)
    kept = ranking[~np.isin(ranking, np.fromiter(junk, np.int64, len(junk)))]
    return np.flatnonzero(np.isin(kept, np.fromiter(positives, np.int64, len(positives)))).astype(np.int64)


def trapezoid_ap(ranks: NDArray[Any], n_positives: int) -> float:
    """Area under the precision-recall curve, trapezoid rule, as Oxford's `compute_ap` computes it.

    Args:
        ranks: 0-based ranks of the positives that were found, ascending.
        n_positives: how many there are in all; those not found count as never found.

    Returns:
        0..1, or NaN where there is nothing to find.
    """
    if n_positives == 0:
        return float("nan")
    ranks = np.asarray(ranks, np.float64)
    found = np.arange(len(ranks))
    before = np.where(ranks == 0, 1.0, found / np.maximum(ranks, 1))  # precision one place earlier; 1 at the very top
    after = (found + 1) / (ranks + 1)
    return float((before + after).sum() / (2 * n_positives))


def finite_ap(ranks: NDArray[Any], n_positives: int) -> float:
    """Mean over the positives of the precision at their rank; NaN where there is nothing to find."""
    if n_positives == 0:
        return float("nan")
    ranks = np.asarray(ranks, np.float64)
    return float(((np.arange(len(ranks)) + 1) / (ranks + 1)).sum() / n_positives)


def ap_at(ranks: NDArray[Any], n_positives: int, depth: int) -> float:
    """Average precision of the first `depth` places, over min(n_positives, depth) (Google Landmarks retrieval)."""
    ranks = np.asarray(ranks)
    return finite_ap(ranks[ranks < depth], min(n_positives, depth))


def precision_at(ranks: NDArray[Any], k: int) -> float:
    """Share of positives in the first k places, of the revisited benchmark.

    Its reference code shortens k to the rank of the last positive, so that a query with few positives can reach 1;
    0 where no positive was found at all.
    """
    if len(ranks) == 0:
        return 0.0
    k = min(int(ranks[-1]) + 1, k)
    return float(np.count_nonzero(ranks < k) / k)


def recall_at(ranks: NDArray[Any], n_positives: int, k: int) -> float:
    """Share of all positives within the first k places; NaN where there is nothing to find."""
    return float(np.count_nonzero(np.asarray(ranks) < k) / n_positives) if n_positives else float("nan")


def average_precision(ranking: NDArray[Any], query: Query, setting: Setting) -> float:
    """The score of one query's ranking under one setting; NaN where the setting leaves it without positives."""
    junk = query.graded(*setting.junk)
    positives = query.graded(*setting.positive) - junk
    ranks = positions(ranking, positives, junk)
    if setting.depth is not None:
        return ap_at(ranks, len(positives), setting.depth)
    return (trapezoid_ap if setting.trapezoid else finite_ap)(ranks, len(positives))


@dataclass(frozen=True, slots=True, eq=False)
class SettingScore:
    """Figures of one setting.

    Attributes:
        ap: (Q,) per query, NaN where the setting leaves the query without positives.
        precision: k -> (Q,) precision at k, NaN likewise.
        first: (Q,) 0-based rank of the first positive, -1 where none was found or there is none.
    """

    ap: Floats
    precision: dict[int, Floats]
    first: Ranking

    @property
    def map(self) -> float:
        """Mean over the queries that have positives; NaN without any."""
        return mean(self.ap)

    @property
    def top1(self) -> float:
        """Share of queries (with positives) whose first answer is right."""
        asked = ~np.isnan(self.ap)
        return float(np.mean(self.first[asked] == 0)) if asked.any() else float("nan")


def mean(values: NDArray[Any]) -> float:
    """Mean without NaN; NaN where nothing is left (numpy would warn)."""
    kept = np.asarray(values, np.float64)
    kept = kept[~np.isnan(kept)]
    return float(kept.mean()) if len(kept) else float("nan")


def score_rankings(dataset: Dataset, rankings: Sequence[NDArray[Any]]) -> dict[str, SettingScore]:
    """Score one ranking per query under every setting of the dataset.

    Raises:
        ValueError: the number of rankings is not the number of queries.
    """
    if len(rankings) != len(dataset.queries):
        raise ValueError(f"{len(rankings)} rankings for {len(dataset.queries)} queries; one ranking per query")
    out = {}
    for s in dataset.settings:
        ap, first = [], []
        precision: dict[int, list[float]] = {k: [] for k in dataset.kappas}
        for q, ranking in zip(dataset.queries, rankings, strict=True):
            junk = q.graded(*s.junk)
            positives = q.graded(*s.positive) - junk
            ranks = positions(ranking, positives, junk)
            ap.append(average_precision(ranking, q, s))
            first.append(int(ranks[0]) if len(ranks) else -1)
            for k in dataset.kappas:
                precision[k].append(precision_at(ranks, k) if positives else float("nan"))
        out[s.name] = SettingScore(
            np.array(ap, np.float64),
            {k: np.array(v, np.float64) for k, v in precision.items()},
            np.array(first, np.int64),
        )
    return out


def gap(confidence: NDArray[Any], right: NDArray[Any], n_answerable: int) -> float:
    """Global average precision (micro-AP) of one prediction per query.

    GAP = 1/M sum_i P(i) rel(i) over all predictions sorted by confidence. Among equal confidences the wrong ones
    come first (a tie must not help).

    Args:
        confidence: (P,) of each prediction made; a query answered "unknown" contributes none.
        right: bool (P,), whether it names (one of) the query's landmark(s).
        n_answerable: M, queries that show at least one landmark of the database.

    Raises:
        ValueError: more right predictions than answerable queries.
    """
    confidence, right = np.asarray(confidence, np.float64), np.asarray(right, bool)
    if np.count_nonzero(right) > n_answerable:
        raise ValueError(f"{np.count_nonzero(right)} right predictions but only {n_answerable} answerable queries")
    if n_answerable == 0:
        return float("nan")
    hits = right[np.lexsort((right, -confidence))]
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    return float(precision[hits].sum() / n_answerable)


@dataclass(frozen=True, slots=True, eq=False)
class PrecisionRecall:
    """Precision against the number of right results, over all queries at once, as a threshold falls.

    Attributes:
        threshold: (T,) distinct scores, descending.
        retrieved: int (T,), results at or above the threshold.
        right: int (T,), right ones among them: the unnormalised recall of the paper's Figure 5.
    """

    threshold: Floats
    retrieved: Ranking
    right: Ranking

    @property
    def precision(self) -> Floats:
        """(T,) right / retrieved."""
        out: Floats = self.right / np.maximum(self.retrieved, 1)
        return out


def precision_recall(scores: NDArray[Any], right: NDArray[Any]) -> PrecisionRecall:
    """Precision and absolute recall over pooled results. Equal scores share one point of the curve.

    Args:
        scores: (P,) of every retrieved result of every query; the paper keeps the best photo of each landmark only.
        right: bool (P,).
    """
    scores, right = np.asarray(scores, np.float64), np.asarray(right, bool)
    order = np.argsort(-scores, kind="stable")
    scores, right = scores[order], right[order]
    last = np.flatnonzero(np.append(scores[1:] != scores[:-1], True)) if len(scores) else np.zeros(0, np.int64)
    return PrecisionRecall(scores[last], (last + 1).astype(np.int64), np.cumsum(right)[last].astype(np.int64))


def best_of_each_place(scores: NDArray[Any], places: Sequence[str | None]) -> Ranking:
    """Indices of the best-scored photo of each place (a photo without a place stands for itself), best first."""
    seen: set[str] = set()
    keep = []
    for i in rank(scores):
        place = places[i]
        if place is None or place not in seen:
            keep.append(i)
            if place is not None:
                seen.add(place)
    return np.array(keep, np.int64)
