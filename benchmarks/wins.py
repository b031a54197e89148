"""Where one row wins and another loses: `python -m benchmarks.wins DEV.json ROW OTHER` (the paper's Figures 6 and 7).

Each line is a query, then the best photos of the one row and of the other, framed green where they show the query's
place and red where not: first the queries that ROW wins most, then those that OTHER does. It reads what `make bench`
left in `out/bench`. The picture holds photos of the set that was asked, so it is written under `out/` and not for
publication.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.data.datasets import Dataset, DatasetError, read_json
from benchmarks.lab import plots
from benchmarks.lab.runner import load
from delf_edge.types import UInt8Array

GREEN, RED = "tab:green", "tab:red"
SIDE = 200  # pixels of a picture's long side


def widest(a: Mapping[str, Any], b: Mapping[str, Any], n: int) -> list[int]:
    """Indices of the queries that row `a` wins most over row `b`, the widest first; at most n."""
    gaps = [
        (x["ap"] - y["ap"], i)
        for i, (x, y) in enumerate(zip(a["queries"], b["queries"], strict=True))
        if x["ap"] is not None and y["ap"] is not None
    ]
    return [i for gap, i in sorted(gaps, key=lambda g: (-g[0], g[1])) if gap > 0][:n]


def thumbnail(path: Path) -> UInt8Array:
    """A photo in small: uint8 (h, w, 3)."""
    pixels = load(path)
    f = SIDE / max(pixels.shape[:2])
    return np.asarray(cv2.resize(pixels, None, fx=f, fy=f, interpolation=cv2.INTER_AREA), np.uint8)


def draw(
    dataset: Dataset, rows: Mapping[str, Mapping[str, Any]], queries: Sequence[int], shown: int, path: Path
) -> Path:
    """The picture: one line per query, the first `shown` photos of both rows."""
    (a, of_a), (b, of_b) = rows.items()
    drawn, _ = plots.figure(1.75 * (1 + 2 * shown), 1.75 * len(queries))
    drawn.clear()
    grid = drawn.subplots(len(queries), 1 + 2 * shown, squeeze=False)
    for axes, i in zip(grid, queries, strict=True):
        query = dataset.queries[i]
        right = {dataset.database[k] for k in query.graded(*dataset.settings[0].positive)}
        found = [*of_a["queries"][i]["best"][:shown], *of_b["queries"][i]["best"][:shown]]
        titles = [f"query, {len(right)} right", *[""] * (2 * shown)]
        titles[1] = f"{a}: AP {of_a['queries'][i]['ap']:.2f}"
        titles[1 + shown] = f"{b}: AP {of_b['queries'][i]['ap']:.2f}"
        names = [query.name, *found]
        for column, (axis, title) in enumerate(zip(axes, titles, strict=True)):
            axis.set(xticks=[], yticks=[])
            axis.set_title(title, fontsize=8, loc="left")
            axis.set_zorder(1 if title else 0)  # a title is wider than its photo
            if column >= len(names):
                axis.set_axis_off()
                continue
            axis.imshow(thumbnail(dataset.path(names[column])))
            colour = "black" if column == 0 else GREEN if names[column] in right else RED
            for spine in axis.spines.values():
                spine.set(edgecolor=colour, linewidth=1 if column == 0 else 4)
    return plots.save(drawn, path)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns 0, or 2 where the rows are not there or nothing differs."""
    p = argparse.ArgumentParser(prog="python -m benchmarks.wins", description=(__doc__ or "").splitlines()[0])
    p.add_argument("dataset", type=Path, help="the set that was asked, such as ../shared/data/dev.json")
    p.add_argument("row", help="a row of the table")
    p.add_argument("other", help="another one")
    p.add_argument("--rows", type=Path, default=Path("out/bench/rows.json"), help="default out/bench/rows.json")
    p.add_argument("--queries", type=int, default=4, help="queries each way, default 4")
    p.add_argument("--shown", type=int, default=3, help="photos of each row, default 3")
    p.add_argument("--out", type=Path, default=Path("out/wins.png"), help="picture to write, default out/wins.png")
    a = p.parse_args(arguments)
    if not plots.can_draw():
        return 2
    try:
        dataset = read_json(a.dataset)
        systems = json.loads(a.rows.read_text(encoding="utf-8"))["systems"]
        rows = {name: systems[name] for name in (a.row, a.other)}
        asked = [[q["query"] for q in row["queries"]] for row in rows.values()]
    except (DatasetError, OSError, KeyError, ValueError) as e:
        print(f"{e!r}: run `make bench` first; its rows are the names", file=sys.stderr)
        return 2
    if asked != [[q.name for q in dataset.queries]] * 2:
        print(f"{a.rows} is about other queries than {a.dataset}; run the whole set", file=sys.stderr)
        return 2
    first, second = rows.values()
    queries = widest(first, second, a.queries) + widest(second, first, a.queries)
    if not queries:
        print("the two rows answer every query equally well", file=sys.stderr)
        return 2
    print(draw(dataset, rows, queries, a.shown, a.out))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
