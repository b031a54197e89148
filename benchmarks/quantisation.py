"""What quantising the local network costs: `python -m benchmarks.quantisation ../shared/data/dev.json --out FILE.json`.

The report of `delf-edge-convert check`, with machine, versions, commit and date. Needs PyTorch. mAP is that of the
whole path (network, PQ, RANSAC), against the float weights of the same bundle. With `--tflite-runtime-python` (a Python
below 3.12 with tflite-runtime, numpy<2, hnswlib and OpenCV) there are rows for that runtime too; int8 is slow there,
`--head` takes a part.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from pathlib import Path

from benchmarks.lab.records import environment
from delf_edge.bundle.bundle import default_bundle_path


def main() -> int:
    """Check, print and write; returns 1 where a bound is missed."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("dataset", type=Path, help="JSON of queries, positives and database")
    p.add_argument("--bundle", type=Path, default=default_bundle_path())
    p.add_argument("--photos", type=Path, help="photos for the cosines, default: train.csv beside the dataset")
    p.add_argument("--count", type=int, default=24, help="how many of them")
    p.add_argument("--head", type=int, nargs=2, metavar=("QUERIES", "PHOTOS"), help="only a part of the dataset")
    p.add_argument("--tflite-runtime-python", type=Path)
    p.add_argument("--work", type=Path, default=Path("out/quantisation"), help="databases are kept here")
    p.add_argument("--out", type=Path, help="JSON file to write")
    a = p.parse_args()

    from delf_edge.converters.export import check, runtimes
    from delf_edge.converters.networks.delf import LITE0
    from delf_edge.converters.training.photos import balanced, read_photos

    photos = balanced(read_photos([a.photos or a.dataset.parent / "train.csv"]), 4)
    judged_on: list[runtimes.Runtime] = [runtimes.Here()]
    if a.tflite_runtime_python:
        judged_on.append(runtimes.Elsewhere(a.tflite_runtime_python))
    result = check.check(
        a.bundle,
        check.restored(a.bundle, LITE0),
        check.inputs(a.bundle, photos, a.count),
        check.Bounds(),
        judged_on,
        runtimes.Benchmark(a.dataset, a.work, head=tuple(a.head) if a.head else None),
        lambda line: print(line, file=sys.stderr),
    )
    result["bundle"] = a.bundle.name
    local = {str(a.work): "WORK", str(a.tflite_runtime_python): "PYTHON"}  # paths of this machine
    result["command"] = shlex.join(
        ["python", "-m", "benchmarks.quantisation", *(local.get(w, w) for w in sys.argv[1:])]
    )
    text = json.dumps(result | {"environment": environment()}, indent=1) + "\n"
    print(text)
    if a.out:
        a.out.write_text(text, encoding="utf-8")
    return 0 if result["passed"] else 1


if __name__ == "__main__":
    raise SystemExit(main())
