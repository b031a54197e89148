"""How many words, and HNSW over them: `python -m benchmarks.words ../shared/data` writes `results/words.json`.

Codebooks of 8,192 to 65,536 words are fitted on the descriptors of all training photos (`train`, `train_extra`, the
train places of `train_more`; never VAL or DEV), at the projection of the bundle, and asked:

* the words of a query of 300 features, by one matrix product and through the graph, on one thread, in turn: their time,
  how many of the right words the graph finds, and what it takes in a bundle;
* candidate search among 1,000 to 100,000 photos: the time of lists, the features looked at, and how many of the 60
  nearest stored features are found that an exhaustive scan finds, with words by either way;
* `identify` after extraction among VAL's database, training photos and copies, with the bundle as it is (`--identify`):
  words by either way in turn, all stages; and a process from its start to its first answer;
* VAL: mAP of `Recognizer.rank` with the names of landmarks, without a cohort (`--val`; every run is a look at VAL).

With `--write OUT` a bundle with the first of these codebooks is put there: the networks and the global descriptor of
the bundle, and words and codes of its own. Cohort and probability are then to be fitted again (`benchmarks.honest`).

Stored are training photos, then perturbed copies of them as in `benchmarks.search` (`lab.search_data.Copies`); asked
are VAL's queries. Times are of the processor, medians on one thread. Features are extracted once and kept in `--out`.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # read when numpy is imported
os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
from numpy.typing import NDArray

from benchmarks.data.datasets import Dataset, read_json
from benchmarks.data.feature_cache import FeatureCache
from benchmarks.data.places import WRONG
from benchmarks.lab import search_life
from benchmarks.lab.evidence import Lab
from benchmarks.lab.records import environment, jsonable
from benchmarks.lab.runner import to_stderr
from benchmarks.lab.runtime import label
from benchmarks.lab.search_data import Copies
from benchmarks.search_codes import asked
from delf_edge.arrays import l2_normalise
from delf_edge.bundle.bundle import Bundle, default_bundle_path
from delf_edge.codebooks.bundle_writer import npz, with_codebook
from delf_edge.codebooks.fit import compress_rows, expand_rows, named_rows
from delf_edge.codebooks.kmeans import assign, tree_kmeans
from delf_edge.codebooks.opq import fit_opq
from delf_edge.index.inverted_lists import IndexSnapshot
from delf_edge.index.scoring import neighbours
from delf_edge.index.search import SearchOptions
from delf_edge.native import Hits
from delf_edge.quantization.coarse_quantizer import CoarseIndex
from delf_edge.quantization.hnsw import HnswGraph
from delf_edge.quantization.packed_codes import CodeBatch, CodeLayout
from delf_edge.quantization.product_quantizer import encode, inner_product_tables
from delf_edge.query.options import IdentifyOptions
from delf_edge.recognizer import Recognizer
from delf_edge.storage.records import NewImage
from delf_edge.types import Codebook, Codes, Features, Float32Array

RESULT = Path(__file__).parent / "results" / "words.json"
REAL = 1200  # training photos that are encoded for the large databases
K = 60  # neighbours
CARD = """# Words and codes of the default bundle

Made by

    {command}

