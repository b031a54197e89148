"""Run one system on one benchmark: `python -m benchmarks.evaluate DEV.json [--json]`.

Without `--system` it is the SDK itself with its default bundle. Our JSON form needs nothing else; for the public
benchmarks name the photos' folder::

    python -m benchmarks.evaluate gnd_roxford5k.pkl --images oxford/jpg
    python -m benchmarks.evaluate oxford/gt --images oxford/jpg --distractors flickr100k
    python -m benchmarks.evaluate retrieval_solution_v2.1.csv --index index.csv --images gld/
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.data import readers
from benchmarks.data.datasets import Dataset, DatasetError
from benchmarks.data.feature_cache import FeatureCache
from benchmarks.data.trainset import training_dataset
from benchmarks.lab.figures import figures, rankings, top_is_right
from benchmarks.lab.records import environment, jsonable
from benchmarks.lab.runner import Progress, extract_all, extract_missing, photos_of, run, silent, to_stderr
from benchmarks.lab.tuning import Tuned, tuned
from benchmarks.metrics import stats
from benchmarks.systems import registry
from benchmarks.systems.base import NotInstalledError, System

OUT = Path("out")


def fit(system: System, data: Path, cache: FeatureCache, progress: Progress = silent) -> None:
    """Fit a system's whitening or codebook on training photos, once; later calls load it.

    Raises:
        DatasetError: there are no training photos at `data`.
    """
    if not (data / "train.csv").is_file():
        raise DatasetError(
            f"{system.name} is fitted on training photos and {data} has no train.csv; name it with --train"
        )
    photos = photos_of(training_dataset(data))  # the thresholds need these anyway
    content = hashlib.sha256("\n".join(str(p.relative_to(data)) for p, _ in photos).encode()).digest()
    learned = cache.get(
        f"fit 1 {system.fit_key()}",
        content,
        lambda: system.fit(extract_all(system, photos, cache, progress, "training photos")),
    )
    system.load_fit(learned)


@dataclass(frozen=True, slots=True)
class Setup:
    """What rows are run with.

    Attributes:
        train: folder of train.csv, for systems that are fitted and for thresholds.
        bundle: bundle folder, None for the default one.
        preset: extraction preset, None for the bundle's own.
        out: folder for caches and databases.
        progress: told how far it is.
    """

    train: Path
    bundle: Path | None = None
    preset: str | None = None
    out: Path = OUT
    progress: Progress = silent

    @property
    def cache(self) -> FeatureCache:
        """Where features lie."""
        return FeatureCache(self.out / "features")

    def build(self, name: str, dataset: Dataset) -> System:
        """A row's system, fitted, for a dataset."""
        system = registry.build(name, self.bundle, self.preset)
        if system.needs_fit:
            fit(system, self.train, self.cache, self.progress)
        system.places = dataset.places
        return system

    def tuned(self, name: str) -> Tuned | None:
        """What is chosen for a row on the training set; None without one."""
        if not (self.train / "train.csv").is_file():
            return None
        return tuned(lambda asked: self.build(name, asked), self.train, self.cache, self.progress)


def evaluate(
    dataset: Dataset,
    name: str = registry.RUNTIME,
    *,
    bundle: Path | None = None,
    preset: str | None = None,
    train: Path | None = None,
    out: Path = OUT,
    progress: Progress = silent,
) -> dict[str, Any]:
    """All figures of one system on one dataset, JSON-ready.

    Args:
        dataset: what to ask.
        name: a row of `registry.names()`.
        bundle, preset, out, progress: see `Setup`.
        train: folder of train.csv, None for the dataset's own.

    Raises:
        DatasetError: photos or training data are missing.
        NotInstalledError: the system needs an optional package.
    """
    _check(dataset)
    setup = Setup(train or dataset.root, bundle, preset, out, progress)
    row = (_runtime if name == registry.RUNTIME else _adapter)(dataset, name, setup)
    head = {
        "system": name,
        "dataset": dataset.name,
        "n_queries": len(dataset.queries),
        "n_database": len(dataset.database),
    }
    return dict(jsonable(head | row | {"environment": environment()}))


def prepare(dataset: Dataset, names: Sequence[str], setup: Setup) -> None:
    """All that rows keep for `evaluate`: features of both sets, fits, and what is chosen on the training set.

    Several processes may do this at once, as long as no two rows in them share features.

    Raises:
        DatasetError: photos or training data are missing.
        NotInstalledError: a system needs an optional package.
    """
    _check(dataset)
    for name in names:
        if name == registry.RUNTIME:
            from benchmarks.lab.runtime import prepare_runtime

            bundle = registry.load_bundle(setup.bundle)
            prepare_runtime(dataset, bundle, setup.preset, setup.out / "databases", setup.progress)
            continue
        extract_missing(setup.build(name, dataset), photos_of(dataset), setup.cache, setup.progress)
        setup.tuned(name)


def _check(dataset: Dataset) -> None:
    missing = dataset.missing()
    if missing:
        raise DatasetError(
            f"{dataset.name}: {len(missing)} photos are missing, the first is {dataset.path(missing[0])}"
        )


def _runtime(dataset: Dataset, name: str, setup: Setup) -> dict[str, Any]:
    from benchmarks.lab.runtime import run_runtime

    loaded = registry.load_bundle(setup.bundle)
    done = run_runtime(dataset, loaded, setup.preset, setup.out / "databases", setup.progress)
    row = figures(dataset, done.run, done.threshold)
    row["probability"] = reliability_figures(dataset, done.run)
    return row | {
        "map_global": row["stages"]["global"]["map"],
        "bundle": done.bundle,
        "preset": done.preset,
        "stages_ms": done.stages_ms,
        "role": "delf-edge",
    }


