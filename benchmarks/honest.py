"""What holds on photos nobody chose on: `python -m benchmarks.honest DATA [--bundle DIR] [--write OUT]`.

Three columns side by side, with intervals: VAL (choose on it), DEV (report it), and leave-places-out: five folds over
training places. Each has databases of 1, 5 and 30 places and of all, with one photo a place and with all of them. The
parts of the bundle that are fitted on places (the probability, its threshold and the cohort) are those of the bundle on
VAL and DEV; in each fold they are fitted without the fold's places. What the networks were trained on the folds cannot
know: name the places that yours has seen when you give a figure away.

With `--write OUT` a bundle with the same networks and codebook, a cohort of training photos and the probability that
the folds ask for is put at OUT first, and reported; `--global-scale` and `--scales` make it look at other sizes of a
photo. Every run with VAL is a look at VAL: count them in the note.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.data.datasets import DatasetError
from benchmarks.data.places import Places, filler, folds, read_places, split, training_places
from benchmarks.lab.evidence import Found, Lab, choose_cohort, code_cohort
from benchmarks.lab.records import environment, jsonable
from benchmarks.lab.runner import Progress, silent, to_stderr
from benchmarks.metrics import logistic, quantile, stats
from delf_edge.bundle.bundle import Bundle, default_bundle_path
from delf_edge.bundle.calibration import Calibration
from delf_edge.bundle.cohort import Cohort
from delf_edge.codebooks.bundle_writer import with_cohort, with_extraction
from delf_edge.errors import DelfEdgeError

STRANGERS = 0.01
# Share of strangers that are weaker than those by which the numbers of photos count. With 0.97 and 0.985 the share of
# known photos that are named differs by less than 0.01, on average of the columns.
TAIL = 0.98
LANDMARK = 2.0  # weight of the landmark's best score in a ranking: VAL and the folds alike, see the note
SMALL = 24  # databases of each small size: with 8, one pair of look-alikes decided the threshold
RESAMPLES = 500

Column = tuple[int | None, int | None]  # places and photos of each in a database; None: all


def columns(found: Sequence[Found]) -> dict[Column, list[Found]]:
    """Answers by the database they come from."""
    out: dict[Column, list[Found]] = {}
    for f in found:
        out.setdefault((f.size, f.photos), []).append(f)
    return out


def fit(found: Sequence[Found], start: Calibration) -> Calibration:
    """Probability and threshold for answers, in which every column weighs the same, and that of all places twice.

    The score enters less what strangers reach (`cohort_slope` is `slope`). The numbers of photos, of the database and
    of the landmark, take away what they add to the evidence of the strongest strangers, those above `TAIL` of all. (The
    likelihood looks at all strangers alike; with what it asks for, the threshold that many photos need was too high
    for few.)

    The threshold is the lowest at which a new stranger is named with a probability of at most 1 %, whatever the number
    of places in the database, moved half the way to the next stranger: photos of one place are strangers together, so a
    few hundred say less than they count.
    """
    n_answers = {column: len(answers) for column, answers in columns(found).items()}
    x = np.array([[f.score - f.strangers, start.margin(f.score, f.rival, f.strangers)] for f in found])
    counts, right = np.array([held_against(f) for f in found]), np.array([f.known and f.right for f in found])
    other, proven = np.array([not f.known for f in found]), np.array([f.is_proven for f in found])
    weight = np.array([(2.0 if f.size is None else 1.0) / n_answers[f.size, f.photos] for f in found])
    names = ("slope", "margin_slope", "size_slope", "photos_slope")
    own = np.maximum(logistic.fit(np.hstack([x, -counts]), right, names, weight=weight).weights[:2], 0.0)
    reached = np.where(proven, x @ own, (x @ own).min())  # what is not proven is not named
    _, taken = quantile.fit(counts[other], reached[other], TAIL, weight[other])
    whole = logistic.fit((x @ own - counts @ taken)[:, None], right, ("all",), weight=weight)
    slope, margin, by_size, by_photos = (float(v) * max(0.0, float(whole.weights[0])) for v in (*own, *taken))
    fitted = replace(start, bias=whole.bias, slope=slope, margin_slope=margin, cohort_slope=slope)
    fitted = replace(fitted, size_slope=by_size, photos_slope=by_photos)
    sizes = {f.size for f in found}
    strangers = {size: np.array([f.logit(fitted) for f in found if f.size == size and not f.known]) for size in sizes}
    least = max(stats.conformal_threshold(logits, STRANGERS) for logits in strangers.values())
    above = np.concatenate([logits[logits >= least] for logits in strangers.values()])
    chosen = (least + above.min()) / 2 if len(above) else least
    return replace(fitted, threshold=float(logistic.sigmoid(np.array(chosen))))


def held_against(f: Found) -> list[float]:
    """What `size_slope` and `photos_slope` are multiplied with."""
    none = Calibration(bias=0.0, slope=0.0, margin_slope=0.0)
    ways = replace(none, size_slope=1.0), replace(none, photos_slope=1.0)
    return [-c.logit(0.0, 0.0, 0.0, searched=f.searched, of_landmark=f.of_landmark) for c in ways]


def named(found: Sequence[Found], logits: NDArray[Any], strangers: float) -> float:
    """Share of the known that is named right where so many strangers are."""
    known = np.array([f.known for f in found])
    right = np.array([f.known and f.right for f in found])
    least = stats.threshold_at_false_accepts(logits[~known], strangers)
    return float(np.mean((right & (logits >= least))[known]))


def interval(found: Sequence[Found], figure: Callable[[NDArray[np.int64]], float]) -> list[float]:
    """95 % of a figure when the places are drawn anew; `figure` is given indices of answers."""
    places = sorted({f.place for f in found})
    of = {p: np.array([i for i, f in enumerate(found) if f.place == p]) for p in places}
    rng, drawn = np.random.default_rng(0), []
    for _ in range(RESAMPLES):
        chosen = np.concatenate([of[places[i]] for i in rng.integers(0, len(places), len(places))])
        value = figure(chosen)
        if np.isfinite(value):
            drawn.append(value)
    return [float(v) for v in np.quantile(drawn, (0.025, 0.975))] if drawn else []


def report(found: Sequence[Found], weights: Mapping[int, Calibration], fold: Mapping[int, int]) -> dict[str, Any]:
    """Figures of every column.

    Args:
        found: all answers.
        weights: the calibration of each fold.
        fold: of each answer, by its `id`.
    """
    return {
        f"{size or 'all'} places, {photos or 'all'} photos": figures(answers, [weights[fold[id(f)]] for f in answers])
        for (size, photos), answers in columns(found).items()
    }


def figures(answers: Sequence[Found], weights: Sequence[Calibration]) -> dict[str, Any]:
    """Figures of answers with the weights that each was given with: [figure, low, high]."""
    logits = np.array([f.logit(w) for f, w in zip(answers, weights, strict=True)])
    accepted = logits >= np.array([np.log(w.threshold / (1 - w.threshold)) for w in weights])
    known, right = np.array([f.known for f in answers]), np.array([f.known and f.right for f in answers])
    ap, alone = (np.array([getattr(f, n) for f in answers]) for n in ("ap", "ap_alone"))
    ranked = np.isfinite(ap)

    def mean(values: NDArray[Any], which: NDArray[np.bool_]) -> Callable[[NDArray[np.int64]], float]:
        return lambda i: float(values[i][which[i]].mean()) if which[i].any() else float("nan")

    def at_1_percent(i: NDArray[np.int64]) -> float:
        return named([answers[k] for k in i], logits[i], STRANGERS) if 0 < known[i].sum() < len(i) else float("nan")

    wanted = {
        "best photo right": mean(right, known),
        "named at 1 % strangers": at_1_percent,
        "named at the threshold": mean(accepted & right, known),
        "named wrong": mean(accepted & ~right, known),
        "strangers named": mean(accepted, ~known),
    }
    if ranked.any():
        first = np.array([f.first for f in answers])
        wanted |= {"mAP": mean(ap, ranked), "mAP without names": mean(alone, ranked), "top-1": mean(first, ranked)}
    row: dict[str, Any] = {"known": int(known.sum()), "strangers": int((~known).sum())}
    return row | {n: [figure(np.arange(len(answers))), *interval(answers, figure)] for n, figure in wanted.items()}


def left_out(lab: Lab, data: Path, start: Calibration) -> tuple[list[list[Found]], list[list[str]]]:
    """Answers of each fold, in databases without the others' places, with a cohort of these; and the folds."""
    photos, background = training_places(data), filler(data)
    parts, found = folds(photos), []
    for part in parts:
        world = split({p: photos[p] for p in part})
        world = Places(world.stored + background, world.asked)
        cohort = code_cohort(lab, choose_cohort(lab, {p: n for p, n in photos.items() if p not in part}))
        found.append(lab.whole(world, cohort, start) + lab.small(world, cohort, start, SMALL, seed=3))
    return found, parts


