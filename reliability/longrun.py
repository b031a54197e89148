"""A kiosk's day in small (`python -m reliability.longrun`; an hour, or `--seconds N`).

A camera shows places that are known, unknown, dark, or gone; meanwhile images are enrolled and removed, another process
holds the write lock, photos are broken, a row is damaged and mended. Every ten seconds the process writes down its
memory, file handles, threads, the log's size and the time of a frame. Nothing may grow. Times are those of the last
five minutes of frames: in ten seconds of them, p99 would be the longest single frame, with or without a question.
The figures go to benchmarks/results/reliability.json.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import sqlite3
import sys
import tempfile
import threading
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.lab.records import environment
from delf_edge.camera.sources import Frame
from delf_edge.camera.watcher import Watcher
from delf_edge.errors import ImageError, StoreBusyError
from delf_edge.images.decode import load_image
from delf_edge.recognizer import Recognizer
from delf_edge.storage.store import Store
from reliability import world
from reliability.campaigns import record

EVERY = 10.0  # seconds between two samples
WINDOW = 300.0  # seconds of frames whose times a sample is of
KNOWN = 40


def resident_bytes() -> int:
    """RAM of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def sample(recognizer: Recognizer, began: float, milliseconds: Collection[float]) -> dict[str, float]:
    """One line of the record; times of a frame in CPU milliseconds, since the machine may be shared."""
    wal = Path(f"{recognizer.store.path}-wal")
    p50, p99 = np.percentile(list(milliseconds), (50, 99)) if milliseconds else (0.0, 0.0)
    return {
        "seconds": round(time.monotonic() - began, 1),
        "rss": resident_bytes(),
        "handles": len(os.listdir("/proc/self/fd")),
        "threads": threading.active_count(),
        "wal": wal.stat().st_size if wal.exists() else 0,
        "frames": len(milliseconds),
        "p50": round(float(p50), 2),
        "p99": round(float(p99), 2),
    }


