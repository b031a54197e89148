"""Draws the recorded long run: `python -m reliability.plots` writes benchmarks/results/longrun.png."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from reliability.campaigns import RESULTS

PICTURE = RESULTS.with_name("longrun.png")
PANELS = (
    ("rss", "resident memory, MB", 1e6),
    ("handles", "file handles", 1),
    ("wal", "log, MB", 1e6),
    ("p99", "p99 of a frame, ms of processor", 1),
)


def draw(longrun: dict[str, Any], path: Path) -> Path:
    """Four panels over the same hour, each from zero, so that growth looks as large as it is."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(9, 5.5), dpi=110, layout="tight")
    FigureCanvasAgg(drawn)
    series = longrun["series"]
    minutes = [s["seconds"] / 60 for s in series]
    for axes, (key, label, unit) in zip(drawn.subplots(2, 2).flat, PANELS, strict=True):
        axes.plot(minutes, [s[key] / unit for s in series], linewidth=1)
        axes.set_ylim(0, 1.15 * max(s[key] / unit for s in series))
        axes.set_xlabel("minutes")
        axes.set_title(label, fontsize=10)
        axes.grid(visible=True, alpha=0.3)
    seconds, disturbances = longrun["seconds"], sum(longrun["disturbances"].values())
    drawn.suptitle(
        f"{longrun['frames']} frames in {seconds:.0f} s, {disturbances} enrolments, removals and faults", y=0.99
    )
    drawn.savefig(path, metadata={"Software": None})
    return path


def main() -> int:
    """The command."""
    print(draw(json.loads(RESULTS.read_text(encoding="utf-8"))["longrun"], PICTURE))
    return 0


if __name__ == "__main__":
    sys.exit(main())