def without_the_fold(found: Sequence[Sequence[Found]], start: Calibration) -> dict[str, Any]:
    """The report of all folds, each with a probability that was fitted on the others."""
    weights = {i: fit([f for k, other in enumerate(found) if k != i for f in other], start) for i in range(len(found))}
    fold = {id(f): i for i, part in enumerate(found) for f in part}
    return report([f for part in found for f in part], weights, fold)


def given(lab: Lab, path: Path, c: Calibration) -> dict[str, Any]:
    """The report of a benchmark of our JSON form with the bundle as it is."""
    world, cohort = read_places(path), lab.bundle.cohort
    found = lab.whole(world, cohort, c) + lab.small(world, cohort, c, SMALL, seed=3)
    return report(found, {0: c}, {id(f): 0 for f in found})


def measure(
    data: Path, bundle: Path, out: Path, write: Path | None, only: Sequence[str], progress: Progress = silent
) -> dict[str, Any]:
    """Everything that the command prints, JSON-ready; with `write` the bundle is made anew first."""
    lab = Lab(data, Bundle.load(bundle), out, progress=progress)
    calibration = Calibration.from_mapping(lab.bundle.calibration)
    if write is not None:
        calibration = replace(calibration, landmark=LANDMARK)
    result: dict[str, Any] = {}
    found: list[list[Found]] = []
    if "folds" in only or write is not None:
        found, _ = left_out(lab, data, calibration)
        result["places left out"] = without_the_fold(found, calibration)
    if write is not None:
        calibration = fit([f for part in found for f in part], calibration)
        written = written_bundle(lab, data, bundle, write, calibration)
        lab.bundle = replace(lab.bundle, cohort=written.cohort, id=written.id)
    for name in ("val", "dev"):
        if name in only:
            result[name.upper()] = given(lab, data / f"{name}.json", calibration)
    head = {"bundle": lab.bundle.id, "calibration": asdict(calibration), "cohort": len(lab.bundle.cohort or ())}
    return dict(jsonable(head | result | {"environment": environment()}))


