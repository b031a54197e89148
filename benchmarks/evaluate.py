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
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import readers, stats
from benchmarks.cache import FeatureCache
from benchmarks.datasets import Dataset, DatasetError
from benchmarks.runner import (
    Progress,
    environment,
    extract_all,
    figures,
    jsonable,
    rankings,
    run,
    silent,
    to_stderr,
    top_is_right,
)
from benchmarks.systems import registry
from benchmarks.systems.base import NotInstalledError, System
from benchmarks.trainset import fitting_photos, training_dataset

OUT = Path("out")
FALSE_ACCEPTS = 0.01


Build = Callable[[Dataset], System]


def fit(system: System, data: Path, cache: FeatureCache, progress: Progress = silent) -> None:
    """Fit a system's whitening or codebook on training photos, once; later calls load it.

    Raises:
        DatasetError: there are no training photos at `data`.
    """
    if not (data / "train.csv").is_file():
        raise DatasetError(
            f"{system.name} is fitted on training photos and {data} has no train.csv; name it with --train"
        )
    photos = fitting_photos(data)
    content = hashlib.sha256("\n".join(str(p.relative_to(data)) for p in photos).encode()).digest()
    learned = cache.get(
        f"fit 1 {system.fit_key()}",
        content,
        lambda: system.fit(extract_all(system, [(p, None) for p in photos], cache, progress, "training photos")),
    )
    system.load_fit(learned)


def trained_threshold(build: Build, data: Path, cache: FeatureCache, progress: Progress = silent) -> float:
    """A system's default threshold: at most 1 % of strangers named on the training set. Found once, then loaded.

    Args:
        build: makes a fresh, fitted system for a dataset.
        data: folder of train.csv.
        cache: features.
        progress: told how far it is.
    """
    dataset = training_dataset(data)
    system = build(dataset)
    asked = "\n".join([*dataset.database, *(q.name for q in dataset.queries)])
    settings = json.dumps(jsonable(system.describe()), sort_keys=True)

    def find() -> dict[str, Any]:
        done = run(system, dataset, cache, progress)
        strangers = np.array([r.confidence for r in done.stranger])
        return {"threshold": np.array(stats.threshold_at_false_accepts(strangers, FALSE_ACCEPTS))}

    content = hashlib.sha256(f"{asked}\n{settings}".encode()).digest()
    return float(cache.get(f"threshold 1 {system.name} {system.fit_key()}", content, find)["threshold"])


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
        bundle: bundle folder, None for the default one.
        preset: extraction preset, None for the bundle's own.
        train: folder of train.csv, for systems that are fitted and for thresholds.
        out: folder for caches and databases.
        progress: told how far it is.

    Raises:
        DatasetError: photos or training data are missing.
        NotInstalledError: the system needs an optional package.
    """
    missing = dataset.missing()
    if missing:
        raise DatasetError(
            f"{dataset.name}: {len(missing)} photos are missing, the first is {dataset.path(missing[0])}"
        )
    if name == registry.RUNTIME:
        row = _runtime(dataset, bundle, preset, out, progress)
    else:
        row = _adapter(dataset, name, bundle, preset, train, out, progress)
    head = {
        "system": name,
        "dataset": dataset.name,
        "n_queries": len(dataset.queries),
        "n_database": len(dataset.database),
    }
    return dict(jsonable(head | row | {"environment": environment()}))


def _runtime(
    dataset: Dataset, bundle: Path | None, preset: str | None, out: Path, progress: Progress
) -> dict[str, Any]:
    from benchmarks.systems.runtime import run_runtime

    loaded = registry.load_bundle(bundle)
    done = run_runtime(dataset, loaded, preset, out / "databases", progress)
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


def _adapter(
    dataset: Dataset,
    name: str,
    bundle: Path | None,
    preset: str | None,
    train: Path | None,
    out: Path,
    progress: Progress,
    *,
    only_prepare: bool = False,
) -> dict[str, Any]:
    cache = FeatureCache(out / "features")
    data = train or dataset.root

    def build(asked: Dataset) -> System:
        system = registry.build(name, bundle, preset)
        if system.needs_fit:
            fit(system, data, cache, progress)
        system.places = asked.places
        return system

    threshold = trained_threshold(build, data, cache, progress) if (data / "train.csv").is_file() else None
    system = build(dataset)
    if only_prepare:
        return {"threshold": threshold}
    row = figures(dataset, run(system, dataset, cache, progress), threshold)
    stages = row["stages"]
    return row | {
        "map_global": stages["global"]["map"] if "global" in stages else None,
        "bundle": registry.load_bundle(bundle).id if "bundle" in system.key or "delf" in system.key else None,
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
    p.add_argument("--prepare", action="store_true", help="only fit on training photos and find the threshold")
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
    try:
        dataset = readers.read(a.dataset, a.images, a.index)
        if a.distractors:
            dataset = readers.with_distractors(dataset, a.distractors)
        if a.head:
            dataset = dataset.head(*a.head)
        if a.prepare:
            if a.system != registry.RUNTIME:
                _adapter(dataset, a.system, a.bundle, a.preset, a.train, a.out, to_stderr, only_prepare=True)
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
