"""The row `delf-edge`: the installed SDK itself, asked as an application asks it.

A database file is filled with `Recognizer.add_many`, and every query goes through `Recognizer.rank`: quantised network,
PQ, inverted lists, RANSAC, fused score, calibrated probability. Nothing is taken apart or replaced.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from benchmarks.data.datasets import Dataset, Query
from benchmarks.lab.runner import (
    TIMED_PHOTOS,
    Progress,
    Run,
    Timer,
    load,
    peak_mb,
    same_place,
    silent,
    time_extraction,
    timed_photos,
)
from benchmarks.systems.base import Result
from delf_edge.bundle.bundle import Bundle
from delf_edge.bundle.calibration import Calibration
from delf_edge.ingestion import AddItem
from delf_edge.query.options import RANKING
from delf_edge.recognizer import Recognizer
from delf_edge.types import Features, Match

UNPROVEN = 1e-3  # an answer that the SDK would not give for want of inliers ranks below every proven one


@dataclass(frozen=True, slots=True, eq=False)
class RuntimeRun:
    """The answers of the SDK.

    Attributes:
        run: what every system gives.
        threshold: the bundle's threshold of the probability.
        bundle: id of the bundle.
        preset: name of the extraction preset.
        stages_ms: median milliseconds of each stage of `identify`.
    """

    run: Run
    threshold: float
    bundle: str
    preset: str
    stages_ms: dict[str, float]


def label(dataset: Dataset, i: int) -> str:
    """Landmark of a database photo: its place, or for a distractor a landmark of its own."""
    place = dataset.places[i]
    return f"photo {dataset.database[i]}" if place is None else place


def fill(recognizer: Recognizer, dataset: Dataset, progress: Progress = silent) -> None:
    """Add the database's photos; those that are in already are skipped by the SDK itself."""
    items = (AddItem(dataset.path(n), label(dataset, i), name=n) for i, n in enumerate(dataset.database))
    for i, _ in enumerate(recognizer.add_many(items)):
        progress("delf-edge: add", i + 1, len(dataset.database))


def ranked(
    recognizer: Recognizer, features: Features, index: dict[str, int], n: int, without: frozenset[str] = frozenset()
) -> Result:
    """All photos as `Recognizer.rank` orders them; those it leaves out, and those of `without`, have no score."""
    options = replace(RANKING, without=without)
    matches: Sequence[Match] = recognizer.rank(features, max(1, n), options=options)
    scores, similarity = np.full(n, -np.inf), np.full(n, -np.inf)
    inliers = np.zeros(n, np.int64)
    for m in matches:
        i = index[m.name]
        scores[i], similarity[i], inliers[i] = m.score, m.similarity, m.n_inliers
    candidates = np.full(n, -np.inf)
    for m in recognizer.rank(features, max(1, n), options=replace(options, verify=0)):
        candidates[index[m.name]] = m.score
    confidence, evidence = 0.0, {}
    if matches:
        best = matches[0]
        confidence = best.probability * (1.0 if best.n_inliers >= options.min_inliers else UNPROVEN)
        evidence = {"probability": best.probability, "inliers": float(best.n_inliers), "similarity": best.similarity}
    return Result(scores, confidence, {"candidates": candidates, "global": similarity}, inliers, evidence)


def database_file(dataset: Dataset, bundle: Bundle, preset: str, folder: Path) -> Path:
    """Where the row's database lies; one for each content."""
    names = hashlib.sha256("\n".join(dataset.database).encode()).hexdigest()[:8]
    return folder / f"{dataset.name}-{names}-{bundle.id}-{preset}.db"


def prepare_runtime(
    dataset: Dataset, bundle: Bundle, preset: str | None, folder: Path, progress: Progress = silent
) -> None:
    """Fill the database file; what is in it already is not extracted again."""
    folder.mkdir(parents=True, exist_ok=True)
    file = database_file(dataset, bundle, preset or bundle.manifest.default_preset, folder)
    with Recognizer.open(file, bundle=bundle, preset=preset) as recognizer:
        fill(recognizer, dataset, progress)


def run_runtime(
    dataset: Dataset, bundle: Bundle, preset: str | None, folder: Path, progress: Progress = silent
) -> RuntimeRun:
    """Fill a database file under `folder` (kept, so that a stopped run goes on), and ask every query twice.

    A stranger is asked with its place ruled out by `IdentifyOptions.without`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    used = preset or bundle.manifest.default_preset
    file = database_file(dataset, bundle, used, folder)
    index = {n: i for i, n in enumerate(dataset.database)}
    n = len(index)
    with Recognizer.open(file, bundle=bundle, preset=preset) as recognizer:
        fill(recognizer, dataset, progress)
        extract_ms = time_extraction(lambda p: recognizer.extract(p, channel_order="RGB"), timed_photos(dataset))
        asked = [_ask(recognizer, dataset, q) for q in dataset.queries]
        known, strangers, timer = [], [], Timer()
        for i, (q, features) in enumerate(zip(dataset.queries, asked, strict=True)):
            without = frozenset(label(dataset, int(k)) for k in np.flatnonzero(same_place(dataset, q)))
            known.append(ranked(recognizer, features, index, n))
            strangers.append(ranked(recognizer, features, index, n, without))
            timer(lambda f=features: recognizer.rank(f, 10))  # type: ignore[misc]
            progress("delf-edge: search", i + 1, len(asked))
        stages = _stages_ms(recognizer, dataset)
        rss = peak_mb()
        with tempfile.TemporaryDirectory(dir=folder) as scratch:  # one compact file: what a device would be given
            size = recognizer.snapshot(Path(scratch) / "copy.db").stat().st_size / max(1, n)
    threshold = Calibration.from_mapping(bundle.calibration).threshold
    done = Run(known, strangers, extract_ms, timer.done, size, rss)
    return RuntimeRun(done, threshold, bundle.id, used, stages)


def _ask(recognizer: Recognizer, dataset: Dataset, query: Query) -> Features:
    path = dataset.path(query.name)
    return (
        recognizer.extract(path)
        if query.box is None
        else recognizer.extract(load(path, query.box), channel_order="RGB")
    )


def _stages_ms(recognizer: Recognizer, dataset: Dataset) -> dict[str, float]:
    answers = [recognizer.identify(dataset.path(q.name)) for q in dataset.queries[:TIMED_PHOTOS] if q.box is None]
    names = dict.fromkeys(stage for a in answers for stage in a.milliseconds)
    return {s: float(np.median([a.milliseconds.get(s, 0.0) for a in answers])) for s in names}