def written_bundle(lab: Lab, data: Path, base: Path, out: Path, calibration: Calibration) -> Bundle:
    """The bundle with a cohort of training photos and these weights."""
    cohort: Cohort = code_cohort(lab, choose_cohort(lab, training_places(data)))
    line = f"Cohort: {len(cohort)} training photos as codes (benchmarks.honest); probability: five folds of places"
    rounded = {k: v if isinstance(v, int) else float(f"{v:.5g}") for k, v in asdict(calibration).items()}
    card = (
        f"A cohort of {len(cohort)} training photos, each of another place, as codes of their best features: no photo "
        "is in it. Cohort, probability and threshold are of `python -m benchmarks.honest ../shared/data --write OUT`: "
        "five folds of training places, each with a cohort of the others. The weights of the score are the base's."
    )
    return with_cohort(base, out, cohort, calibration=rounded, data=line, card=card)


def table(result: Mapping[str, Any]) -> str:
    """The report for people."""
    lines = []
    for part in ("VAL", "DEV", "places left out"):
        for column, row in result.get(part, {}).items():
            figures = []
            for name, value in row.items():
                if isinstance(value, list) and value[0] is not None:
                    low_high = f" ({value[1]:.3f}-{value[2]:.3f})" if len(value) == 3 else ""
                    figures.append(f"{name} {value[0]:.3f}{low_high}")
            lines.append(f"{part}, {column}: " + ", ".join(figures))
    return "\n".join(lines)


def preset_scales(words: str) -> tuple[str, list[float]]:
    """`balanced=0.354,0.5` as a preset and its scales."""
    name, _, numbers = words.partition("=")
    return name, [float(n) for n in numbers.split(",")]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns 0, or 2 for missing data or a bad bundle."""
    p = argparse.ArgumentParser(prog="python -m benchmarks.honest", description=(__doc__ or "").splitlines()[0])
    p.add_argument("data", type=Path, help="folder of val.json, dev.json, train.csv and train_more.csv")
    p.add_argument("--bundle", type=Path, help="bundle folder, default: the one of the package")
    p.add_argument("--write", type=Path, metavar="OUT", help="make the bundle anew with cohort and probability, at OUT")
    p.add_argument("--global-scale", type=float, help="with --write: pyramid scale of the global descriptor")
    p.add_argument(
        "--scales",
        action="append",
        default=[],
        type=preset_scales,
        metavar="PRESET=S,S,...",
        help="with --write: pyramid scales of a preset",
    )
    p.add_argument("--only", nargs="+", choices=("val", "dev", "folds"), default=("val", "dev", "folds"))
    p.add_argument("--out", type=Path, default=Path("out"), help="folder for caches, default out/")
    p.add_argument("--json", type=Path, help="write the result to this file")
    a = p.parse_args(arguments)
    bundle = a.bundle or default_bundle_path()
    if (a.global_scale or a.scales) and a.write is None:
        p.error("--global-scale and --scales need --write: another bundle is made")
    try:
        with tempfile.TemporaryDirectory() as folder:
            if a.global_scale or a.scales:
                base, bundle = bundle, Path(folder) / "bundle"
                with_extraction(base, bundle, global_scale=a.global_scale, scales=dict(a.scales))
            result = measure(a.data, bundle, a.out, a.write, a.only, to_stderr)
    except (DatasetError, DelfEdgeError) as e:
        print(e, file=sys.stderr)
        return 2
    command = " ".join(["python -m benchmarks.honest", *(sys.argv[1:] if arguments is None else arguments)])
    if a.json:
        a.json.write_text(json.dumps({"command": command} | result, indent=1) + "\n")
    print(table(result))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
