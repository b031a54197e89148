"""Builds on a cluster: `python -m benchmarks.build [--photos N] [--long N] [--only PART...]` (`make bench-build`).

Photos are perturbed copies of the demo references, so that any number of them is at hand. Measured with the preset
`fast` of the default bundle (photos a second), and with the tests' bundle, whose network is tiny (overhead, memory):

* photos a second of a plain process pool and of Dask, with 1 and 2 workers, and what a shard costs beyond its photos;
* the hash of the database for 1 worker, for 2, and for 2 of which one is killed; a build that is stopped and resumed;
* the largest resident memory of client and workers at two sizes;
* the hash of a bundle whose codebook was fitted by 1 worker, by 2, and by 2 of which one is killed during the fit;
* photos a second of the merge, which one process does, with codes of the default bundle's size.
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
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any
from unittest import mock

import cv2
import numpy as np

from benchmarks.lab.records import environment
from delf_edge.bundle.bundle import Bundle, default_bundle_path
from delf_edge.distributed import shards as shard_module
from delf_edge.distributed.cluster import Progress, connect_cluster, make_shards
from delf_edge.distributed.codebook import FitOptions, fit_codebook
from delf_edge.distributed.merging import merge_shards
from delf_edge.distributed.shards import make_shard
from delf_edge.images.decode import load_image
from delf_edge.interchange.photo_entry import PhotoEntry
from delf_edge.interchange.photo_tables import Shard, cut, read_rows
from delf_edge.quantization.packed_codes import CodeLayout
from delf_edge.types import Codes
from testing.paths import TINY_BUNDLE

ROOT = Path(__file__).resolve().parent.parent
SHARD = 32
PARTS = ("build", "codebook", "merge", "memory")


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
    with connect_cluster(None, workers) as client:
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
    merge_shards(str(out), names)
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
    rows, bundle = read_rows(str(table)), Bundle.load(TINY_BUNDLE)
    shards = cut(rows, SHARD, bundle=str(TINY_BUNDLE), bundle_id=bundle.id, preset="fast", out=f"{out}/shards")
    with connect_cluster(None, 2) as client:
        began = time.perf_counter()
        names, _ = make_shards(client, shards, f"{out}/shards")
        seconds = time.perf_counter() - began
        worker = max(client.run(peak_memory).values())
    merge_shards(str(out), names)
    return {"worker_mb": worker, "client_mb": peak_memory(), "photos_per_second": n / seconds}


def codebooks(table: Path, folder: Path, bundle: Path, n: int) -> dict[str, Any]:
    """The hash of a fitted bundle, all of its files, for every number of workers."""
    found: dict[str, str] = {}
    seconds: dict[str, float] = {}
    killed: list[int] = []
    for name, workers, kill in (("1", 1, False), ("2", 2, False), ("2, one killed", 2, True)):
        with connect_cluster(None, workers) as client:
            pids = list(client.run(os.getpid).values())

            def watch(line: str, victim: int | None = pids[0] if kill else None) -> None:
                if victim is not None and "words and codes" in line:  # the projection is made, the descriptors are out
                    killed.append(victim)
                    os.kill(victim, signal.SIGKILL)

            out, began = folder / f"codebook {name}", time.perf_counter()
            options = FitOptions(
                bundle=str(bundle), photos=n, per_landmark=n, shard_size=SHARD, scheduler=client.scheduler.address
            )
            fitted = fit_codebook(str(table), out, options, report=watch)
            seconds[name] = time.perf_counter() - began
        Bundle.verify(out)
        found[name] = hashlib.sha256(b"".join(p.read_bytes() for p in sorted(out.iterdir()))).hexdigest()
    return {
        "photos": n,
        "words": int(fitted.figures["words"]),
        "seconds": seconds,
        "sha256": found,
        "identical": len(set(found.values())) == 1,
        "killed_workers": len(killed),
        "bundle_id": fitted.bundle,
    }


class _MadeUp:
    """Instead of a network: codes of the default bundle's size, at random."""

    layout = CodeLayout(code_size=16, global_dim=384, n_words=8192)

    def codes(self, data: bytes) -> Codes:
        """Codes of 300 features that depend on the bytes."""
        rng = np.random.default_rng(np.frombuffer(data, np.uint8))
        return Codes(
            keypoints=(rng.random((300, 2)) * 480).astype(np.float32),
            words=rng.integers(0, 8192, 300).astype(np.uint16),
            codes=rng.integers(0, 256, (300, 16)).astype(np.uint8),
            global_code=rng.integers(-127, 128, 384).astype(np.int8),
            image_size=(640, 480),
        )


