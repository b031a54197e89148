"""An open database file that the threads of a process share, and that its forks open anew."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from delf_edge.errors import ReadOnlyError, StoreError
from delf_edge.storage.sqlite import connect, transaction, translate_errors

_WAL_HIGH = 8 << 20  # bytes of log that make a writer insist on a checkpoint
_forked: list[sqlite3.Connection] = []  # a parent's connections: closing them in a child would harm the parent


class SharedConnection:
    """Reads and durable transactions of one file, one thread at a time.

    Attributes:
        path: the file.
        writable: whether it may be changed.
    """

    def __init__(self, path: Path, *, writable: bool, create: bool, busy_timeout: float) -> None:
        self.path, self.writable = path, writable
        self._busy_timeout = busy_timeout
        self._lock = threading.RLock()
        self._pid = os.getpid()
        self._connection: sqlite3.Connection | None = connect(
            path, writable=writable, create=create, busy_timeout=busy_timeout
        )

    def close(self) -> None:
        """Close the file; closing twice is fine."""
        if self._pid != os.getpid():
            self._adopt_fork()
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def _adopt_fork(self) -> None:
        """In a forked child: leave the parent's connection alone and open a new one."""
        if self._connection is not None:
            _forked.append(self._connection)
            self._connection = connect(self.path, writable=self.writable, create=False, busy_timeout=self._busy_timeout)
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
            raise ReadOnlyError(f"{self.path}: opened with mode='ro'; open it with mode='rw' to {purpose} it")

    def _limit_log(self, db: sqlite3.Connection) -> None:
        try:
            if os.stat(f"{self.path}-wal").st_size <= _WAL_HIGH:
                return
            db.execute("PRAGMA busy_timeout=200")  # for readers to finish; not longer, the transaction itself is safe
            try:
                db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            finally:
                db.execute(f"PRAGMA busy_timeout={round(self._busy_timeout * 1000)}")
        except (OSError, sqlite3.OperationalError):
            return  # the next writer tries again
