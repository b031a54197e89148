"""Readers for the public ground-truth files, in the form in which their users have them.

| benchmark | files | `read` is given |
|---|---|---|
| ours | `NAME.json` | the file |
| Oxford5k, Paris6k | `*_query.txt`, `*_good.txt`, `*_ok.txt`, `*_junk.txt` | their folder, and the photos' |
| Revisited Oxford/Paris | `gnd_roxford5k.pkl`, `gnd_rparis6k.pkl` | the file, and the photos' folder |
| Google Landmarks retrieval | `index.csv`, `retrieval_solution*.csv` | both, and the photos' folder |
| Google Landmarks recognition | `train.csv`, `recognition_solution*.csv` | both, and the photos' folder |

Photos are the user's: names are looked up in the folder and its subfolders, in any of the common formats.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.data.datasets import (
    LANDMARKS,
    OXFORD,
    PLAIN,
    REVISITED,
    Dataset,
    DatasetError,
    Query,
    Setting,
    read_json,
)
from benchmarks.data.safe_pickle import UnsafePickleError, loads

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".JPG", ".JPEG", ".PNG")


class Photos:
    """The photos under a folder, by file name without suffix."""

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise DatasetError(f"{folder}: no such folder of photos; name it with --images")
        self.folder = folder
        self._names: dict[str, str] = {}
        for path in sorted(folder.rglob("*")):
            if path.suffix in SUFFIXES:
                self._names.setdefault(path.stem, path.relative_to(folder).as_posix())

    def __iter__(self) -> Iterator[str]:
        return iter(self._names.values())

    def __contains__(self, stem: str) -> bool:
        return Path(stem).stem in self._names or stem in self._names

    def name(self, stem: str, source: Path) -> str:
        """Name of a photo, relative to the folder.

        Raises:
            DatasetError: it is not there.
        """
        found = self._names.get(stem) or self._names.get(Path(stem).name) or self._names.get(Path(stem).stem)
        if found is None:
            raise DatasetError(f"{source} names the photo {stem!r}, which is not in {self.folder}")
        return found


def read_oxford(folder: Path, images: Path) -> Dataset:
    """Oxford5k or Paris6k: `all_souls_1_query.txt` and its `_good`, `_ok`, `_junk` lists.

    The database is every photo in `images`, the queries included, as the protocol has it. Graded photos that are not
    there are an error, so that figures of an incomplete copy are never taken for the benchmark's.

    Raises:
        DatasetError: a file or a photo is missing or malformed.
    """
    photos = Photos(images)
    database = tuple(sorted(photos))
    index = {n: i for i, n in enumerate(database)}
    queries = []
    for path in sorted(folder.glob("*_query.txt")):
        words = path.read_text(encoding="ascii").split()
        if len(words) != 5:
            raise DatasetError(f"{path}: expected a photo and four numbers, found {len(words)} words")
        stem = path.name.removesuffix("_query.txt")
        try:
            left, top, right, bottom = (float(w) for w in words[1:])
        except ValueError as e:
            raise DatasetError(f"{path}: {e}") from e
        grades = {}
        for grade in ("good", "ok", "junk"):
            listed = folder / f"{stem}_{grade}.txt"
            if not listed.is_file():
                raise DatasetError(f"{listed} is missing; every query needs its good, ok and junk list")
            grades[grade] = _indices(
                (photos.name(w, listed) for w in listed.read_text(encoding="ascii").split()), index
            )
        name = photos.name(words[0].removeprefix("oxc1_"), path)
        queries.append(Query(name, grades, stem.rpartition("_")[0], (left, top, right, bottom)))
    if not queries:
        raise DatasetError(f"{folder}: no *_query.txt; is this the ground-truth folder?")
    return _with_places(Dataset(folder.name, images, database, tuple(queries), OXFORD))


def read_revisited(path: Path, images: Path) -> Dataset:
    """Revisited Oxford or Paris: `gnd_roxford5k.pkl`. Also the same authors' `gnd_oxford5k.pkl` (ok, junk).

    The pickle is read by `safe_pickle`, which runs nothing in it.

    Raises:
        DatasetError: the file is not such a ground truth, or a photo is missing.
    """
    try:
        raw: Any = loads(path.read_bytes())
        photos = Photos(images)
        database = tuple(photos.name(str(n), path) for n in raw["imlist"])
        revisited = "easy" in raw["gnd"][0]
        grade_names = ("easy", "hard", "junk") if revisited else ("ok", "junk")
        queries = []
        for name, entry in zip(raw["qimlist"], raw["gnd"], strict=True):
            grades = {g: tuple(sorted({int(i) for i in np.ravel(entry.get(g, []))})) for g in grade_names}
            left, top, right, bottom = (float(v) for v in np.ravel(entry["bbx"]))
            queries.append(Query(photos.name(str(name), path), grades, box=(left, top, right, bottom)))
    except UnsafePickleError as e:
        raise DatasetError(f"{path}: {e}") from e
    except (KeyError, TypeError, IndexError, ValueError, AttributeError) as e:
        if isinstance(e, DatasetError):
            raise
        raise DatasetError(f"{path}: not a revisited ground truth ({e!r}); expected gnd, imlist and qimlist") from e
    settings = REVISITED if revisited else (Setting("map", ("ok",), ("junk",)),)
    return Dataset(path.stem, images, database, tuple(queries), settings)


def read_landmarks(solution: Path, index: Path, images: Path) -> Dataset:
    """Google Landmarks, retrieval or recognition; which one, the solution's header says.

    Queries whose Usage is "Ignored" are left out. In recognition a query without landmarks stays: it shows none of
    the database, and GAP punishes a confident answer to it.

    Args:
        solution: `id,images[,Usage]` (retrieval) or `id,landmarks[,Usage]` (recognition).
        index: the database: `id[,url][,landmark_id]`.
        images: folder of the photos, flat or `a/b/c/abc....jpg`.

    Raises:
        DatasetError: a column or a photo is missing.
    """
    photos = Photos(images)
    rows = _rows(index, "id")
    ids = [r["id"] for r in rows]
    database = tuple(photos.name(i, index) for i in ids)
    places = tuple(r.get("landmark_id") or None for r in rows)
    number = {name: i for i, name in enumerate(ids)}
    members: dict[str, list[int]] = {}
    for i, place in enumerate(places):
        if place is not None:
            members.setdefault(place, []).append(i)
    wanted = _rows(solution, "id")
    recognition = bool(wanted) and "landmarks" in wanted[0]
    if wanted and not recognition and "images" not in wanted[0]:
        raise DatasetError(f"{solution}: neither a column 'images' nor 'landmarks'")
    if recognition and not members:
        raise DatasetError(f"{index}: recognition needs a column landmark_id (use train.csv)")
    queries = []
    for row in wanted:
        if row.get("Usage", "") == "Ignored":
            continue
        listed = row["landmarks" if recognition else "images"].split()
        if recognition:
            good = sorted({i for landmark in listed for i in members.get(landmark, [])})
        else:
            unknown = [i for i in listed if i not in number]
            if unknown:
                raise DatasetError(f"{solution}: query {row['id']}: {unknown[0]} is not in {index}")
            good = sorted({number[i] for i in listed})
        place = listed[0] if recognition and good else None
        queries.append(Query(photos.name(row["id"], solution), {"positive": tuple(good)}, place))
    settings = PLAIN if recognition else LANDMARKS
    return Dataset(solution.stem, images, database, tuple(queries), settings, places)


def read(source: Path, images: Path | None = None, index: Path | None = None) -> Dataset:
    """Any of the above, told apart by what `source` is.

    Raises:
        DatasetError: no such form, or a needed folder or file was not named.
    """
    if not source.exists():
        raise DatasetError(f"{source}: no such file or folder")
    if source.suffix == ".json":
        return read_json(source)
    if images is None:
        raise DatasetError(f"{source}: where are the photos? name their folder with --images")
    if source.is_dir():
        return read_oxford(source, images)
    if source.suffix == ".pkl":
        return read_revisited(source, images)
    if source.suffix == ".csv":
        if index is None:
            raise DatasetError(f"{source}: name the database's CSV with --index")
        return read_landmarks(source, index, images)
    raise DatasetError(f"{source}: expected .json, .pkl, .csv or a folder of *_query.txt")


def with_distractors(dataset: Dataset, folder: Path) -> Dataset:
    """The dataset with every photo of `folder` added to the database (Oxf105k, R1M); they show none of its places."""
    more = tuple(str((folder / n).absolute()) for n in sorted(Photos(folder)))
    return Dataset(
        f"{dataset.name}+{len(more)}",
        dataset.root,
        dataset.database + more,
        dataset.queries,
        dataset.settings,
        dataset.places + (None,) * len(more),
        dataset.kappas,
    )


def _rows(path: Path, column: str) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as f:
        reader = csv.DictReader(f)
        if column not in (reader.fieldnames or ()):
            raise DatasetError(f"{path}: no column {column!r}; its header is {reader.fieldnames}")
        return [{k: (v or "") for k, v in row.items() if k is not None} for row in reader]


def _indices(names: Iterator[str], index: dict[str, int]) -> tuple[int, ...]:
    return tuple(sorted({index[n] for n in names}))


def _with_places(dataset: Dataset) -> Dataset:
    places: list[str | None] = [None] * len(dataset.database)
    for q in dataset.queries:
        for i in q.graded("good", "ok"):
            places[i] = q.place
    return Dataset(
        dataset.name, dataset.root, dataset.database, dataset.queries, dataset.settings, tuple(places), dataset.kappas
    )
