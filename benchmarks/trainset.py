"""A retrieval set made of the training photos: what fits, thresholds and weights are chosen on, never DEV.

Places with at least four views: some views ask, the others are the database. Panorama pieces and the floors of one
office tower are filler: their places need not overlap, or look alike by design, so they would teach the wrong lesson.
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from benchmarks.datasets import PLAIN, Dataset, DatasetError, Query

FILLER = ("stitching/", "indoor_ie_tower/")


def training_dataset(
    data: Path,
    *,
    queries_per_place: int = 6,
    views_per_place: int = 20,
    filler: int = 300,
    seed: int = 1,
    only: tuple[str, ...] = (),
) -> Dataset:
    """Queries, positives and database from `data/train.csv`.

    Args:
        data: the folder of train.csv.
        queries_per_place: at most this many views of a place ask, and at most half of them.
        views_per_place: views of a place that are used at all.
        filler: photos without a place in the database.
        seed: of the choice of views.
        only: starts of the names of places that may be asked for, such as those a network was not trained on; the
            others are filler. Empty: all.

    Raises:
        DatasetError: train.csv is missing or has other columns.
    """
    path = data / "train.csv"
    try:
        with path.open(newline="", encoding="utf-8") as f:
            rows = [(r["path"], r["place"]) for r in csv.DictReader(f)]
    except (OSError, KeyError) as e:
        raise DatasetError(f"{path}: not the training list ({e!r}); expected columns path and place") from e
    views: dict[str, list[str]] = {}
    for name, place in rows:
        views.setdefault(place, []).append(name)
    rng = np.random.default_rng(seed)
    database: list[str] = []
    places: list[str | None] = []
    asked: list[tuple[str, str]] = []
    spare: list[str] = []
    for place, names in sorted(views.items()):
        if place.startswith(FILLER) or len(names) < 4 or (only and not place.startswith(only)):
            spare += names
            continue
        chosen = [names[i] for i in rng.permutation(len(names))[:views_per_place]]
        n = min(queries_per_place, len(chosen) // 2)
        asked += [(name, place) for name in chosen[:n]]
        database += chosen[n:]
        places += [place] * len(chosen[n:])
    spare = [spare[i] for i in rng.permutation(len(spare))[:filler]]
    database += spare
    places += [None] * len(spare)
    queries = tuple(
        Query(name, {"positive": tuple(i for i, p in enumerate(places) if p == place)}, place) for name, place in asked
    )
    return Dataset("train", data, tuple(database), queries, PLAIN, tuple(places))


def fitting_photos(data: Path, n: int = 600, seed: int = 1) -> list[Path]:
    """Photos of train/ that codebooks and whitenings of the peers are fitted on, spread evenly over places."""
    with (data / "train.csv").open(newline="", encoding="utf-8") as f:
        rows = [(r["path"], r["place"]) for r in csv.DictReader(f)]
    by_place: dict[str, list[str]] = {}
    for name, place in rows:
        by_place.setdefault(place, []).append(name)
    rng = np.random.default_rng(seed)
    orders = [[names[i] for i in rng.permutation(len(names))] for _, names in sorted(by_place.items())]
    out: list[str] = []
    for turn in range(max(map(len, orders), default=0)):
        out += [names[turn] for names in orders if turn < len(names)]
    return [data / name for name in out[:n]]
