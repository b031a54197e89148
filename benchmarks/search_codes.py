"""What shorter codes cost: `python -m benchmarks.search_codes [DATA]` writes `results/codes.json`.

For every size of code a codebook is fitted on the training photos, and the SDK itself is asked: features are encoded
with it, stored in a database file, and ranked by `Recognizer.rank` on DEV and on the held-out training places. The
network, its features and the weights of the score stay those of the bundle, so the figures compare codes, nothing else.
Bytes are those of the file and of the index in RAM, everything included.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.data.datasets import Dataset, read_json
from benchmarks.data.feature_cache import FeatureCache
from benchmarks.data.trainset import fitting_photos, training_dataset
from benchmarks.lab.figures import rankings
from benchmarks.lab.records import environment, jsonable
from benchmarks.lab.runner import Progress, silent, to_stderr
from benchmarks.lab.runtime import label
from benchmarks.lab.search_data import projected, raw_features
from benchmarks.metrics import protocols, stats
from delf_edge.bundle.bundle import Bundle, default_bundle_path
from delf_edge.codebooks.fit import CodebookOptions, fit
from delf_edge.index.search import SearchOptions
from delf_edge.quantization.coarse_quantizer import CoarseIndex
from delf_edge.quantization.packed_codes import tiny
from delf_edge.recognizer import Recognizer
from delf_edge.storage.records import NewImage
from delf_edge.types import Codebook, Features

RESULT = Path(__file__).parent / "results" / "codes.json"
CALIBRATION = (
    Path(__file__).parent.parent / "converters" / "training" / "default_calibration.json"
)  # names the held-out places
FITTED_ON = 1200  # training photos


@dataclass(frozen=True, slots=True)
class Size:
    """D dimensions after PCA, M bytes of code, K words, and the seed of the fit."""

    dim: int
    code_size: int
    n_words: int = 8192
    seed: int = 1

    def __str__(self) -> str:
        return f"D={self.dim} M={self.code_size} K={self.n_words}{f' seed {self.seed}' if self.seed > 1 else ''}"


TINY = (Size(72, 12),)
SIZES = (Size(64, 16), Size(72, 12), Size(56, 14), Size(60, 15), Size(64, 8))


def fitted(size: Size, bundle: Bundle, rows: Sequence[Features]) -> Codebook:
    """A codebook of a size over raw features; the global part stays the bundle's."""
    raw = [f.descriptors for f in rows if len(f)]
    options = CodebookOptions(
        dim=size.dim,
        n_words=size.n_words,
        code_size=size.code_size,
        sample=150_000,
        refine=0,
        global_dim=1,
        seed=size.seed,
    )
    book = fit(lambda: raw, np.stack([r.mean(axis=0) for r in raw]), options).codebook
    own = bundle.codebook
    return replace(book, global_mean=own.global_mean, global_basis=own.global_basis)


def asked(recognizer: Recognizer, dataset: Dataset, queries: Sequence[Features]) -> dict[str, Any]:
    """mAP of `Recognizer.rank`, whole and before RANSAC."""
    from delf_edge.query.options import RANKING, IdentifyOptions

    index, n = {name: i for i, name in enumerate(dataset.database)}, len(dataset.database)
    figures: dict[str, Any] = {}
    for stage, options in (("map", RANKING), ("map_candidates", IdentifyOptions(verify=0))):
        scores = []
        for features in queries:
            row = np.full(n, -np.inf)
            for match in recognizer.rank(features, n, options=options):
                row[index[match.name]] = match.score
            scores.append(row)
        scored = protocols.score_rankings(dataset, rankings(dataset, scores))[dataset.settings[0].name]
        figures |= {stage: scored.map, f"{stage}_ci": stats.bootstrap(scored.ap)}
        figures |= {"ap": scored.ap, "top1": scored.top1} if stage == "map" else {}
    return figures


def local_alone(recognizer: Recognizer, dataset: Dataset, queries: Sequence[Features]) -> dict[str, float]:
    """mAP of the candidates by local features alone, of each scoring."""
    index, n = {name: i for i, name in enumerate(dataset.database)}, len(dataset.database)
    rows = {image.image_id: index[image.name] for image in recognizer.store.images()}
    coarse = CoarseIndex(recognizer.bundle.codebook.centroids)
    recognizer.pipeline.index.refresh(recognizer.store)
    found = {}
    choices = {"votes": SearchOptions(global_weight=0, top=n)}
    choices |= {
        f"asmk, alpha {alpha:g}, tau {tau:g}": SearchOptions(
            global_weight=0, top=n, scoring="asmk", alpha=alpha, tau=tau
        )
        for alpha, tau in ((3.0, 0.0), (3.0, 0.2), (5.0, 0.0))
    }
    for name, options in choices.items():
        scores = []
        for features in queries:
            row = np.full(n, -np.inf)
            for c in recognizer.pipeline.index.search(features, recognizer.bundle.codebook, coarse, options):
                row[rows[c.image_id]] = c.votes
            scores.append(row)
        scored = protocols.score_rankings(dataset, rankings(dataset, scores))[dataset.settings[0].name]
        found[name] = scored.map
    return found


