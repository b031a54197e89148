"""Candidate search at size, beside faiss: `python -m benchmarks.search [DATA] [--images 10000 100000]`.

Writes `results/search.json` and plots of milliseconds, memory, disk and mAP against the number of images. Stored are
DEV's database and the training photos, filled up with perturbed copies of 300 features (`search_data`); asked are DEV's
queries. Times are medians on one thread, ours and faiss' taken in turn, so that a busy machine slows both.
`--images` and `--soak` make a small run for a first look. A run replaces what is recorded of its own sizes, and of
writers, readers and the long run unless `--crowd 0 --soak 0`; every part says by which command and when it was made.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # read when numpy is imported
os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np

from benchmarks.data.datasets import Dataset, read_json
from benchmarks.data.feature_cache import Arrays, FeatureCache
from benchmarks.lab import plots, search_life
from benchmarks.lab.figures import rankings
from benchmarks.lab.records import environment, jsonable
from benchmarks.lab.runner import Progress, to_stderr
from benchmarks.lab.runtime import label
from benchmarks.lab.search_data import Copies, all_photos, projected, raw_features
from benchmarks.metrics import protocols, stats
from benchmarks.systems.faiss_search import Peer
from delf_edge import native
from delf_edge.bundle.bundle import Bundle, default_bundle_path
from delf_edge.index.index_file import index_path
from delf_edge.index.inverted_lists import IndexSnapshot
from delf_edge.index.scoring import neighbours
from delf_edge.index.search import SearchOptions
from delf_edge.quantization.coarse_quantizer import CoarseIndex
from delf_edge.quantization.packed_codes import CodeBatch, CodeLayout
from delf_edge.quantization.product_quantizer import decode, encode, inner_product_tables
from delf_edge.recognizer import Recognizer
from delf_edge.storage.records import NewImage
from delf_edge.storage.store import Store
from delf_edge.types import Codes, Features

RESULTS = Path(__file__).parent / "results"
DEPTH = 1000  # of the rankings that mAP is taken of; a positive beyond it counts as missing
SMALL_SOURCES = 1000  # 96 px photos that copies are made of
EXHAUSTIVE = 60  # query features


class Lab:
    """Features, codes and databases of the benchmark; databases are kept under `out/search`.

    Args:
        data: folder of dev.json and train.csv.
        out: folder of caches.
        progress: told how far it is.
        largest: images of the largest database; no more real photos are encoded than it needs.
    """

    def __init__(self, data: Path, out: Path, progress: Progress, largest: int) -> None:
        self.dev, self.bundle = read_json(data / "dev.json"), Bundle.load(default_bundle_path())
        self.folder, self.progress = out / "search" / self.bundle.id, progress
        self.folder.mkdir(parents=True, exist_ok=True)
        self.codebook = self.bundle.codebook
        self.coarse = CoarseIndex(self.codebook.centroids)
        cache = FeatureCache(out / "features")
        photos = all_photos(data)
        large = [p for p in photos if p.relative_to(data).parts[0] != "train_small"][:largest]
        small = [p for p in photos if p.relative_to(data).parts[0] == "train_small"]
        self.n_real, self.photos = len(large), large + small[: min(SMALL_SOURCES, largest)]
        asked = [self.dev.path(q.name) for q in self.dev.queries]
        self.queries = [projected(f, self.codebook) for f in raw_features(self.bundle, asked, cache, progress)]
        self.query_photo = asked[0]
        self.codes = self._codes(cache)
        strangers = [c for p, c in zip(self.photos, self.codes, strict=True) if p.relative_to(data).parts[0] != "dev"]
        self.copies = Copies(strangers, self.codebook)

    def _codes(self, cache: FeatureCache) -> list[Codes]:
        """Codes of the real photos, encoded once."""

        def make() -> Arrays:
            found = []
            for i, path in enumerate(self.photos):
                (raw,) = raw_features(self.bundle, [path], cache)
                features = projected(raw, self.codebook)
                words = self.coarse.assign(features.descriptors, exact=True)[0][:, 0]
                found.append(encode(features, words, self.codebook))
                self.progress("encode", i + 1, len(self.photos))
            return {
                "counts": np.array([len(c) for c in found]),
                "sizes": np.array([c.image_size for c in found]),
                "keypoints": np.concatenate([c.keypoints for c in found]),
                "words": np.concatenate([c.words for c in found]),
                "codes": np.concatenate([c.codes for c in found]),
                "global_codes": np.stack([c.global_code for c in found]),
            }

        a = cache.get(f"search codes 1 {self.bundle.id} {len(self.photos)}", b"all photos", make)
        ends = np.cumsum(a["counts"])
        parts = [slice(int(e - n), int(e)) for e, n in zip(ends, a["counts"], strict=True)]
        return [
            Codes(a["keypoints"][p], a["words"][p], a["codes"][p], g, (int(w), int(h)))
            for p, g, (w, h) in zip(parts, a["global_codes"], a["sizes"], strict=True)
        ]

    def image(self, i: int) -> NewImage:
        """Image i of every database: DEV's, then training photos, then copies."""
        if i < len(self.dev.database):
            name, place = self.dev.database[i], label(self.dev, i)
        else:
            name = place = f"image {i}"
        codes = self.codes[i] if i < self.n_real else self.copies.make(i)
        return search_life.new_image(name, place, codes, i)

    def database(self, n: int) -> tuple[Path, dict[str, float]]:
        """A database of the first n images, made in bulk once, and how fast it was made (empty where it was there)."""
        path = self.folder / f"places-{n}.db"
        if path.exists():
            return path, {}
        partial, spent = path.with_suffix(".partial"), 0.0
        partial.unlink(missing_ok=True)
        with Recognizer.open(partial, bundle=self.bundle) as recognizer:
            for start in range(0, n, 500):
                images = [self.image(i) for i in range(start, min(start + 500, n))]
                began = time.perf_counter()
                recognizer.store.add_many(images)
                spent += time.perf_counter() - began
                self.progress(f"store {n}", start + len(images), n)
            recognizer.store.snapshot(path)  # one file without a log
        partial.unlink()
        return path, {"images_per_second_bulk_first": n / spent}


