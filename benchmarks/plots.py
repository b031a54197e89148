"""Plots of recorded figures (PNG). Numbers only: no photo of a research set ever enters a result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.protocols import precision_recall


@dataclass(frozen=True, slots=True)
class Point:
    """One choice of an ablation.

    Attributes:
        label: what was chosen.
        x: what it costs, in the axis' unit.
        map: what it gives.
        interval: 95 % interval of the map.
        chosen: whether it is the default.
    """

    label: str
    x: float
    map: float
    interval: tuple[float, float]
    chosen: bool = False


def figure(width: float = 7, height: float = 4.5) -> tuple[Any, Any]:
    """A figure and its axes, drawn without a display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(width, height), dpi=110, layout="tight")
    FigureCanvasAgg(drawn)
    axes = drawn.add_subplot()
    axes.grid(visible=True, alpha=0.3)
    return drawn, axes


def save(drawn: Any, path: Path) -> Path:
    """Write a PNG without the date, so that the same figures give the same file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    drawn.savefig(path, metadata={"Software": None})
    return path


def trade_off(points: Sequence[Point], title: str, x_label: str, path: Path, *, logarithmic: bool = False) -> Path:
    """mAP against a cost, with intervals; the default is filled."""
    drawn, axes = figure()
    for p in points:
        below, above = max(0.0, p.map - p.interval[0]), max(0.0, p.interval[1] - p.map)
        colour = "tab:red" if p.chosen else "tab:blue"
        axes.errorbar([p.x], [p.map], [[below], [above]], fmt="o", color=colour, alpha=0.8, capsize=2)
        axes.annotate(p.label, (p.x, p.map), textcoords="offset points", xytext=(5, 4), fontsize=8)
    if logarithmic:
        axes.set_xscale("log")
    axes.set(title=title, xlabel=x_label, ylabel="mAP on DEV (95 % interval); red: the default")
    return save(drawn, path)


def precision_recall_curves(systems: Mapping[str, Mapping[str, Any]], path: Path) -> Path:
    """Precision of the answers given against the number of right ones, as a threshold falls (the paper's Figure 5).

    Every query counts twice: as it is, and as a photo of a place that is not in the database.
    """
    drawn, axes = figure(8, 5.5)
    for name, row in systems.items():
        queries = row.get("queries")
        if not queries:
            continue
        score = [q["confidence"] for q in queries] + [q["stranger"] for q in queries]
        right = [q["first"] == 0 for q in queries] + [False] * len(queries)
        finite = [s is not None for s in score]
        curve = precision_recall(
            np.array([s for s, f in zip(score, finite, strict=True) if f]),
            np.array([r for r, f in zip(right, finite, strict=True) if f]),
        )
        axes.step(curve.right, curve.precision, where="post", label=name, linewidth=1.2)
    axes.set(
        xlabel="right answers",
        ylabel="precision",
        ylim=(0, 1.02),
        title="Answers by confidence, half of them strangers",
    )
    axes.legend(fontsize=7, ncols=2)
    return save(drawn, path)


def reliability_diagram(reliability: Mapping[str, Any], title: str, path: Path) -> Path:
    """Share of right answers against their stated probability, with the number of answers in each bin."""
    drawn, axes = figure(5, 5)
    axes.plot([0, 1], [0, 1], color="grey", linewidth=1, linestyle="--")
    for stated, right, count in zip(reliability["stated"], reliability["right"], reliability["count"], strict=True):
        if count:
            axes.scatter([stated], [right], s=20 + 3 * count, color="tab:blue", alpha=0.7)
            axes.annotate(str(count), (stated, right), textcoords="offset points", xytext=(6, -3), fontsize=8)
    error = reliability["expected_calibration_error"]
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="stated probability", ylabel="share that is right")
    axes.set_title(f"{title}\nexpected calibration error {error:.3f}", fontsize=10)
    return save(drawn, path)


def speed(systems: Mapping[str, Mapping[str, Any]], path: Path) -> Path:
    """mAP of every row against the time to extract and search."""
    points = [
        Point(name, row["extract_ms"] + row["query_ms"], row["map"], tuple(row["map_ci"]), name == "delf-edge")
        for name, row in systems.items()
        if row.get("map") is not None
    ]
    return trade_off(points, "All systems", "ms per query, one thread (extract and search)", path, logarithmic=True)
