"""Builds on a cluster: `python -m benchmarks.build [--photos N] [--long N] [--json]` (`make bench-build`).

Photos are perturbed copies of the demo references, so that any number of them is at hand. Measured with the preset
`fast` of the default bundle (photos a second), and with the tests' bundle, whose network is tiny (overhead, memory):

* photos a second of a plain process pool and of Dask, with 1 and 2 workers, and what a shard costs beyond its photos;
* the hash of the database for 1 worker, for 2, and for 2 of which one is killed; a build that is stopped and resumed;
* the largest resident memory of client and workers at two sizes.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import multiprocessing
import os
import resource
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.runner import environment
from delf_edge.building.cluster import Progress, connect, make_shards
from delf_edge.building.listing import Shard, cut, read_rows
from delf_edge.building.merging import merge
from delf_edge.building.shards import make_shard
from delf_edge.bundle import Bundle, default_bundle_path
from delf_edge.images import load_image

ROOT = Path(__file__).resolve().parent.parent
TINY = ROOT / "tests" / "fixtures" / "tiny_bundle"
SHARD = 32


def make_photos(folder: Path, n: int, side: int) -> Path:
    """`n` perturbed copies of the demo references, and the table that lists them."""
    references = sorted((ROOT / "assets" / "demo" / "references").glob("*/*"))
    sources = [load_image(path).pixels[..., ::-1] for path in references]
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    with (folder / "photos.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "landmark"])
        for i in range(n):
            source = sources[i % len(sources)]
            height, width = source.shape[:2]
            factor = side / max(height, width)
            turn = cv2.getRotationMatrix2D((width / 2, height / 2), float(rng.uniform(-8, 8)), factor)
            turn[:, 2] += np.array([width, height]) * (factor - 1) / 2
            size = round(width * factor), round(height * factor)
            photo = cv2.warpAffine(source, turn, size, flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REFLECT)
            cv2.imwrite(str(folder / f"{i:06d}.jpg"), photo, [cv2.IMWRITE_JPEG_QUALITY, 85])
            writer.writerow([f"{i:06d}.jpg", references[i % len(references)].parent.name])
    return folder / "photos.csv"


def shards_of(table: Path, out: Path, bundle: Path, size: int = SHARD) -> list[Shard]:
    """The work of a build."""
    rows, bundle_id = read_rows(str(table)), Bundle.load(bundle).id
    return list(cut(rows, size, bundle=str(bundle), bundle_id=bundle_id, preset="fast", out=f"{out}/shards"))


def _nothing(_: int) -> int:
    os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    return os.getpid()


def pool_seconds(shards: Sequence[Shard], workers: int) -> float:
    """Seconds of a plain process pool for the same shards, without the start of the processes."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        list(pool.map(_nothing, range(4 * workers)))
        began = time.perf_counter()
        list(pool.map(make_shard, shards))
        return time.perf_counter() - began


def dask_seconds(shards: Sequence[Shard], out: Path, workers: int, kill: bool = False) -> dict[str, Any]:
    """Seconds of Dask for the same shards, without the start of its processes; memory of its workers in MB."""
    killed: list[int] = []
    with connect(None, workers) as client:
        pids = list(client.run(os.getpid).values())
        client.run(_nothing, 0)

        def watch(_: Progress) -> None:
            if kill and not killed:
                killed.append(pids[0])
                os.kill(pids[0], signal.SIGKILL)

        began = time.perf_counter()
        names, progress = make_shards(client, iter(shards), f"{out}/shards", watch)
        seconds = time.perf_counter() - began
        peaks = list(client.run(peak_memory).values())
    if progress.failed:
        raise RuntimeError(f"shards failed: {progress.failed}")
    return {
        "seconds": seconds,
        "names": names,
        "worker_mb": max(peaks),
        "killed": len(killed),
        "skipped": progress.skipped,
    }


