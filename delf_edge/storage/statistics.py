"""How often which place was found, by hour: counts, and nothing about who asked or what the picture was.

One SQLite file, a row for each hour, outcome and place. What is counted is what a visitor meets: a place that
appears before a camera once, an unknown view once, a single photo once; not every frame.
"""

from __future__ import annotations

import csv
import datetime
import io
import logging
import sqlite3
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

_LOG = logging.getLogger("delf_edge.storage")
Outcome = Literal["found", "unknown"]
_SCHEMA = """CREATE TABLE IF NOT EXISTS counts (
    day TEXT NOT NULL, hour INTEGER NOT NULL, outcome TEXT NOT NULL, landmark TEXT NOT NULL, n INTEGER NOT NULL,
    PRIMARY KEY (day, hour, outcome, landmark)) WITHOUT ROWID"""
_ADD = """INSERT INTO counts VALUES (?, ?, ?, ?, 1)
    ON CONFLICT (day, hour, outcome, landmark) DO UPDATE SET n = n + 1"""
MAX_DAYS = 400


class Statistics:
    """The counts of one kiosk. May be used from several threads.

    Args:
        path: the file; None keeps them in memory, until the service ends.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path, self._lock = path, threading.Lock()
        self._opened: sqlite3.Connection | None = None

    @property
    def _db(self) -> sqlite3.Connection:
        """Opened when it is first needed: a service that only answers has no such file."""
        self._opened = self._opened or _open(self._path)
        return self._opened

    def count(self, outcome: Outcome, landmark: str = "", now: datetime.datetime | None = None) -> None:
        """Count one answer, in the hour of this machine's clock; a disk that is full costs the count, no more."""
        now = now or datetime.datetime.now()
        row = (now.date().isoformat(), now.hour, outcome, landmark)
        with self._lock:
            try:
                self._db.execute(_ADD, row)
                self._db.commit()
            except sqlite3.Error as e:
                self._db.rollback()
                _LOG.warning("an answer could not be counted: %s", e)

    def rows(self, first: datetime.date, last: datetime.date) -> list[tuple[str, int, str, str, int]]:
        """(day, hour, outcome, landmark, number) from one day to another, both included."""
        sql = "SELECT day, hour, outcome, landmark, n FROM counts WHERE day BETWEEN ? AND ? ORDER BY 1, 2, 3, 4"
        with self._lock:
            return self._db.execute(sql, (first.isoformat(), last.isoformat())).fetchall()

    def summary(self, first: datetime.date, last: datetime.date) -> dict[str, Any]:
        """The days as JSON: asked, found and unknown of each, by hour, and how often each place was found."""
        days: dict[str, dict[str, Any]] = {}
        landmarks: dict[str, int] = {}
        for number in range((last - first).days + 1):
            day = (first + datetime.timedelta(number)).isoformat()
            days[day] = {"day": day, "asked": 0, "found": 0, "unknown": 0, "hours": [0] * 24}
        for day, hour, outcome, landmark, n in self.rows(first, last):
            row = days[day]
            row["asked"] += n
            row[outcome] += n
            row["hours"][hour] += n
            if outcome == "found":
                landmarks[landmark] = landmarks.get(landmark, 0) + n
        ranked = sorted(landmarks.items(), key=lambda pair: (-pair[1], pair[0]))
        return {"days": list(days.values()), "landmarks": [{"landmark": name, "found": n} for name, n in ranked]}

    def csv(self, first: datetime.date, last: datetime.date) -> str:
        """The same as a table: day, hour, outcome, landmark, number."""
        text = io.StringIO()
        table = csv.writer(text)
        table.writerow(("day", "hour", "outcome", "landmark", "number"))
        # A spreadsheet takes a cell that begins like this for a formula.
        safe = (
            (d, h, o, f"'{name}" if name.startswith(("=", "+", "-", "@")) else name, n)
            for d, h, o, name, n in self.rows(first, last)
        )
        table.writerows(safe)
        return text.getvalue()

    def today(self) -> Mapping[str, int]:
        """Outcome -> number, today."""
        today = datetime.date.today()
        counts = {"found": 0, "unknown": 0}
        for _, _, outcome, _, n in self.rows(today, today):
            counts[outcome] += n
        return counts

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            if self._opened is not None:
                self._opened.close()
                self._opened = None


def _open(path: Path | None) -> sqlite3.Connection:
    """The file; where it cannot be used, memory, and a line in the log: visitors do not wait for statistics."""
    if path is not None:
        try:
            return _opened(path)
        except sqlite3.Error as e:
            _LOG.warning("%s: no statistics are kept there (%s); they are in memory until the service ends", path, e)
    db = sqlite3.connect(":memory:", check_same_thread=False)
    db.execute(_SCHEMA)
    return db


def _opened(path: Path) -> sqlite3.Connection:
    """The file, looked at before anything is written: it may be a database of something else."""
    db = sqlite3.connect(path, check_same_thread=False, timeout=2.0)
    try:
        tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if tables - {"counts"}:
            raise sqlite3.DatabaseError("it holds something else; name a file of its own")
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        db.execute(_SCHEMA)
        db.commit()
    except BaseException:
        db.close()
        raise
    return db