{size}: K words, the first D dimensions of the networks' own projection, codes of M bytes. Fitted on {sample}
descriptors at most of {photos} training photos, words with {refine} more Lloyd iterations over all of them.
`MODEL_CARD_OF_NETWORKS.md` says what the networks are.
"""
STARTS = 3  # fresh processes, from their start to the first answer
TABLES = 32  # query features whose tables are made at a time


@dataclass(frozen=True, slots=True)
class Size:
    """K words, D dimensions, M bytes of a code, how centroids are kept, and the seed of the fit."""

    n_words: int
    dim: int = 60
    code_size: int = 12
    storage: str = "int8"
    seed: int = 1

    def __str__(self) -> str:
        extra = f" {self.storage}" if self.storage != "int8" else ""
        return f"K={self.n_words} D={self.dim} M={self.code_size}{extra}{f' seed {self.seed}' if self.seed > 1 else ''}"


def training_names(data: Path) -> list[str]:
    """Every photo that a codebook may be fitted on."""
    with (data / "train.csv").open(newline="", encoding="utf-8") as f:
        names = [row["path"] for row in csv.DictReader(f)]
    with (data / "train_more.csv").open(newline="", encoding="utf-8") as f:
        names += [row["path"] for row in csv.DictReader(f) if row["split"] == "train" and row["path"] not in WRONG]
    return list(dict.fromkeys(names))


def cut(features: Features, dim: int) -> Features:
    """Features with the first `dim` dimensions of their projection, which are those of the largest variance."""
    if features.descriptors.shape[1] == dim:
        return features
    return replace(features, descriptors=l2_normalise(features.descriptors[:, :dim]))


class Words:
    """Codebooks of all sizes over one bundle's projection, kept on disk.

    Args:
        data: folder of train.csv, train_more.csv and val.json.
        out: folder of what is kept.
        sample: descriptors that words are fitted on at most.
        refine: Lloyd iterations over all words after the two levels.
        variant: of the bundle's networks, for what is asked and stored; codebooks are fitted on those of the default.
    """

    def __init__(self, data: Path, out: Path, sample: int, refine: int, variant: str | None = None) -> None:
        self.bundle = Bundle.load(default_bundle_path(), variant=variant)
        self.lab = self._trained = Lab(data, self.bundle, out, progress=to_stderr)
        if variant is not None:
            self._trained = Lab(data, Bundle.load(default_bundle_path()), out, progress=to_stderr)
        self.cache, self.sample, self.refine = FeatureCache(out / "features"), sample, refine
        self.names = training_names(data)
        self._rows: Float32Array | None = None

    def rows(self) -> Float32Array:
        """Descriptors of training photos, evenly thinned to `sample`."""
        if self._rows is None:
            self._trained.prepare(self.names)
            rows = np.concatenate([self._trained.features(name).descriptors for name in self.names])
            chosen = np.sort(np.random.default_rng(1).permutation(len(rows))[: self.sample])
            print(f"{len(rows)} descriptors of {len(self.names)} photos, {len(chosen)} fitted on", file=sys.stderr)
            self._rows = rows[chosen]
        return self._rows

    def codebook(self, size: Size) -> Codebook:
        """A codebook of a size, fitted once."""
        a, own = self._fitted(size), self.bundle.codebook
        fitted = {name: np.asarray(a[name], np.float32) for name in ("centroids", "pq", "rotation")}
        return replace(own, pca_basis=own.pca_basis[: size.dim], **fitted)

    def _fitted(self, size: Size) -> dict[str, NDArray[Any]]:
        key = f"words 1 {self.bundle.id} {size} {self.sample} {self.refine} {len(self.names)}"

        def make() -> dict[str, Float32Array]:
            rows = self.rows()
            rows = rows if size.dim == rows.shape[1] else l2_normalise(rows[:, : size.dim])
            began = time.process_time()
            words = tree_kmeans(rows, size.n_words, refine=self.refine, seed=size.seed)
            stored = compress_rows(words, size.storage)
            centroids, few = expand_rows(stored), rows[:: max(1, len(rows) // 32768)]
            rotation, pq = fit_opq(few - centroids[assign(few, centroids)[0]], size.code_size, seed=size.seed)
            spent = np.array([time.process_time() - began], np.float32)
            return {"centroids": centroids, "words": words, "pq": pq, "rotation": rotation, "seconds": spent}

        return dict(self.cache.get(key, b"words", make))

    def write(self, size: Size, out: Path, command: str) -> Bundle:
        """Put a bundle with the codebook of a size at `out`; everything else is the default bundle's."""
        base, kept = default_bundle_path(), self._fitted(size)
        with np.load(base / "codebook.npz", allow_pickle=False) as stored:
            arrays = {name: np.asarray(stored[name]) for name in stored.files if not name.startswith("centroids")}
        arrays |= named_rows("centroids", compress_rows(kept["words"], size.storage))
        arrays |= {"pca_basis": arrays["pca_basis"][: size.dim], "rotation": kept["rotation"]}
        arrays["pq"] = kept["pq"].astype(np.float16)
        return with_codebook(
            base,
            out,
            arrays,
            name="delf-edge default",
            data=f"Words and codes: {len(self.names)} photos of train/, train_extra/ and train_more/",
            card=CARD.format(
                command=command, size=size, photos=len(self.names), sample=self.sample, refine=self.refine
            ),
        )

    def storage_loss(self, size: Size) -> dict[str, float]:
        """What keeping centroids short costs: cosine to the whole ones, and words that change by it."""
        whole = np.asarray(self._fitted(size)["words"], np.float32)
        few = cut(self.lab.features(self.names[0]), size.dim).descriptors
        few = np.concatenate([few, *(cut(self.lab.features(n), size.dim).descriptors for n in self.names[:2000:200])])
        right, losses = assign(few, whole)[0], {}
        for storage in ("int8", "float16"):
            kept = compress_rows(whole, storage)
            short = expand_rows(kept)
            losses[f"{storage}_bytes"] = float(sum(a.nbytes for a in kept.values()))
            losses[f"{storage}_cosine"] = float(np.einsum("kd,kd->k", l2_normalise(whole), l2_normalise(short)).mean())
            losses[f"{storage}_words_changed"] = float(np.mean(assign(few, short)[0] != right))
        return losses


