"""Life of a database for the search benchmark: starting, growing, many processes at once, and a long day.

Every function gives JSON-ready figures. What is timed in a fresh process runs `python -m benchmarks.lab.search_life`.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.lab.search_data import Copies
from delf_edge.index.index_file import index_path
from delf_edge.storage.records import NewImage
from delf_edge.storage.store import Store
from delf_edge.types import Codes

BASE_MB = 150  # what the target allows beside the features


def new_image(name: str, landmark: str, codes: Codes, number: int) -> NewImage:
    """An image to store; `number` tells its content."""
    return NewImage(name, landmark, number.to_bytes(32, "big"), codes)


def in_process(*words: str) -> dict[str, Any]:
    """What a task prints, run in a fresh process; `seconds` is the whole of it, from the process' start."""
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.lab.search_life", *words], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"search_life {' '.join(words)}: {done.stderr[-2000:]}")
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return {"seconds": time.perf_counter() - began} | told


def starts(database: Path, photo: Path, times: int) -> dict[str, Any]:
    """Process start to the first answer, with the file of the index and, once, without it."""
    index_path(database).unlink(missing_ok=True)
    without = in_process("answer", str(database), str(photo))
    with_file = [in_process("answer", str(database), str(photo)) for _ in range(times)]
    file = index_path(database)
    features = with_file[0]["features"]
    rss = float(np.median([w["rss_mb"] for w in with_file]))
    return {
        "seconds": float(np.median([w["seconds"] for w in with_file])),
        "seconds_of_opening": float(np.median([w["open"] for w in with_file])),
        "seconds_without_file": without["seconds"],
        "file_bytes_per_feature": file.stat().st_size / features if file.exists() else None,
        "rss_mb": rss,
        "rss_anonymous_mb": float(np.median([w["rss_anonymous_mb"] for w in with_file])),
        "peak_mb": float(np.median([w["peak_mb"] for w in with_file])),
        "peak_mb_without_file": without["peak_mb"],
        "index_bytes_per_feature": with_file[0]["index_bytes"] / features,
        "rss_bytes_per_feature_beyond_150_mb": max(0.0, rss - BASE_MB) * 2**20 / features,
        "features": features,
    }


