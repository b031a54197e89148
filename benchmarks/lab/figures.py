"""Turns the answers of a run into the figures of the table, JSON-ready."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.data.datasets import Dataset
from benchmarks.lab.runner import Run
from benchmarks.metrics import protocols, stats
from benchmarks.metrics.protocols import Floats

RECALL_AT = (1, 5, 10, 20, 50, 100)
STAGES = ("candidates", "global")  # what `Result.stages` may hold that is worth a figure
SHOWN = 5  # names of the best photos that are recorded for each query


def rankings(dataset: Dataset, scores: Iterable[Floats]) -> list[protocols.Ranking]:
    """Rankings of score vectors; ties go against the system, in every setting."""
    out = []
    for q, s in zip(dataset.queries, scores, strict=True):
        good = {g for setting in dataset.settings for g in setting.positive}
        out.append(protocols.rank(s, q.graded(*good)))
    return out


def top_is_right(dataset: Dataset, ranked: Sequence[protocols.Ranking]) -> NDArray[np.bool_]:
    """bool (Q,): whether the first photo that is not junk is positive in the headline setting."""
    setting = dataset.settings[0]
    out = []
    for q, r in zip(dataset.queries, ranked, strict=True):
        junk = q.graded(*setting.junk)
        ranks = protocols.positions(r, q.graded(*setting.positive) - junk, junk)
        out.append(bool(len(ranks)) and ranks[0] == 0)
    return np.array(out, bool)


def figures(dataset: Dataset, done: Run, threshold: float | None = None) -> dict[str, Any]:
    """Every figure of one row, JSON-ready.

    Args:
        dataset: what was asked.
        done: the answers.
        threshold: the system's default threshold of `Result.confidence`; None where it has none.
    """
    ranked = rankings(dataset, (r.scores for r in done.known))
    scored = protocols.score_rankings(dataset, ranked)
    headline = scored[dataset.settings[0].name]
    right = top_is_right(dataset, ranked)
    known = np.array([r.confidence for r in done.known], np.float64)
    strangers = np.array([r.confidence for r in done.stranger], np.float64)
    out: dict[str, Any] = {
        "map": headline.map,
        "map_ci": stats.bootstrap(headline.ap),
        "top1": headline.top1,
        "top1_ci": stats.bootstrap(np.where(np.isnan(headline.ap), np.nan, headline.first == 0)),
        "precision_at": {str(k): protocols.mean(v) for k, v in headline.precision.items()},
        "gap": protocols.gap(known, right, int(np.count_nonzero(~np.isnan(headline.ap)))),
        "settings": {
            name: {"map": s.map, "map_ci": stats.bootstrap(s.ap)}
            | {f"mp@{k}": protocols.mean(v) for k, v in s.precision.items()}
            for name, s in scored.items()
        },
        "stages": {
            stage: stage_figures(dataset, [r.stages[stage] for r in done.known])
            for stage in STAGES
            if done.known and stage in done.known[0].stages
        },
        "unknown": unknown_figures(known, right, strangers, threshold),
        "extract_ms": done.extract_ms.processor,
        "query_ms": done.query_ms.processor,
        "extract_wall_ms": done.extract_ms.wall,
        "query_wall_ms": done.query_ms.wall,
        "bytes_per_image": done.bytes_per_image,
        "rss_mb": done.rss_mb,
        "places": per_place(dataset, headline),
        "queries": [
            {
                "query": q.name,
                "ap": none_if_nan(headline.ap[i]),
                "first": int(headline.first[i]),
                "confidence": known[i],
                "best": [dataset.database[k] for k in ranked[i][:SHOWN]],
            }
            | ({"stranger": strangers[i]} if len(strangers) else {})
            for i, q in enumerate(dataset.queries)
        ],
    }
    return out


def stage_figures(dataset: Dataset, scores: Sequence[Floats]) -> dict[str, Any]:
    """mAP and recall at K of one stage; a photo that the stage did not find (-inf) is never within K."""
    ranked = [r[np.isfinite(s[r])] for r, s in zip(rankings(dataset, scores), scores, strict=True)]
    setting = dataset.settings[0]
    recalls: dict[int, list[float]] = {k: [] for k in RECALL_AT}
    for q, r in zip(dataset.queries, ranked, strict=True):
        junk = q.graded(*setting.junk)
        positives = q.graded(*setting.positive) - junk
        ranks = protocols.positions(r, positives, junk)
        for k in RECALL_AT:
            recalls[k].append(protocols.recall_at(ranks, len(positives), k))
    ap = protocols.score_rankings(dataset, ranked)[setting.name].ap
    return {
        "map": protocols.mean(ap),
        "map_ci": stats.bootstrap(ap),
        "recall_at": {str(k): protocols.mean(np.array(v)) for k, v in recalls.items()},
    }


def unknown_figures(
    known: Floats, right: NDArray[np.bool_], strangers: Floats, threshold: float | None
) -> dict[str, Any]:
    """What thresholds cost: false accepts of strangers against answers kept.

    "95 % recall" keeps 95 % of the answers that are right before any threshold.
    """
    at95 = stats.threshold_at_recall(known[right], 0.95)
    low = stats.threshold_at_false_accepts(strangers, 0.01)
    out: dict[str, Any] = {
        "strangers": len(strangers),
        "threshold_at_95_recall": at95,
        "false_accepts_at_95_recall": stats.accept_rate(strangers, at95),
        "threshold_at_1_percent_false_accepts": low,
        "recall_at_1_percent_false_accepts": float(np.mean(right & (known >= low))) if len(known) else float("nan"),
    }
    if threshold is not None:
        named = known >= threshold
        out |= {
            "default_threshold": threshold,
            "false_accepts": stats.accept_rate(strangers, threshold),
            "named_right": float(np.mean(named & right)) if len(known) else float("nan"),
            "named_wrong": float(np.mean(named & ~right)) if len(known) else float("nan"),
        }
    return out


def per_place(dataset: Dataset, score: protocols.SettingScore) -> dict[str, dict[str, float]]:
    """mAP and top-1 by the query's place."""
    places = sorted({q.place for q in dataset.queries if q.place is not None})
    out = {}
    for place in places:
        of = np.array([q.place == place for q in dataset.queries]) & ~np.isnan(score.ap)
        if of.any():
            out[place] = {
                "queries": int(of.sum()),
                "map": float(score.ap[of].mean()),
                "top1": float((score.first[of] == 0).mean()),
            }
    return out


def none_if_nan(value: float) -> float | None:
    """JSON has no NaN."""
    return None if np.isnan(value) else float(value)