def timed(calls: dict[str, Callable[[Features], Any]], queries: Sequence[Features], rounds: int) -> dict[str, float]:
    """Milliseconds of processor, the median over queries of each one's fastest round; the calls take turns."""
    best: dict[str, list[float]] = {name: [] for name in calls}
    for q in queries:
        spent: dict[str, list[float]] = {name: [] for name in calls}
        for _ in range(rounds):
            for name, call in calls.items():
                began = time.thread_time()
                call(q)
                spent[name].append(1e3 * (time.thread_time() - began))
        for name, values in spent.items():
            best[name].append(min(values))
    return {name: float(np.median(values)) for name, values in best.items()}


def words_stage(codebook: Codebook, queries: Sequence[Features], probes: Sequence[int], rounds: int) -> dict[str, Any]:
    """Time and recall of the words of a query, and the size of the graph."""
    began = time.process_time()
    built = HnswGraph.build(codebook.centroids)
    links = built.links(codebook.centroids)
    figures: dict[str, Any] = {"build_s": time.process_time() - began, "graph_bytes": len(npz(links.arrays()))}
    began = time.process_time()
    graph = CoarseIndex(codebook.centroids, graph=links)
    figures["restore_s"] = time.process_time() - began
    for P in probes:
        calls: dict[str, Callable[[Features], Any]] = {
            "exact_ms": lambda q, P=P: graph.assign(q.descriptors, P, exact=True),  # type: ignore[misc]
            "hnsw_ms": lambda q, P=P: graph.assign(q.descriptors, P),  # type: ignore[misc]
        }
        row: dict[str, Any] = timed(calls, queries, rounds)
        found = [(graph.assign(q.descriptors, P, exact=True)[0], graph.assign(q.descriptors, P)[0]) for q in queries]
        row["recall"] = float(np.mean([(a[:, :, None] == b[:, None, :]).any(axis=2).mean() for a, b in found]))
        figures[f"P={P}"] = row
    return figures


