"""The schema of a database, its checksums of rows, and its migrations.

Schema, version 2 (`PRAGMA user_version`; `PRAGMA application_id` is "DELF")::

    meta        key, value                     bundle_id, uuid, revision, code_size, global_dim, n_words, sealed, ...
    landmarks   id, name, metadata, latitude, longitude, revision
    images      id, name, landmark_id, metadata, width, height, content_hash, added_at, revision
    codes       image_id, n, blob              packed codes (layout: quantization.product_quantizer), n features
    thumbnails  image_id, jpeg                 a small JPEG of the photo, for images that were added with one
    tombstones  image_id, content_hash, revision    what was removed; ids are never used again

since version 2 the catalogue, what is known of a landmark::

    landmark_details    landmark_id, slug, kind, collection, external_ids, revision
    landmark_texts      id, landmark_id, language, title, summary, body, audio, link, revision
    media               id, landmark_id, name, type, sha256, path, credit, revision
    media_data          media_id, data         bytes of a picture or sound that is no file beside the database
    landmark_texts_fts  full-text search (FTS5) over title, summary and body, without diacritics
    places, photos      views with readable names, for people; nothing in this package reads them

A landmark's details are a table of their own and no columns of `landmarks`: a migration that wrote those rows anew
would give a damaged one a right checksum.

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
from delf_edge.storage.slugs import free_slug, slugify

Value = int | float | str | bytes | None

APPLICATION_ID = 0x44454C46  # "DELF"
SCHEMA_VERSION = 2
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


_SCHEMA_2 = """
CREATE TABLE landmark_details (
    landmark_id INTEGER PRIMARY KEY REFERENCES landmarks (id), slug TEXT NOT NULL UNIQUE, kind TEXT, collection TEXT,
    external_ids TEXT NOT NULL, revision INTEGER NOT NULL, crc32 INTEGER NOT NULL);
CREATE TABLE landmark_texts (
    id INTEGER PRIMARY KEY AUTOINCREMENT, landmark_id INTEGER NOT NULL REFERENCES landmarks (id),
    language TEXT NOT NULL, title TEXT, summary TEXT, body TEXT, audio TEXT, link TEXT,
    revision INTEGER NOT NULL, crc32 INTEGER NOT NULL, UNIQUE (landmark_id, language));
CREATE TABLE media (
    id INTEGER PRIMARY KEY AUTOINCREMENT, landmark_id INTEGER NOT NULL REFERENCES landmarks (id),
    name TEXT NOT NULL, type TEXT NOT NULL, sha256 BLOB NOT NULL, path TEXT, credit TEXT,
    revision INTEGER NOT NULL, crc32 INTEGER NOT NULL, UNIQUE (landmark_id, name));
CREATE TABLE media_data (
    media_id INTEGER PRIMARY KEY REFERENCES media (id), data BLOB NOT NULL, crc32 INTEGER NOT NULL);
CREATE VIRTUAL TABLE landmark_texts_fts USING FTS5 (
    title, summary, body,
    tokenize='unicode61 remove_diacritics 2', content="landmark_texts", content_rowid="id");
CREATE VIEW places AS
    SELECT l.id, d.slug, l.name, d.kind, d.collection, l.latitude, l.longitude, d.external_ids, l.metadata,
        (SELECT count(*) FROM images i WHERE i.landmark_id = l.id) AS photos,
        (SELECT group_concat(t.language, ' ') FROM landmark_texts t WHERE t.landmark_id = l.id) AS languages,
        (SELECT count(*) FROM media m WHERE m.landmark_id = l.id) AS media
    FROM landmarks l LEFT JOIN landmark_details d ON d.landmark_id = l.id;
CREATE VIEW photos AS
    SELECT i.id, i.name, l.name AS place, d.slug AS place_slug, i.width, i.height, c.n AS features,
        datetime(i.added_at, 'unixepoch') AS added_at, i.metadata
    FROM images i JOIN landmarks l ON l.id = i.landmark_id LEFT JOIN landmark_details d ON d.landmark_id = l.id
        LEFT JOIN codes c ON c.image_id = i.id;
