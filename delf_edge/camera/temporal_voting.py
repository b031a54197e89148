"""Single answers become steady ones: evidence is gathered over frames, and events are few and right.

Every landmark has a score of evidence, as in a sequential probability ratio test (Wald, 1945)::

    named with probability p     score += min(logit(p), step)        one frame alone never decides
    another one, or unknown      score -= miss
    appears                      score >= appear, in at least `frames` frames
    leaves                       score <= 0, or not seen for `hold` seconds

`appear` is far above 0, so a score between them changes nothing (hysteresis), and scores are capped, so that a long
stay does not make leaving slow. After it left, a landmark stays away for `cooldown` seconds.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from delf_edge.errors import OptionError

Change = Literal["appeared", "changed", "left"]


@dataclass(frozen=True, slots=True)
class VoteOptions:
    """How many frames it takes.

    Attributes:
        appear: evidence (natural logarithm of odds) from which on a landmark is announced.
        step: most evidence that one frame can give.
        miss: evidence that a frame takes away from a landmark that it does not show.
        cap: most evidence that a landmark can have.
        frames: fewest frames that must have named a landmark before it is announced.
        hold: seconds after which a landmark that no frame has named has left; two looks at least.
        cooldown: seconds that a landmark stays away after it left.
        several: whether landmarks may be present side by side; otherwise the stronger one replaces the other.
    """

    appear: float = 4.0
    step: float = 2.5
    miss: float = 1.5
    cap: float = 7.5
    frames: int = 2
    hold: float = 2.5
    cooldown: float = 1.0
    several: bool = False

    def __post_init__(self) -> None:
        if not (self.step > 0 and self.miss > 0 and 0 < self.appear <= self.cap and self.frames >= 1):
            raise OptionError(f"step, miss and appear must be above 0, cap at least appear, frames at least 1: {self}")
        if self.hold <= 0 or self.cooldown < 0:
            raise OptionError(f"hold must be above 0, cooldown not negative: {self}")


@dataclass(frozen=True, slots=True)
class Decision:
    """Something changed.

    Attributes:
        change: "appeared", "changed" (another landmark in place of the last one) or "left".
        landmark: which one; of "changed" the new one.
        previous: of "changed" the old one.
    """

    change: Change
    landmark: str
    previous: str | None = None


@dataclass(slots=True)
class _Evidence:
    score: float = 0.0
    frames: int = 0
    seen: float = -math.inf
    unseen: int = 0  # looks since then


class Voter:
    """Gathers the answers to frames.

    Args:
        options: see `VoteOptions`.
        clock: seconds, never decreasing; used where a method is called without `now`.
    """

    def __init__(self, options: VoteOptions | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self.options = options or VoteOptions()
        self._clock = clock
        self._evidence: dict[str, _Evidence] = {}
        self._present: dict[str, float] = {}  # landmark -> when it was announced
        self._left: dict[str, float] = {}
        self._unknown = 0

    @property
    def present(self) -> tuple[str, ...]:
        """The landmarks that are there, in the order of their appearance."""
        return tuple(sorted(self._present, key=self._present.__getitem__))

    @property
    def tracked(self) -> frozenset[str]:
        """The landmarks that are there, and those that there is any evidence for."""
        return frozenset(self._evidence)

    @property
    def state(self) -> Literal["looking", "unknown", "present"]:
        """ "looking" before enough was seen, "unknown" where frames show no landmark of the database."""
        if self._present:
            return "present"
        return "unknown" if self._unknown >= max(2, self.options.frames) else "looking"

    @property
    def settled(self) -> bool:
        """Whether another look at the very same scene would change nothing soon."""
        undecided = (e for name, e in self._evidence.items() if name not in self._present and e.score > 0)
        return self.state != "looking" and next(undecided, None) is None

    def observe(self, named: Mapping[str, float], now: float | None = None) -> list[Decision]:
        """Take the answer to one frame.

        Args:
            named: landmark -> probability of what the frame was found to show; empty for "unknown".
            now: seconds.
        """
        now = self._clock() if now is None else now
        options = self.options
        for name in named.keys() - self._evidence.keys():
            self._evidence[name] = _Evidence()
        for name, evidence in self._evidence.items():
            if name in named:
                p = min(max(named[name], 1e-6), 1 - 1e-6)
                evidence.score += min(math.log(p / (1 - p)), options.step)
                evidence.frames += 1
                evidence.seen = now
            else:
                evidence.score -= options.miss
            evidence.score = min(max(evidence.score, 0.0), options.cap)
            if evidence.score == 0:
                evidence.frames = 0
        self._unknown = 0 if named else self._unknown + 1
        return self._decide(now)

    def unchanged(self, now: float | None = None) -> list[Decision]:
        """The scene is the same as in the last frame: what is there stays, nothing new is learnt."""
        now = self._clock() if now is None else now
        for name in self._present:
            self._evidence[name].seen = now
        return self._decide(now)

    def tick(self, now: float | None = None) -> list[Decision]:
        """Nothing could be seen (blur, darkness, no camera): only time passes."""
        return self._decide(self._clock() if now is None else now)

    def _decide(self, now: float) -> list[Decision]:
        options = self.options
        for evidence in self._evidence.values():
            evidence.unseen = 0 if evidence.seen >= now else evidence.unseen + 1
            if now - evidence.seen > options.hold and evidence.unseen >= 2:  # one slow frame makes nothing leave
                evidence.score, evidence.frames = 0.0, 0  # evidence of long ago counts no more
        gone = [name for name in self.present if self._evidence[name].score <= 0]
        ready = sorted(
            (name for name in self._evidence if name not in self._present and self._is_ready(name, now)),
            key=lambda name: -self._evidence[name].score,
        )
        decisions = []
        if ready and not options.several:
            rivals = [name for name in self.present if name not in gone]
            if rivals and self._evidence[rivals[0]].score >= self._evidence[ready[0]].score:
                ready = []
            elif self._present:
                old = self.present[0]
                self._leave(old, now)
                gone = [name for name in gone if name != old]
                decisions.append(self._arrive("changed", ready.pop(0), old, now))
            ready = [] if self._present else ready[:1]
        for name in gone:
            self._leave(name, now)
            decisions.append(Decision("left", name))
        decisions += [self._arrive("appeared", name, None, now) for name in ready]
        for name in [n for n, e in self._evidence.items() if e.score <= 0 and n not in self._present]:
            del self._evidence[name]
        for name in [n for n, at in self._left.items() if now - at > options.cooldown]:
            del self._left[name]
        return decisions

    def _is_ready(self, name: str, now: float) -> bool:
        evidence, options = self._evidence[name], self.options
        rested = now - self._left.get(name, -math.inf) >= options.cooldown
        return rested and evidence.score >= options.appear and evidence.frames >= options.frames

    def _arrive(self, change: Change, name: str, previous: str | None, now: float) -> Decision:
        self._present[name] = now
        return Decision(change, name, previous)

    def _leave(self, name: str, now: float) -> None:
        del self._present[name]
        self._left[name] = now
