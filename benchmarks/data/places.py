"""Places that a network may be judged on: photos by place, in folds, and photos that nobody asks for.

Training places are taken from `train_more.csv` (split "train") and from the places that the default recipe holds out of
`train.csv`. Left out are places that other parts of the training photos show as well (`same_as`), since a network that
was trained on those knows them. Two names of one place are one place here.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.data.datasets import DatasetError, read_json
from benchmarks.data.trainset import FILLER, SAME_PLACE

HELD_OUT = (
    "porto/camara",
    "sfm/british_museum",
    "sfm/nle_tower",
    "sfm/sceaux_castle",
    "vietnam/hochiminh_mausoleum",
    "wonders7/petra",
)
SAME = {  # they show the same rock, wall or court; the Qutb complex is in each other's background
    "more/yh_grandcanyon2": "more/yh_grandcanyon1",
    "more/pair_fu_leuven2": "more/pair_fu_leuven1",
    "more/pair_fu_napierb": "more/pair_fu_napiera",
    "more/pair_fu_elderhallb": "more/pair_fu_elderhalla",
    "more/iron_pillar_qutb": "more/qutub_minar",
    "more/alai_darwaza": "more/qutub_minar",
    "more/alai_minar": "more/qutub_minar",
}
WRONG = {"train_more/gateway_of_india/f968cdcb692254.jpg"}  # it shows India Gate
ASKED, STORED = 6, 25  # photos of a place that ask, and that are stored, at most

Photos = tuple[tuple[str, str], ...]


class Places(NamedTuple):
    """Photos to store and photos to ask with.

    Attributes:
        stored: name and place of each photo that may be in a database.
        asked: name and place of each query; every place that is asked for is among `stored`.
    """

    stored: Photos
    asked: Photos

    def by_place(self) -> dict[str, list[str]]:
        """Names of the stored photos of each place."""
        found: dict[str, list[str]] = {}
        for name, place in self.stored:
            found.setdefault(place, []).append(name)
        return found


def _rows(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8") as f:
            return list(csv.DictReader(f))
    except OSError as e:
        raise DatasetError(f"{path} cannot be read: {e}; name the folder of the training photos") from e


def training_places(data: Path) -> dict[str, list[str]]:
    """Photos of each place that may be left out, by place.

    Raises:
        DatasetError: `data` has no `train.csv` or `train_more.csv`.
    """
    found: dict[str, list[str]] = {}
    for row in _rows(data / "train_more.csv"):
        if row["split"] == "train" and not row["same_as"] and row["path"] not in WRONG:
            found.setdefault(SAME.get(row["place"], row["place"]), []).append(row["path"])
    for row in _rows(data / "train.csv"):
        if row["place"].startswith(HELD_OUT):
            found.setdefault(row["place"], []).append(row["path"])
    return found


def filler(data: Path, n: int = 300, seed: int = 1) -> Photos:
    """Photos with their places that nobody asks for: pans and the floors of a tower."""
    rows = [(r["path"], SAME_PLACE.get(r["place"], r["place"])) for r in _rows(data / "train.csv")]
    rows = [row for row in rows if row[1].startswith(FILLER)]
    return tuple(rows[i] for i in np.random.default_rng(seed).permutation(len(rows))[:n])


def split(photos: Mapping[str, Sequence[str]], seed: int = 1) -> Places:
    """Which photos of each place ask and which are stored; at most half of them ask, and of fewer than four, one."""
    rng, stored, asked = np.random.default_rng(seed), [], []
    for place in sorted(photos):
        names = [photos[place][i] for i in rng.permutation(len(photos[place]))]
        n = min(ASKED, len(names) // 2) if len(names) >= 4 else 1
        asked += [(name, place) for name in names[:n]]
        stored += [(name, place) for name in names[n : n + STORED]]
    return Places(tuple(stored), tuple(asked))


def folds(photos: Mapping[str, Sequence[str]], k: int = 5, seed: int = 1) -> list[list[str]]:
    """Places in k folds with as many photos in each as can be."""
    rng = np.random.default_rng(seed)
    order = sorted(photos, key=lambda place: (-min(len(photos[place]), ASKED + STORED), place))
    out: list[list[str]] = [[] for _ in range(k)]
    for i in range(0, len(order), k):
        for fold, place in zip(rng.permutation(k), order[i : i + k], strict=False):
            out[int(fold)].append(place)
    return out


def read_places(path: Path) -> Places:
    """A benchmark of our JSON form; a photo of no place is a place of its own, as the SDK's row stores it."""
    dataset = read_json(path)
    stored = tuple((n, p or f"photo {n}") for n, p in zip(dataset.database, dataset.places, strict=True))
    return Places(stored, tuple((q.name, str(q.place)) for q in dataset.queries))