def lists_stage(
    snapshot: IndexSnapshot, codebook: Codebook, queries: Sequence[Features], probes: Sequence[int], rounds: int
) -> dict[str, Any]:
    """Time of the lists, features looked at, and recall of the nearest stored features against all of them."""
    graph = HnswGraph.build(codebook.centroids).links(codebook.centroids)
    coarse = CoarseIndex(codebook.centroids, graph=graph)
    lengths = np.zeros(codebook.n_words, np.int64)
    for segment in snapshot.segments:
        lengths += np.bincount(segment.all_words(), minlength=len(lengths))

    def hits(q: Float32Array, P: int, exact: bool) -> Hits:
        words, base = coarse.assign(q, P, exact=exact)
        found = []
        for i in range(0, len(q), TABLES):  # as `index.search` does
            part = slice(i, i + TABLES)
            some = neighbours(snapshot, words[part], base[part], inner_product_tables(q[part], codebook), K, -1.0)
            found.append(some._replace(query=some.query + i))
        return Hits.join(found)

    rng = np.random.default_rng(1)
    few = [np.ascontiguousarray(q.descriptors[rng.permutation(len(q))[:6]]) for q in queries[:10]]
    truth = [_sets(hits(q, codebook.n_words, True), len(q)) for q in few]
    figures: dict[str, Any] = {}
    for P in probes:
        found = {exact: [_sets(hits(q, P, exact), len(q)) for q in few] for exact in (True, False)}
        row: dict[str, Any] = timed({"candidates_ms": lambda q, P=P: hits(q.descriptors, P, False)}, queries, rounds)  # type: ignore[misc]
        row["looked_at"] = float(np.mean([lengths[coarse.assign(q.descriptors, P)[0]].sum(axis=1) for q in queries]))
        for exact, sets in found.items():
            shares = [len(a & b) / len(b) for s, t in zip(sets, truth, strict=True) for a, b in zip(s, t, strict=True)]
            row["recall_exact_words" if exact else "recall_hnsw"] = float(np.mean(shares))
        figures[f"P={P}"] = row
    return figures


def _sets(hits: Hits, n: int) -> list[set[int]]:
    return [set(hits.feature[hits.query == i].tolist()) for i in range(n)]


def codes_of(words: Words, codebook: Codebook, names: Sequence[str]) -> list[Codes]:
    """Photos as they are stored, words found exactly."""
    features = [cut(words.lab.features(name), codebook.dim) for name in names]
    found = assign(np.concatenate([f.descriptors for f in features]), codebook.centroids)[0]
    ends = np.cumsum([len(f) for f in features])
    return [encode(f, found[e - len(f) : e], codebook) for f, e in zip(features, ends, strict=True)]


def database(codes: Sequence[Codes], codebook: Codebook, n: int) -> IndexSnapshot:
    """The lists of the first n images: real ones, then copies."""
    layout, copies = CodeLayout.of(codebook), Copies(codes, codebook)
    snapshot = IndexSnapshot.empty(layout)
    for start in range(0, n, 2000):
        images = [(i, codes[i] if i < len(codes) else copies.make(i)) for i in range(start, min(start + 2000, n))]
        snapshot = snapshot.extended(CodeBatch.of(images, layout), layout.n_words)
    return snapshot


def val(words: Words, codebook: Codebook, dataset: Dataset) -> dict[str, Any]:
    """mAP on VAL by the SDK itself, with a graph over the words."""
    graph = HnswGraph.build(codebook.centroids).links(codebook.centroids) if codebook.n_words >= 8192 else None
    bundle = replace(words.bundle, codebook=codebook, graph=graph, cohort=None, id="words0000000")
    queries = [cut(words.lab.features(q.name), codebook.dim) for q in dataset.queries]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "val.db"
        with Recognizer.open(file, bundle=bundle) as places:
            codes = codes_of(words, codebook, dataset.database)
            places.store.add_many(
                NewImage(name, label(dataset, i), name.encode().ljust(32)[-32:], codes[i])
                for i, name in enumerate(dataset.database)
            )
            figures = asked(places, dataset, queries)
            places.store.compact()
            figures["ram_bytes_per_feature"] = places.pipeline.index.nbytes / places.pipeline.index.n_features
            figures["disk_bytes_per_feature"] = file.stat().st_size / places.pipeline.index.n_features
    return {name: value for name, value in figures.items() if name != "ap"}


