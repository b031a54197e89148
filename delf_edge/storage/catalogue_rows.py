"""What is known of landmarks, as rows: looked up by slug, name, landmark and words, and checked as a whole.

A file of schema version 1, which has no catalogue, answers as if it were empty; the slugs of its landmarks are those
that a migration would give them.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterable, Sequence

from delf_edge.storage.full_text import rebuild_words, search_words, words_differ
from delf_edge.storage.records import Problem
from delf_edge.storage.rows import CATALOGUE_TABLES, TABLES, CheckedRows, Row, find_name, has_catalogue
from delf_edge.storage.schema import Value
from delf_edge.storage.slugs import free_slug, slugify
from delf_edge.storage.sqlite import is_corruption

_OF_LANDMARK = {"landmark_texts": "landmark_id", "media": "landmark_id"}


class CatalogueRows:
    """Lookups in the catalogue of one file."""

    def __init__(self, rows: CheckedRows) -> None:
        self._rows = rows
        self._old: tuple[int, dict[int, str]] = (-1, {})  # of a file without slugs: revision, slug by landmark

    def landmark_id(self, *, slug: str | None = None, name: str | None = None) -> int | None:
        """Id of the landmark with this slug or name; None where there is none."""
        with self._rows.file.read() as db:
            if name is not None:
                return find_name(db, "landmarks", name)
            if has_catalogue(db):
                row = db.execute("SELECT landmark_id FROM landmark_details WHERE slug = ?", (slug,)).fetchone()
                return None if row is None else int(row[0])
            return next((key for key, own in self._old_slugs(db).items() if own == slug), None)

    def slugs(self, landmark_ids: Sequence[int]) -> dict[int, str]:
        """Slugs by landmark, without looking at checksums."""
        with self._rows.file.read() as db:
            if not has_catalogue(db):
                old = self._old_slugs(db)
                return {key: old[key] for key in landmark_ids if key in old}
        return {row[0]: row[1] for row in self._rows.many("landmark_details", landmark_ids)}

    def _old_slugs(self, db: sqlite3.Connection) -> dict[int, str]:
        revision = self._rows.revision(db)
        if self._old[0] != revision:
            found: dict[int, str] = {}
            taken: set[str] = set()
            for key, name in db.execute("SELECT id, name FROM landmarks ORDER BY id"):
                found[key] = free_slug(slugify(str(name)), taken)
                taken.add(found[key])
            self._old = (revision, found)
        return self._old[1]

    def of(self, table: str, landmark_ids: Sequence[int]) -> list[Row]:
        """Rows of `landmark_texts` or `media` that belong to these landmarks, ascending; damaged ones are left out."""
        column, keys = _OF_LANDMARK[table], list[Value]()
        with self._rows.file.read() as db:
            if not has_catalogue(db):
                return []
            for i in range(0, len(landmark_ids), 500):
                chunk = landmark_ids[i : i + 500]
                marks = ", ".join("?" * len(chunk))
                found = db.execute(f"SELECT id FROM {table} WHERE {column} IN ({marks}) ORDER BY id", tuple(chunk))
                keys += [key for (key,) in found]
        return list(self._rows.many(table, keys))

    def data(self, media_id: int) -> bytes | None:
        """The bytes of a picture or sound; None where the file does not hold them, or damaged."""
        return next((bytes(row[1]) for row in self._rows.many("media_data", [media_id])), None)

    def n_images(self, landmark_ids: Sequence[int]) -> dict[int, int]:
        """Photos by landmark; those without are left out."""
        found: dict[int, int] = {}
        with self._rows.file.read() as db:
            for i in range(0, len(landmark_ids), 500):
                chunk = tuple(landmark_ids[i : i + 500])
                marks = ", ".join("?" * len(chunk))
                sql = f"SELECT landmark_id, count(*) FROM images WHERE landmark_id IN ({marks}) GROUP BY landmark_id"
                found |= dict(db.execute(sql, chunk))
        return found

    def search(self, query: str, limit: int) -> list[tuple[int, float]]:
        """(id of a landmark, score) of landmarks whose texts hold the words, the best first, each once."""
        with self._rows.file.read() as db:
            if not has_catalogue(db):
                return []
            hits = search_words(db, query, 4 * limit)
            ids = dict(self._landmarks_of(db, [key for key, _ in hits]))
        best: dict[int, float] = {}
        for key, score in hits:
            if key in ids:
                best.setdefault(ids[key], score)
        return list(best.items())[:limit]

    @staticmethod
    def _landmarks_of(db: sqlite3.Connection, text_ids: Sequence[int]) -> Iterable[tuple[int, int]]:
        for i in range(0, len(text_ids), 500):
            chunk = tuple(text_ids[i : i + 500])
            marks = ", ".join("?" * len(chunk))
            yield from db.execute(f"SELECT id, landmark_id FROM landmark_texts WHERE id IN ({marks})", chunk)

    def named(self, part: str, limit: int) -> list[int]:
        """Ids of landmarks whose slug holds `part`, itself in the form of a slug; the shortest slugs first."""
        with self._rows.file.read() as db:
            if not has_catalogue(db):
                found = sorted((len(own), key) for key, own in self._old_slugs(db).items() if part in own)
                return [key for _, key in found[:limit]]
            sql = "SELECT landmark_id FROM landmark_details WHERE instr(slug, ?) ORDER BY length(slug), slug LIMIT ?"
            return [key for (key,) in db.execute(sql, (part, limit))]


def verify_catalogue(rows: CheckedRows) -> list[Problem]:
    """What is wrong with the catalogue beyond checksums of rows, which the caller looks at.

    Bytes that are not those of their hash, bytes of nothing, and other words than the texts'.
    """
    with rows.file.read() as db:
        if not has_catalogue(db):
            return []
    problems = []
    media = {row[0]: row for row in rows.many("media", rows.keys("media"))}
    held = set()
    for key, data in rows.many("media_data", rows.keys("media_data")):
        held.add(key)
        if key not in media and ("media", key) not in rows.damaged:
            problems.append(Problem("media_data", str(key), f"bytes of medium {key!r}, which does not exist"))
        elif key in media and hashlib.sha256(data).digest() != media[key][4]:
            problems.append(Problem("media_data", media[key][2], "its SHA-256 is another than that of its medium"))
    for key, row in media.items():
        if key not in held and row[5] is None and ("media_data", key) not in rows.damaged:
            problems.append(Problem("media", row[2], "has neither bytes nor a path"))
    if not any(table in CATALOGUE_TABLES for table, _ in rows.damaged):
        problems += _verify_words(rows)
    return problems


def _verify_words(rows: CheckedRows) -> list[Problem]:
    with rows.file.read() as db:
        try:
            differ = words_differ(db)
        except sqlite3.DatabaseError as e:
            if not is_corruption(e):
                raise
            differ = True
    what = "the words of the full-text search are not those of the texts; `Store.remove_damaged` makes them anew"
    return [Problem("landmark_texts_fts", "search", what)] if differ else []


def remove_damaged_rows(db: sqlite3.Connection, damaged: Iterable[tuple[str, Value]]) -> None:
    """Remove what is damaged of the catalogue, and bytes and media without each other; the search is made anew."""
    for table, key in damaged:
        if table in CATALOGUE_TABLES:
            db.execute(f"DELETE FROM {table} WHERE {TABLES[table][0]} = ?", (key,))
    db.execute("DELETE FROM media_data WHERE media_id NOT IN (SELECT id FROM media)")
    db.execute("DELETE FROM media WHERE path IS NULL AND id NOT IN (SELECT media_id FROM media_data)")
    rebuild_words(db)
