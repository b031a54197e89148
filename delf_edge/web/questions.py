"""Pictures that were not recognised, which a visitor has left for staff: kept on this machine, for some days.

A picture is kept only if the kiosk was started with it, and a visitor has said yes to this one picture. They lie as
JPEG files in a folder; the oldest go when there are too many, and all go after their time.
"""

from __future__ import annotations

import datetime
import re
import secrets
import time
from pathlib import Path
from typing import Any

from delf_edge.errors import NotFoundError
from delf_edge.files import write_atomically

_NAME = re.compile(r"(\d{10})-([0-9a-f]{8})\.jpg")


class Questions:
    """The folder of pictures.

    Args:
        folder: where they lie; it is made for the first picture.
        days: how long each is kept.
        limit: how many at most.
    """

    def __init__(self, folder: Path, days: int = 14, limit: int = 200) -> None:
        self.folder, self.days, self.limit = folder, days, limit

    def add(self, jpeg: bytes, now: float | None = None) -> str:
        """Keep a picture; returns its id."""
        now = time.time() if now is None else now
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        question = f"{int(now):010d}-{secrets.token_hex(4)}"
        write_atomically(self.folder / f"{question}.jpg", jpeg)
        self.prune(now)
        return question

    def entries(self, now: float | None = None) -> list[dict[str, Any]]:
        """The pictures, the newest first: id and time (ISO 8601)."""
        self.prune(now)
        times = ((path.stem, int(path.stem[:10])) for path in self._files())
        return [
            {"id": key, "time": datetime.datetime.fromtimestamp(when, datetime.UTC).isoformat()}
            for key, when in sorted(times, reverse=True)
        ]

    def photo(self, question: str) -> bytes:
        """A picture's bytes.

        Raises:
            NotFoundError: there is none, or its time is over.
        """
        self.prune()
        try:
            return self._path(question).read_bytes()
        except FileNotFoundError:
            raise NotFoundError(f"there is no picture {question!r}; its time may be over") from None

    def remove(self, question: str) -> None:
        """Remove a picture.

        Raises:
            NotFoundError: there is none.
        """
        try:
            self._path(question).unlink()
        except FileNotFoundError:
            raise NotFoundError(f"there is no picture {question!r}; its time may be over") from None

    def prune(self, now: float | None = None) -> None:
        """Remove those whose time is over, and the oldest of too many."""
        now = time.time() if now is None else now
        files = sorted(self._files(), reverse=True)
        for number, path in enumerate(files):
            if number >= self.limit or now - int(path.stem[:10]) > self.days * 86400:
                path.unlink(missing_ok=True)

    def _files(self) -> list[Path]:
        if not self.folder.is_dir():
            return []
        return [path for path in self.folder.iterdir() if _NAME.fullmatch(path.name)]

    def _path(self, question: str) -> Path:
        if not _NAME.fullmatch(f"{question}.jpg"):
            raise NotFoundError(f"there is no picture {question[:40]!r}")
        return self.folder / f"{question}.jpg"
