"""What the defaults were decided on: `python -m benchmarks.ablations DEV.json [--only NAME ...]`.

One choice is changed at a time, everything else stays the SDK's default. Each group gives a plot of mAP against what
the choice costs, `results/ablation-NAME.png`, its figures in `results/ablations.json`, and a sentence in README.md made
from the figures: what is chosen now, and which choice is better or cheaper by more than chance over the same queries.

All queries and positives are asked, among a part of the distractors (`--photos`): what differs here differs there, and
the whole takes minutes. A group that is recorded for the same bundle, code and photos is not run again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.data.datasets import Dataset, DatasetError, read_json
from benchmarks.data.feature_cache import FeatureCache
from benchmarks.data.trainset import training_dataset
from benchmarks.lab import plots, report
from benchmarks.lab.code import code_digest
from benchmarks.lab.figures import figures
from benchmarks.lab.records import environment, jsonable
from benchmarks.lab.runner import Progress, extract_all, photos_of, run, to_stderr
from benchmarks.metrics import stats
from benchmarks.systems.delf import DelfSystem, from_arrays
from benchmarks.systems.geometry import MODELS
from benchmarks.systems.local import LocalOptions
from benchmarks.systems.registry import runtime_options
from delf_edge.bundle.bundle import Bundle, default_bundle_path
from delf_edge.errors import DelfEdgeError
from delf_edge.features.extractor import ExtractOptions, extract_options
from delf_edge.types import Codebook
from delf_edge.verification import VerifyOptions

HERE = Path(__file__).parent
CHEAPER = 0.9  # share of the cost from which on a choice counts as cheaper
PHOTOS = 435  # of the database: DEV's own and a quarter of its distractors
UNITS = {
    "ms": "ms to extract and search, one thread",
    "query ms": "ms to search, one thread",
    "bytes": "bytes an image",
}


@dataclass(frozen=True, slots=True)
class Choice:
    """One point of a group: its label, how to build it, and whether it is the default."""

    label: str
    build: Callable[[], DelfSystem]
    default: bool = False


@dataclass(frozen=True, slots=True)
class Group:
    """Choices that differ in one thing. `cost` is "ms" (extract and search), "query ms" or "bytes"."""

    name: str
    title: str
    cost: str
    choices: tuple[Choice, ...]


class Lab:
    """Builds the choices from one bundle.

    Args:
        folder: folder of the bundle.
        preset: its preset, None for the default one.
        data: folder of train.csv, for codebooks.
        cache: features.
        progress: told how far it is.
    """

    def __init__(self, folder: Path, preset: str | None, data: Path, cache: FeatureCache, progress: Progress) -> None:
        self.folder, self.data, self.cache, self.progress = folder, data, cache, progress
        self.bundle = Bundle.load(folder)
        self.extract: ExtractOptions = extract_options(self.bundle, preset)
        self.options: LocalOptions = runtime_options()

    def system(self, **changes: Any) -> DelfSystem:
        """The SDK's defaults with some of `DelfSystem`'s arguments replaced."""
        arguments: dict[str, Any] = {"extract": self.extract, "options": self.options, "bundle": self.bundle} | changes
        return DelfSystem(arguments.pop("bundle"), arguments.pop("extract"), label="ablation", **arguments)

    def search(self, **changes: Any) -> DelfSystem:
        """With other candidate search."""
        return self.system(options=replace(self.options, search=replace(self.options.search, **changes)))

    def codebook(self, dim: int, n_words: int, code_size: int) -> Codebook:
        """A codebook over the bundle's descriptors, fitted on training photos."""
        from delf_edge.codebooks.fit import CodebookOptions, fit

        base = self.system()
        options = CodebookOptions(
            dim=dim, n_words=n_words, code_size=code_size, sample=100_000, pq_iterations=5, global_dim=1
        )

        def make() -> dict[str, Any]:
            photos = photos_of(training_dataset(self.data))
            found = extract_all(base, photos, self.cache, self.progress, "training")
            rows = [r for r in (from_arrays(f).descriptors for f in found) if len(r)]
            fewer = replace(options, n_words=min(n_words, sum(map(len, rows)) // 4))
            book = fit(lambda: rows, np.stack([r.mean(axis=0) for r in rows]), fewer).codebook
            return {name: getattr(book, name) for name in ("pca_mean", "pca_basis", "centroids", "pq", "rotation")}

        made = self.cache.get(f"ablation 1 {base.key}", hashlib.sha256(repr(options).encode()).digest(), make)
        own = self.bundle.codebook
        return Codebook(**made, global_mean=own.global_mean, global_basis=own.global_basis)


def groups(lab: Lab) -> list[Group]:
    """Every ablation."""
    e, o, D, M = lab.extract, lab.options, lab.bundle.codebook.dim, lab.bundle.codebook.code_size

    def several(values: Iterable[Any], now: Any, build: Callable[[Any], DelfSystem]) -> tuple[Choice, ...]:
        return tuple(Choice(str(v), lambda v=v: build(v), v == now) for v in values)  # type: ignore[misc]

    pyramids = [
        (0.5,),
        (0.5, 0.707),
        (0.354, 0.5, 0.707),
        (0.354, 0.5, 0.707, 1.0),
        (0.25, 0.354, 0.5, 0.707, 1.0, 1.414),
    ]
    pyramids = list(dict.fromkeys([*pyramids, e.scales]))
    counts = sorted({100, 200, 300, 500, e.max_features})
    most = replace(e, max_features=max(counts))  # one extraction serves all: the list is sorted by score
    K = lab.bundle.codebook.n_words
    words = sorted({w for w in (1024, 4096, 8192, 16384) if w <= 4 * K} | {K})
    return [
        Group(
            "scales",
            "Pyramid scales",
            "ms",
            several(pyramids, e.scales, lambda v: lab.system(extract=replace(e, scales=v))),
        ),
        Group(
            "features",
            "Features per photo",
            "bytes",
            several(
                counts,
                e.max_features,
                lambda v: lab.system(extract=most, options=replace(o, query_features=v, stored_features=v)),
            ),
        ),
        Group(
            "dimension",
            "Descriptor dimension, four to a byte (codebooks of 4,096 words)",
            "bytes",
            several(
                [d for d in (16, 32, 48, 64, 96, 128) if d <= D], D, lambda v: _with_codebook(lab, v, 4096, v // 4)
            ),
        ),
        Group(
            "pq",
            "PQ bytes a feature (codebooks of 4,096 words)",
            "bytes",
            several([m for m in (4, 8, 16, 32) if D % m == 0], M, lambda v: _with_codebook(lab, D, 4096, v)),
        ),
        Group("words", "Coarse words", "query ms", several(words, K, lambda v: _with_codebook(lab, D, v, M))),
        Group(
            "probes",
            "Words looked up",
            "query ms",
            several((1, 4, 8, 16, 32, 64), o.search.probes(0, K), lambda v: lab.search(n_probe=v)),
        ),
        Group(
            "neighbours",
            "Voting neighbours (K)",
            "query ms",
            several(
                sorted({10, 30, 100, o.search.k_neighbours}),
                o.search.k_neighbours,
                lambda v: lab.search(k_neighbours=v),
            ),
        ),
        Group(
            "reference",
            "Where a vote begins (1: at the K-th neighbour)",
            "query ms",
            several((0.0, 0.3, 0.6, 0.9), o.search.reference, lambda v: lab.search(reference=v)),
        ),
        Group(
            "attention",
            "Exponent of the attention that weighs a vote",
            "query ms",
            several((0.0, 0.5, 1.0, 2.0), o.search.attention, lambda v: lab.search(attention=v)),
        ),
        Group(
            "verified",
            "Candidates checked by RANSAC",
            "query ms",
            several((0, 5, 10, 20, 40, 80), o.verified, lambda v: lab.system(options=replace(o, verified=v))),
        ),
        Group(
            "model",
            "Matching and geometric model",
            "query ms",
            tuple(Choice(n, lambda v=v: lab.system(verifier=v), n == "affine, ours") for n, v in MODELS.items()),  # type: ignore[misc]
        ),
        Group(
            "tolerance",
            "RANSAC residual, pixels of 1024",
            "query ms",
            several(
                (5, 10, 20, 40),
                round(o.verify.tolerance * 1024),
                lambda v: lab.system(options=replace(o, verify=_tolerance(o.verify, v))),
            ),
        ),
        Group(
            "network",
            "Quantisation of the network",
            "ms",
            several(
                sorted(lab.bundle.manifest.network.variants),
                lab.bundle.variant,
                lambda v: lab.system(bundle=Bundle.load(lab.folder, variant=v)),
            ),
        ),
    ]


def _with_codebook(lab: Lab, dim: int, n_words: int, code_size: int) -> DelfSystem:
    return lab.system(codebook=lab.codebook(dim, n_words, code_size))


def _tolerance(options: VerifyOptions, pixels: int) -> VerifyOptions:
    return replace(options, tolerance=pixels / 1024)


def measure(lab: Lab, group: Group, dataset: Dataset, known: dict[str, Any]) -> dict[str, Any]:
    """Figures of every choice of a group, JSON-ready; `known` keeps those of equal systems (the default is in most)."""
    rows: dict[str, Any] = {}
    for choice in group.choices:
        system = choice.build()
        system.places = dataset.places
        same = str(system.describe())
        if same not in known:
            known[same] = figures(dataset, run(system, dataset, lab.cache, lab.progress, strangers=False))
        row = known[same]
        ms = {"ms": row["extract_ms"] + row["query_ms"], "query ms": row["query_ms"], "bytes": row["bytes_per_image"]}
        rows[choice.label] = {
            "map": row["map"],
            "map_ci": row["map_ci"],
            "map_before_ransac": row["stages"]["candidates"]["map"],
            "recall_at": row["stages"]["candidates"]["recall_at"],
            "cost": ms[group.cost],
            "default": choice.default,
            "ap": [q["ap"] for q in row["queries"]],
        }
    return {"title": group.title, "cost": group.cost, "choices": rows, "verdict": verdict(rows)}


def verdict(rows: dict[str, Any]) -> str:
    """One sentence: the default, and what differs from it by more than chance over the same queries, and its cost."""
    default = next((label for label, row in rows.items() if row["default"]), None)
    if default is None:
        best = max(rows, key=lambda label: rows[label]["map"])
        return f"{best} has the highest mAP, {rows[best]['map']:.3f}; none of these is the bundle's own."
    base = rows[default]
    better, worse, cheaper = [], [], []
    for label, row in rows.items():
        if label == default:
            continue
        difference, low, high = stats.paired_difference(np.array(row["ap"], np.float64), np.array(base["ap"]))
        cost = row["cost"] / base["cost"]
        said = f"{label} ({difference:+.3f}, 95 % {low:+.3f} to {high:+.3f}, cost x {cost:.2f})"
        if low > 0:
            better.append(said)
        elif high < 0:
            worse.append(said)
        elif cost < CHEAPER:
            cheaper.append(said)
    chosen = f"The default is {default}: mAP {base['map']:.3f}"
    parts = [f"better by more than chance: {', '.join(better)}" if better else "nothing is better by more than chance"]
    parts += [f"worse: {', '.join(worse)}"] if worse else ["nothing is worse by more than chance"]
    parts += [f"cheaper without a loss beyond chance: {', '.join(cheaper)}"] if cheaper else []
    return f"{chosen}; {'; '.join(parts)}."


def plot(name: str, result: dict[str, Any], folder: Path) -> Path:
    """The group's plot."""
    points = [
        plots.Point(label, row["cost"], row["map"], tuple(row["map_ci"]), row["default"])
        for label, row in result["choices"].items()
    ]
    return plots.trade_off(points, result["title"], UNITS[result["cost"]], folder / f"ablation-{name}.png")


def document(recorded: dict[str, Any], folder: Path) -> str:
    """The part of benchmarks/README.md that `make ablations` writes: each plot and its sentence."""
    parts = []
    for name, group in recorded.items():
        parts += [
            f"**{group['title']}.** {group['verdict']}",
            f"![{group['title']}]({folder.name}/ablation-{name}.png)",
        ]
    return "\n\n".join(parts)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(prog="python -m benchmarks.ablations", description=(__doc__ or "").splitlines()[0])
    p.add_argument("dataset", type=Path, help="our JSON form, such as ../shared/data/dev.json")
    p.add_argument("--bundle", type=Path, help="bundle folder, default: the one in assets/")
    p.add_argument("--preset", help="extraction preset, default: the bundle's own")
    p.add_argument("--only", nargs="*", default=[], help="groups to run, default: all")
    p.add_argument("--photos", type=int, default=PHOTOS, help=f"of the database; 0 for all; default {PHOTOS}")
    p.add_argument("--fresh", action="store_true", help="run recorded groups again")
    p.add_argument("--readme", type=Path, default=HERE / "README.md", help="file that gets the sentences")
    p.add_argument("--head", type=int, nargs=2, metavar=("QUERIES", "PHOTOS"), help="only a part, for a quick look")
    p.add_argument("--out", type=Path, default=Path("out"), help="folder for caches, default out/")
    p.add_argument("--results", type=Path, default=HERE / "results", help="folder of the recorded results")
    return p


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns 0, or 2 for missing data or a bad bundle."""
    a = parser().parse_args(arguments)
    if not plots.can_draw():
        return 2
    cv2.setNumThreads(1)
    try:
        dataset = read_json(a.dataset)
        dataset = dataset.head(len(dataset.queries), a.photos) if a.photos else dataset
        dataset = dataset.head(*a.head) if a.head else dataset
        folder = a.bundle or default_bundle_path()
        lab = Lab(folder, a.preset, a.dataset.parent, FeatureCache(a.out / "features"), to_stderr)
        wanted = [g for g in groups(lab) if not a.only or g.name in a.only]
    except (DatasetError, DelfEdgeError, OSError) as e:
        print(e, file=sys.stderr)
        return 2
    file = a.results / "ablations.json"
    recorded = json.loads(file.read_text(encoding="utf-8"))["groups"] if file.is_file() else {}
    file.parent.mkdir(parents=True, exist_ok=True)
    asked = hashlib.sha256("\n".join((*dataset.database, *(q.name for q in dataset.queries))).encode()).hexdigest()[:8]
    state = {"bundle": lab.bundle.id, "photos": f"{len(dataset.database)} {asked}", "code": code_digest()}
    known: dict[str, Any] = {}
    for group in wanted:  # written after each: the whole takes long
        before = recorded.get(group.name, {})
        if a.fresh or any(before.get(k) != v for k, v in state.items()):
            recorded[group.name] = jsonable(measure(lab, group, dataset, known) | state)
        plot(group.name, recorded[group.name], a.results)
        head = {"command": "make ablations", "queries": len(dataset.queries), "environment": environment()}
        file.write_text(report.as_text(head | {"groups": recorded}, "groups"), encoding="utf-8")
        print(f"{group.name}: {recorded[group.name]['verdict']}", flush=True)
    report.write_between(a.readme, document(recorded, a.results), report.ABLATIONS_BEGIN, report.ABLATIONS_END)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
