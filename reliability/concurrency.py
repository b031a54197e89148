"""Writers, readers and a compactor at once (`python -m reliability concurrency`).

Two processes write pairs of images, always both of a pair in one transaction and with the same version; eight read
them, half of them over a `Store` that was opened before the fork, two with two threads on one `Store`; one compacts
and takes snapshots. A read is wrong if the two images of a pair have different versions (half an answer), if the
version is older than one that was acknowledged before the read began, or than one this reader has seen (stale). Most of
the time nobody leaves the log alone, so its largest size is what constant readers make of it.
"""

from __future__ import annotations

import mmap
import os
import signal
import struct
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from delf_edge.storage.records import NewImage
from delf_edge.storage.store import Store
from reliability import world

PAIRS = 40
WRITERS, READERS = 2, 8
_ACKNOWLEDGED = 0  # offsets in the shared memory: uint32 of each pair, then uint64 of each reader: reads, wrong
_TALLY = 4 * PAIRS


def image(pair: int, half: int, version: int) -> NewImage:
    """Half of a pair: the version is in its metadata, in its landmark and in every byte of its codes."""
    base = world.new_image(2 * pair + half, f"pair {pair} {half}", f"version {version % 3}")
    codes = replace(base.codes, codes=np.full_like(base.codes.codes, version % 251))
    return replace(base, codes=codes, metadata={"version": version})


def batch(seed: int, n: int) -> dict[str, Any]:
    """n reads, shared by all readers."""
    shared = mmap.mmap(-1, _TALLY + 16 * READERS)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "places.db"
        with Store.open(path, bundle_id=world.bundle().id, layout=world.layout()) as store:
            for pair in range(PAIRS):
                store.add_many([image(pair, half, 1) for half in (0, 1)])
                struct.pack_into("<I", shared, 4 * pair, 1)
        inherited = Store.open(path, mode="ro")
        readers = [_fork(lambda i=i: _read(path, inherited, shared, i, n // READERS, seed)) for i in range(READERS)]  # type: ignore[misc]
        others = [_fork(lambda i=i: _write(path, shared, i, seed)) for i in range(WRITERS)]  # type: ignore[misc]
        others.append(_fork(lambda: _compact(path, Path(folder) / "copy.db")))
        most_log, failed = _watch(Path(f"{path}-wal"), readers)
        for pid in others:
            done, _ = os.waitpid(pid, os.WNOHANG)
            failed += done != 0  # they only end by failing
            if not done:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
        inherited.close()
        with Store.open(path) as store:
            problems = store.verify()
        versions = struct.unpack_from(f"<{PAIRS}I", shared, 0)
    tally = [struct.unpack_from("<QQ", shared, _TALLY + 16 * i) for i in range(READERS)]
    wrong = sum(w for _, w in tally)
    return {
        "n": sum(reads for reads, _ in tally),
        "inconsistent reads": wrong,
        "writes": sum(versions) - PAIRS,
        "processes that failed": failed,
        "most bytes of the log": most_log,
        "lost or wrong": wrong + failed + len(problems),
        "found": [p.what for p in problems],
    }


def _fork(body: Callable[[], None]) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            body()
            os._exit(0)
        except BaseException as e:
            os.write(2, f"{type(e).__name__}: {e}\n".encode())
            os._exit(1)
    return pid


def _watch(wal: Path, readers: list[int]) -> tuple[int, int]:
    """The log's largest size until the last reader ends, and how many readers failed."""
    most, failed, waiting = 0, 0, set(readers)
    while waiting:
        most = max(most, wal.stat().st_size if wal.exists() else 0)
        for pid in list(waiting):
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                waiting.discard(pid)
                failed += status != 0
        time.sleep(0.02)
    return most, failed


def _write(path: Path, shared: mmap.mmap, number: int, seed: int) -> None:
    rng = np.random.default_rng((seed, number))
    with Store.open(path, bundle_id=world.bundle().id, layout=world.layout(), busy_timeout=60) as store:
        while True:
            pair = int(rng.integers(PAIRS // WRITERS)) * WRITERS + number
            (version,) = struct.unpack_from("<I", shared, 4 * pair)
            store.add_many([image(pair, half, version + 1) for half in (0, 1)])
            struct.pack_into("<I", shared, 4 * pair, version + 1)


def _compact(path: Path, copy: Path) -> None:
    with Store.open(path, bundle_id=world.bundle().id, layout=world.layout(), busy_timeout=60) as store:
        while True:
            store.compact()
            store.snapshot(copy, overwrite=True)
            time.sleep(0.2)


def _read(path: Path, inherited: Store, shared: mmap.mmap, number: int, n: int, seed: int) -> None:
    store = inherited if number % 2 else Store.open(path, mode="ro")
    threads = 2 if number < 2 else 1
    totals: list[tuple[int, int]] = []

    def work(thread: int) -> None:
        totals.append(_reads(store, shared, n // threads, np.random.default_rng((seed, number, thread))))

    running = [threading.Thread(target=work, args=(t,)) for t in range(threads)]
    for t in running:
        t.start()
    for t in running:
        t.join()
    struct.pack_into("<QQ", shared, _TALLY + 16 * number, sum(t[0] for t in totals), sum(t[1] for t in totals))
    if len(totals) != threads:
        raise RuntimeError("a thread failed")


def _reads(store: Store, shared: mmap.mmap, n: int, rng: np.random.Generator) -> tuple[int, int]:
    """Reads done, and those that were wrong."""
    seen, wrong = [0] * PAIRS, 0
    pairs = rng.integers(0, PAIRS, n).tolist()
    for k, pair in enumerate(pairs):
        (acknowledged,) = struct.unpack_from("<I", shared, 4 * pair)
        ids = [2 * pair + 1, 2 * pair + 2]
        if k % 4:
            codes = store.codes(ids)
            values = {int(c.codes[0, 0]) for c in codes.values()} | {int(c.codes[-1, -1]) for c in codes.values()}
            wrong += len(codes) != 2 or len(values) != 1 or not _newer(values.pop(), acknowledged)
            continue
        rows = store.images_by_id(ids)
        versions = {row.metadata["version"] for row in rows}
        version = min(versions, default=0)
        labels = {row.landmark for row in rows}
        wrong += len(rows) != 2 or len(versions) != 1 or labels != {f"version {version % 3}"}
        wrong += version < acknowledged or version < seen[pair]
        seen[pair] = version
    return n, wrong


def _newer(byte: int, acknowledged: int) -> bool:
    """Whether a version of which only version % 251 is known is not older than one that was acknowledged."""
    return (byte - acknowledged) % 251 < 125
