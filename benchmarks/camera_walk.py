"""A walk past demo photographs: what the gate saves, and what voting is worth (python -m benchmarks.camera_walk).

A made film pans over photographs that are in the database, turned, scaled, noisy, partly hidden by a passer-by, with
whip pans, darkness, still stands and photographs of strangers between them. Every frame's truth is known. The views
are of the indexed photographs themselves: this measures the loop over frames, not recognition from another photo
(`benchmarks.bench` does that). The single-frame rule is what an app without gate and voting shows: the answer to every
frame. A visit begins with the whip pan, so the time to the event includes that. Time is the
film's own; no frame is dropped because the machine is slow. Milliseconds of a frame are by the wall clock and, where
other programs share the machine, more fairly by the processor's (all threads).
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.lab.records import environment
from delf_edge.camera.sources import Frame
from delf_edge.camera.watcher import CameraOptions, Watcher
from delf_edge.images.decode import load_image
from delf_edge.interchange.photo_lists import list_folder
from delf_edge.recognizer import Recognizer
from delf_edge.types import UInt8Array

ROOT = Path(__file__).resolve().parent.parent
DEMO = ROOT / "assets" / "demo"
SIZE = (640, 480)
LATE = 1.0  # seconds after a place has gone in which naming it is late, not false


@dataclass(frozen=True, slots=True, eq=False)
class Shot:
    """A frame of the film: what it shows (None: nothing that is in the database), and how."""

    pixels: UInt8Array
    truth: str | None
    kind: str


def view_of(photo: UInt8Array, turn: float, zoom: float, shift: float) -> UInt8Array:
    """A photo filling the frame, turned by degrees, zoomed, and shifted by a share of the frame's width."""
    height, width = photo.shape[:2]
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), turn, max(SIZE[0] / width, SIZE[1] / height) * zoom)
    matrix[:, 2] += [SIZE[0] * (0.5 + shift) - width / 2, SIZE[1] / 2 - height / 2]
    return np.asarray(cv2.warpAffine(photo, matrix, SIZE, flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REFLECT_101))