def merge_speed(folder: Path, n: int, size: int = 256) -> dict[str, Any]:
    """Photos a second of a merge of n photos from shards of `size`, by the clock and of processor time."""
    rows = (PhotoEntry(i, f"/{i}.jpg", f"{i}.jpg", f"place {i // 10}") for i in range(n))
    names = []
    with (
        mock.patch.object(shard_module, "_describer", return_value=_MadeUp()),
        mock.patch.object(shard_module, "fetch", str.encode),
    ):
        for shard in cut(rows, size, bundle="", bundle_id="0" * 12, preset="fast", out=f"{folder}/merge/shards"):
            make_shard(shard)
            names.append(shard.name)
    began, spent = time.perf_counter(), time.process_time()
    (made,), bad, _ = merge_shards(f"{folder}/merge", names)
    seconds, cpu = time.perf_counter() - began, time.process_time() - spent
    shutil.rmtree(folder / "merge")
    return {
        "photos": made.images,
        "bad": len(bad),
        "bytes": made.bytes,
        "seconds": seconds,
        "photos_per_second": made.images / seconds,
        "cpu_seconds": cpu,  # a busy machine does not lengthen these
        "photos_per_cpu_second": made.images / cpu,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.build", description="Builds on a cluster.")
    parser.add_argument("--photos", type=int, default=256, help="photos for speed and hashes")
    parser.add_argument("--repeat", type=int, default=3, help="rounds of the timings")
    parser.add_argument("--long", type=int, nargs="*", default=[1000, 10000], help="photos for the memory")
    parser.add_argument("--side", type=int, default=640, help="longer side of the photos, pixels")
    parser.add_argument("--long-side", type=int, default=160, help="of those for the memory")
    parser.add_argument("--merge", type=int, default=20000, help="photos of the merge")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="parts to measure; default: all")
    parser.add_argument("--tiny", action="store_true", help="the tests' bundle for all of it: overhead, not speed")
    a = parser.parse_args(arguments)
    result: dict[str, Any] = {"command": " ".join(["python -m benchmarks.build", *(sys.argv[1:])]), **environment()}
    with tempfile.TemporaryDirectory(prefix="bench-build-") as scratch:
        folder = Path(scratch)
        table = make_photos(folder / "photos", a.photos, a.side)
        bundle = TINY_BUNDLE if a.tiny else default_bundle_path()
        result["bundle"] = "tests/fixtures/tiny_bundle" if a.tiny else "assets/default"
        parts: dict[str, Callable[[], dict[str, Any]]] = {
            "build": lambda: hashes_and_speed(table, folder, bundle, a.photos, a.repeat),
            "codebook": lambda: codebooks(table, folder, bundle, a.photos),
            "merge": lambda: merge_speed(folder, a.merge),
            "memory": lambda: memory(folder, a.long, a.long_side),
        }
        for part in a.only:
            result[part] = parts[part]()
            print(part, json.dumps(result[part]), file=sys.stderr)  # the rest may take longer
    print(json.dumps(result, indent=1))
    return 0 if all(result[part]["identical"] for part in ("build", "codebook") if part in result) else 1


if __name__ == "__main__":
    raise SystemExit(main())