def candidate_stage(lab: Lab, snapshot: IndexSnapshot, rounds: int, asked: int | None = None) -> dict[str, Any]:
    """Our candidate stage and faiss' search for the same 60 neighbours, in turn; recall against all lists."""
    o, codebook = SearchOptions(n_probe=8, k_neighbours=60), lab.codebook
    peer = Peer(snapshot, codebook, 8)
    spent: dict[str, list[float]] = {"faiss": [], "ours": [], "ours_whole": [], "words": []}

    def ours(q: Features) -> native.Hits:
        words, base = lab.coarse.assign(q.descriptors, 8)
        tables = inner_product_tables(q.descriptors, codebook)
        return neighbours(snapshot, words, base, tables, o.k_neighbours, -1.0)

    from delf_edge.index.search import search

    full = [q for q in lab.queries if len(q) == 300][:asked]
    for q in full[:1] * 2 + full * rounds:
        for name, call in (
            ("faiss", lambda q=q: peer.search(q.descriptors, o.k_neighbours)),
            ("ours", lambda q=q: ours(q)),
            ("ours_whole", lambda q=q: search(snapshot, q, codebook, lab.coarse, o)),
            ("words", lambda q=q: lab.coarse.assign(q.descriptors, 8)),
        ):
            start = time.thread_time()
            call()
            spent[name].append(1e3 * (time.thread_time() - start))
    times = {name: np.array(ms[2:]) for name, ms in spent.items()}
    figures: dict[str, Any] = {f"{name}_ms": float(np.median(ms)) for name, ms in times.items()}
    figures |= {f"{name}_best_ms": float(ms.min()) for name, ms in times.items()}
    figures["ratio_to_faiss"] = float(np.median(times["ours"] / times["faiss"]))
    figures["ratio_of_whole_stage_to_faiss"] = float(np.median(times["ours_whole"] / times["faiss"]))
    return figures | recall(lab, snapshot, peer, full, ours)


