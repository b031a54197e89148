"""Which frames are worth a query: not the black, the blown-out, the blurred, nor the one seen a moment ago.

The measures are those of `images.quality`; `benchmarks/camera_walk.py` measures what that costs and what it saves.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from delf_edge.errors import OptionError
from delf_edge.images.photo_source import ChannelOrder
from delf_edge.images.quality import measure
from delf_edge.types import Float32Array, UInt8Array

Verdict = Literal["look", "black", "blown out", "flat", "blurred", "unchanged"]


@dataclass(frozen=True, slots=True)
class GateOptions:
    """What is skipped.

    Attributes:
        min_brightness: mean grey (0..255) below which a frame is black.
        max_bright_share: share of pixels above 250 from which on a frame is blown out.
        min_contrast: standard deviation of grey below which a frame shows nothing.
        min_sharpness: `FrameMeasures.sharpness` below which a frame is blurred; 0 lets all pass.
        min_change: mean difference of grey to the last frame that was looked at, below which nothing has changed.
        refresh: seconds after which an unchanged scene is looked at again.
    """

    min_brightness: float = 18.0
    max_bright_share: float = 0.6
    min_contrast: float = 8.0
    min_sharpness: float = 0.05
    min_change: float = 3.0
    refresh: float = 5.0

    def __post_init__(self) -> None:
        if min(self.min_brightness, self.min_contrast, self.min_sharpness, self.min_change) < 0 or self.refresh <= 0:
            raise OptionError(f"limits must not be negative, refresh must be above 0: {self}")


class Gate:
    """Decides frame by frame."""

    def __init__(self, options: GateOptions | None = None) -> None:
        self.options = options or GateOptions()
        self._last: Float32Array | None = None
        self._looked_at = 0.0

    def judge(self, pixels: UInt8Array, channel_order: ChannelOrder, now: float, *, settled: bool = True) -> Verdict:
        """Whether to look at a frame; "look" makes it the one that later frames are compared with.

        Args:
            pixels: uint8 (H, W, 3).
            channel_order: "RGB" or "BGR".
            now: seconds.
            settled: False lets unchanged frames pass, because more evidence is wanted.
        """
        frame, options = measure(pixels, channel_order), self.options
        if frame.brightness < options.min_brightness:
            return "black"
        if frame.bright_share > options.max_bright_share:
            return "blown out"
        if frame.contrast < options.min_contrast:
            return "flat"
        if frame.sharpness < options.min_sharpness:
            return "blurred"
        if settled and now - self._looked_at < options.refresh and self._difference(frame.small) < options.min_change:
            return "unchanged"
        self._last, self._looked_at = frame.small, now
        return "look"

    def _difference(self, small: Float32Array) -> float:
        """Mean difference of grey to the frame that was looked at last; infinite where there is none."""
        last = self._last
        return float(np.abs(last - small).mean()) if last is not None and last.shape == small.shape else math.inf
