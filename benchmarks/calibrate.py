"""Fit the weights of a bundle's score and probability: `python -m benchmarks.calibrate DATA --bundle DIR`.

Only training photos are used (see `trainset`), never DEV; name the places that the network was not trained on with
`--only`, for it knows the others too well. The output's `calibration` object goes into the bundle's manifest.

1. `floor`: RANSAC finds some inliers between any two photos; this is what 95 % of wrong pairs stay below.
2. `votes`, `similarity`, `inliers`: logistic regression on candidate pairs (right or wrong photo), every query weighing
   the same; weights below zero are taken out. A search around them keeps what raises mAP on the training set.
3. `expansion`: how many proven photos join the query, of 0, 3, 5 and 10 the least that gives all of the mAP.
4. `bias`, `slope`, `margin_slope`: logistic regression on the first answers, of known places and of strangers (the same
   queries with their place taken out of the database).
5. `threshold`: the lowest at which a new stranger is named with a probability of at most 1 %.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.data.datasets import Dataset, DatasetError
from benchmarks.data.feature_cache import FeatureCache
from benchmarks.data.trainset import training_dataset
from benchmarks.lab.figures import top_is_right
from benchmarks.lab.records import environment, jsonable
from benchmarks.lab.runner import Progress, extract_all, run, silent, to_stderr
from benchmarks.metrics import logistic, protocols, stats
from benchmarks.metrics.protocols import Floats
from benchmarks.systems.base import Result, best_two_places
from benchmarks.systems.delf import expand_proven, fuse
from delf_edge.bundle.calibration import Calibration
from delf_edge.types import Float32Array

FALSE_ACCEPTS = 0.01
FLOOR_QUANTILE = 0.95
PAIRS_PER_QUERY = 50
STRANGERS = 160
EXPANSIONS = (0, 3, 5, 10)


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """What was found about every database photo for one query.

    Attributes:
        votes: float64 (N,), votes per query feature.
        similarity: float64 (N,), cosine of the global descriptors, -inf for an absent photo.
        inliers: int64 (N,).
        query: float32 (G,), the query's global descriptor; None where expansion is not asked for.
        vectors: float32 (N, G), those of the database.
    """

    votes: Floats
    similarity: Floats
    inliers: NDArray[np.int64]
    query: Float32Array | None = None
    vectors: Float32Array | None = None

    @classmethod
    def of(cls, result: Result, query: Float32Array | None = None, vectors: Float32Array | None = None) -> Evidence:
        """From a result of `DelfSystem`."""
        if result.inliers is None:
            raise ValueError("the system does not count inliers; calibrate a DELF row")
        return cls(result.stages["votes"], result.stages["global"], result.inliers, query, vectors)

    def score(self, calibration: Calibration) -> Floats:
        """Fused score of every photo, as the runtime computes it."""
        similarity = self.similarity
        if self.query is not None and self.vectors is not None:
            similarity = expand_proven(calibration, self.votes, self.similarity, self.inliers, self.vectors, self.query)
        return fuse(calibration, self.votes, similarity, self.inliers)


def wrong_inliers(dataset: Dataset, known: Sequence[Evidence]) -> NDArray[np.int64]:
    """Inliers of all verified pairs that show different places."""
    out = [np.zeros(0, np.int64)]
    for q, e in zip(dataset.queries, known, strict=True):
        wrong = np.ones(len(e.inliers), bool)
        wrong[list(q.graded("positive", "junk"))] = False
        out.append(e.inliers[wrong & (e.inliers > 0)])
    return np.concatenate(out)


def fit_ranking(dataset: Dataset, known: Sequence[Evidence], start: Calibration) -> Calibration:
    """Steps 1 and 2: floor and weights of the score."""
    spread = wrong_inliers(dataset, known)
    floor = float(np.quantile(spread, FLOOR_QUANTILE)) if len(spread) else start.floor
    x, y, weight = [], [], []
    for q, e in zip(dataset.queries, known, strict=True):
        positives = q.graded("positive")
        rough = e.score(replace(start, floor=floor))
        chosen = {int(i) for i in np.argsort(-rough, kind="stable")[:PAIRS_PER_QUERY]} | positives
        chosen = {i for i in chosen if np.isfinite(rough[i])}
        for i in sorted(chosen):
            gain = max(0.0, float(np.log((1 + e.inliers[i]) / (1 + floor))))
            x.append([np.sqrt(max(0.0, e.votes[i])), e.similarity[i], gain])
            y.append(i in positives)
            weight.append(1 / len(chosen))
    names = ["votes", "similarity", "inliers"]
    columns = list(range(3))
    while True:
        model = logistic.fit(np.array(x)[:, columns], np.array(y), [names[c] for c in columns], weight=np.array(weight))
        if len(columns) == 1 or model.weights.min() > 0:
            break
        columns.pop(int(np.argmin(model.weights)))
    weights = dict.fromkeys(names, 0.0) | model.to_json()["weights"]
    scale = max(abs(w) for w in weights.values()) or 1.0
    fitted = replace(start, floor=floor, **{n: w / scale for n, w in weights.items()})
    return climb(dataset, known, fitted)


def training_map(dataset: Dataset, known: Sequence[Evidence], calibration: Calibration) -> float:
    """mAP of the fused score."""
    ranked = [
        protocols.rank(e.score(calibration), q.graded("positive")) for q, e in zip(dataset.queries, known, strict=True)
    ]
    return protocols.score_rankings(dataset, ranked)[dataset.settings[0].name].map


def climb(dataset: Dataset, known: Sequence[Evidence], start: Calibration, least: float = 1e-3) -> Calibration:
    """Change one weight at a time by a factor while that raises mAP by at least `least`.

    The factors are coarse on purpose: a few hundred training queries cannot tell finer ones apart.
    """
    best, value = start, training_map(dataset, known, start)
    improved = True
    while improved:
        improved = False
        for name in ("votes", "similarity", "inliers"):
            for factor in (0.5, 0.7, 1.4, 2.0):
                tried = replace(best, **{name: getattr(best, name) * factor})
                reached = training_map(dataset, known, tried)
                if reached >= value + least:
                    best, value, improved = tried, reached, True
    return best


def fit_expansion(dataset: Dataset, known: Sequence[Evidence], ranking: Calibration) -> Calibration:
    """Step 3: the least expansion within 0.002 of the best mAP."""
    choices = {n: training_map(dataset, known, replace(ranking, expansion=n)) for n in EXPANSIONS}
    best = max(choices.values())
    return replace(ranking, expansion=next(n for n, value in choices.items() if value >= best - 0.002))


def first_answers(dataset: Dataset, evidence: Sequence[Evidence], calibration: Calibration) -> tuple[Floats, Floats]:
    """(Q, 2) score and margin of each query's first answer, and (Q,) its inliers."""
    rows, inliers = [], []
    alone = replace(calibration, expansion=0, support=0)  # probabilities speak of an image's own evidence
    for e in evidence:
        score = e.score(alone)
        first, second = best_two_places(score, dataset.places)
        rows.append([first, alone.margin(first, second)])
        inliers.append(e.inliers[int(np.argmax(score))])
    return np.array(rows), np.array(inliers, np.float64)