def recall(lab: Lab, snapshot: IndexSnapshot, peer: Peer, queries: Sequence[Features], ours: Any) -> dict[str, Any]:
    """recall@60 of both against an exhaustive scan of every stored feature, for features of several queries."""
    k, rng = 60, np.random.default_rng(1)
    chosen = rng.permutation(len(queries))[:10]
    rows = [(int(q), int(f)) for q in chosen for f in rng.permutation(300)[: EXHAUSTIVE // 10]]
    asked = np.stack([queries[q].descriptors[f] for q, f in rows])
    best, ids = np.full((len(rows), 0), -np.inf, np.float32), np.zeros((len(rows), 0), np.int64)
    for number, segment in enumerate(snapshot.segments):
        words = segment.all_words()
        for start in range(0, len(segment), 1 << 16):
            part = slice(start, start + (1 << 16))
            n = len(words[part])
            stored = Codes(np.zeros((n, 2), np.float32), words[part], segment.codes[part], np.zeros(0, np.int8), (1, 1))
            scores = asked @ decode(stored, lab.codebook, unit=False).T
            best = np.concatenate([best, scores], axis=1)
            ids = np.concatenate([ids, np.broadcast_to(np.arange(start, start + n) | number << 40, scores.shape)], 1)
            if best.shape[1] > k:
                keep = np.argpartition(-best, k - 1, axis=1)[:, :k]
                best, ids = np.take_along_axis(best, keep, 1), np.take_along_axis(ids, keep, 1)
    found: dict[str, list[float]] = {"faiss": [], "ours": []}
    for q in chosen:
        query, _, feature, _ = ours(queries[q])
        theirs = peer.search(queries[q].descriptors, k)[1]
        for i, (asked_query, f) in enumerate(rows):
            if asked_query == q:
                truth = set(ids[i].tolist())
                found["ours"].append(len(truth & set(feature[query == f].tolist())) / k)
                found["faiss"].append(len(truth & set(theirs[f].tolist())) / k)
    return {
        "recall_at_60": float(np.mean(found["ours"])),
        "recall_at_60_faiss": float(np.mean(found["faiss"])),
        "exhaustive_queries": len(rows),
    }


def whole_path(lab: Lab, recognizer: Recognizer, rounds: int) -> dict[str, Any]:
    """`identify` after extraction, and mAP on DEV among everything that is stored.

    `identify_ms` is wall time, every query `rounds` times. On a shared machine that also measures what else runs, so
    beside it stand processor time, and the same of each query's fastest round.
    """
    wall, cpu, stages = [], [], []
    for _ in range(rounds + 1):  # the first round warms up
        for q in lab.queries:
            spent: dict[str, float] = {}
            began = time.thread_time()
            recognizer.pipeline.answer(q, timings=spent)
            cpu.append(1e3 * (time.thread_time() - began))
            wall.append(spent["total"])
            stages.append(spent)
    n = len(lab.queries)
    figures: dict[str, Any] = {}
    for name, times in (("identify", wall), ("identify_cpu", cpu)):
        ms = np.array(times[n:]).reshape(rounds, n)
        for kind, values in (("", ms.ravel()), ("_best", ms.min(axis=0))):
            figures[f"{name}{kind}_ms"] = float(np.median(values))
            figures[f"{name}{kind}_p99_ms"] = float(np.quantile(values, 0.99))
    figures["stages_ms"] = {s: float(np.median([t[s] for t in stages[n:]])) for s in stages[-1]}
    figures["load_average"] = os.getloadavg()[0]
    return figures | ranked(lab.dev, recognizer, lab.queries)


def ranked(dataset: Dataset, recognizer: Recognizer, queries: Sequence[Features]) -> dict[str, Any]:
    """mAP of the first `DEPTH` images of `Recognizer.rank`; stored images that are not DEV's are wrong ones."""
    index = {name: i for i, name in enumerate(dataset.database)}
    n = len(index)
    scores = []
    for q in queries:
        row, others = np.full(n, -np.inf), []
        for m in recognizer.rank(q, DEPTH):
            if m.name in index:
                row[index[m.name]] = m.score
            else:
                others.append(m.score)
        scores.append(np.concatenate([row, others, np.full(DEPTH - len(others), -np.inf)]))
    wide = replace(
        dataset,
        database=(*dataset.database, *(f"other {i}" for i in range(DEPTH))),
        places=(*dataset.places, *(None,) * DEPTH),
    )
    scored = protocols.score_rankings(wide, rankings(wide, scores))[dataset.settings[0].name]
    return {"map": scored.map, "map_ci": stats.bootstrap(scored.ap), "top1": scored.top1}


def candidates_alone(lab: Lab, n: int, a: argparse.Namespace) -> dict[str, Any]:
    """The candidate stage over the first n images, in RAM alone."""
    layout = CodeLayout.of(lab.codebook)
    snapshot = IndexSnapshot.empty(layout)
    for start in range(0, n, 1000):
        images = [(i, lab.image(i).codes) for i in range(start, min(start + 1000, n))]
        snapshot = snapshot.extended(CodeBatch.of(images, layout), layout.n_words)
    figures: dict[str, Any] = {"images": n, "features": snapshot.n_features, "segments": len(snapshot.segments)}
    figures["index_bytes_per_feature"] = snapshot.nbytes / snapshot.n_features
    return figures | {"candidates": candidate_stage(lab, snapshot, a.rounds, a.queries)}


def measure(lab: Lab, n: int, a: argparse.Namespace) -> dict[str, Any]:
    """All figures of one size."""
    path, made = lab.database(n)
    info: dict[str, Any] = {"images": n, "disk_bytes": path.stat().st_size} | made
    figures = info | {"start": search_life.starts(path, lab.query_photo, a.starts)}
    with Recognizer.open(path, bundle=lab.bundle) as recognizer:
        snapshot = recognizer.pipeline.index.snapshot
        figures |= {
            "features": snapshot.n_features,
            "disk_bytes_per_feature": path.stat().st_size / snapshot.n_features,
        }
        figures |= {
            "segments": len(snapshot.segments),
            "index_bytes_per_feature": snapshot.nbytes / snapshot.n_features,
        }
        figures["candidates"] = candidate_stage(lab, snapshot, a.rounds, a.queries)
        figures |= whole_path(lab, recognizer, a.rounds)
    scratch = path.with_name("growing.db")
    shutil.copy(path, scratch)
    if index_path(path).exists():
        shutil.copy(index_path(path), index_path(scratch))
    figures["adding"] = search_life.adding(scratch, lab.copies, 10**6, a.added)
    for left in (scratch, Path(f"{scratch}-wal"), Path(f"{scratch}-shm"), index_path(scratch)):
        left.unlink(missing_ok=True)
    return figures


def crowd_and_soak(lab: Lab, n: int, a: argparse.Namespace) -> dict[str, Any]:
    """Writers and readers on a small database of their own; many queries on the smallest one."""
    path = lab.folder / "crowd.db"
    for left in (path, Path(f"{path}-wal"), Path(f"{path}-shm"), index_path(path)):
        left.unlink(missing_ok=True)
    with Store.open(path, bundle_id=lab.bundle.id, layout=CodeLayout.of(lab.codebook)) as store:
        store.add_many(search_life.new_image(f"crowd {i}", f"{i}", lab.copies.make(i), i) for i in range(300))
    figures = {"crowd": search_life.crowd(path, a.crowd)}
    queries = lab.folder / "queries.npz"
    np.savez(queries, **search_life.packed(lab.queries))
    database, _ = lab.database(n)
    return figures | {"soak": search_life.in_process("soak", str(database), str(queries), str(a.soak))}


def plot(rows: Sequence[dict[str, Any]], folder: Path) -> None:
    """Milliseconds, RAM, disk and mAP against the number of images."""
    x = [r["images"] for r in rows]
    lines: dict[str, tuple[str, dict[str, list[float]]]] = {
        "ms": (
            "ms of processor per query",
            {
                "candidates, neighbours only": [r["candidates"]["ours_ms"] for r in rows],
                "candidates, whole stage": [r["candidates"]["ours_whole_ms"] for r in rows],
                "faiss IVFPQ, neighbours only": [r["candidates"]["faiss_ms"] for r in rows],
                "identify after extraction": [r["identify_cpu_ms"] for r in rows],
            },
        ),
        "ram": (
            "MB",
            {
                "resident after the first answer": [r["start"]["rss_mb"] for r in rows],
                "allowed: 150 MB and 16 bytes a feature": [150 + 16 * r["features"] / 2**20 for r in rows],
            },
        ),
        "disk": (
            "MB",
            {
                "database": [r["disk_bytes"] / 2**20 for r in rows],
                "allowed: 20 bytes a feature": [20 * r["features"] / 2**20 for r in rows],
            },
        ),
        "map": ("mAP on DEV", {"all stored images ranked": [r["map"] for r in rows]}),
    }
    for name, (unit, series) in lines.items():
        drawn, axes = plots.figure()
        for title, y in series.items():
            axes.plot(x, y, marker="o", label=title)
        axes.set(xscale="log", xlabel="images", ylabel=unit)
        axes.set_ylim(0, 1 if name == "map" else None)
        axes.legend(fontsize=8)
        plots.save(drawn, folder / f"search-{name}.png")


def recorded(file: Path, lab: Lab) -> dict[str, Any]:
    """What a run adds to: the recorded sizes of the same bundle, else nothing."""
    head: dict[str, Any] = {
        "bundle": lab.bundle.id,
        "compiled": native.library() is not None,
        "codes": {"D": lab.codebook.dim, "M": lab.codebook.code_size, "K": lab.codebook.n_words},
    }
    before: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    if {name: before.get(name) for name in head} != head:
        return head | {"sizes": [], "life": None}
    return before


def write(file: Path, result: dict[str, Any]) -> None:
    """Write what is measured so far: a run that is cut short has measured something."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(jsonable(result), indent=1) + "\n", encoding="utf-8")


def _images(row: dict[str, Any]) -> int:
    return int(row["images"])


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    p = argparse.ArgumentParser(prog="python -m benchmarks.search", description=(__doc__ or "").splitlines()[0])
    p.add_argument("data", type=Path, nargs="?", default=Path("../shared/data"), help="default ../shared/data")
    p.add_argument(
        "--images",
        type=int,
        nargs="*",
        default=[1035, 3000, 10_000, 30_000, 100_000],
        help="sizes; none: only the rest",
    )
    p.add_argument("--rounds", type=int, default=3, help="times that every query is asked, default 3")
    p.add_argument("--queries", type=int, help="queries of the candidate stage, default: all that have 300 features")
    p.add_argument("--real", type=int, help="real photos that are encoded at most, default: as many as are stored")
    p.add_argument("--only-candidates", action="store_true", help="the candidate stage alone, no database")
    p.add_argument("--starts", type=int, default=3, help="fresh processes, default 3")
    p.add_argument("--added", type=int, default=200, help="images added one by one, default 200")
    p.add_argument("--crowd", type=float, default=60, help="seconds of writers and readers, default 60; 0: none")
    p.add_argument("--soak", type=int, default=10_000, help="queries in a row, default 10,000; 0: none")
    p.add_argument("--out", type=Path, default=Path("out"), help="folder of caches, default out/")
    p.add_argument("--results", type=Path, default=RESULTS, help="folder of search.json and the plots")
    a = p.parse_args(arguments)
    if not plots.can_draw():
        return 2
    largest = max(a.images, default=10_000)
    lab = Lab(a.data, a.out, to_stderr, min(largest, a.real or largest))
    file = a.results / ("search_candidates.json" if a.only_candidates else "search.json")
    about = {
        "command": "python -m benchmarks.search " + " ".join(sys.argv[1:] if arguments is None else arguments),
        "environment": environment(),
    }
    result = recorded(file, lab)
    for n in a.images:
        row = candidates_alone(lab, n, a) if a.only_candidates else measure(lab, n, a)
        print(json.dumps(jsonable(row), indent=1), flush=True)
        result["sizes"] = sorted([r for r in result["sizes"] if r["images"] != n] + [row | about], key=_images)
        write(file, result)
    if not a.only_candidates and (a.crowd or a.soak):
        result["life"] = crowd_and_soak(lab, min((r["images"] for r in result["sizes"]), default=1035), a) | about
        write(file, result)
    if not a.only_candidates:
        plot(result["sizes"], a.results)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
