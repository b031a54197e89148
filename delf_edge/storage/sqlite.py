"""The SQLite file beneath `store.py`: opening, schema, faults.

Only these two modules and those between them (`connection.py`, `rows.py`, `edits.py`, `upkeep.py`) speak to sqlite3.

Schema, version 1 (`PRAGMA user_version`; `PRAGMA application_id` is "DELF")::

    meta        key, value                     bundle_id, uuid, revision, code_size, global_dim, n_words, sealed, ...
    landmarks   id, name, metadata, latitude, longitude, revision
    images      id, name, landmark_id, metadata, width, height, content_hash, added_at, revision
    codes       image_id, n, blob              packed codes (layout: codec.py), n features
    thumbnails  image_id, jpeg                 a small JPEG of the photo, for images that were added with one
    tombstones  image_id, content_hash, revision    what was removed; ids are never used again

Every row ends with `crc32`: zlib's CRC-32 of the table's name and the values before it, in order, each as a tag and its
bytes (`row_bytes`). `revision` counts write transactions; a row carries the one that wrote it last, so "what changed
since" is an index lookup for an open reader as for a delta.

Pages of a new file are 1024 bytes: packed codes of any size then leave little of their last pages empty. In pages of
4096 bytes, which older files have and keep, those of 300 features of 16 bytes take 29 bytes a feature instead of 23.
"""

from __future__ import annotations

import os
import sqlite3
import struct
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from delf_edge.errors import (
    NotADatabaseError,
    OptionError,
    ReadOnlyError,
    SchemaVersionError,
    StoreBusyError,
    StoreError,
    StoreFullError,
)

Value = int | float | str | bytes | None

APPLICATION_ID = 0x44454C46  # "DELF"
SCHEMA_VERSION = 1
PAGE_SIZE = 1024
WAL_LIMIT = 4 << 20  # bytes the log is cut back to after a checkpoint

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


@contextmanager
def translate_errors(path: Path) -> Iterator[None]:
    """Turn sqlite3's errors into delf-edge's, with what can be done about them."""
    try:
        yield
    except sqlite3.Error as e:
        raise as_store_error(e, path) from e
    except OverflowError as e:
        raise OptionError(f"{path}: a number of more than 64 bits names no row") from e
    except UnicodeEncodeError as e:
        raise OptionError(f"{path}: {e.object[:80]!r} is no text that can be stored or looked for") from e
    except UnicodeDecodeError as e:  # sqlite3 could not even read SQLite's message, which quotes a damaged schema
        raise NotADatabaseError(f"{path}: damaged, its schema cannot be read; restore it from a copy") from e


