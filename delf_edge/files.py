"""Files that are replaced whole, hashed, parsed, and removed with what belongs to them."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from delf_edge.errors import OptionError

_READ = 1 << 20


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for block in iter(lambda: file.read(_READ), b""):
            digest.update(block)
    return digest.hexdigest()


def resolved(path: str | Path) -> Path:
    """The absolute path, links followed.

    Raises:
        OptionError: no file can have this name: it holds a NUL, or half of a surrogate pair.
    """
    try:
        return Path(path).resolve()
    except ValueError as e:
        raise OptionError(f"{str(path)!r}: no file can have this name ({e}); pass the path of one") from e


def parse_json(data: bytes | str) -> Any:
    """What JSON from anywhere says.

    Raises:
        ValueError: it is no JSON, or nested deeper than Python's stack: strangers' brackets are no reason to crash.
    """
    try:
        return json.loads(data)
    except RecursionError as e:
        raise ValueError("brackets within brackets without end") from e


def partial_path(target: Path, what: str = "") -> Path:
    """Where a file is written before it takes its place: beside it, for this process alone.

    Raises:
        OptionError: `target` names no file ("", "." or "..").
    """
    if target.name in ("", ".."):
        raise OptionError(f"{str(target)!r} names no file to write; pass the path of one")
    return target.with_name(f".{target.name}.{os.getpid()}.{what}partial")


def write_atomically(path: Path, data: bytes) -> None:
    """Replace a file so that after a power cut there is the old one or the new one."""
    partial = partial_path(path)
    try:
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        sync_path(path.parent)
    finally:
        partial.unlink(missing_ok=True)


def remove_database(path: Path) -> None:
    """Remove a database and what lies beside it; nothing there is fine."""
    for tail in ("", "-journal", "-wal", "-shm"):
        path.with_name(path.name + tail).unlink(missing_ok=True)


def sync_path(path: Path) -> None:
    """fsync of a file or a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
