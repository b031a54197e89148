"""Plots of recorded figures (PNG). Numbers only: no photo of a research set ever enters a result."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.metrics.protocols import precision_recall


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


def can_draw() -> bool:
    """Whether matplotlib is there; where not, stderr says what to install. Asked before a command begins its work."""
    if find_spec("matplotlib") is None:
        print("this command draws, and matplotlib is missing: python -m pip install matplotlib", file=sys.stderr)
        return False
    return True


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
    """mAP against a cost, with intervals; the default is red. Labels step aside where points lie close."""
    drawn, axes = figure()
    if logarithmic:
        axes.set_xscale("log")
        axes.xaxis.get_major_locator().set_params(subs=(1, 2, 5))  # more would run into each other
        axes.xaxis.set_major_formatter("{x:.0f}")
        axes.xaxis.set_minor_formatter("")
    least, most = (f(max(p.x, 1e-6) for p in points) for f in (min, max))
    room = (most / least) ** 0.3 * 1.2  # before anything is drawn: a log axis of no width cannot be drawn on
    if logarithmic:
        axes.set_xlim(least / room, most * room)
    for p in points:
        below, above = max(0.0, p.map - p.interval[0]), max(0.0, p.interval[1] - p.map)
        colour = "tab:red" if p.chosen else "tab:blue"
        axes.errorbar([p.x], [p.map], [[below], [above]], fmt="none", ecolor=colour, alpha=0.25, capsize=2)
        axes.scatter([p.x], [p.map], color=colour, s=28, zorder=3)
    axes.margins(x=0.3, y=0.12)  # x: of a linear axis, whose limits are not set
    axes.set(title=title, xlabel=x_label, ylabel="mAP on DEV (bars: 95 % interval)")
    _label(axes, points)
    return save(drawn, path)


def _label(axes: Any, points: Sequence[Point]) -> None:
    """Write each label beside its point, at the first of several places where no other label or point is."""
    renderer = axes.figure.canvas.get_renderer()
    axes.figure.draw(renderer)  # lays the axes out, so that places are known
    frame = axes.get_window_extent(renderer)
    at = axes.transData.transform([(p.x, p.map) for p in points])
    taken = [(x - 5, y - 5, x + 5, y + 5) for x, y in at]
    for p in sorted(points, key=lambda p: -p.map):
        for dx, dy, side in PLACES:
            text = axes.annotate(
                p.label,
                (p.x, p.map),
                textcoords="offset points",
                xytext=(dx, dy),
                fontsize=8,
                ha=side,
                va="center",
                color="tab:red" if p.chosen else "black",
                arrowprops={"arrowstyle": "-", "color": "grey", "linewidth": 0.5} if abs(dy) > 12 else None,
            )
            box = text.get_window_extent(renderer)
            own = (box.x0, box.y0, box.x1, box.y1)
            inside = frame.x0 < box.x0 and box.x1 < frame.x1 and frame.y0 < box.y0 and box.y1 < frame.y1
            free = inside and not any(_overlap(own, other) for other in taken)
            if free or (dx, dy, side) == PLACES[-1]:
                taken.append(own)
                break
            text.remove()


STEPS = (0, 9, -9, 20, -20, 32, -32, 45, -45, 60, -60, 75, -75)
PLACES = [(d * away, dy, "left" if d > 0 else "right") for away in (8, 30) for dy in STEPS for d in (1, -1)]
PLACES += [(0, dy, "center") for dy in STEPS[3:]]


def _overlap(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def telling(systems: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """The rows that a plot has room for: of the global rows of one pooling, the plain and the best one."""
    out: dict[str, Mapping[str, Any]] = {}
    best: dict[str, str] = {}
    for name, row in systems.items():
        pooling = name.partition(" + ")[0]
        if pooling not in ("MAC", "R-MAC", "GeM") or name == pooling:
            out[name] = row
        elif pooling not in best or row["map"] > systems[best[pooling]]["map"]:
            best[pooling] = name
    return {n: r for n, r in systems.items() if n in out or n in best.values()}


def precision_recall_curves(systems: Mapping[str, Mapping[str, Any]], path: Path) -> Path:
    """Precision of the answers given against the number of right ones, as a threshold falls (the paper's Figure 5).

    Every query counts twice: as it is, and as a photo of a place that is not in the database.
    """
    drawn, axes = figure(9.5, 5.5)
    colours = _colours()
    for i, (name, row) in enumerate(telling(systems).items()):
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
        own = name == "delf-edge"
        colour = "black" if own else colours[i % len(colours)]
        axes.plot(curve.right, curve.precision, label=name, color=colour, linewidth=2.4 if own else 1.1)
    axes.set(
        xlabel="right answers",
        ylabel="precision",
        ylim=(0.3, 1.02),
        title="Answers by confidence, half of them strangers",
    )
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.01, 0.5))
    return save(drawn, path)


def _colours() -> list[Any]:
    from matplotlib import colormaps

    return [colormaps["tab20"](i) for i in range(20)]


def reliability_diagram(reliability: Mapping[str, Any], title: str, path: Path) -> Path:
    """Share of right answers against their stated probability, with the number of answers in each bin."""
    drawn, axes = figure(5, 5)
    axes.plot([0, 1], [0, 1], color="grey", linewidth=1, linestyle="--")
    for stated, right, count in zip(reliability["stated"], reliability["right"], reliability["count"], strict=True):
        if count:
            axes.scatter([stated], [right], s=20 + 3 * count, color="tab:blue", alpha=0.7)
            axes.annotate(str(count), (stated, right), textcoords="offset points", xytext=(6, -3), fontsize=8)
    error = reliability["expected_calibration_error"]
    axes.set(xlim=(-0.02, 1.06), ylim=(-0.02, 1.04), xlabel="stated probability", ylabel="share that is right")
    axes.set_title(f"{title}\nexpected calibration error {error:.3f}", fontsize=10)
    return save(drawn, path)


def speed(systems: Mapping[str, Mapping[str, Any]], path: Path) -> Path:
    """mAP of every row against the time to extract and search."""
    points = [
        Point(name, row["extract_ms"] + row["query_ms"], row["map"], tuple(row["map_ci"]), name == "delf-edge")
        for name, row in telling(systems).items()
        if row.get("map") is not None
    ]
    return trade_off(
        points, "Systems side by side", "ms a query, one thread (extract and search)", path, logarithmic=True
    )
