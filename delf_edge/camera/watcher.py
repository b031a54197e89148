"""Frames in, steady answers out: source -> gate -> identify -> vote -> events.

::

    with VideoSource(0) as source:
        for event in watch(recognizer, source):
            print(event.kind, event.landmark)

The newest frame is identified, the others are dropped; a frame that shows nothing new is not identified at all
(`frame_gate`); no single frame decides (`temporal_voting`). `camera.worker` has the same loop in a thread with
callbacks, and for asyncio.
"""

from __future__ import annotations

import collections
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from delf_edge.camera.frame_gate import Gate, GateOptions, Verdict
from delf_edge.camera.frames import Frame, FrameSource, colour_pixels
from delf_edge.camera.temporal_voting import Decision, VoteOptions, Voter
from delf_edge.errors import OptionError
from delf_edge.query.options import IdentifyOptions
from delf_edge.query.pipeline import Explanation
from delf_edge.recognizer import Recognizer
from delf_edge.types import UInt8Array

_TURNS = (0, 90, 180, 270)
EventKind = Literal["appeared", "changed", "left", "signal lost", "signal back"]


@dataclass(frozen=True, slots=True)
class CameraOptions:
    """How frames are watched.

    Attributes:
        gate: which frames are skipped.
        vote: how answers become events.
        identify: how a frame is asked for; `near` in it is where the camera stands.
        region: (left, top, width, height) of the part to look at, as shares of the frame.
        budget_ms: no further candidate is checked after so many milliseconds of a frame.
        landmarks: looked for in one frame at most; above 1 the vote should have `several`.
        signal: seconds without a frame after which the camera counts as lost.
        turn: degrees, clockwise, by which frames are turned to stand upright: 0, 90, 180 or 270.
        mirrored: frames are left-right reversed, as some cameras of screens do; it is undone before they are turned.
            `region` and the proofs are about the frame as it stands then.
    """

    gate: GateOptions = field(default_factory=GateOptions)
    vote: VoteOptions = field(default_factory=VoteOptions)
    identify: IdentifyOptions = field(default_factory=IdentifyOptions)
    region: tuple[float, float, float, float] = (0.0, 0.0, 1.0, 1.0)
    budget_ms: float | None = 1000.0
    landmarks: int = 1
    signal: float = 3.0
    turn: int = 0
    mirrored: bool = False

    def __post_init__(self) -> None:
        left, top, width, height = self.region
        inside = left >= 0 and top >= 0 and width > 0 and height > 0 and left + width <= 1 and top + height <= 1
        if not inside:
            raise OptionError(f"region is {self.region}; left, top, width, height are shares of the frame, 0..1")
        if self.landmarks < 1 or self.signal <= 0:
            raise OptionError(f"landmarks must be at least 1, signal above 0: {self}")
        if self.turn not in _TURNS:
            raise OptionError(f"turn is {self.turn}; it is 0, 90, 180 or 270 degrees clockwise")


@dataclass(frozen=True, slots=True, eq=False)
class Event:
    """A change, with its proof.

    Attributes:
        kind: "appeared", "changed", "left"; "signal lost" and "signal back" are about the camera.
        landmark: which one; None for the camera's own events.
        previous: of "changed" the landmark before.
        time: seconds, of the frame.
        proof: the frame's answer, its pixels and matched points, in which the landmark was last seen.
    """

    kind: EventKind
    landmark: str | None
    time: float
    previous: str | None = None
    proof: Explanation | None = field(default=None, repr=False)

    def __str__(self) -> str:
        place = "" if self.landmark is None else f" {self.landmark}"
        instead = "" if self.previous is None else f" in place of {self.previous}"
        proof = "" if self.proof is None else f" ({self.proof.answer.n_inliers} matched points)"
        return f"{self.time:.1f} s: {self.kind}{place}{instead}{proof}"


@dataclass(slots=True)
class Counts:
    """What became of the frames: how many were read, how many identified (`asked`), and how many had which verdict."""

    frames: int = 0
    asked: int = 0
    verdicts: collections.Counter[Verdict] = field(default_factory=collections.Counter)