"""
# What SQLite makes for FTS5 by itself: the same texts in all of its versions so far. Should one write them differently,
# a file made by another version is still ours.
_SHADOWS = {
    "landmark_texts_fts_data": "CREATE TABLE 'landmark_texts_fts_data'(id INTEGER PRIMARY KEY, block BLOB)",
    "landmark_texts_fts_idx": "CREATE TABLE 'landmark_texts_fts_idx'(segid, term, pgno, PRIMARY KEY(segid, term)) "
    "WITHOUT ROWID",
    "landmark_texts_fts_docsize": "CREATE TABLE 'landmark_texts_fts_docsize'(id INTEGER PRIMARY KEY, sz BLOB)",
    "landmark_texts_fts_config": "CREATE TABLE 'landmark_texts_fts_config'(k PRIMARY KEY, v) WITHOUT ROWID",
}


def _create(connection: sqlite3.Connection, script: str) -> None:
    """`executescript` would commit the transaction first."""
    for statement in script.split(";\n"):
        if statement.strip():
            connection.execute(statement)


def _create_schema_1(connection: sqlite3.Connection) -> None:
    _create(connection, _SCHEMA_1)


def _create_schema_2(connection: sqlite3.Connection) -> None:
    """The catalogue, with a slug for every landmark that is there; the rows that are there stay as they are."""
    _create(connection, _SCHEMA_2)
    taken: set[str] = set()
    try:
        landmarks = connection.execute("SELECT id, name, revision FROM landmarks ORDER BY id").fetchall()
    except sqlite3.DatabaseError:
        landmarks = []  # damaged pages: what can be read without details can still be saved
    for landmark_id, name, revision in landmarks:
        slug = free_slug(slugify(str(name)), taken)
        taken.add(slug)
        row = (landmark_id, slug, None, None, "{}", revision)
        crc32 = row_crc32("landmark_details", row)
        connection.execute("INSERT INTO landmark_details VALUES (?, ?, ?, ?, ?, ?, ?)", (*row, crc32))


# version reached -> the step from the version before it; each runs inside one transaction
_MIGRATIONS: dict[int, Callable[[sqlite3.Connection], None]] = {1: _create_schema_1, 2: _create_schema_2}


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
    """The schema must be ours to the letter: no trigger, view or column that a stranger added.

    An older version is as good as this one: a pack, or a file on read-only media, cannot be migrated.
    """
    connection.execute("BEGIN")  # one state of the file: another process may be migrating it
    try:
        check_version(connection, path)
        version = pragma_value(connection, "user_version")
        rows = connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_master").fetchall()
    finally:
        connection.execute("ROLLBACK")
    if version < 1:
        raise SchemaVersionError(f"{path}: no schema yet; open it once for writing")
    found = {_known_shadow(*row) for row in rows}
    strange = found ^ _expected_schema(version)
    if strange:
        names = ", ".join(sorted({f"{kind} {name}" for kind, name, _, _ in strange}))
        raise NotADatabaseError(f"{path}: its schema differs from version {version} of delf-edge in: {names}")


_Entry = tuple[str, str, str, str | None]


def _known_shadow(kind: str, name: str, table: str, sql: str | None) -> _Entry:
    """An entry of the schema; of a table of FTS5 the text does not matter if it is one that we know."""
    return kind, name, table, None if sql == _SHADOWS.get(name, "") else sql


@cache
def _expected_schema(version: int) -> frozenset[_Entry]:
    """The schema of a version; the tables of FTS5 as this SQLite writes them, or as in `_SHADOWS`."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    try:
        for step in sorted(step for step in _MIGRATIONS if step <= version):
            _MIGRATIONS[step](connection)
        return frozenset(
            _known_shadow(*row) for row in connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_master")
        )
    finally:
        connection.close()
