"""What a recorded figure depends on beside data and bundle: the code that runs for it."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

BENCHMARKS = Path(__file__).parent.parent
# What turns a row's answers into figures.
LAB = (
    "evaluate.py",
    "data/*.py",
    "metrics/*.py",
    "lab/figures.py",
    "lab/runner.py",
    "lab/runtime.py",
    "lab/tuning.py",
    "systems/*.py",
)
# What a query runs: folders and modules of `delf_edge` from the recognizer down.
SDK = (
    "bundle",
    "features",
    "images",
    "index",
    "packs",
    "quantization",
    "query",
    "storage",
)


def row_code() -> list[Path]:
    """The source files that a row of the table runs: the SDK up to the recognizer, and the lab's way to figures."""
    folder = BENCHMARKS.parent / "delf_edge"
    return [
        *sorted(folder.glob("*.py")),
        *(path for name in SDK for path in sorted((folder / name).glob("*.py"))),
        *sorted(folder.glob("*.cpp")),
        *(path for pattern in LAB for path in sorted(BENCHMARKS.glob(pattern))),
    ]


@cache
def code_digest() -> str:
    """Short hash of that code. Features are not keyed by it (their systems carry a version), figures are."""
    digest = hashlib.sha256()
    for path in row_code():
        digest.update(path.name.encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
