"""SQLite: opening a file, faults, transactions, and a connection that threads share and forks open anew.

Only the modules of this folder speak to sqlite3. The schema: `schema`.
"""

from __future__ import annotations

import os
import sqlite3
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

from delf_edge.errors import (
    NotADatabaseError,
    OptionError,
    ReadOnlyError,
    StoreBusyError,
    StoreError,
    StoreFullError,
)
from delf_edge.storage.schema import PAGE_SIZE, SCHEMA_VERSION, check_schema, check_version, migrate, pragma_value

_WAL_LIMIT = 4 << 20  # bytes the log is cut back to after a checkpoint
WAL_HIGH = 8 << 20  # bytes of log that make a writer insist on a checkpoint
_forked: list[sqlite3.Connection] = []  # a parent's connections: closing them in a child would harm the parent


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
        return ReadOnlyError(f"{path}: cannot be written ({e}); copy it to writable media, or open it read-only")
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


def connect(
    path: Path,
    *,
    writable: bool,
    create: bool,
    busy_timeout: float,
    check: Callable[[sqlite3.Connection], None] = lambda db: None,
    keep_version: bool = False,
) -> sqlite3.Connection:
    """An open, checked and, where asked for, created or migrated database in autocommit mode.

    Args:
        path: the file.
        writable: open it for writing.
        create: make it where there is none.
        busy_timeout: seconds to wait for another connection.
        check: refuses a database by an exception; called before anything in the file is changed.
        keep_version: leave an older schema as it is, although the file is opened for writing.

    Raises:
        NotADatabaseError: the file is empty, cut off, damaged, another program's, or has a foreign schema.
        SchemaVersionError: a newer schema.
        StoreBusyError, ReadOnlyError, StoreError: as their names say.
    """
    if not create or file_bytes(path):
        _check_file(path, busy_timeout)
        if writable:
            _check_medium(path)
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
            check_version(connection, path)
            if not writable or pragma_value(connection, "user_version"):
                check_schema(connection, path)
                check(connection)
            if writable:
                _prepare(connection, path, busy_timeout, keep_version)
                check_schema(connection, path)
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


def _check_file(path: Path, busy_timeout: float) -> None:
    """Refuse what SQLite would only notice later, or never."""
    wal = _beside(path, "-wal")
    deadline = time.monotonic() + min(busy_timeout, 1.0)
    while True:
        size, head = _head(path)
        if len(head) < 100 or not head.startswith(b"SQLite format 3\0"):
            raise NotADatabaseError(f"{path}: {size} bytes that are not a delf-edge database")
        blank = head[60:64] == head[68:72] == bytes(4)
        lost = _logs(head) and file_bytes(wal) is None
        if not (blank and lost) or time.monotonic() > deadline:
            break
        time.sleep(0.02)  # somebody may just be making it
    if blank and lost:
        raise NotADatabaseError(
            f"{path}: empty, {wal.name} is missing beside it; a database that was not closed has its newest content "
            f"there: bring {wal.name} here too, or copy the database with `delf-edge snapshot`. If it was only just "
            f"being made when something stopped it, nothing was in it yet: move {path.name} away and start again"
        )
    (page_size,), (pages,) = struct.unpack(">H", head[16:18]), struct.unpack(">I", head[28:32])
    expected = pages * (65536 if page_size == 1 else page_size)
    if size < expected and not file_bytes(wal):  # a log may still hold the missing pages
        more = f" (or {wal.name}, which is missing beside it, has the rest)" if lost else ""
        raise NotADatabaseError(f"{path}: cut off, {size} of {expected} bytes are left{more}; restore it from a copy")


def _head(path: Path) -> tuple[int, bytes]:
    """Size of a file and SQLite's header in it."""
    try:
        with path.open("rb") as f:
            return path.stat().st_size, f.read(100)
    except FileNotFoundError as e:
        raise StoreError(f"{path}: no such database; check the path, or make one with `delf-edge index`") from e
    except OSError as e:
        raise StoreError(f"{path}: cannot be read ({e.strerror})") from e


def _logs(head: bytes) -> bool:
    """Whether a header says that there may be a write-ahead log."""
    return 2 in head[18:20]


def _beside(path: Path, suffix: str) -> Path:
    """A file of SQLite beside a database; of a link, beside what it leads to."""
    return Path(os.path.realpath(path) + suffix)


def _uri(path: Path, mode: str) -> str:
    absolute = os.fsencode(os.path.realpath(path))  # a name that is no UTF-8 passes as bytes
    return f"file:///{quote(absolute.lstrip(b'/'))}?mode={mode}"


def _open(path: Path, mode: str, busy_timeout: float) -> sqlite3.Connection:
    uri = _uri(path, mode)
    journal = _beside(path, "-journal")
    if mode == "ro" and _is_frozen(path):
        if file_bytes(wal := _beside(path, "-wal")):
            raise ReadOnlyError(f"{path}: its log {wal.name} is not merged and the medium is read-only; seal it first")
        if file_bytes(journal):  # "immutable" would read the half that was written
            raise ReadOnlyError(
                f"{path}: sealing it was interrupted and the medium is read-only; open it once on writable media"
            )
        uri += "&immutable=1"  # nobody can write here: no locks, no log
    elif mode == "ro":
        _check_permissions(path)
        if file_bytes(journal):
            if not os.access(journal.parent, os.W_OK):
                raise ReadOnlyError(
                    f"{path}: sealing it was interrupted, and this user has no permission to write in {journal.parent} "
                    "to undo that; open it once as somebody who has"
                )
            with closing(sqlite3.connect(_uri(path, "rw"), uri=True, timeout=busy_timeout)) as healer:
                healer.execute("SELECT 1 FROM sqlite_master").fetchone()  # a reader may not undo an interrupted `seal`
    connection = sqlite3.connect(uri, uri=True, timeout=busy_timeout, isolation_level=None, check_same_thread=False)
    connection.text_factory = lambda b: b.decode("utf-8", "surrogateescape")  # damaged text fails its CRC, not here
    return connection