def identify(words: Words, dataset: Dataset, n: int, out: Path, rounds: int) -> dict[str, Any]:
    """Milliseconds of a question after extraction among n photos: processor, wall, and each stage."""
    bundle = words.bundle
    file = out / "words" / bundle.id / f"identify-{n}.db"
    queries = [words.lab.features(q.name) for q in dataset.queries]
    with Recognizer.open(_stored(words, dataset, n, file), bundle=bundle) as recognizer:
        ways = {"hnsw": IdentifyOptions(), "exact": IdentifyOptions(search=SearchOptions(exact_words=True))}
        cpu: dict[str, list[float]] = {way: [] for way in ways}
        wall: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
        answers: dict[str, list[str | None]] = {way: [] for way in ways}
        for i in range(rounds + 1):  # the first round warms up
            for q in queries:
                for way, options in ways.items():
                    spent: dict[str, float] = {}
                    began = time.thread_time()
                    answer = recognizer.pipeline.answer(q, options, timings=spent)
                    if i:
                        cpu[way].append(1e3 * (time.thread_time() - began))
                        wall[way].append(spent)
                        answers[way].append(answer.landmark)
        index = recognizer.pipeline.index
        figures: dict[str, Any] = {"images": n, "features": index.n_features}
        figures["ram_bytes_per_feature"] = index.nbytes / index.n_features
        figures["disk_bytes_per_feature"] = file.stat().st_size / index.n_features
        for way, times in cpu.items():
            best = np.array(times).reshape(rounds, -1).min(axis=0)
            figures[way] = {
                "cpu_ms": float(np.median(times)),
                "cpu_best_ms": float(np.median(best)),
                "cpu_best_p99_ms": float(np.quantile(best, 0.99)),
                "wall_ms": float(np.median([w["total"] for w in wall[way]])),
                "wall_p99_ms": float(np.quantile([w["total"] for w in wall[way]], 0.99)),
                "stages_ms": {s: float(np.median([w[s] for w in wall[way]])) for s in wall[way][0]},
            }
        same = [a == b for a, b in zip(answers["hnsw"], answers["exact"], strict=True)]
        figures |= {"same_answers": float(np.mean(same)), "load_average": os.getloadavg()[0]}
    return figures | {"start": search_life.starts(file, dataset.path(dataset.queries[0].name), STARTS)}


