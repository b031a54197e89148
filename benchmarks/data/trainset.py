"""A retrieval set made of the training photos: what fits, thresholds and weights are chosen on, never DEV.

Places with at least four views: some views ask, the others are the database. Panorama pieces and the floors of one
office tower are filler: their places need not overlap, or look alike by design, so they would teach the wrong lesson.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from benchmarks.data.datasets import PLAIN, Dataset, DatasetError, Query

T = TypeVar("T")
FILLER = ("stitching/", "indoor_ie_tower/")
SAME_PLACE = {"sfm/ettlingen_fountain": "sfm/ettlingen_castle"}  # the fountain stands in the castle's court


def training_dataset(
    data: Path,
    *,
    queries_per_place: int = 6,
    views_per_place: int = 20,
    filler: int = 300,
    seed: int = 1,
    only: tuple[str, ...] = (),
    strangers: int = 0,
) -> Dataset:
    """Queries, positives and database from `data/train.csv`.

    Args:
        data: the folder of train.csv.
        queries_per_place: at most this many views of a place ask, and at most half of them.
        views_per_place: views of a place that are used at all.
        filler: photos of places that are not asked for, in the database.
        seed: of the choice of views.
        only: starts of the names of places that may be asked for, such as those a network was not trained on; the
            others are filler. Empty: all.
        strangers: queries from those others at most, without positives: asked as photos of an unknown place only.

    Raises:
        DatasetError: train.csv is missing or has other columns.
    """
    path = data / "train.csv"
    try:
        with path.open(newline="", encoding="utf-8") as f:
            rows = [(r["path"], SAME_PLACE.get(r["place"], r["place"])) for r in csv.DictReader(f)]
    except (OSError, KeyError) as e:
        raise DatasetError(f"{path}: not the training list ({e!r}); expected columns path and place") from e
    views: dict[str, list[str]] = {}
    for name, place in rows:
        views.setdefault(place, []).append(name)
    rng = np.random.default_rng(seed)
    database: list[tuple[str, str]] = []
    asked: list[tuple[str, str]] = []
    spare: list[tuple[str, str]] = []
    others: list[list[tuple[str, str]]] = []
    for place, names in sorted(views.items()):
        shuffled = [(names[i], place) for i in rng.permutation(len(names))]
        if place.startswith(FILLER) or len(names) < 4:
            spare += shuffled
        elif only and not place.startswith(only):
            others.append(shuffled)
        else:
            chosen = shuffled[:views_per_place]
            n = min(queries_per_place, len(chosen) // 2)
            asked += chosen[:n]
            database += chosen[n:]
    unknown = take_turns(others, strangers)
    spare += [photo for photos in others for photo in photos if photo not in set(unknown)]
    database += [spare[i] for i in rng.permutation(len(spare))[:filler]]
    positives = {place: tuple(i for i, (_, p) in enumerate(database) if p == place) for _, place in asked}
    queries = [Query(name, {"positive": positives[place]}, place) for name, place in asked]
    queries += [Query(name, {"positive": ()}, place) for name, place in unknown]
    photos, places = tuple(name for name, _ in database), tuple(place for _, place in database)
    return Dataset("train", data, photos, tuple(queries), PLAIN, places)


def take_turns(lists: Sequence[Sequence[T]], n: int) -> list[T]:
    """The first of each list, then the second of each, until there are n."""
    turns = range(max(map(len, lists), default=0))
    return [items[turn] for turn in turns for items in lists if turn < len(items)][:n]


def fitting_photos(data: Path, n: int = 600, seed: int = 1) -> list[Path]:
    """Photos of train/ that codebooks and whitenings of the peers are fitted on, spread evenly over places."""
    with (data / "train.csv").open(newline="", encoding="utf-8") as f:
        rows = [(r["path"], r["place"]) for r in csv.DictReader(f)]
    by_place: dict[str, list[str]] = {}
    for name, place in rows:
        by_place.setdefault(place, []).append(name)
    rng = np.random.default_rng(seed)
    orders = [[names[i] for i in rng.permutation(len(names))] for _, names in sorted(by_place.items())]
    return [data / name for name in take_turns(orders, n)]
