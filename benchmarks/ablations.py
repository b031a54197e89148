"""What the defaults were decided on: `python -m benchmarks.ablations DEV.json [--only NAME ...]`.

One choice is changed at a time, everything else stays the SDK's default. Each group gives a plot of mAP against what
the choice costs, `results/ablation-NAME.png`, and its figures in `results/ablations.json`. The sentence under a plot is
made from the figures: what is chosen now, and which choice is better by more than chance over the same queries.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import plots, stats
from benchmarks.cache import FeatureCache
from benchmarks.datasets import Dataset, DatasetError, read_json
from benchmarks.geometry import MODELS
from benchmarks.runner import Progress, environment, extract_all, figures, jsonable, run, to_stderr
from benchmarks.systems.delf import DelfSystem, from_arrays
from benchmarks.systems.local import LocalOptions
from benchmarks.systems.registry import runtime_options
from benchmarks.trainset import fitting_photos
from delf_edge.bundle import Bundle, default_bundle_path
from delf_edge.errors import DelfEdgeError
from delf_edge.features import ExtractOptions, extract_options
from delf_edge.types import Codebook
from delf_edge.verification import VerifyOptions

HERE = Path(__file__).parent


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
        from converters.codebooks import CodebookOptions, fit

        base = self.system()
        photos: list[tuple[Path, Any]] = [(p, None) for p in fitting_photos(self.data)]
        rows = [from_arrays(a).descriptors for a in extract_all(base, photos, self.cache, self.progress, "training")]
        rows = [r for r in rows if len(r)]
        options = CodebookOptions(
            dim=dim,
            n_words=min(n_words, sum(map(len, rows)) // 4),
            code_size=code_size,
            sample=150_000,
            pq_iterations=10,
            global_dim=1,
        )
        book = fit(lambda: rows, np.stack([r.mean(axis=0) for r in rows]), options).codebook
        own = self.bundle.codebook
        return replace(book, global_mean=own.global_mean, global_basis=own.global_basis)


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
    words = [w for w in (1024, 4096, 16384) if w <= lab.bundle.codebook.n_words * 4]
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
            "Descriptor dimension (four dimensions a byte)",
            "bytes",
            several(
                [d for d in (16, 32, 48, 64, 96, 128) if d <= D], D, lambda v: _with_codebook(lab, v, 4096, v // 4)
            ),
        ),
        Group(
            "pq",
            "PQ bytes",
            "bytes",
            several([m for m in (4, 8, 16, 32) if D % m == 0], M, lambda v: _with_codebook(lab, D, 4096, v)),
        ),
        Group("words", "Coarse words", "query ms", several(words, None, lambda v: _with_codebook(lab, D, v, M))),
        Group(
            "probes",
            "Words looked up",
            "query ms",
            several((1, 2, 4, 8, 16), o.search.n_probe, lambda v: lab.search(n_probe=v)),
        ),
        Group(
            "neighbours",
            "Voting neighbours (K)",
            "query ms",
            several((10, 30, 60, 120), o.search.k_neighbours, lambda v: lab.search(k_neighbours=v)),
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


def measure(lab: Lab, group: Group, dataset: Dataset) -> dict[str, Any]:
    """Figures of every choice of a group, JSON-ready."""
    rows: dict[str, Any] = {}
    for choice in group.choices:
        system = choice.build()
        system.places = dataset.places
        done = run(system, dataset, lab.cache, lab.progress, strangers=False)
        row = figures(dataset, done)
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
    """One sentence: the default, and what differs from it by more than chance over the same queries."""
    default = next((label for label, row in rows.items() if row["default"]), None)
    if default is None:
        best = max(rows, key=lambda label: rows[label]["map"])
        return f"{best} has the highest mAP, {rows[best]['map']:.3f}; none of these is the bundle's own."
    base = np.array(rows[default]["ap"], np.float64)
    better, worse = [], []
    for label, row in rows.items():
        if label == default:
            continue
        difference, low, high = stats.paired_difference(np.array(row["ap"], np.float64), base)
        said = f"{label} ({difference:+.3f}, 95 % {low:+.3f} to {high:+.3f})"
        if low > 0:
            better.append(said)
        elif high < 0:
            worse.append(said)
    chosen = f"The default is {default}: mAP {rows[default]['map']:.3f}"
    parts = [f"better by more than chance: {', '.join(better)}" if better else "nothing is better by more than chance"]
    parts += [f"worse: {', '.join(worse)}"] if worse else ["nothing is worse by more than chance"]
    return f"{chosen}; {'; '.join(parts)}."


def plot(name: str, result: dict[str, Any], folder: Path) -> Path:
    """The group's plot."""
    units = {"ms": "ms per query, extract and search", "query ms": "ms to search", "bytes": "bytes per image"}
    points = [
        plots.Point(label, row["cost"], row["map"], tuple(row["map_ci"]), row["default"])
        for label, row in result["choices"].items()
    ]
    return plots.trade_off(points, result["title"], units[result["cost"]], folder / f"ablation-{name}.png")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns 0, or 2 for missing data or a bad bundle."""
    p = argparse.ArgumentParser(prog="python -m benchmarks.ablations", description=(__doc__ or "").splitlines()[0])
    p.add_argument("dataset", type=Path, help="our JSON form, such as ../shared/data/dev.json")
    p.add_argument("--bundle", type=Path, help="bundle folder, default: the one in assets/")
    p.add_argument("--preset", help="extraction preset, default: the bundle's own")
    p.add_argument("--only", nargs="*", default=[], help="groups to run, default: all")
    p.add_argument("--head", type=int, nargs=2, metavar=("QUERIES", "PHOTOS"), help="only a part, for a quick look")
    p.add_argument("--out", type=Path, default=Path("out"), help="folder for caches, default out/")
    p.add_argument("--results", type=Path, default=HERE / "results", help="folder of the recorded results")
    a = p.parse_args(arguments)
    try:
        dataset = read_json(a.dataset)
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
    for group in wanted:  # written after each: the whole takes long
        recorded[group.name] = jsonable(measure(lab, group, dataset) | {"bundle": lab.bundle.id})
        plot(group.name, recorded[group.name], a.results)
        file.write_text(
            json.dumps({"environment": environment(), "groups": recorded}, indent=1) + "\n", encoding="utf-8"
        )
        print(f"{group.name}: {recorded[group.name]['verdict']}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