def peak_memory() -> float:
    """Largest resident memory of this process so far, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def digest(out: Path, names: Sequence[str]) -> str:
    """Merge and hash: every shard, every manifest and the database."""
    merge(str(out), names)
    whole = hashlib.sha256()
    for path in [*(out / "shards" / f"{n}{tail}" for n in names for tail in (".shard", ".json")), out / "places.db"]:
        whole.update(path.read_bytes())
    return whole.hexdigest()


def hashes_and_speed(table: Path, folder: Path, bundle: Path, n: int, repeat: int) -> dict[str, Any]:
    """Photos a second and the hash of every way to build."""
    seconds: dict[str, list[float]] = {}
    found: dict[str, str] = {}

    def fresh(name: str) -> tuple[Path, list[Shard]]:
        shutil.rmtree(folder / name, ignore_errors=True)
        return folder / name, shards_of(table, folder / name, bundle)

    for _ in range(repeat):  # in turn, so that other work on the machine falls on all of them
        for workers in (1, 2):
            out, shards = fresh(f"pool {workers}")
            seconds.setdefault(f"pool {workers}", []).append(pool_seconds(shards, workers))
            found[f"pool {workers}"] = digest(out, [s.name for s in shards])
            out, shards = fresh(f"dask {workers}")
            done = dask_seconds(shards, out, workers)
            seconds.setdefault(f"dask {workers}", []).append(done["seconds"])
            found[f"dask {workers}"] = digest(out, done["names"])
    out, shards = fresh("killed")
    killed = dask_seconds(shards, out, 2, kill=True)
    found["dask 2, one killed"] = digest(out, killed["names"])
    for path in sorted((out / "shards").glob("*"))[: len(shards)]:
        path.unlink()  # half of the shards are gone: as if the build had been stopped
    resumed = dask_seconds(shards, out, 2)
    found["resumed"] = digest(out, resumed["names"])
    median = {name: statistics.median(times) for name, times in seconds.items()}
    n_shards = -(-n // SHARD)
    overhead = {w: 1e3 * (median[f"dask {w}"] - median[f"pool {w}"]) * int(w) / n_shards for w in ("1", "2")}
    return {
        "photos": n,
        "shard_size": SHARD,
        "photos_per_second": {name: n / s for name, s in median.items()},
        "seconds": seconds,
        "overhead_ms_per_shard": overhead,
        "sha256": found,
        "identical": len(set(found.values())) == 1,
        "killed_workers": killed["killed"],
        "resumed_found_finished": resumed["skipped"],
        "shards": n_shards,
    }


def memory(folder: Path, sizes: Sequence[int], side: int) -> dict[str, Any]:
    """Largest resident memory of workers, and of a client process of its own, at several numbers of photos."""
    rows: dict[str, Any] = {}
    for n in sizes:
        table = make_photos(folder / f"long {n}", n, side)
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            rows[str(n)] = pool.submit(_long, table, folder / f"long {n}" / "out", n).result()
        shutil.rmtree(folder / f"long {n}")
    return rows


def _long(table: Path, out: Path, n: int) -> dict[str, float]:
    rows, bundle = read_rows(str(table)), Bundle.load(TINY)
    shards = cut(rows, SHARD, bundle=str(TINY), bundle_id=bundle.id, preset="fast", out=f"{out}/shards")
    with connect(None, 2) as client:
        began = time.perf_counter()
        names, _ = make_shards(client, shards, f"{out}/shards")
        seconds = time.perf_counter() - began
        worker = max(client.run(peak_memory).values())
    merge(str(out), names)
    return {"worker_mb": worker, "client_mb": peak_memory(), "photos_per_second": n / seconds}


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.build", description="Builds on a cluster.")
    parser.add_argument("--photos", type=int, default=256, help="photos for speed and hashes")
    parser.add_argument("--repeat", type=int, default=3, help="rounds of the timings")
    parser.add_argument("--long", type=int, nargs="*", default=[1000, 10000], help="photos for the memory")
    parser.add_argument("--side", type=int, default=640, help="longer side of the photos, pixels")
    parser.add_argument("--long-side", type=int, default=160, help="of those for the memory")
    parser.add_argument("--tiny", action="store_true", help="the tests' bundle for all of it: overhead, not speed")
    a = parser.parse_args(arguments)
    result: dict[str, Any] = {"command": " ".join(["python -m benchmarks.build", *(sys.argv[1:])]), **environment()}
    with tempfile.TemporaryDirectory(prefix="bench-build-") as scratch:
        folder = Path(scratch)
        table = make_photos(folder / "photos", a.photos, a.side)
        bundle = TINY if a.tiny else default_bundle_path()
        result["bundle"] = "tests/fixtures/tiny_bundle" if a.tiny else "assets/default"
        result["build"] = hashes_and_speed(table, folder, bundle, a.photos, a.repeat)
        print("build", json.dumps(result["build"]), file=sys.stderr)  # the rest takes longer
        result["memory"] = memory(folder, a.long, a.long_side)
    print(json.dumps(result, indent=1))
    return 0 if result["build"]["identical"] else 1


if __name__ == "__main__":
    raise SystemExit(main())
