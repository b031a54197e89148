"""The schema of a database, its checksums of rows, and its migrations.

Schema, version 1 (`PRAGMA user_version`; `PRAGMA application_id` is "DELF")::

    meta        key, value                     bundle_id, uuid, revision, code_size, global_dim, n_words, sealed, ...
    landmarks   id, name, metadata, latitude, longitude, revision
    images      id, name, landmark_id, metadata, width, height, content_hash, added_at, revision
    codes       image_id, n, blob              packed codes (layout: quantization.product_quantizer), n features
    thumbnails  image_id, jpeg                 a small JPEG of the photo, for images that were added with one
    tombstones  image_id, content_hash, revision    what was removed; ids are never used again

Every row ends with `crc32`: zlib's CRC-32 of the table's name and the values before it, in order, each as a tag and its
bytes (`row_bytes`). `revision` counts write transactions; a row carries the one that wrote it last, so "what changed
since" is an index lookup for an open reader as for a delta.

Pages of a new file are 1024 bytes: packed codes of any size then leave little of their last pages empty. In pages of
4096 bytes, which older files have and keep, those of 300 features of 16 bytes take 29 bytes a feature instead of 23.
"""

from __future__ import annotations

import sqlite3
import struct
import zlib
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from delf_edge.errors import NotADatabaseError, SchemaVersionError

Value = int | float | str | bytes | None

APPLICATION_ID = 0x44454C46  # "DELF"
SCHEMA_VERSION = 1
PAGE_SIZE = 1024

_SCHEMA_1 = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL, crc32 INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE landmarks (
    id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE, metadata TEXT NOT NULL,
    latitude REAL, longitude REAL, revision INTEGER NOT NULL, crc32 INTEGER NOT NULL);
CREATE TABLE images (
    id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE,
    landmark_id INTEGER NOT NULL REFERENCES landmarks (id), metadata TEXT NOT NULL,
    width INTEGER NOT NULL, height INTEGER NOT NULL, content_hash BLOB NOT NULL UNIQUE,
    added_at REAL NOT NULL, revision INTEGER NOT NULL, crc32 INTEGER NOT NULL);
CREATE INDEX images_landmark ON images (landmark_id);
CREATE INDEX images_revision ON images (revision);
CREATE TABLE codes (
    image_id INTEGER PRIMARY KEY REFERENCES images (id),
    n INTEGER NOT NULL, blob BLOB NOT NULL, crc32 INTEGER NOT NULL);
CREATE TABLE thumbnails (
    image_id INTEGER PRIMARY KEY REFERENCES images (id), jpeg BLOB NOT NULL, crc32 INTEGER NOT NULL);
CREATE TABLE tombstones (
    image_id INTEGER PRIMARY KEY, content_hash BLOB NOT NULL, revision INTEGER NOT NULL, crc32 INTEGER NOT NULL);
CREATE INDEX tombstones_revision ON tombstones (revision);
"""


def _create_schema_1(connection: sqlite3.Connection) -> None:
    for statement in _SCHEMA_1.split(";\n"):
        if statement.strip():
            connection.execute(statement)


# version reached -> the step from the version before it; each runs inside one transaction
_MIGRATIONS: dict[int, Callable[[sqlite3.Connection], None]] = {1: _create_schema_1}


def row_bytes(table: str, values: Sequence[Value]) -> bytes:
    """A row as bytes, little-endian: the table's name in ASCII; then for every value a tag and its content.

    `n` for NULL; `i` and int64; `f` and float64; `t` (text, UTF-8) or `b` (blob), an uint32 length and the bytes.
    """
    parts = [table.encode()]
    for value in values:
        if isinstance(value, str):
            text = value.encode("utf-8", "surrogateescape")
            parts += (struct.pack("<cI", b"t", len(text)), text)
        elif isinstance(value, bytes):
            parts += (struct.pack("<cI", b"b", len(value)), value)
        elif value is None:
            parts.append(b"n")
        else:
            parts.append(struct.pack("<cq", b"i", value) if isinstance(value, int) else struct.pack("<cd", b"f", value))
    return b"".join(parts)


def row_crc32(table: str, values: Sequence[Value]) -> int:
    """CRC-32 of a row's bytes."""
    return zlib.crc32(row_bytes(table, values))


def pragma_value(connection: sqlite3.Connection, pragma: str) -> Any:
    """The single value that a pragma returns."""
    return connection.execute(f"PRAGMA {pragma}").fetchone()[0]


def migrate(connection: sqlite3.Connection) -> None:
    """Bring the schema to this version, inside a transaction of the caller."""
    for version in range(pragma_value(connection, "user_version") + 1, SCHEMA_VERSION + 1):
        _MIGRATIONS[version](connection)
    connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")


def check_version(connection: sqlite3.Connection, path: Path) -> None:
    """Refuse a file of another program, and a schema that is newer than this SDK."""
    version = pragma_value(connection, "user_version")
    application = pragma_value(connection, "application_id")
    blank = not version and not application and not connection.execute("SELECT 1 FROM sqlite_master").fetchone()
    if application != APPLICATION_ID and not blank:
        raise NotADatabaseError(f"{path}: a SQLite file of another program (application id {application:#x})")
    if version > SCHEMA_VERSION:
        raise SchemaVersionError(
            f"{path}: schema version {version}; this delf-edge reads up to {SCHEMA_VERSION}, install a newer one"
        )


def check_schema(connection: sqlite3.Connection, path: Path) -> None:
    """The schema must be ours to the letter: no trigger, view or column that a stranger added."""
    check_version(connection, path)
    version = pragma_value(connection, "user_version")
    if version < SCHEMA_VERSION:
        raise SchemaVersionError(
            f"{path}: schema version {version} is older than {SCHEMA_VERSION}; open it once for writing"
        )
    found = set(connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_master"))
    strange = found ^ _expected_schema()
    if strange:
        names = ", ".join(sorted({f"{kind} {name}" for kind, name, _, _ in strange}))
        raise NotADatabaseError(f"{path}: its schema differs from version {version} of delf-edge in: {names}")


@cache
def _expected_schema() -> frozenset[tuple[str, str, str, str | None]]:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    try:
        for version in sorted(_MIGRATIONS):
            _MIGRATIONS[version](connection)
        return frozenset(connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_master"))
    finally:
        connection.close()
