"""What it takes to judge stored photos: `python -m benchmarks.lint [FOLDER]`.

A folder of photos, the demo's references if none is given, is stored; then `lint` judges each as a reference. Measured
is processor time, all threads together; the first photo is judged once more before, so that loading is not counted.
As in the command, the libraries beneath have one thread.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # read when numpy is imported

import numpy as np

from benchmarks.lab.records import environment
from delf_edge import AddItem, Recognizer
from delf_edge.diagnostics.reference_quality import assess_stored
from delf_edge.errors import DelfEdgeError
from delf_edge.interchange.photo_lists import list_folder

REFERENCES = Path(__file__).parent.parent / "assets" / "demo" / "references"
RESULT = Path(__file__).parent / "results" / "lint.json"


def measure(photos: Path) -> dict[str, Any]:
    """Seconds of processor a photo, and how many were judged from their files, not from their codes alone."""
    with tempfile.TemporaryDirectory() as folder, Recognizer.open(Path(folder) / "photos.db") as recognizer:
        listed, _ = list_folder(photos)
        list(recognizer.add_many(AddItem(p.path, p.landmark, p.name, {"path": str(p.path)}) for p in listed))
        images = list(recognizer.store.images())
        assess_stored(recognizer, images[0])
        seconds, from_files = [], 0
        for image in images:
            began = time.process_time()
            found = assess_stored(recognizer, image)
            seconds.append(time.process_time() - began)
            from_files += found.photo
    spent = {"median": np.median(seconds), "mean": np.mean(seconds), "most": np.max(seconds)}
    return {
        "photos": len(seconds),
        "processor seconds a photo": {name: round(float(value), 3) for name, value in spent.items()},
        "judged from their files": from_files,
    }


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.lint", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("photos", type=Path, nargs="?", help="a folder for each landmark; default: those of the demo")
    parser.add_argument("--out", type=Path, default=RESULT, help="where the figures go")
    options = parser.parse_args()
    try:
        result = measure(options.photos or REFERENCES)
    except DelfEdgeError as e:
        print(e, file=sys.stderr)
        return 2
    command = " ".join(["python -m benchmarks.lint", *sys.argv[1:]])
    record = {"command": command, "environment": environment(), **result}
    options.out.write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(result, indent=1))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
