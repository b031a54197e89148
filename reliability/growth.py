"""Memory over many queries in one process (`python -m reliability growth`): it must not grow."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from delf_edge.query.options import IdentifyOptions
from delf_edge.recognizer import Recognizer
from reliability import world
from reliability.longrun import resident_bytes

PLACES = 20


def batch(seed: int, n: int) -> dict[str, Any]:
    """n queries after n / 5 to warm up; RSS at 21 points, and the slope of the line through them."""
    options = IdentifyOptions(verify=2)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "places.db"
        with Recognizer.open(path, bundle=world.bundle(), preset=world.PRESET) as recognizer:
            for i in range(PLACES):
                recognizer.store.add(world.new_image(i, f"p{i}", f"l{i}"))
            series, unknown = [], 0
            for k in range(n + n // 5):
                if k >= n // 5 and (k - n // 5) % max(1, n // 20) == 0:
                    series.append((k - n // 5, resident_bytes()))
                answer = recognizer.identify(world.photo(k % (PLACES + 5)), options=options)
                unknown += answer.landmark is None
            series.append((n, resident_bytes()))
    at, rss = np.array(series, float).T
    slope = float(np.polyfit(at, rss, 1)[0]) * 10_000 / 1e6
    grown = (rss[-1] - rss[0]) / n * 10_000 / 1e6
    return {
        "n": n,
        "unknown": unknown,
        "MB per 10,000 queries by the line": round(slope, 3),
        "MB per 10,000 queries, last minus first": round(float(grown), 3),
        "MB at the end": round(float(rss[-1]) / 1e6, 1),
        "series": [[int(a), int(r)] for a, r in series],
        "lost or wrong": int(n >= 5000 and max(slope, grown) > 2.0),
        "found": [],
    }