def fit_probability(
    dataset: Dataset, known: Sequence[Evidence], strangers: Sequence[Evidence], ranking: Calibration, min_inliers: int
) -> tuple[Calibration, dict[str, Any]]:
    """Steps 4 and 5: probability and threshold, and how good they are on the data they were fitted on."""
    ranked = [
        protocols.rank(e.score(ranking), q.graded("positive")) for q, e in zip(dataset.queries, known, strict=True)
    ]
    right = top_is_right(dataset, ranked)
    x_known, n_known = first_answers(dataset, known, ranking)
    x_stranger, n_stranger = first_answers(dataset, strangers, ranking)
    x, y = np.concatenate([x_known, x_stranger]), np.concatenate([right, np.zeros(len(x_stranger), bool)])
    model = logistic.fit(x, y, ("slope", "margin_slope"))
    if model.weights[1] < 0:
        model = logistic.fit(x[:, :1], y, ("slope",))
    none = {"cohort_slope": 0.0, "size_slope": 0.0, "photos_slope": 0.0}  # not part of this fit
    weights = {"slope": 0.0, "margin_slope": 0.0} | none | model.to_json()["weights"]
    fitted = replace(ranking, bias=model.bias, **weights)
    p = np.array([fitted.probability(s, m) for s, m in x])
    proven = np.where(np.concatenate([n_known, n_stranger]) >= min_inliers, p, 0.0)
    p_known, p_stranger = np.split(proven, [len(x_known)])
    threshold = float(np.clip(stats.conformal_threshold(p_stranger, FALSE_ACCEPTS), 0.0, 1.0))
    r = stats.reliability(p, y)
    report = {
        "queries": len(x_known),
        "strangers": len(x_stranger),
        "top1": float(right.mean()),
        "named_right": float(np.mean((p_known >= threshold) & right)),
        "named_wrong": float(np.mean((p_known >= threshold) & ~right)),
        "false_accepts": stats.accept_rate(p_stranger, threshold),
        "strongest_strangers": [round(float(v), 4) for v in np.sort(p_stranger)[::-1][:8]],
        "weakest_right": [round(float(v), 4) for v in np.sort(p_known[right])[:20]],
        "expected_calibration_error": r.error,
        "brier": r.brier,
    }
    return replace(fitted, threshold=threshold), report


