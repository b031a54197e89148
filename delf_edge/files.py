"""Files that are replaced whole, hashed, parsed, and removed with what belongs to them."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

_READ = 1 << 20


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for block in iter(lambda: file.read(_READ), b""):
            digest.update(block)
    return digest.hexdigest()


def parse_json(data: bytes | str) -> Any:
    """What JSON from anywhere says.

    Raises:
        ValueError: it is no JSON, or nested deeper than Python's stack: strangers' brackets are no reason to crash.
    """
    try:
        return json.loads(data)
    except RecursionError as e:
        raise ValueError("brackets within brackets without end") from e


def write_atomically(path: Path, data: bytes) -> None:
    """Replace a file so that after a power cut there is the old one or the new one."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
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
