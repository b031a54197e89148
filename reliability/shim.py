"""Builds shim.c and runs processes above it."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

from testing.paths import ROOT

CREATE, WRITE, TRUNCATE, SYNC, RENAME, UNLINK, SYNC_FOLDER, MARK = range(1, 9)
CALLS = ("open", "read", "write", "sync", "truncate", "rename", "unlink", "mmap", "lock", "stat")
_HEAD = struct.Struct("<IIQQ")


class Event(NamedTuple):
    """A record of the log: what was done to which file (its number), where, and the bytes or paths."""

    kind: int
    file: int
    offset: int
    data: bytes


@cache
def library() -> Path:
    """The compiled shim.

    Raises:
        RuntimeError: there is no C compiler.
    """
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise RuntimeError("the reliability lab needs a C compiler (cc) for its shim")
    target = Path(tempfile.mkdtemp(prefix="delf-edge-shim-")) / "shim.so"
    source = Path(__file__).with_name("shim.c")
    subprocess.run([compiler, "-O1", "-shared", "-fPIC", "-o", target, source, "-ldl", "-lpthread"], check=True)
    return target


def run(arguments: Sequence[str], folder: Path, log: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a Python module (`-m` and what follows) whose files below `folder` are watched."""
    environment = os.environ | {
        "LD_PRELOAD": str(library()),
        "SHIM_ROOT": str(folder),
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }
    if log is not None:
        environment["SHIM_LOG"] = str(log)
    command = [sys.executable, "-m", *arguments]
    return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)


def events(log: Path) -> Iterator[Event]:
    """The records of a log."""
    data = log.read_bytes()
    at = 0
    while at < len(data):
        kind, file, offset, length = _HEAD.unpack_from(data, at)
        at += _HEAD.size
        yield Event(kind, file, offset, data[at : at + length])
        at += length


class Inside:
    """The shim, seen from a process that runs above it."""

    def __init__(self) -> None:
        self._c = ctypes.CDLL(None)
        self._c.shim_count.restype = self._c.shim_fired.restype = ctypes.c_long

    def mark(self, text: str) -> None:
        """Put a remark into the log."""
        self._c.shim_mark(text.encode())

    def arm(self, call: str, nth: int, error: int, *, sticky: bool = False) -> None:
        """Let the nth call of a kind from now on fail (error -1: a short write); `sticky`, all after it too."""
        self._c.shim_arm(CALLS.index(call), ctypes.c_long(nth), error, int(sticky))

    def disarm(self) -> None:
        """Let nothing fail."""
        self._c.shim_arm(-1, ctypes.c_long(0), 0, 0)

    def count(self, call: str) -> int:
        """Calls of a kind since the last `arm` or `disarm`."""
        return int(self._c.shim_count(CALLS.index(call)))

    @property
    def fired(self) -> int:
        """Calls that were made to fail since the last `arm`."""
        return int(self._c.shim_fired())


ERRORS = {
    "open": (errno.EMFILE, errno.EACCES, errno.ENOSPC, errno.EROFS, errno.EIO),
    "read": (errno.EIO,),
    "write": (errno.ENOSPC, errno.EIO, errno.EROFS, -1),
    "sync": (errno.EIO, errno.ENOSPC),
    "truncate": (errno.EIO, errno.ENOSPC),
    "rename": (errno.EACCES, errno.ENOSPC, errno.EIO),
    "unlink": (errno.EACCES, errno.EROFS, errno.EIO),
    "mmap": (errno.ENOMEM,),
    "lock": (errno.ENOLCK, errno.EIO),
    "stat": (errno.EIO, errno.EACCES),
}
