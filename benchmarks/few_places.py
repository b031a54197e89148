"""How databases of few places answer: `python -m benchmarks.few_places DATA`.

The threshold is set on a database of hundreds of photos; on the first day a user has three. Databases of 1 to 30 places
are drawn from the training photos, with 1 to 10 photos of each place. One place of each is among those that the network
was not trained on (`converters/training/default_calibration.json`): its other views are asked for, and views of places
that are not in the database, which should not be named. DEV is not touched.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.calibrate import STRANGERS
from benchmarks.data.datasets import Dataset, DatasetError
from benchmarks.data.trainset import training_dataset
from benchmarks.lab.records import environment
from benchmarks.lab.runner import Progress, silent, to_stderr
from delf_edge import Recognizer
from delf_edge.errors import DelfEdgeError
from delf_edge.images.decode import content_hash
from delf_edge.storage.records import NewImage
from delf_edge.types import Features

RESULT = Path(__file__).parent / "results" / "few_places.json"
HELD_OUT = Path(__file__).parent.parent / "converters" / "training" / "default_calibration.json"
SIZES = (1, 2, 3, 5, 10, 30)
PHOTOS = (1, 2, 3, 5, 10)
KNOWN, UNKNOWN = 4, 10  # questions to one database


class Views:
    """Photos as they are asked for and as they are stored, each made once."""

    def __init__(self, dataset: Dataset, extractor: Recognizer) -> None:
        self._dataset, self._extractor = dataset, extractor
        self._features: dict[str, Features] = {}
        self._images: dict[str, NewImage] = {}

    def __getitem__(self, name: str) -> Features:
        if name not in self._features:
            self._features[name] = self._extractor.extract(self._dataset.path(name))
        return self._features[name]

    def image(self, name: str, place: str) -> NewImage:
        """The photo of a place as it is stored."""
        if name not in self._images:
            codes, digest = self._extractor.encode(self[name]), content_hash(self._dataset.path(name).read_bytes())
            self._images[name] = NewImage(name, place, digest, codes)
        return self._images[name]


def one_database(
    dataset: Dataset, views: Views, held_out: Sequence[str], size: int, rng: np.random.Generator, path: Path
) -> dict[str, int]:
    """Counts of what a database of `size` places answers."""
    by_place: dict[str, list[str]] = {}
    for name, place in zip(dataset.database, dataset.places, strict=True):
        by_place.setdefault(str(place), []).append(name)
    own = str(rng.choice(sorted(p for p in by_place if p.startswith(tuple(held_out)))))
    chosen = [own, *rng.permutation(sorted(by_place.keys() - {own}))[: size - 1].tolist()]
    n_photos = int(rng.choice(PHOTOS))
    known = [q.name for q in dataset.queries if q.place == own]
    unknown = [q.name for q in dataset.queries if q.place not in chosen]
    counts = dict.fromkeys(("known", "first right", "named right", "named wrong", "strangers", "strangers named"), 0)
    with Recognizer.open(path) as recognizer:
        for place in chosen:
            names = rng.permutation(by_place[place])[:n_photos].tolist()
            recognizer.store.add_many(views.image(name, place) for name in names)
        for name in rng.permutation(known)[:KNOWN].tolist():
            answer = recognizer.pipeline.answer(views[name])
            counts["known"] += 1
            counts["first right"] += bool(answer.results) and answer.results[0].landmark == own
            counts["named right"] += answer.landmark == own
            counts["named wrong"] += answer.landmark not in (None, own)
        for name in rng.permutation(unknown)[:UNKNOWN].tolist():
            counts["strangers"] += 1
            counts["strangers named"] += recognizer.pipeline.answer(views[name]).found
    return counts


def measure(data: Path, databases: int, progress: Progress = silent, seed: int = 1) -> dict[str, Any]:
    """Counts for every size, of `databases` databases each."""
    held_out = json.loads(HELD_OUT.read_text())["report"]["places"]
    dataset = training_dataset(
        data, only=tuple(held_out), queries_per_place=20, views_per_place=40, strangers=STRANGERS, seed=seed
    )
    rng = np.random.default_rng(seed)
    rows: dict[str, dict[str, int]] = {}
    with tempfile.TemporaryDirectory() as folder, Recognizer.open(Path(folder) / "views.db") as extractor:
        views = Views(dataset, extractor)
        for size in SIZES:
            for i in range(databases):
                path = Path(folder) / f"{size}-{i}.db"
                for key, n in one_database(dataset, views, held_out, size, rng, path).items():
                    row = rows.setdefault(str(size), {})
                    row[key] = row.get(key, 0) + n
                progress(f"{size} places", i + 1, databases)
        bundle = extractor.bundle.id
    return {"bundle": bundle, "databases of each size": databases, "by places stored": rows}


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns 0, or 2 where the photos are missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of train.csv")
    parser.add_argument("--databases", type=int, default=50, help="of each size; default 50")
    given = parser.parse_args(arguments)
    try:
        result = measure(given.data, given.databases, to_stderr)
    except (DatasetError, DelfEdgeError) as e:
        print(e, file=sys.stderr)
        return 2
    command = f"python -m benchmarks.few_places {given.data} --databases {given.databases}"
    RESULT.write_text(json.dumps({"command": command, "environment": environment(), **result}, indent=1) + "\n")
    print(json.dumps(result, indent=1))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
