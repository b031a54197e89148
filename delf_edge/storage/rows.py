"""The rows of a database (its tables: `schema.py`), each with a checksum that is written and checked here."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from delf_edge.errors import CorruptRowError, NotADatabaseError, NotFoundError
from delf_edge.quantization.packed_codes import CodeLayout, packed_size, unpack_codes
from delf_edge.storage.full_text import forget_words, words_follow
from delf_edge.storage.names import REMOVED, same_names
from delf_edge.storage.schema import Value, pragma_value, row_crc32
from delf_edge.storage.sqlite import SharedConnection, is_corruption
from delf_edge.types import Codes

Row = tuple[Any, ...]
TABLES: MappingProxyType[str, tuple[str, ...]] = MappingProxyType(
    {  # the first column is the key; `crc32` follows the last
        "meta": ("key", "value"),
        "landmarks": ("id", "name", "metadata", "latitude", "longitude", "revision"),
        "images": ("id", "name", "landmark_id", "metadata", "width", "height", "content_hash", "added_at", "revision"),
        "codes": ("image_id", "n", "blob"),
        "thumbnails": ("image_id", "jpeg"),
        "tombstones": ("image_id", "content_hash", "revision"),
        "landmark_details": ("landmark_id", "slug", "kind", "collection", "external_ids", "revision"),
        "landmark_texts": (
            "id",
            "landmark_id",
            "language",
            "title",
            "summary",
            "body",
            "audio",
            "link",
            "revision",
        ),
        "media": ("id", "landmark_id", "name", "type", "sha256", "path", "credit", "revision"),
        "media_data": ("media_id", "data"),
    }
)
CATALOGUE_TABLES = ("landmark_details", "landmark_texts", "media", "media_data")  # since schema version 2
_TEXT = str | None
_KINDS = {
    "images": (int, str, int, str, int, int, bytes, float, int),
    "landmarks": (int, str, str, float | None, float | None),
    "landmark_details": (int, str, _TEXT, _TEXT, str, int),
    "landmark_texts": (int, int, str, _TEXT, _TEXT, _TEXT, _TEXT, _TEXT, int),
    "media": (int, int, str, str, bytes, _TEXT, _TEXT, int),
    "media_data": (int, bytes),
}
_JSON_COLUMN = {"images": "metadata", "landmarks": "metadata", "landmark_details": "external_ids"}
_NUMBERED = {"landmarks": "landmarks", "landmark_details": "landmarks", "landmark_texts": "landmark_texts"}
_NUMBERED |= {"media": "media", "media_data": "media"}  # whose ids a table has; all others: those of images
_MAX_KEYS = 10_000_000  # ids tried one by one where a table cannot be read


def chunks(keys: Sequence[Value], size: int = 500) -> Iterator[Sequence[Value]]:
    """Keys in parts, as many as are read at a time."""
    for i in range(0, len(keys), size):
        yield keys[i : i + size]


def with_checksum(table: str, values: Sequence[Value]) -> dict[str, Value]:
    """A row by column, as sqlite-utils takes it."""
    return dict(zip((*TABLES[table], "crc32"), (*values, row_crc32(table, values)), strict=True))


def put_row(db: sqlite3.Connection, table: str, values: Sequence[Value]) -> None:
    """Insert or update a row with its checksum; of a landmark's text, its words too."""
    put_rows(db, table, [values])


def put_rows(db: sqlite3.Connection, table: str, rows: Iterable[Sequence[Value]]) -> None:
    """As `put_row`, for many rows of one table."""
    if table == "landmark_texts":
        rows = list(rows)
        with words_follow(db, [values[0] for values in rows]):
            for values in rows:
                _upsert(db, table, values)
    else:
        for values in rows:
            _upsert(db, table, values)


def _upsert(db: sqlite3.Connection, table: str, values: Sequence[Value]) -> None:
    columns = TABLES[table]
    changed = ", ".join(f"{c} = excluded.{c}" for c in (*columns[1:], "crc32"))
    db.execute(
        f"INSERT INTO {table} ({', '.join(columns)}, crc32) VALUES ({', '.join('?' * (len(columns) + 1))}) "
        f"ON CONFLICT ({columns[0]}) DO UPDATE SET {changed}",
        (*values, row_crc32(table, values)),
    )


