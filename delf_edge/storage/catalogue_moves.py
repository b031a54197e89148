"""What is known of two landmarks becomes what is known of one, inside a write transaction."""

from __future__ import annotations

import json
import sqlite3
from typing import Literal

from delf_edge.errors import OptionError
from delf_edge.files import dump_metadata
from delf_edge.storage.rows import CheckedRows, Row, delete_rows, put_row

Prefer = Literal["old", "new"]


def move_catalogue(
    db: sqlite3.Connection, rows: CheckedRows, old: int, new: int, revision: int, prefer: Prefer | None
) -> None:
    """Give landmark `new` the texts, media, ids, kind and collection of `old`; what `old` was known by goes.

    Args:
        db: the connection, inside the transaction.
        rows: of the same file.
        old: id of the landmark that ceases to be; its row stays for the caller to delete.
        new: id of the other one. Its slug stays.
        revision: number of the transaction.
        prefer: whose text counts where both have one in a language and the two differ; None: that is an error.

    Raises:
        OptionError: both have a text in one language, and `prefer` does not say which one stays.
        CorruptRowError: a row that would be moved is damaged.
    """
    names = _move_media(db, rows, old, new, revision)
    _move_texts(db, rows, old, new, revision, prefer, names)
    _merge_details(db, rows, old, new, revision)


def _rows_of(db: sqlite3.Connection, rows: CheckedRows, table: str, landmark_id: int) -> list[Row]:
    keys = db.execute(f"SELECT id FROM {table} WHERE landmark_id = ? ORDER BY id", (landmark_id,)).fetchall()
    return [rows.one(db, table, key) for (key,) in keys]


def _move_media(db: sqlite3.Connection, rows: CheckedRows, old: int, new: int, revision: int) -> dict[str, str]:
    """Move pictures and sounds; one that both have stays once. Returns old names -> new ones, where they differ."""
    taken = {row[2]: row for row in _rows_of(db, rows, "media", new)}
    renamed: dict[str, str] = {}
    for key, _, name, kind, sha256, path, credit, _ in _rows_of(db, rows, "media", old):
        same = next((own[2] for own in taken.values() if own[4] == sha256), None)
        if same is not None:
            renamed[name] = same
            delete_rows(db, "media_data", [key])
            delete_rows(db, "media", [key])
            continue
        free, number = name, 2
        stem, dot, suffix = name.rpartition(".")
        while free in taken:
            free, number = f"{stem or suffix}-{number}{dot}{suffix if stem else ''}", number + 1
        if free != name:
            renamed[name] = free
        row = (key, new, free, kind, sha256, path, credit, revision)
        put_row(db, "media", row)
        taken[free] = row
    return renamed


def _move_texts(
    db: sqlite3.Connection,
    rows: CheckedRows,
    old: int,
    new: int,
    revision: int,
    prefer: Prefer | None,
    names: dict[str, str],
) -> None:
    kept = {row[2]: row for row in _rows_of(db, rows, "landmark_texts", new)}
    for row in _rows_of(db, rows, "landmark_texts", old):
        key, _, language, title, summary, body, audio, link, _ = row
        said = (title, summary, body, names.get(audio, audio), link)
        if language in kept:
            if kept[language][3:8] != said and prefer is None:
                raise OptionError(
                    f"both have a text in {language!r}; say whose stays with --prefer old or --prefer new"
                )
            delete_rows(db, "landmark_texts", [key])
            if prefer == "old":
                put_row(db, "landmark_texts", (kept[language][0], new, language, *said, revision))
        else:
            put_row(db, "landmark_texts", (key, new, language, *said, revision))


def _merge_details(db: sqlite3.Connection, rows: CheckedRows, old: int, new: int, revision: int) -> None:
    found = {}
    for landmark_id in (old, new):
        if db.execute("SELECT 1 FROM landmark_details WHERE landmark_id = ?", (landmark_id,)).fetchone():
            found[landmark_id] = rows.one(db, "landmark_details", landmark_id)
    if old in found and new in found:
        _, slug, kind, collection, ids, _ = found[new]
        merged = {**json.loads(found[old][4]), **json.loads(ids)}
        row = (new, slug, kind or found[old][2], collection or found[old][3], dump_metadata(merged), revision)
        put_row(db, "landmark_details", row)
    delete_rows(db, "landmark_details", [old])