def calibrate(
    dataset: Dataset,
    known: Sequence[Evidence],
    strangers: Sequence[Evidence],
    start: Calibration,
    min_inliers: int = 6,
    *,
    keep_weights: bool = False,
) -> tuple[Calibration, dict[str, Any]]:
    """All steps. Queries without positives count as strangers only.

    Args:
        dataset: the training retrieval set.
        known: evidence of each query.
        strangers: evidence of each query with its place taken out of the database.
        start: weights for the first rough ranking.
        min_inliers: inliers below which the SDK names nothing.
        keep_weights: leave floor, votes, similarity, inliers and expansion of `start` as they are, and fit the
            probability alone.

    Returns:
        The calibration, and figures on the training set.
    """
    with_answer = [bool(q.grades["positive"]) for q in dataset.queries]
    dataset = replace(dataset, queries=tuple(q for q, w in zip(dataset.queries, with_answer, strict=True) if w))
    known = [e for e, w in zip(known, with_answer, strict=True) if w]
    ranking = start
    if not keep_weights:
        ranking = fit_expansion(dataset, known, fit_ranking(dataset, known, replace(start, expansion=0)))
    fitted, report = fit_probability(dataset, known, strangers, ranking, min_inliers)
    before = training_map(dataset, known, replace(start, inliers=0.0))
    return fitted, report | {"map": training_map(dataset, known, fitted), "map_before_ransac": before}


def rounded(calibration: Calibration) -> dict[str, float]:
    """For the manifest: more digits than these mean nothing."""
    return {k: v if isinstance(v, int) else float(f"{v:.5g}") for k, v in asdict(calibration).items()}


def run_bundle(
    data: Path,
    bundle: Path | None,
    preset: str | None,
    out: Path,
    only: Sequence[str],
    progress: Progress = silent,
    *,
    weights: Calibration | None = None,
) -> dict[str, Any]:
    """Calibrate a bundle on `data/train.csv`; returns `calibration` and `report`, JSON-ready.

    With `weights` the ranking is theirs, and only the probability and its threshold are fitted.
    """
    from benchmarks.systems.delf import DelfSystem
    from benchmarks.systems.registry import load_bundle, runtime_options
    from delf_edge.features.extractor import extract_options

    loaded = load_bundle(bundle)
    dataset = training_dataset(data)
    if only:  # few places: more views of each, and strangers from the other places
        dataset = training_dataset(
            data, only=tuple(only), queries_per_place=20, views_per_place=40, strangers=STRANGERS
        )
    options = runtime_options()
    system = DelfSystem(
        loaded,
        extract_options(loaded, preset),
        label="calibrate",
        calibration=Calibration(),
        options=options,
    )
    cache = FeatureCache(out / "features")
    done = run(system, dataset, cache, progress)
    asked = extract_all(system, [(dataset.path(q.name), q.box) for q in dataset.queries], cache)
    vectors = system.global_descriptors
    known, strangers = (
        [
            Evidence.of(r, np.asarray(q["global_descriptor"], np.float32), vectors)
            for r, q in zip(rs, asked, strict=True)
        ]
        for rs in (done.known, done.stranger)
    )
    start, keep = weights or Calibration(), weights is not None
    fitted, report = calibrate(dataset, known, strangers, start, options.min_inliers, keep_weights=keep)
    head = {"bundle": loaded.id, "preset": preset or loaded.manifest.default_preset, "places": list(only)}
    return dict(jsonable({"calibration": rounded(fitted), "report": head | report, "environment": environment()}))


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns 0, or 2 for missing data or a bad bundle."""
    from delf_edge.errors import DelfEdgeError

    p = argparse.ArgumentParser(prog="python -m benchmarks.calibrate", description=(__doc__ or "").splitlines()[0])
    p.add_argument("data", type=Path, help="folder of train.csv")
    p.add_argument("--bundle", type=Path, help="bundle folder, default: the one in assets/")
    p.add_argument("--preset", help="extraction preset, default: the bundle's own")
    p.add_argument("--only", nargs="*", default=[], help="starts of the names of places to ask for, default: all")
    p.add_argument("--out", type=Path, default=Path("out"), help="folder for caches, default out/")
    p.add_argument("--weights", type=json.loads, help="JSON of ranking weights to keep instead of fitting them")
    a = p.parse_args(arguments)
    try:
        weights = None if a.weights is None else Calibration.from_mapping(a.weights)
        result = run_bundle(a.data, a.bundle, a.preset, a.out, a.only, to_stderr, weights=weights)
    except (DatasetError, DelfEdgeError) as e:
        print(e, file=sys.stderr)
        return 2
    print(json.dumps(result, indent=1))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