class Watcher:
    """The loop's body: takes frames one by one, gives events. Not for several threads at once.

    Attributes:
        voter: what is present now.
        latest: the last explanation, of whatever frame was asked for last.
        verdict: of the gate about the last frame.
        counts: what became of the frames.
    """

    def __init__(self, recognizer: Recognizer, options: CameraOptions | None = None) -> None:
        self.options = options or CameraOptions()
        self.voter = Voter(self.options.vote)
        self.latest: Explanation | None = None
        self.verdict: Verdict = "look"
        self.counts = Counts()
        self._recognizer, self._gate = recognizer, Gate(self.options.gate)
        self._proofs: dict[str, Explanation] = {}

    def step(self, frame: Frame) -> list[Event]:
        """Look at one frame.

        Raises:
            ImageError: the frame is no picture that is understood; see `Frame.pixels`.
            StoreError: the database cannot be read.
        """
        options, counts, now = self.options, self.counts, frame.time
        pixels = crop(stand_upright(colour_pixels(frame), options.turn, options.mirrored), options.region)
        verdict = self._gate.judge(pixels, frame.channel_order, now, settled=self.voter.settled)
        self.verdict = verdict
        counts.frames += 1
        counts.verdicts[verdict] += 1
        if verdict == "unchanged":
            return self._events(self.voter.unchanged(now), now)
        if verdict != "look":
            return self.idle(now)
        found = self._recognizer.explain_all(
            pixels,
            limit=self.options.landmarks,
            channel_order=frame.channel_order,
            deadline_ms=self.options.budget_ms,
            options=replace(self.options.identify, turns=False, anew=False),
        )
        counts.asked += 1
        return self.take(found, now)

    def take(self, found: list[Explanation], now: float) -> list[Event]:
        """Count what a frame was found to show; for apps that ask the recogniser themselves."""
        self.latest = found[0] if found else None
        named = {e.answer.landmark: e for e in reversed(found) if e.answer.landmark is not None}
        self._proofs |= named
        return self._events(self.voter.observe({name: e.answer.probability for name, e in named.items()}, now), now)

    def idle(self, now: float) -> list[Event]:
        """Nothing could be seen; only time passes."""
        return self._events(self.voter.tick(now), now)

    def _events(self, decisions: list[Decision], now: float) -> list[Event]:
        events = [Event(d.change, d.landmark, now, d.previous, self._proofs.get(d.landmark)) for d in decisions]
        known = self.voter.tracked
        self._proofs = {name: proof for name, proof in self._proofs.items() if name in known}
        return events


def stand_upright(pixels: UInt8Array, turn: int, mirrored: bool) -> UInt8Array:
    """A frame of a camera that is mounted otherwise, as `CameraOptions.turn` and `mirrored` say."""
    if mirrored:
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(np.rot90(pixels, -_TURNS.index(turn)))


def crop(pixels: UInt8Array, region: tuple[float, float, float, float]) -> UInt8Array:
    """The part of a frame that `CameraOptions.region` names, at least one pixel."""
    height, width = pixels.shape[:2]
    x, y = int(region[0] * width), int(region[1] * height)
    w, h = max(1, round(region[2] * width)), max(1, round(region[3] * height))
    return pixels if (w, h) == (width, height) else np.ascontiguousarray(pixels[y : y + h, x : x + w])


def watch(
    recognizer: Recognizer, source: FrameSource, options: CameraOptions | None = None, *, watcher: Watcher | None = None
) -> Iterator[Event]:
    """Events of a source until it ends; frames are asked for in the caller's thread.

    Args:
        recognizer: the open database.
        source: where frames come from; it is not closed.
        options: see `CameraOptions`.
        watcher: to look into `voter`, `latest` and `counts` meanwhile; `options` are then its own.

    Raises:
        CameraError: the camera could not be opened.
        StoreError: the database cannot be read.
    """
    watcher = watcher or Watcher(recognizer, options)
    last, lost = time.monotonic(), False
    offset = 0.0  # of the source's clock to this one, for the time that passes while there are no frames
    while True:
        frame = source.read(min(1.0, watcher.options.signal))
        now = time.monotonic()
        if frame is not None:
            if lost:
                yield Event("signal back", None, frame.time)
            last, lost, offset = now, False, frame.time - now
            yield from watcher.step(frame)
        elif source.ended:
            return
        else:
            yield from watcher.idle(now + offset)
            if not lost and now - last >= watcher.options.signal:
                lost = True
                yield Event("signal lost", None, now + offset)