def _stored(words: Words, dataset: Dataset, n: int, file: Path) -> Path:
    """A database of n photos, made once."""
    if file.exists():
        return file
    file.parent.mkdir(parents=True, exist_ok=True)
    codebook, names = words.bundle.codebook, words.names[:: max(1, len(words.names) // REAL)][:REAL]
    real, others = codes_of(words, codebook, dataset.database), codes_of(words, codebook, names)
    copies, partial = Copies(others, codebook), file.with_suffix(".partial")
    partial.unlink(missing_ok=True)

    def image(i: int) -> NewImage:
        known = [*real, *others]
        name = dataset.database[i] if i < len(real) else f"image {i}"
        codes = known[i] if i < len(known) else copies.make(i)
        return NewImage(
            name, label(dataset, i) if i < len(real) else name, hashlib.sha256(name.encode()).digest(), codes
        )

    with Recognizer.open(partial, bundle=words.bundle) as recognizer:
        for start in range(0, n, 500):
            recognizer.store.add_many(image(i) for i in range(start, min(start + 500, n)))
        recognizer.store.snapshot(file)
    partial.unlink()
    return file


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    p = argparse.ArgumentParser(prog="python -m benchmarks.words", description=(__doc__ or "").splitlines()[0])
    p.add_argument("data", type=Path, nargs="?", default=Path("../shared/data"), help="default ../shared/data")
    p.add_argument("--words", type=int, nargs="*", default=[8192, 16384, 32768, 65536], help="K")
    p.add_argument("--codes", type=str, nargs="+", default=["60x12"], help="as 60x12: dimensions and bytes of a code")
    p.add_argument("--probes", type=int, nargs="+", default=[8, 12, 16, 32], help="words looked up for a feature")
    p.add_argument("--images", type=int, nargs="*", default=[1000, 10_000, 100_000], help="sizes of databases")
    p.add_argument(
        "--identify", type=int, nargs="*", default=[], help="sizes of databases that are asked; needs no --words"
    )
    p.add_argument("--val", action="store_true", help="rank VAL with every codebook")
    p.add_argument("--variant", help="with --val: of the bundle's networks, such as int8; codebooks stay the same")
    p.add_argument("--seeds", type=int, default=1, help="fits of every codebook, default 1; more are for --val")
    p.add_argument("--sample", type=int, default=600_000, help="descriptors fitted on at most")
    p.add_argument("--refine", type=int, default=1, help="Lloyd iterations over all words")
    p.add_argument("--queries", type=int, default=20, help="queries that are timed")
    p.add_argument("--rounds", type=int, default=3, help="times that each is asked")
    p.add_argument("--out", type=Path, default=Path("out"), help="folder of caches, default out/")
    p.add_argument(
        "--json", type=Path, default=RESULT, help="file to write; what is there stays, but for the same rows"
    )
    p.add_argument("--write", type=Path, metavar="OUT", help="put a bundle with the first codebook here, and end")
    a = p.parse_args(arguments)
    command = " ".join(["python -m benchmarks.words", *(sys.argv[1:] if arguments is None else arguments)])
    words = Words(a.data, a.out, a.sample, a.refine, a.variant)
    pairs = [(int(dim), int(code_size)) for dim, code_size in (text.split("x") for text in a.codes)]
    most = words.bundle.codebook.dim
    if a.words and any(dim > most for dim, _ in pairs):
        p.error(f"--codes {' '.join(a.codes)}: the default bundle's descriptors have {most} dimensions, and no more")
    if a.write:
        print(words.write(Size(a.words[0], *pairs[0]), a.write, command).id)
        return 0
    dataset = read_json(a.data / "val.json")
    words.lab.prepare([q.name for q in dataset.queries])
    queries = [f for q in dataset.queries if len(f := words.lab.features(q.name)) == 300][: a.queries]
    result: dict[str, Any] = json.loads(a.json.read_text(encoding="utf-8")) if a.json.exists() else {}
    rows = result.setdefault("rows", {})
    for n in a.identify:
        figures = identify(words, dataset, n, a.out, a.rounds) | {"command": command, "environment": environment()}
        result.setdefault("identify", {})[str(n)] = jsonable(figures | {"bundle": words.bundle.id})
        print(json.dumps(result["identify"][str(n)], indent=1), flush=True)
        _write(a.json, result)
    for seed in range(1, a.seeds + 1):
        for dim, code_size in pairs:
            for n_words in a.words:
                size = Size(n_words, dim, code_size, seed=seed)
                name = str(size) if a.variant is None else f"{size}, {a.variant}"
                codebook, mine = words.codebook(size), [cut(q, dim) for q in queries]
                row = rows.setdefault(name, asdict(size)) | {"command": command, "environment": environment()}
                if seed == 1:
                    row["words"] = words_stage(codebook, mine, a.probes, a.rounds)
                    row["centroids"] = words.storage_loss(size)
                if a.images and seed == 1:
                    codes = codes_of(words, codebook, words.names[:: max(1, len(words.names) // REAL)][:REAL])
                    for n in a.images:
                        snapshot = database(codes, codebook, n)
                        found = lists_stage(snapshot, codebook, mine, a.probes, a.rounds)
                        found["ram_bytes_per_feature"] = snapshot.nbytes / snapshot.n_features
                        row.setdefault("images", {})[str(n)] = found | {"features": snapshot.n_features}
                        print(size, n, json.dumps(jsonable(found)), flush=True)
                if a.val:
                    row["val"] = val(words, codebook, dataset)
                rows[name] = jsonable(row)
                print(name, json.dumps(jsonable({k: row.get(k) for k in ("words", "centroids", "val")})), flush=True)
                _write(a.json, result)
    return 0


def _write(file: Path, result: dict[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(jsonable(result), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    raise SystemExit(main())
