"""Photos that lie on their side: `python -m benchmarks.turns`.

The photos of the demo are asked for as they stand and turned by 90, 180 and 270 degrees, with and without
`IdentifyOptions.turns`: how many of the known ones are named, how many of the others are named by mistake, and how
long an answer takes.
"""

from __future__ import annotations

import argparse
import csv
import json
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.lab.records import environment
from delf_edge import IdentifyOptions, Recognizer
from delf_edge.images.decode import load_image
from delf_edge.query.photo import turned

DEMO = Path(__file__).parent.parent / "assets" / "demo"
RESULT = Path(__file__).parent / "results" / "turns.json"


def measure() -> dict[str, Any]:
    """Counts and median milliseconds by turn."""
    rows: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder, Recognizer.open(Path(folder) / "demo.db") as recognizer:
        for photo in sorted(path for path in DEMO.glob("references/*/*") if path.is_file()):
            recognizer.add(photo, landmark=photo.parent.name)
        with (DEMO / "queries.csv").open(newline="") as table:
            queries = list(csv.DictReader(table))
        for turns in (False, True):
            for degrees in (0, 90, 180, 270):
                counts = dict.fromkeys(("known", "named right", "named wrong", "strangers", "strangers named"), 0)
                spent: dict[bool, list[float]] = {True: [], False: []}
                for query in queries:
                    image = load_image(DEMO / "queries" / query["file"])
                    pixels = (turned(image, degrees) if degrees else image).pixels
                    began = time.process_time()
                    answer = recognizer.identify(pixels, channel_order="RGB", options=IdentifyOptions(turns=turns))
                    spent[answer.found].append((time.process_time() - began) * 1000)
                    known = query["landmark"] != ""
                    counts["known" if known else "strangers"] += 1
                    if answer.found:
                        right = "named right" if answer.landmark == query["landmark"] else "named wrong"
                        counts[right if known else "strangers named"] += 1
                times = {
                    name: round(median(spent[was])) for name, was in (("named", True), ("unknown", False)) if spent[was]
                }
                rows[f"turned by {degrees}, other turns {'tried' if turns else 'not tried'}"] = counts | {
                    "processor milliseconds, median": times
                }
        return {"bundle": recognizer.bundle.id, "photos of the demo": rows}


def main() -> int:
    """The command."""
    argparse.ArgumentParser(prog="python -m benchmarks.turns", description=(__doc__ or "").splitlines()[0]).parse_args()
    result = measure()
    RESULT.write_text(
        json.dumps({"command": "python -m benchmarks.turns", "environment": environment(), **result}, indent=1) + "\n"
    )
    print(json.dumps(result, indent=1))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
