"""What a benchmark asks: a database of photos, queries, and which photos answer which query.

One type serves every protocol. A query grades database photos under names ("good", "easy", "junk"), and a `Setting`
says which grades count as positive and which are removed before a ranking is scored, so Oxford/Paris, its revisited
form and our JSON form differ by their settings alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any


class DatasetError(ValueError):
    """A ground-truth file or an image folder is not what its protocol says."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One way to score a ranking.

    Attributes:
        name: the figure's name, e.g. "map", "easy".
        positive: grades that count as right.
        junk: grades that are removed from a ranking before it is scored.
        depth: the ranking is cut here (mAP@100), None for the whole database.
        trapezoid: area under the precision-recall curve by the trapezoid rule (Oxford); else the mean of the
            precisions at the positives (Google Landmarks).
    """

    name: str
    positive: tuple[str, ...]
    junk: tuple[str, ...] = ()
    depth: int | None = None
    trapezoid: bool = True


PLAIN = (Setting("map", ("positive",), ("junk",)),)
OXFORD = (Setting("map", ("good", "ok"), ("junk",)),)
REVISITED = (
    Setting("easy", ("easy",), ("hard", "junk")),
    Setting("medium", ("easy", "hard"), ("junk",)),
    Setting("hard", ("hard",), ("easy", "junk")),
)
LANDMARKS = (Setting("map@100", ("positive",), (), depth=100, trapezoid=False),)


@dataclass(frozen=True, slots=True)
class Query:
    """One question.

    Attributes:
        name: its photo, relative to the dataset's root.
        grades: grade -> indices of database photos, ascending.
        place: what it shows; None where the protocol does not say, or where it shows no known place.
        box: (left, top, right, bottom) in pixels; the photo is cropped to it before it is asked. None: whole.
    """

    name: str
    grades: Mapping[str, tuple[int, ...]]
    place: str | None = None
    box: tuple[float, float, float, float] | None = None

    def graded(self, *grades: str) -> frozenset[int]:
        """Indices of the database photos that carry one of `grades`."""
        return frozenset(i for g in grades for i in self.grades.get(g, ()))


@dataclass(frozen=True, slots=True)
class Dataset:
    """Queries, database and how rankings are scored.

    Attributes:
        name: for reports.
        root: the folder that names are relative to.
        database: names of the database photos; a photo's index in it is its id everywhere in the lab.
        queries: the questions.
        settings: how a ranking is scored; the first one is the headline.
        places: place of each database photo, None where unknown (a distractor).
        kappas: cut-offs of the precision-at-k figures.
    """

    name: str
    root: Path
    database: tuple[str, ...]
    queries: tuple[Query, ...]
    settings: tuple[Setting, ...] = PLAIN
    places: tuple[str | None, ...] = field(default=())
    kappas: tuple[int, ...] = (1, 5, 10)

    def __post_init__(self) -> None:
        if not self.places:
            object.__setattr__(self, "places", (None,) * len(self.database))
        if len(self.places) != len(self.database):
            raise DatasetError(f"{self.name}: {len(self.database)} photos but {len(self.places)} places")
        n = len(self.database)
        for q in self.queries:
            for grade, indices in q.grades.items():
                if any(not 0 <= i < n for i in indices):
                    raise DatasetError(f"{self.name}: query {q.name}: a {grade} index is outside the {n} photos")

    def path(self, name: str) -> Path:
        """Where a photo lies."""
        return self.root / name

    def missing(self) -> list[str]:
        """Names of photos, of the database or of queries, that are not on disk."""
        return [
            n for n in dict.fromkeys((*self.database, *(q.name for q in self.queries))) if not self.path(n).is_file()
        ]

    def head(self, n_queries: int, n_database: int) -> Dataset:
        """A small part for a quick look: the first queries, what they are graded with, and other photos."""
        queries = self.queries[:n_queries]
        wanted = sorted({i for q in queries for g in q.grades.values() for i in g})
        rest = [i for i in range(len(self.database)) if i not in set(wanted)]
        step = max(1, len(rest) // max(1, n_database - len(wanted)))
        return self.subset(sorted(wanted + rest[::step][: max(0, n_database - len(wanted))]), queries)

    def subset(self, keep: Sequence[int], queries: Sequence[Query] | None = None) -> Dataset:
        """The same questions over the database photos `keep` only; grades are renumbered."""
        new = {old: i for i, old in enumerate(keep)}
        asked = self.queries if queries is None else queries
        return replace(
            self,
            database=tuple(self.database[i] for i in keep),
            places=tuple(self.places[i] for i in keep),
            queries=tuple(
                replace(q, grades={g: tuple(new[i] for i in v if i in new) for g, v in q.grades.items()}) for q in asked
            ),
        )


def read_json(path: Path) -> Dataset:
    """Our simple form: `{"queries": [{"query", "positives", "junk"?, "place"?}], "database": [...]}`.

    Names are relative to the file's folder. A query that is also in the database counts as its own junk, as in
    Oxford. A database photo has the place of the queries it is a positive of; all others have none.

    Raises:
        DatasetError: not of this form, or a positive is not in the database.
    """
    try:
        raw: Any = json.loads(path.read_text(encoding="utf-8"))
        database = tuple(str(n) for n in raw["database"])
        entries = [
            (str(e["query"]), [str(p) for p in e["positives"]], [str(p) for p in e.get("junk", ())], e.get("place"))
            for e in raw["queries"]
        ]
    except (KeyError, TypeError, AttributeError, json.JSONDecodeError, UnicodeDecodeError) as e:
        raise DatasetError(f"{path}: not a benchmark file ({e!r}); expected queries, positives and database") from e
    index = {n: i for i, n in enumerate(database)}
    if len(index) != len(database):
        raise DatasetError(f"{path}: the database names a photo twice")
    places: list[str | None] = [None] * len(database)
    queries = []
    for name, positives, junk, place in entries:
        unknown = [p for p in (*positives, *junk) if p not in index]
        if unknown:
            raise DatasetError(f"{path}: query {name}: {unknown[0]} is not in the database")
        removed = {index[p] for p in junk} | ({index[name]} if name in index else set())
        good = {index[p] for p in positives} - removed
        queries.append(
            Query(
                name,
                {"positive": tuple(sorted(good)), "junk": tuple(sorted(removed))},
                None if place is None else str(place),
            )
        )
        for i in good:
            places[i] = places[i] or (None if place is None else str(place))
    return Dataset(path.stem, path.parent, database, tuple(queries), PLAIN, tuple(places))
