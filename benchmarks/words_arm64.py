"""Instructions on arm64 for the 8 words of a feature, by HNSW and by comparing it with all words, under qemu.

`python -m benchmarks.words_arm64 --hnswlib FOLDER` needs Debian's packages g++-aarch64-linux-gnu and qemu-user-static,
and hnswlib's headers (its source package from PyPI, unpacked). `words_arm64.cpp` is compiled for any arm64 (armv8-a,
-O3) and run for 1 and for 11 features one instruction at a time; a tenth of the difference is what a feature takes. The
product is a plain loop that the compiler makes vectors of, not that of a BLAS. Instructions say nothing of memory.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.lab.records import environment
from delf_edge.arrays import l2_normalise
from delf_edge.bundle.bundle import Bundle, default_bundle_path
from delf_edge.quantization.hnsw import EF_CONSTRUCTION, M
from delf_edge.quantization.product_quantizer import decode
from delf_edge.types import Codes, Float32Array

HERE = Path(__file__).resolve().parent
COMPILER = ("aarch64-linux-gnu-g++", "-O3", "-std=c++17", "-static")
QEMU = ("qemu-aarch64-static", "-singlestep", "-d", "exec,nochain")
FEW, MANY = 1, 11


def features(bundle: Bundle) -> Float32Array:
    """Features to ask for, float32 (64, D): of the bundle's cohort, a little moved."""
    cohort = bundle.cohort
    if cohort is None:
        return l2_normalise(np.random.default_rng(1).normal(size=(64, bundle.codebook.dim)).astype(np.float32))
    rows = np.linspace(0, len(cohort.words) - 1, 64).astype(int)
    stored = Codes(np.zeros((64, 2), np.float32), cohort.words[rows], cohort.codes[rows], np.zeros(0, np.int8), (1, 1))
    found = decode(stored, bundle.codebook)
    return l2_normalise(found + np.random.default_rng(1).normal(0, 0.05, found.shape).astype(np.float32))


def write_inputs(folder: Path, centroids: Float32Array, queries: Float32Array) -> None:
    """What the program reads: words and features, and the graph as hnswlib writes it."""
    import hnswlib

    head = np.array([len(centroids), centroids.shape[1], len(queries)], "<i4")
    (folder / "words").write_bytes(head.tobytes() + centroids.astype("<f4").tobytes() + queries.astype("<f4").tobytes())
    index = hnswlib.Index("l2", centroids.shape[1])
    index.init_index(len(centroids), M=M, ef_construction=EF_CONSTRUCTION, random_seed=1)
    index.add_items(centroids, np.arange(len(centroids)), num_threads=1)
    index.save_index(str(folder / "graph"))


def instructions(folder: Path, way: str, n: int) -> int:
    """Instructions of a whole run for n features."""
    run = [*QEMU, str(folder / "count"), str(folder / "words"), way, str(n), str(folder / "graph")]
    with subprocess.Popen(run, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        found = sum(line.startswith(b"Trace") for line in process.stderr)
    if process.returncode:
        raise RuntimeError(f"the program ended with {process.returncode}")
    return found


def main() -> int:
    """The command."""
    p = argparse.ArgumentParser(prog="python -m benchmarks.words_arm64", description=(__doc__ or "").splitlines()[0])
    p.add_argument("--hnswlib", type=Path, required=True, help="folder that has hnswlib/hnswlib.h")
    p.add_argument("--json", type=Path, default=HERE / "results" / "words_arm64.json")
    a = p.parse_args()
    bundle = Bundle.load(default_bundle_path())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_inputs(folder, bundle.codebook.centroids, features(bundle))
        sources = [str(HERE / "words_arm64.cpp"), str(HERE.parent / "delf_edge" / "_native.cpp")]
        subprocess.run([*COMPILER, f"-I{a.hnswlib}", *sources, "-o", str(folder / "count")], check=True)
        counts = {
            way: (instructions(folder, way, MANY) - instructions(folder, way, FEW)) // (MANY - FEW)
            for way in ("hnsw", "exact")
        }
    result = {
        "command": "python -m benchmarks.words_arm64 --hnswlib FOLDER",
        "words": bundle.codebook.n_words,
        "instructions of a feature": counts,
        "environment": environment(),
    }
    print(json.dumps(result, indent=1), file=sys.stderr)
    a.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
