"""What a recorded figure depends on beside data and bundle: the code that runs for it."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

HERE = Path(__file__).parent
LAB = ("backbones", "datasets", "evaluate", "protocols", "runner", "safe_pickle", "stats", "trainset", "tuning")
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
    folder = HERE.parent / "delf_edge"
    return [
        *sorted(folder.glob("*.py")),
        *(path for name in SDK for path in sorted((folder / name).glob("*.py"))),
        *sorted(folder.glob("*.cpp")),
        *(HERE / f"{name}.py" for name in LAB),
        *sorted((HERE / "systems").glob("*.py")),
    ]


@cache
def code_digest() -> str:
    """Short hash of that code. Features are not keyed by it (their systems carry a version), figures are."""
    digest = hashlib.sha256()
    for path in row_code():
        digest.update(path.name.encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