class Day:
    """What happens to a kiosk: frames by time, and a disturbance every few frames."""

    def __init__(self, recognizer: Recognizer, seed: int) -> None:
        self.recognizer, self.rng = recognizer, np.random.default_rng(seed)
        self.faults: dict[str, int] = {}
        self.enrolled: list[str] = []
        self.wrong: list[str] = []
        self._pixels = [load_image(world.photo(i)).pixels for i in range(KNOWN + 20)]
        self._next = 10**5
        self.shown = 0

    def frame(self, now: float) -> Frame:
        """The view changes every few seconds; the sensor's noise always."""
        if self.rng.random() < 0.1:
            self.shown = int(self.rng.integers(len(self._pixels) + 1))
        view = np.zeros_like(self._pixels[0]) if self.shown == len(self._pixels) else self._pixels[self.shown]
        noise = self.rng.integers(-3, 4, view.shape)
        return Frame(np.clip(view + noise, 0, 255).astype(np.uint8), "RGB", now)

    def judge(self, landmark: str | None) -> None:
        """A frame of a place that was never enrolled, or of nothing, must not be named as one of the known."""
        if landmark is not None and landmark != f"place {self.shown}":
            self.wrong.append(f"view {self.shown} named {landmark}")

    def disturb(self) -> None:
        """One change or fault, drawn at random."""
        name = ("enrol", "remove", "broken photo", "busy", "damaged row")[int(self.rng.integers(5))]
        self.faults[name] = self.faults.get(name, 0) + 1
        getattr(self, "_" + name.replace(" ", "_"))()

    def _enrol(self) -> None:
        self._next += 1
        name = f"extra {self._next}"
        noise = self.rng.integers(0, 256, (96, 128, 3), np.uint8)
        self.recognizer.add(noise, landmark=name, name=name, channel_order="RGB")
        self.enrolled.append(name)

    def _remove(self) -> None:
        while len(self.enrolled) > 5:
            self.recognizer.remove(self.enrolled.pop(0))

    def _broken_photo(self) -> None:
        data = bytearray(world.photo(1))
        data[int(self.rng.integers(20, len(data)))] ^= 0xFF
        try:
            self.recognizer.identify(bytes(data[: int(self.rng.integers(10, len(data)))]))
        except ImageError:
            return
        raise AssertionError("a broken photo was answered")

    def _busy(self) -> None:
        other = sqlite3.connect(self.recognizer.store.path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        before = len(self.recognizer.store)
        try:
            self.recognizer.store.relabel(f"view {KNOWN - 1}", f"place {KNOWN - 1}")
        except StoreBusyError:
            assert len(self.recognizer.store) == before
        else:
            raise AssertionError("a locked database was written")
        finally:
            other.execute("ROLLBACK")
            other.close()

    def _damaged_row(self) -> None:
        if not self.enrolled:
            return
        name = self.enrolled.pop(0)
        image_id = self.recognizer.store.image(name).image_id
        other = sqlite3.connect(self.recognizer.store.path)
        with other:
            other.execute("UPDATE images SET width = width + 1 WHERE id = ?", (image_id,))
        other.close()
        if self.recognizer.store.remove_damaged() != [image_id]:
            raise AssertionError("the damaged row was not found")


def campaign(seconds: float, frames_per_second: float = 2.0, seed: int = 0, log: Path | None = None) -> dict[str, Any]:
    """Run for `seconds`; lines of `sample` also go to `log` as they come."""
    samples: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "day.db"
        with Recognizer.open(path, bundle=world.bundle(), preset=world.PRESET) as recognizer:
            recognizer.store.close()
        impatient = Store.open(path, busy_timeout=0.05)
        with Recognizer(impatient, world.bundle(), preset=world.PRESET) as recognizer:
            for i in range(KNOWN):
                recognizer.add(world.photo(i), landmark=f"place {i}", name=f"view {i}")
            day, watcher = Day(recognizer, seed), Watcher(recognizer)
            began = time.monotonic()
            due, next_sample, n = began, began + EVERY, 0
            times: collections.deque[float] = collections.deque(maxlen=int(WINDOW * frames_per_second))
            events: dict[str, int] = {}
            while time.monotonic() - began < seconds:
                start, asked = time.process_time(), watcher.counts.asked
                for event in watcher.step(day.frame(time.monotonic())):
                    events[event.kind] = events.get(event.kind, 0) + 1
                times.append((time.process_time() - start) * 1000)
                if watcher.counts.asked > asked and watcher.latest is not None:
                    day.judge(watcher.latest.answer.landmark)
                n += 1
                if n % 7 == 0:
                    day.disturb()
                if time.monotonic() >= next_sample:
                    samples.append(sample(recognizer, began, times))
                    if log is not None:
                        with log.open("a") as f:
                            f.write(json.dumps(samples[-1]) + "\n")
                    next_sample += EVERY
                due += 1 / frames_per_second
                time.sleep(max(0.0, due - time.monotonic()))
            problems = [p.what for p in recognizer.verify()]
    counts = {"frames": n, "asked": watcher.counts.asked, "named wrong": len(day.wrong), "wrong": day.wrong[:20]}
    return {"disturbances": day.faults, "events": events, **counts, "problems": problems, **judged(samples)}


def judged(samples: list[dict[str, float]]) -> dict[str, Any]:
    """Whether anything grew: the first fifth is warming up; then first and last quarter are compared."""
    steady = samples[len(samples) // 5 :]
    quarter = max(1, len(steady) // 4)

    def ends(key: str) -> tuple[float, float]:
        first, last = ([s[key] for s in part] for part in (steady[:quarter], steady[-quarter:]))
        return float(np.median(first)), float(np.median(last))

    return {
        "seconds": samples[-1]["seconds"],
        "samples": len(samples),
        "first and last quarter after warming up": {k: ends(k) for k in ("rss", "handles", "threads", "p50", "p99")},
        "wal, most": max(s["wal"] for s in samples),
        "series": samples[:: max(1, len(samples) // 120)],
    }


def main() -> int:
    """The command; exit code 1 if the file was damaged."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3600.0, help="how long; anything but an hour is not recorded")
    parser.add_argument("--log", type=Path, default=None, help="file for the samples as they come")
    options = parser.parse_args()
    result = campaign(options.seconds, log=options.log)
    if options.seconds == 3600:
        record("longrun", {"command": "python -m reliability.longrun", "environment": environment(), **result})
    print(json.dumps(result | {"series": len(result["series"])}, indent=1))
    return 1 if result["problems"] else 0


if __name__ == "__main__":
    sys.exit(main())