def _is_frozen(path: Path) -> bool:
    """Whether nobody writes to a file: its medium is mounted read-only, or it and its folder are for reading alone."""
    real = Path(os.path.realpath(path))
    if os.statvfs(real).f_flag & os.ST_RDONLY:
        return True
    writers = (real.stat().st_mode | real.parent.stat().st_mode) & 0o222
    return not writers and not os.access(real.parent, os.W_OK)


def _check_medium(path: Path) -> None:
    """Whether a database's medium can be written.

    Raises:
        ReadOnlyError: it is mounted read-only.
    """
    real = Path(os.path.realpath(path))
    if os.statvfs(real).f_flag & os.ST_RDONLY:
        raise ReadOnlyError(
            f"{path}: its medium is mounted read-only; copy it to a writable one (`delf-edge snapshot DB COPY`), "
            "or mount that one writable"
        )


def _check_permissions(path: Path) -> None:
    """Whether this user may read a database that others may be writing to.

    Raises:
        ReadOnlyError: a permission is missing; the message names it.
    """
    folder = _beside(path, "").parent
    if not _logs(_head(path)[1]) or os.access(folder, os.W_OK):
        return
    for suffix in ("-wal", "-shm"):
        file = _beside(path, suffix)
        if not file.exists():
            what = f"this user has no permission to write in {folder}, where {file.name} would have to be made"
        elif not os.access(file, os.R_OK):
            what = f"this user has no permission to read {file.name} beside it"
        else:
            continue
        raise ReadOnlyError(
            f"{path}: {what}, and others may be writing to the database; get that permission, or a copy that nobody "
            "writes to (`delf-edge seal DB --out COPY`)"
        )


def _prepare(connection: sqlite3.Connection, path: Path, busy_timeout: float, keep_version: bool) -> None:
    """WAL with FULL, and the schema brought to this version."""
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
    connection.execute(f"PRAGMA journal_size_limit={_WAL_LIMIT}")
    version = pragma_value(connection, "user_version")
    if version < SCHEMA_VERSION and not (version and keep_version):
        with transaction(connection):
            migrate(connection)


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


class SharedConnection:
    """Reads and durable transactions of one file, one thread at a time.

    Attributes:
        path: the file.
        writable: whether it may be changed.
    """

    def __init__(
        self,
        path: Path,
        *,
        writable: bool,
        create: bool,
        busy_timeout: float,
        check: Callable[[sqlite3.Connection], None] = lambda db: None,
        keep_version: bool = False,
    ) -> None:
        self.path, self.writable = path, writable
        self._busy_timeout, self._check, self._keep_version = busy_timeout, check, keep_version
        self._lock = threading.RLock()
        self._pid = os.getpid()
        self._connection: sqlite3.Connection | None = connect(
            path, writable=writable, create=create, busy_timeout=busy_timeout, check=check, keep_version=keep_version
        )

    def close(self) -> None:
        """Close the file; closing twice is fine."""
        if self._pid != os.getpid():
            self._adopt_fork()
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None
                if not self.writable:
                    self._tidy()

    def _tidy(self) -> None:
        """Remove the empty log that reading alone has made; SQLite does that where nobody else has the file open."""
        if file_bytes(_beside(self.path, "-wal")) == 0 and os.access(self.path, os.W_OK):
            with suppress(sqlite3.Error), closing(sqlite3.connect(_uri(self.path, "rw"), uri=True, timeout=0)) as last:
                last.execute("SELECT 1 FROM sqlite_master").fetchone()

    def _adopt_fork(self) -> None:
        """In a forked child: leave the parent's connection alone and open a new one."""
        if self._connection is not None:
            _forked.append(self._connection)
            self._connection = connect(
                self.path,
                writable=self.writable,
                create=False,
                busy_timeout=self._busy_timeout,
                check=self._check,
                keep_version=self._keep_version,
            )
        self._lock, self._pid = threading.RLock(), os.getpid()

    @contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """The connection, for this thread alone; sqlite3's errors become delf-edge's. May be nested."""
        if self._pid != os.getpid():
            self._adopt_fork()
        with self._lock, translate_errors(self.path):
            if self._connection is None:
                raise StoreError(f"{self.path}: this Store is closed; open it again")
            yield self._connection

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """One durable transaction."""
        self.require_writable("change")
        with self.read() as db:
            with transaction(db):
                yield db
            self._limit_log(db)

    def require_writable(self, purpose: str) -> None:
        """Raise `ReadOnlyError` where the file was opened for reading."""
        if not self.writable:
            raise ReadOnlyError(f"{self.path}: opened read-only; open it for writing to {purpose} it")

    def _limit_log(self, db: sqlite3.Connection) -> None:
        try:
            if os.stat(_beside(self.path, "-wal")).st_size <= WAL_HIGH:
                return
            db.execute("PRAGMA busy_timeout=200")  # for readers to finish; not longer, the transaction itself is safe
            try:
                db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            finally:
                db.execute(f"PRAGMA busy_timeout={round(self._busy_timeout * 1000)}")
        except (OSError, sqlite3.OperationalError):
            return  # the next writer tries again