def reliability_figures(dataset: Dataset, done: Any) -> dict[str, Any]:
    """Reliability of the probability over known places and strangers together; a stranger's answer is always wrong."""
    right = top_is_right(dataset, rankings(dataset, (r.scores for r in done.known)))
    p = [r.evidence.get("probability", 0.0) for r in (*done.known, *done.stranger)]
    r = stats.reliability(np.array(p), np.concatenate([right, np.zeros(len(done.stranger), bool)]))
    return {
        "edges": r.edges.tolist(),
        "count": r.count.tolist(),
        "stated": r.stated.tolist(),
        "right": r.right.tolist(),
        "expected_calibration_error": r.error,
        "brier": r.brier,
    }


def _adapter(dataset: Dataset, name: str, setup: Setup) -> dict[str, Any]:
    chosen = setup.tuned(name)
    system = setup.build(name, dataset)
    if chosen is not None:
        chosen.apply(system)
    done = run(system, dataset, setup.cache, setup.progress)
    row = figures(dataset, done, None if chosen is None else chosen.threshold)
    return row | {
        "map_global": row["stages"]["global"]["map"] if "global" in row["stages"] else None,
        "map_train": None if chosen is None else chosen.map,
        "bundle": registry.load_bundle(setup.bundle).id if registry.needs_bundle(name) else None,
        "role": system.role,
        "settings_of_system": system.describe(),
    }


def summary(row: dict[str, Any]) -> str:
    """A few lines for people."""

    def percent(interval: Sequence[float | None]) -> str:
        return "-".join("?" if v is None else f"{v:.3f}" for v in interval)

    unknown = row["unknown"]
    lines = [
        f"{row['system']} on {row['dataset']}: {row['n_queries']} queries, {row['n_database']} photos",
        f"  mAP {row['map']:.4f} ({percent(row['map_ci'])}), top-1 {row['top1']:.4f} ({percent(row['top1_ci'])})",
    ]
    lines += [
        f"  {n}: " + ", ".join(f"{k} {v:.4f}" for k, v in s.items() if isinstance(v, float))
        for n, s in row["settings"].items()
    ]
    lines += [
        f"  stage {n}: mAP {s['map']:.4f}, recall@50 {s['recall_at']['50']:.4f}" for n, s in row["stages"].items()
    ]
    lines.append(f"  strangers named at 95 % recall: {unknown['false_accepts_at_95_recall']:.3f}")
    if "false_accepts" in unknown:
        lines.append(
            f"  at the default threshold: {unknown['named_right']:.3f} named right, {unknown['named_wrong']:.3f} "
            f"wrong, {unknown['false_accepts']:.3f} of strangers named"
        )
    lines.append(
        f"  {row['extract_ms']:.0f} ms to extract, {row['query_ms']:.1f} ms to search, "
        f"{row['bytes_per_image']:.0f} bytes an image, {row['rss_mb']:.0f} MB"
    )
    return "\n".join(lines)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(
        prog="python -m benchmarks.evaluate", description=__doc__.splitlines()[0] if __doc__ else ""
    )
    p.add_argument("dataset", type=Path, help="NAME.json, gnd_*.pkl, a folder of *_query.txt, or a solution CSV")
    p.add_argument("--images", type=Path, help="folder of the photos (not for JSON)")
    p.add_argument("--index", type=Path, help="CSV of the database (Google Landmarks)")
    p.add_argument("--distractors", type=Path, help="folder of photos to add to the database")
    p.add_argument("--system", default=registry.RUNTIME, help=f"row of the table, default {registry.RUNTIME}")
    p.add_argument("--bundle", type=Path, help="bundle folder, default: the one in assets/")
    p.add_argument("--preset", help="extraction preset, default: the bundle's own")
    p.add_argument("--train", type=Path, help="folder of train.csv, default: the dataset's folder")
    p.add_argument("--out", type=Path, default=OUT, help="folder for caches, default out/")
    p.add_argument("--head", type=int, nargs=2, metavar=("QUERIES", "PHOTOS"), help="only a part, for a quick look")
    p.add_argument("--prepare", nargs="+", metavar="SYSTEM", help="only extract, fit and choose what rows keep")
    p.add_argument("--json", action="store_true", help="pure JSON on stdout")
    p.add_argument("--list", action="store_true", help="list the systems and stop")
    return p


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns 0, or 2 for a usage error or a missing package."""
    from delf_edge.errors import DelfEdgeError

    words = sys.argv[1:] if arguments is None else list(arguments)
    if "--list" in words:
        print("\n".join(registry.names()))
        return 0
    a = parser().parse_args(words)
    cv2.setNumThreads(1)  # what is timed has one thread; SIFT would take all
    try:
        dataset = readers.read(a.dataset, a.images, a.index)
        if a.distractors:
            dataset = readers.with_distractors(dataset, a.distractors)
        if a.head:
            dataset = dataset.head(*a.head)
        if a.prepare:
            prepare(dataset, a.prepare, Setup(a.train or dataset.root, a.bundle, a.preset, a.out, to_stderr))
            return 0
        row = evaluate(
            dataset, a.system, bundle=a.bundle, preset=a.preset, train=a.train, out=a.out, progress=to_stderr
        )
    except (DatasetError, NotInstalledError, DelfEdgeError, KeyError) as e:
        print(e.args[0] if isinstance(e, KeyError) else e, file=sys.stderr)
        return 2
    print(json.dumps(row, indent=1) if a.json else summary(row))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