def memory() -> dict[str, float]:
    """Resident and peak megabytes of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    fields = {line.split(":")[0]: line.split()[1] for line in lines if line.startswith(("Vm", "Rss"))}
    names = {"rss_mb": "VmRSS", "rss_anonymous_mb": "RssAnon", "rss_file_mb": "RssFile", "peak_mb": "VmHWM"}
    return {name: int(fields[field]) / 1024 for name, field in names.items()}


def adding(database: Path, copies: Copies, first: int, n: int) -> dict[str, Any]:
    """Images a second, one durable transaction each and in bulk, and whether an open reader sees them at once."""
    from delf_edge import Recognizer

    prepared = [copies.make(first + i) for i in range(2 * n)]
    with Recognizer.open(database) as reader, Store.open(database) as writer:
        reader.pipeline.index.refresh(reader.store)
        seen, waits = 0, []
        began = time.perf_counter()
        for i in range(n):
            writer.add(new_image(f"one {first + i}", "new", prepared[i], 10**9 + first + i))
        single = n / (time.perf_counter() - began)
        began = time.perf_counter()
        images = [new_image(f"bulk {first + i}", "new", prepared[n + i], 2 * 10**9 + first + i) for i in range(n)]
        writer.add_many(images)
        bulk = n / (time.perf_counter() - began)
        reader.pipeline.index.refresh(reader.store)
        for i in range(20):
            added = writer.add(new_image(f"seen {first + i}", "new", prepared[i], 3 * 10**9 + first + i))
            began = time.perf_counter()
            reader.pipeline.index.refresh(reader.store)
            waits.append(1e3 * (time.perf_counter() - began))
            snapshot = reader.pipeline.index.snapshot
            seen += int(added.image_id in snapshot.image_ids[snapshot.alive])
        names = [f"{kind} {first + i}" for kind, m in (("one", n), ("bulk", n), ("seen", 20)) for i in range(m)]
        writer.remove(*names)
    return {
        "images_per_second": single,
        "images_per_second_bulk": bulk,
        "seen_at_next_query": f"{seen} of 20",
        "refresh_ms": float(np.median(waits)),
    }


def crowd(database: Path, seconds: float, writers: int = 2, readers: int = 4) -> dict[str, Any]:
    """Processes that replace images by one of two versions, and processes that ask: no answer may be half of each."""
    tasks = [("write", str(i)) for i in range(writers)] + [("read", str(i)) for i in range(readers)]
    command = [sys.executable, "-m", "benchmarks.lab.search_life"]
    running = [
        subprocess.Popen([*command, task, str(database), number, str(seconds)], stdout=subprocess.PIPE, text=True)
        for task, number in tasks
    ]
    out = [json.loads(p.communicate()[0].splitlines()[-1]) for p in running]
    failed = sum(p.returncode != 0 for p in running)
    return {
        "seconds": seconds,
        "writers": writers,
        "readers": readers,
        "writes": sum(o.get("writes", 0) for o in out),
        "answers": sum(o.get("answers", 0) for o in out),
        "inconsistent": sum(o.get("inconsistent", 0) for o in out),
        "failed_processes": failed,
    }


# ---------------------------------------------------------------------- tasks of fresh processes


def answer(database: str, photo: str) -> dict[str, Any]:
    """Open, ask once."""
    from delf_edge import Recognizer

    began = time.perf_counter()
    with Recognizer.open(database) as recognizer:
        opened = time.perf_counter() - began
        recognizer.identify(photo)
        return memory() | {
            "open": opened,
            "features": recognizer.pipeline.index.n_features,
            "index_bytes": recognizer.pipeline.index.nbytes,
        }


def versions(codes: Codes) -> tuple[Codes, Codes]:
    """Two contents of one image: its features, and the same with other codes."""
    from dataclasses import replace

    return codes, replace(codes, codes=np.bitwise_xor(codes.codes, np.uint8(255)))


def write(database: str, number: str, seconds: str) -> dict[str, Any]:
    """Replace image `number` by one version after the other."""
    with Store.open(database, busy_timeout=30) as store:
        image = store.image(f"crowd {number}")
        pair = versions(store.codes([image.image_id])[image.image_id])
        until, n = time.monotonic() + float(seconds), 0
        while time.monotonic() < until:
            store.add(NewImage(image.name, image.landmark, image.content_hash, pair[n % 2]))
            n += 1
    return {"writes": n}


def read(database: str, number: str, seconds: str) -> dict[str, Any]:
    """Ask for all images that are being replaced; a score that is neither version's is inconsistent."""
    from delf_edge.bundle.bundle import Bundle, default_bundle_path
    from delf_edge.index.inverted_index import InvertedIndex
    from delf_edge.index.search import SearchOptions
    from delf_edge.quantization.coarse_quantizer import CoarseIndex
    from delf_edge.quantization.packed_codes import CodeBatch
    from delf_edge.quantization.product_quantizer import decode
    from delf_edge.types import Features

    codebook = Bundle.load(default_bundle_path()).codebook
    coarse = CoarseIndex(codebook.centroids)
    options = SearchOptions(k_neighbours=10_000, min_similarity=0.0, burst=False, global_weight=0.0, top=10_000)
    with Store.open(database, mode="ro") as store:
        asked = []
        for i in (0, 1):
            image = store.image(f"crowd {i}")
            codes = store.codes([image.image_id])[image.image_id]
            n = len(codes)
            features = Features(
                codes.keypoints,
                np.ones(n, np.float32),
                np.ones(n, np.float32),
                decode(codes, codebook),
                np.zeros(codebook.global_dim, np.float32),
                codes.image_size,
            )
            allowed = set()
            for version in versions(codes):
                alone = InvertedIndex(store.layout)
                alone.apply(CodeBatch.of([(image.image_id, version)], store.layout))
                found = {c.image_id: c.votes for c in alone.search(features, codebook, coarse, options)}
                allowed.add(round(found.get(image.image_id, 0.0), 6))
            asked.append((image.image_id, features, allowed))
        index = InvertedIndex.from_store(store)
        until, n, wrong = time.monotonic() + float(seconds), 0, 0
        while time.monotonic() < until:
            index.refresh(store)
            for image_id, features, allowed in asked:
                found = {c.image_id: c.votes for c in index.search(features, codebook, coarse, options)}
                wrong += round(found.get(image_id, 0.0), 6) not in allowed
                n += 1
    return {"answers": n, "inconsistent": wrong, "reader": number}


def soak(database: str, features: str, n: str) -> dict[str, Any]:
    """Ask n times; resident megabytes every tenth of the way."""
    from delf_edge import Recognizer

    with np.load(features, allow_pickle=False) as stored, Recognizer.open(database) as recognizer:
        queries = list(unpacked(stored))
        sizes = []
        for i in range(int(n)):
            recognizer.pipeline.answer(queries[i % len(queries)])
            if i % max(1, int(n) // 10) == int(n) // 10 - 1:
                sizes.append(memory()["rss_mb"])
    return {"queries": int(n), "rss_mb": sizes}


def packed(queries: Sequence[Any]) -> dict[str, Any]:
    """Features as arrays for `np.savez`."""
    fields = ("keypoints", "scales", "scores", "descriptors", "global_descriptor")
    arrays = {f"{name}{i}": getattr(q, name) for i, q in enumerate(queries) for name in fields}
    return arrays | {"sizes": np.array([q.image_size for q in queries])}


def unpacked(stored: Any) -> Iterator[Any]:
    """The inverse of `packed`."""
    from delf_edge.types import Features

    for i, size in enumerate(stored["sizes"].tolist()):
        fields = ("keypoints", "scales", "scores", "descriptors", "global_descriptor")
        width, height = size
        yield Features(**{name: stored[f"{name}{i}"] for name in fields}, image_size=(width, height))


TASKS: dict[str, Callable[..., dict[str, Any]]] = {"answer": answer, "write": write, "read": read, "soak": soak}

if __name__ == "__main__":
    print(json.dumps(TASKS[sys.argv[1]](*sys.argv[2:])))