def as_store_error(e: sqlite3.Error, path: Path) -> StoreError:
    """The delf-edge error of a sqlite3 error."""
    code = getattr(e, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return StoreBusyError(
            f"{path}: another connection is using the database ({e}); wait until it is done and try again"
        )
    if code == sqlite3.SQLITE_PROTOCOL:
        return StoreBusyError(f"{path}: the file system did not give the locks asked for ({e}); try again")
    if code == sqlite3.SQLITE_FULL:
        return StoreFullError(f"{path}: the disk is full ({e}); nothing was changed, free some space and try again")
    if code == sqlite3.SQLITE_READONLY:
        return ReadOnlyError(f"{path}: cannot be written ({e}); copy it to writable media, or open it with mode='ro'")
    if code == sqlite3.SQLITE_CANTOPEN:
        return StoreError(f"{path}: cannot be opened ({e}); check that the folder exists and may be read and written")
    if code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
        return NotADatabaseError(f"{path}: not a database, or damaged ({e}); restore it from a copy or rebuild it")
    if code == sqlite3.SQLITE_IOERR:
        return StoreError(f"{path}: the medium failed ({e}); nothing was changed, check the disk and its free space")
    return StoreError(f"{path}: {e}")


def is_corruption(e: sqlite3.Error) -> bool:
    """Whether the error says that the file itself is damaged."""
    return getattr(e, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def connect(path: Path, *, writable: bool, create: bool, busy_timeout: float) -> sqlite3.Connection:
    """An open, checked and, where asked for, created or migrated database in autocommit mode.

    Raises:
        NotADatabaseError: the file is empty, cut off, damaged, another program's, or has a foreign schema.
        SchemaVersionError: a newer schema, or an older one that read-only opening cannot migrate.
        StoreBusyError, ReadOnlyError, StoreError: as their names say.
    """
    if not create or file_bytes(path):
        _check_file(path)
    with translate_errors(path):
        connection = _open(path, "rwc" if create else "rw" if writable else "ro", busy_timeout)
        try:
            for pragma in (
                "trusted_schema=0",
                "cell_size_check=1",
                "foreign_keys=1",
                "mmap_size=0",
                "cache_size=-4096",
            ):
                connection.execute(f"PRAGMA {pragma}")  # a mapped file that shrinks would kill the process
            if writable:
                _prepare(connection, path, busy_timeout)
            _check_schema(connection, path)
        except BaseException:
            connection.close()
            raise
    return connection


def file_bytes(path: Path) -> int | None:
    """Size of a file; None where there is none.

    Raises:
        StoreError: the system does not tell.
    """
    try:
        return path.stat().st_size
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as e:
        raise StoreError(f"{path}: cannot be reached ({e.strerror}); check the disk and who may read it") from e


def _check_file(path: Path) -> None:
    """Refuse what SQLite would only notice later, or never."""
    try:
        size = path.stat().st_size
        with path.open("rb") as f:
            head = f.read(100)
    except FileNotFoundError as e:
        raise StoreError(f"{path}: no such database; create it with mode='rw' or `delf-edge index`") from e
    except OSError as e:
        raise StoreError(f"{path}: cannot be read ({e.strerror})") from e
    if len(head) < 100 or not head.startswith(b"SQLite format 3\0"):
        raise NotADatabaseError(f"{path}: {size} bytes that are not a delf-edge database")
    (page_size,), (pages,) = struct.unpack(">H", head[16:18]), struct.unpack(">I", head[28:32])
    expected = pages * (65536 if page_size == 1 else page_size)
    wal = Path(f"{path}-wal")
    if size < expected and not file_bytes(wal):  # a log may still hold the missing pages
        raise NotADatabaseError(f"{path}: cut off, {size} of {expected} bytes are left; restore it from a copy")


def _open(path: Path, mode: str, busy_timeout: float) -> sqlite3.Connection:
    uri = f"file:{quote(str(path))}?mode={mode}"
    wal, journal = (Path(f"{path}{suffix}") for suffix in ("-wal", "-journal"))
    if mode == "ro" and not os.access(path.parent, os.W_OK):
        if file_bytes(wal):
            raise ReadOnlyError(f"{path}: its log {wal.name} is not merged and the medium is read-only; seal it first")
        if file_bytes(journal):  # "immutable" would read the half that was written
            raise ReadOnlyError(
                f"{path}: sealing it was interrupted and the medium is read-only; open it once on writable media"
            )
        uri += "&immutable=1"  # nobody can write here: no locks, no log
    elif mode == "ro" and file_bytes(journal):
        with closing(sqlite3.connect(uri.removesuffix("ro") + "rw", uri=True, timeout=busy_timeout)) as healer:
            healer.execute("SELECT 1 FROM sqlite_master").fetchone()  # a reader may not undo an interrupted `seal`
    connection = sqlite3.connect(uri, uri=True, timeout=busy_timeout, isolation_level=None, check_same_thread=False)
    connection.text_factory = lambda b: b.decode("utf-8", "surrogateescape")  # damaged text fails its CRC, not here
    return connection


def _prepare(connection: sqlite3.Connection, path: Path, busy_timeout: float) -> None:
    """WAL with FULL, and the schema brought to this version."""
    _check_version(connection, path)
    connection.execute(f"PRAGMA page_size={PAGE_SIZE}")
    deadline = time.monotonic() + busy_timeout
    while True:  # SQLite does not wait for this one itself
        try:
            mode = pragma_value(connection, "journal_mode=WAL")
            break
        except sqlite3.OperationalError as e:
            if not isinstance(as_store_error(e, path), StoreBusyError) or time.monotonic() > deadline:
                raise
            time.sleep(0.02)
    if mode != "wal":
        raise ReadOnlyError(f"{path}: the file system does not allow a write-ahead log (journal mode {mode})")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute(f"PRAGMA journal_size_limit={WAL_LIMIT}")
    if pragma_value(connection, "user_version") < SCHEMA_VERSION:
        with transaction(connection):
            for version in range(pragma_value(connection, "user_version") + 1, SCHEMA_VERSION + 1):
                _MIGRATIONS[version](connection)
            connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")


def _check_version(connection: sqlite3.Connection, path: Path) -> None:
    version = pragma_value(connection, "user_version")
    application = pragma_value(connection, "application_id")
    blank = not version and not application and not connection.execute("SELECT 1 FROM sqlite_master").fetchone()
    if application != APPLICATION_ID and not blank:
        raise NotADatabaseError(f"{path}: a SQLite file of another program (application id {application:#x})")
    if version > SCHEMA_VERSION:
        raise SchemaVersionError(
            f"{path}: schema version {version}; this delf-edge reads up to {SCHEMA_VERSION}, install a newer one"
        )


def _check_schema(connection: sqlite3.Connection, path: Path) -> None:
    """The schema must be ours to the letter: no trigger, view or column that a stranger added."""
    _check_version(connection, path)
    version = pragma_value(connection, "user_version")
    if version < SCHEMA_VERSION:
        raise SchemaVersionError(
            f"{path}: schema version {version} is older than {SCHEMA_VERSION}; open it once with mode='rw'"
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


@contextmanager
def transaction(connection: sqlite3.Connection, begin: str = "BEGIN IMMEDIATE") -> Iterator[None]:
    """All or nothing; "BEGIN" alone gives several reads the same state of the file."""
    connection.execute(begin)
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # SQLite has rolled back by itself after some faults
            connection.execute("ROLLBACK")
        raise


def pragma_value(connection: sqlite3.Connection, pragma: str) -> Any:
    """The single value that a pragma returns."""
    return connection.execute(f"PRAGMA {pragma}").fetchone()[0]
