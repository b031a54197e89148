"""Features on disk, keyed by what they were made from, so that a stopped run goes on where it was.

A file holds the arrays of one photo as one system saw it. Its name is the SHA-256 of the system's key (network,
options, code version) and of the photo's bytes: changing either makes another file, nothing is ever stale. Written
whole or not at all, read without pickle; a damaged file is made again.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import zipfile
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Arrays = Mapping[str, NDArray[Any]]


class FeatureCache:
    """A folder of feature files.

    Args:
        folder: where they lie; None keeps nothing.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def path(self, key: str, content: bytes) -> Path | None:
        """File of one photo's features.

        Args:
            key: the system's key.
            content: the photo's hash.
        """
        if self.folder is None:
            return None
        system = hashlib.sha256(key.encode()).hexdigest()[:16]
        return self.folder / system / content.hex()[:2] / f"{content.hex()[:40]}.npz"

    def get(self, key: str, content: bytes, make: Callable[[], Arrays], wants: Collection[str] | None = None) -> Arrays:
        """The stored arrays, or those `make` returns, which are then stored.

        Args:
            key: the system's key.
            content: the photo's hash.
            make: extracts them.
            wants: names of the arrays to read; None for all.
        """
        path = self.path(key, content)
        if path is None:
            return make()
        try:
            with path.open("rb") as stored_file, np.load(stored_file, allow_pickle=False) as stored:
                return {name: stored[name] for name in (stored.files if wants is None else wants)}
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            arrays = make()
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".npz")
        try:
            with os.fdopen(handle, "wb") as f:
                np.savez(f, **dict(arrays))  # type: ignore[arg-type]
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        return arrays


def photo_hash(path: Path, box: tuple[float, float, float, float] | None = None) -> bytes:
    """SHA-256 of a photo's bytes and the box it is cropped to."""
    digest = hashlib.sha256(path.read_bytes())
    digest.update(repr(box).encode())
    return digest.digest()