def read_meta(db: sqlite3.Connection, path: Path) -> dict[str, str]:
    """The table meta without the photos that were removed; `CorruptRowError` where a row of it is damaged."""
    rows = db.execute(f"SELECT key, value, crc32 FROM meta WHERE key < '{REMOVED}' OR key >= '{REMOVED}~'").fetchall()
    for row in rows:
        if row_crc32("meta", row[:-1]) != row[-1]:
            raise CorruptRowError(f"{path}: meta {row[0]!r} is damaged; restore the file from a copy")
    return {key: value for key, value, _ in rows}


def find_name(db: sqlite3.Connection, table: str, name: str) -> int | None:
    """Id of the image or landmark of this name, in either Unicode form; None where there is none."""
    for form in same_names(name):
        row = db.execute(f"SELECT id FROM {table} WHERE name = ?", (form,)).fetchone()
        if row is not None:
            return int(row[0])
    return None


def delete_rows(db: sqlite3.Connection, table: str, keys: Sequence[Value]) -> None:
    """Delete rows by key; absent ones are ignored."""
    if not keys:
        return
    if table == "landmark_texts":
        forget_words(db, keys)
    db.executemany(f"DELETE FROM {table} WHERE {TABLES[table][0]} = ?", [(key,) for key in keys])


def has_catalogue(db: sqlite3.Connection) -> bool:
    """Whether the file has the tables of `CATALOGUE`; another process may migrate it at any time."""
    return int(pragma_value(db, "user_version")) >= 2


def next_id(db: sqlite3.Connection, table: str) -> int:
    """An id that no row of the table has or had."""
    row = db.execute("SELECT seq FROM sqlite_sequence WHERE name = ?", (table,)).fetchone()
    return int(row[0]) + 1 if row else 1