def measure(
    dataset: Dataset,
    bundle: Bundle,
    database: Sequence[Features],
    queries: Sequence[Features],
    *,
    short: bool = False,
    scorings: bool = False,
) -> dict[str, Any]:
    """Figures of one codebook on one dataset, with `short` of the tiny form, with `scorings` of each scoring."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "codes.db"
        with Recognizer.open(file, bundle=bundle) as recognizer:
            images = []
            for i, features in enumerate(database):
                name = dataset.database[i]
                digest = hashlib.sha256(name.encode()).digest()
                codes = recognizer.encode(projected(features, bundle.codebook))
                images.append(NewImage(name, label(dataset, i), digest, tiny(codes) if short else codes))
            recognizer.store.add_many(images)
            asking = [projected(f, bundle.codebook) for f in queries]
            figures = asked(recognizer, dataset, asking)
            if scorings:
                figures["local_alone"] = local_alone(recognizer, dataset, asking)
            index = recognizer.pipeline.index
            figures["ram_bytes_per_feature"] = index.nbytes / max(1, index.n_features)
            recognizer.store.compact()
            stored = index.n_features
        size = file.stat().st_size
        sizes = {"disk_bytes_per_feature": size / stored, "disk_bytes_per_image": size / len(database)}
        return figures | sizes | {"features": stored}


def run(data: Path, sizes: Sequence[Size], out: Path, progress: Progress = silent) -> dict[str, Any]:
    """All figures, JSON-ready; the first row is the bundle's own codebook."""
    bundle, cache = Bundle.load(default_bundle_path()), FeatureCache(out / "features")
    held_out = tuple(json.loads(CALIBRATION.read_text(encoding="utf-8"))["report"]["places"])
    sets = {"dev": read_json(data / "dev.json"), "held_out": training_dataset(data, filler=150, only=held_out)}

    def features(dataset: Dataset, names: Sequence[str]) -> list[Features]:
        return raw_features(bundle, [dataset.path(n) for n in names], cache, progress)

    databases = {name: features(d, d.database) for name, d in sets.items()}
    queries = {name: features(d, [q.name for q in d.queries]) for name, d in sets.items()}
    learning = raw_features(bundle, fitting_photos(data, FITTED_ON), cache, progress)
    rows: dict[str, Any] = {}
    for size in (None, *sizes):
        book = bundle.codebook if size is None else fitted(size, bundle, learning)
        for short in (False, True) if size in (None, *TINY) else (False,):
            tried = replace(bundle, codebook=book, id=f"codes{len(rows):07d}")
            title = f"{size or 'bundle'}{', tiny' if short else ''}"
            rows[title] = {
                name: measure(
                    d, tried, databases[name], queries[name], short=short, scorings=size is None and not short
                )
                for name, d in sets.items()
            }
            for name, figures in rows[title].items():
                print(
                    f"{title}, {name}: mAP {figures['map']:.4f}, candidates {figures['map_candidates']:.4f}", flush=True
                )
    base = rows[str(sizes[0])]
    for row in rows.values():
        for name, figures in row.items():
            figures["against_first_size"] = stats.paired_difference(figures["ap"], base[name]["ap"])
    for row in rows.values():
        for figures in row.values():
            del figures["ap"]
    command = " ".join(["python -m benchmarks.search_codes", *sys.argv[1:]])
    head = {"bundle": bundle.id, "first_size": str(sizes[0]), "command": command}
    return dict(jsonable(head | {"sizes": rows, "environment": environment()}))


def _size(text: str) -> Size:
    dim, _, code_size = text.partition("x")
    return Size(int(dim), int(code_size))


def main() -> int:
    """The command."""
    p = argparse.ArgumentParser(prog="python -m benchmarks.search_codes", description=(__doc__ or "").splitlines()[0])
    p.add_argument("data", type=Path, nargs="?", default=Path("../shared/data"), help="default ../shared/data")
    p.add_argument("--sizes", type=_size, nargs="+", default=SIZES, help="as 72x12: dimensions and bytes of a code")
    p.add_argument("--out", type=Path, default=Path("out"), help="folder of the feature cache, default out/")
    p.add_argument("--json", type=Path, default=RESULT, help="file to write, default benchmarks/results/codes.json")
    p.add_argument("--seeds", type=int, default=1, help="fits of every size, default 1")
    a = p.parse_args()
    sizes = [replace(size, seed=seed) for size in a.sizes for seed in range(1, a.seeds + 1)]
    result = run(a.data, sizes, a.out, to_stderr)
    a.json.parent.mkdir(parents=True, exist_ok=True)
    a.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