def film(stops: int, fps: float, seed: int) -> Iterator[Shot]:
    """The walk: whip pan, a place (with a passer-by), a still stand, then by turns a stranger or darkness."""
    rng = np.random.default_rng(seed)
    places, _ = list_folder(DEMO / "references")
    strangers = [*sorted((DEMO / "queries").glob("monument*.webp")), DEMO / "queries" / "burj.webp"]
    chosen = [places[int(i)] for i in rng.choice(len(places), stops, replace=False)]

    def noisy(pixels: UInt8Array) -> UInt8Array:
        return np.clip(pixels + rng.normal(0, 4, pixels.shape), 0, 255).astype(np.uint8)

    for number, stop in enumerate(chosen):
        photo = load_image(stop.path).pixels
        for _ in range(round(0.6 * fps)):
            yield Shot(noisy(cv2.blur(view_of(photo, 0, 1.1, 0.2), (121, 1))), stop.landmark, "whip pan")
        steps = round(4 * fps)
        for i in range(steps):
            t = i / max(1, steps - 1)
            pixels = noisy(view_of(photo, 8 * np.sin(5 * t), 1.0 + 0.25 * t, 0.12 * np.cos(4 * t)))
            hidden = 0.4 < t < 0.65
            if hidden:  # somebody walks through the picture
                x = int(SIZE[0] * (t - 0.4) / 0.25 * 0.7)
                cv2.ellipse(pixels, (x + 90, 420), (90, 330), 0, 0, 360, (40, 35, 50), -1)
            yield Shot(pixels, stop.landmark, "passer-by" if hidden else "place")
        for _ in range(round(2 * fps)):
            yield Shot(noisy(view_of(photo, 8 * np.sin(5.0), 1.25, 0.12 * np.cos(4.0))), stop.landmark, "still stand")
        if number % 2:
            for _ in range(round(3 * fps)):
                yield Shot(noisy(np.full((SIZE[1], SIZE[0], 3), 4, np.uint8)), None, "darkness")
        else:
            stranger = load_image(strangers[number // 2 % len(strangers)]).pixels
            for i in range(round(4 * fps)):
                yield Shot(noisy(view_of(stranger, 3, 1.0 + 0.02 * i, 0.1 - 0.01 * i)), None, "stranger")


class Score:
    """Counts a rule's events against the truth: (kind, landmark) at a time."""

    def __init__(self) -> None:
        self.events = self.false = self.flicker = 0
        self.delays: list[float] = []
        self._visits = 0
        self._truth: str | None = None
        self._since = self._last_seen = -np.inf
        self._named = False
        self._gone: str | None = None

    def see(self, now: float, truth: str | None) -> None:
        """The truth of a frame, before its events."""
        if truth is not None and truth != self._truth:
            self._visits, self._since, self._named = self._visits + 1, now, False
        if truth != self._truth and self._truth is not None:
            self._gone, self._last_seen = self._truth, now
        self._truth = truth

    def hear(self, now: float, kind: str, landmark: str | None) -> None:
        """An event of the rule."""
        self.events += 1
        if kind == "left":
            self.flicker += landmark == self._truth  # it is still there
        elif landmark == self._truth:
            self.flicker += self._named
            if not self._named:
                self.delays.append(now - self._since)
            self._named = True
        elif not (landmark == self._gone and now - self._last_seen <= LATE):
            self.false += 1

    def report(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "events": self.events,
            "false_events": self.false,
            "flicker": self.flicker,
            "visits": self._visits,
            "visits_named": len(self.delays),
            "seconds_to_correct_event": {
                "median": float(np.median(self.delays)) if self.delays else None,
                "max": max(self.delays, default=None),
            },
        }


def walk(recognizer: Recognizer, shots: Iterator[Shot], fps: float) -> dict[str, Any]:
    """Play the film to the loop, and beside it to the rule "what the last frame says", of every frame."""
    watcher = Watcher(recognizer, CameraOptions())
    voted, single = Score(), Score()
    last: str | None = None
    asked_ms: list[tuple[float, float]] = []  # by the wall clock, of the processor
    gate_ms: list[tuple[float, float]] = []
    by_kind: dict[str, list[int]] = {}
    for number, shot in enumerate(shots):
        now, before = number / fps, watcher.counts.asked
        voted.see(now, shot.truth)
        single.see(now, shot.truth)
        began, cpu_began = time.perf_counter(), time.process_time()
        events = watcher.step(Frame(shot.pixels, "RGB", now))
        elapsed, cpu = (time.perf_counter() - began) * 1000, (time.process_time() - cpu_began) * 1000
        for event in events:
            voted.hear(now, event.kind, event.landmark)
        looked = watcher.counts.asked > before
        (asked_ms if looked else gate_ms).append((elapsed, cpu))
        counts = by_kind.setdefault(shot.kind, [0, 0])
        counts[0] += 1
        counts[1] += looked
        if looked and watcher.latest is not None:
            name = watcher.latest.answer.landmark
        else:
            name = recognizer.identify(shot.pixels, channel_order="RGB").landmark
        if name != last:
            single.hear(now, "left" if name is None else "appeared", last if name is None else name)
            last = name
    counts_ = watcher.counts
    return {
        "frames": counts_.frames,
        "asked": counts_.asked,
        "gate_saves": 1 - counts_.asked / counts_.frames,
        "verdicts": dict(counts_.verdicts),
        "asked_by_kind": {kind: f"{asked} of {n}" for kind, (n, asked) in by_kind.items()},
        "asked_frame_ms": percentiles([wall for wall, _ in asked_ms]),
        "asked_frame_cpu_ms": percentiles([cpu for _, cpu in asked_ms]),
        "skipped_frame_ms": percentiles([wall for wall, _ in gate_ms]),
        "skipped_frame_cpu_ms": percentiles([cpu for _, cpu in gate_ms]),
        "voting": voted.report(),
        "single_frame_rule": single.report(),
    }


def percentiles(values: list[float]) -> dict[str, float]:
    """The median and what one in a hundred exceeds."""
    return {"p50": float(np.percentile(values, 50)), "p99": float(np.percentile(values, 99))}


def several(recognizer: Recognizer, pairs: int, seed: int) -> dict[str, Any]:
    """Two places side by side in one frame: are both named; and in photos of one place, is a second one made up?"""
    rng = np.random.default_rng(seed)
    stored, _ = list_folder(DEMO / "references")
    both = extra = 0
    for _ in range(pairs):
        two = [stored[int(i)] for i in rng.choice(len(stored), 2, replace=False)]
        frame = np.hstack([view_of(load_image(photo.path).pixels, 4, 1.0, 0.0) for photo in two])
        named = {e.answer.landmark for e in recognizer.explain_all(frame, channel_order="RGB")} - {None}
        both += named == {photo.landmark for photo in two}
        extra += bool(named - {photo.landmark for photo in two})
    singles = sorted((DEMO / "queries").iterdir())
    made_up = sum(len(recognizer.explain_all(path)) > 1 for path in singles)
    return {"pairs": pairs, "both_named": both, "wrong_named": extra, "photos": len(singles), "second_made_up": made_up}


def main() -> None:
    """Index the demo photographs, play the film, write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stops", type=int, default=8)
    parser.add_argument("--fps", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--preset", default=None)
    parser.add_argument("--bundle", type=Path, default=None)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "camera_walk.json")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        Recognizer.open(Path(folder) / "walk.db", preset=options.preset, bundle=options.bundle) as recognizer,
    ):
        for photo in list_folder(DEMO / "references")[0]:
            recognizer.add(photo.path, landmark=photo.landmark, name=photo.name)
        result = walk(recognizer, film(options.stops, options.fps, options.seed), options.fps)
        result["several"] = several(recognizer, 10, options.seed)
        result["images"], result["bundle"] = recognizer.info().n_images, recognizer.bundle.id
    command = f"python -m benchmarks.camera_walk --stops {options.stops} --fps {options.fps:g} --seed {options.seed}"
    command += f" --preset {options.preset}" if options.preset else ""
    options.out.parent.mkdir(parents=True, exist_ok=True)
    report = {"command": command, "environment": environment(), **result}
    options.out.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=2, ensure_ascii=False))


if __name__ == "__main__":
    main()