class CheckedRows:
    """Rows of an open file, without their checksums.

    Attributes:
        file: the file.
        damaged: (table, key) -> what is wrong, of every damaged row met so far.
    """

    def __init__(self, file: SharedConnection) -> None:
        self.file, self._path = file, file.path
        self.damaged: dict[tuple[str, Value], str] = {}

    def one(self, db: sqlite3.Connection, table: str, key: Value) -> Row:
        """One row; `NotFoundError` where there is none, `CorruptRowError` where it is damaged."""
        columns = TABLES[table]
        sql = f"SELECT {', '.join(columns)}, crc32 FROM {table} WHERE {columns[0]} = ?"
        try:
            row: Row | None = db.execute(sql, (key,)).fetchone()
        except sqlite3.DatabaseError as e:
            if not is_corruption(e):
                raise
            raise CorruptRowError(f"{self._path}: {table} {key!r} cannot be read ({e}); restore it from a copy") from e
        if row is None:
            raise NotFoundError(f"{self._path}: {table} has no row {key!r}")
        if (what := _damage(table, row)) is not None:
            self.damaged[table, key] = what
            raise CorruptRowError(f"{self._path}: {what}; remove it and add it again, or restore the file from a copy")
        return row[:-1]

    def many(self, table: str, keys: Sequence[Value]) -> Iterator[Row]:
        """Rows, ascending by key within a chunk; damaged ones are skipped and noted."""
        columns = (*TABLES[table], "crc32")
        for chunk in chunks(keys):
            with self.file.read() as db:
                if table in CATALOGUE_TABLES and not has_catalogue(db):
                    return
                rows = self._select(db, table, columns, chunk)
            for row in rows:
                if (what := _damage(table, row)) is not None:
                    self.damaged[table, row[0]] = what
                else:
                    yield row[:-1]

    def _select(self, db: sqlite3.Connection, table: str, columns: Sequence[str], keys: Sequence[Value]) -> list[Row]:
        """Unchecked rows by ascending key; after damage to a page, those that can be read one by one."""
        key_column = TABLES[table][0]
        select = f"SELECT {', '.join(columns)} FROM {table} WHERE {key_column}"
        try:
            several = f"{select} IN ({','.join('?' * len(keys))}) ORDER BY {key_column}"
            return db.execute(several, tuple(keys)).fetchall()
        except sqlite3.DatabaseError as e:
            if not is_corruption(e):
                raise
        rows: list[Row] = []
        for key in keys:
            try:
                rows += db.execute(f"{select} = ?", (key,)).fetchall()
            except sqlite3.DatabaseError as e:
                if not is_corruption(e):
                    raise
                self.damaged[table, key] = f"{table} {key!r} cannot be read ({e})"
        return rows

    def keys(self, table: str) -> list[Value]:
        """All keys of a table, ascending; where its pages are damaged, every key it may have had."""
        column = TABLES[table][0]
        with self.file.read() as db:
            if table in CATALOGUE_TABLES and not has_catalogue(db):
                return []
            try:
                return [key for (key,) in db.execute(f"SELECT {column} FROM {table} ORDER BY {column}")]
            except sqlite3.DatabaseError as e:
                if not is_corruption(e) or table == "meta":
                    raise
            sequence = _NUMBERED.get(table, "images")
            row = db.execute("SELECT seq FROM sqlite_sequence WHERE name = ?", (sequence,)).fetchone()
            if row is None or not isinstance(row[0], int) or row[0] > _MAX_KEYS:
                raise NotADatabaseError(f"{self._path}: damaged, not even its numbering can be read; restore a copy")
            return list(range(1, row[0] + 1))

    def meta(self) -> dict[str, str]:
        """The table meta; `CorruptRowError` where a row of it is damaged."""
        with self.file.read() as db:
            return read_meta(db, self._path)

    def revision(self, db: sqlite3.Connection) -> int:
        """Number of the last write transaction of the file, whoever made it."""
        return int(self.one(db, "meta", "revision")[1])

    def image_id(self, db: sqlite3.Connection, name: str) -> int:
        """Id of the image of this name; `NotFoundError` where there is none."""
        image_id = find_name(db, "images", name)
        if image_id is None:
            raise NotFoundError(f"{self._path}: no image is called {name!r}")
        return image_id

    def landmark_id(self, db: sqlite3.Connection, name: str) -> int:
        """Id of the landmark of this name; `NotFoundError` where there is none."""
        landmark_id = find_name(db, "landmarks", name)
        if landmark_id is None:
            raise NotFoundError(f"{self._path}: no landmark is called {name!r}")
        return landmark_id

    def codes(self, image_ids: Sequence[Value], layout: CodeLayout) -> Iterator[Row]:
        """Rows of `codes` whose blobs have the size that their counts of features say."""
        for row in self.many("codes", image_ids):
            try:
                if not isinstance(row[2], bytes) or packed_size(row[2], layout) != row[1]:
                    raise ValueError("its count of features is wrong")
            except ValueError as e:
                self.damaged["codes", row[0]] = f"codes of image {row[0]!r}: {e}"
            else:
                yield row

    def unpack(self, row: Row, layout: CodeLayout) -> Codes | None:
        """The codes of a row of `codes`; None, and noted, where they are damaged."""
        try:
            return unpack_codes(row[2], layout)
        except ValueError as e:
            self.damaged["codes", row[0]] = f"codes of image {row[0]!r}: {e}"
            return None

    def row_checksums(self, db: sqlite3.Connection, image_ids: Sequence[Value]) -> list[tuple[int, int]]:
        """(id, crc32) of images, ascending; the unreadable are left out."""
        rows = (row for chunk in chunks(image_ids) for row in self._select(db, "images", ("id", "crc32"), chunk))
        return [(key, crc) for key, crc in rows if isinstance(crc, int)]

    def all_row_checksums(self, db: sqlite3.Connection) -> NDArray[np.int64]:
        """int64 (I, 2), `row_checksums` of all images, without a Python object for each."""
        try:
            rows = db.execute("SELECT id, crc32 FROM images WHERE typeof(crc32) = 'integer' ORDER BY id")
            return np.fromiter(chain.from_iterable(rows), np.int64).reshape(-1, 2)
        except sqlite3.DatabaseError as e:
            if not is_corruption(e):
                raise
        return np.array(self.row_checksums(db, self.keys("images")), np.int64).reshape(-1, 2)


def _damage(table: str, row: Row) -> str | None:
    """What is wrong with a row whose last value is its checksum."""
    if row_crc32(table, row[:-1]) == row[-1]:
        return None if _is_ours(table, row) else f"{table} {row[0]!r} has the right CRC-32, and values of another kind"
    if table == "images":
        what = f"image {row[1]!r}"
    else:
        what = f"{table} of image {row[0]!r}" if table in ("codes", "thumbnails") else f"{table} {row[0]!r}"
    return f"{what} is damaged: the CRC-32 of its row is not {row[-1]}"


def _is_ours(table: str, row: Row) -> bool:
    """Whether a row holds what this SDK writes: whoever makes a file on purpose writes the right CRC-32 too."""
    if table not in _KINDS:
        return True
    if not all(isinstance(value, kind) for value, kind in zip(row, _KINDS[table], strict=False)):
        return False
    try:
        column = _JSON_COLUMN.get(table)
        return column is None or isinstance(json.loads(row[TABLES[table].index(column)]), dict)
    except (ValueError, RecursionError):
        return False
