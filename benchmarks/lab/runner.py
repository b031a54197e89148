"""Runs one system over one dataset: extract, add, ask, time.

Photos are extracted once and cached; a stopped run goes on where it was. Every query is asked twice: as it is, and with
every photo of its place taken out of the database, which makes it a photo of an unknown place.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from benchmarks.data.datasets import Dataset, Query
from benchmarks.data.feature_cache import Arrays, FeatureCache, photo_hash
from benchmarks.systems.base import Result, System
from delf_edge.types import UInt8Array

TIMED_PHOTOS = 12
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
