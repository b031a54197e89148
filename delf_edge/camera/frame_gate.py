"""Which frames are worth a look: not the black, the blown-out, the blurred, nor the one seen a moment ago.

All measures are taken from a grey copy 160 pixels wide; `benchmarks/camera_walk.py` measures what that costs and
what it saves.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from delf_edge.errors import OptionError
from delf_edge.images.decode import ChannelOrder
from delf_edge.types import Float32Array, UInt8Array

Verdict = Literal["look", "black", "blown out", "flat", "blurred", "unchanged"]
_WIDTH = 160  # pixels of the copy
_ACROSS = np.array([[1, -2, 1]], np.float32)  # second derivative along x
_CHANGE_WIDTH = 32  # pixels of the copy that is compared with the last frame


@dataclass(frozen=True, slots=True)
class GateOptions:
    """What is skipped.

    Attributes:
        min_brightness: mean grey (0..255) below which a frame is black.
        max_bright_share: share of pixels above 250 from which on a frame is blown out.
        min_contrast: standard deviation of grey below which a frame shows nothing.
        min_sharpness: `Look.sharpness` below which a frame is blurred; 0 lets all pass.
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


@dataclass(frozen=True, slots=True, eq=False)
class Look:
    """Measures of one frame.

    Attributes:
        brightness: mean grey, 0..255.
        bright_share: share of pixels above 250.
        contrast: standard deviation of grey.
        sharpness: mean size of the second derivative over the contrast, along x or y, whichever is less; falls with
            blur, also with that of a moving camera, and hardly with darkness.
        small: float32 (h, 32), grey, for comparing frames.
    """

    brightness: float
    bright_share: float
    contrast: float
    sharpness: float
    small: Float32Array


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
        look, options = measure(pixels, channel_order), self.options
        if look.brightness < options.min_brightness:
            return "black"
        if look.bright_share > options.max_bright_share:
            return "blown out"
        if look.contrast < options.min_contrast:
            return "flat"
        if look.sharpness < options.min_sharpness:
            return "blurred"
        if settled and now - self._looked_at < options.refresh and self._difference(look.small) < options.min_change:
            return "unchanged"
        self._last, self._looked_at = look.small, now
        return "look"

    def _difference(self, small: Float32Array) -> float:
        """Mean difference of grey to the frame that was looked at last; infinite where there is none."""
        last = self._last
        return float(np.abs(last - small).mean()) if last is not None and last.shape == small.shape else math.inf


def measure(pixels: UInt8Array, channel_order: ChannelOrder) -> Look:
    """Measures of a frame uint8 (H, W, 3)."""
    import cv2

    height, width = pixels.shape[:2]
    size = (min(_WIDTH, width), max(1, round(height * min(_WIDTH, width) / width)))
    # Shrinking comes first, colour second: the copy has a hundredth of the pixels.
    copy = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    grey = cv2.cvtColor(copy, cv2.COLOR_BGR2GRAY if channel_order == "BGR" else cv2.COLOR_RGB2GRAY)
    mean, deviation = cv2.meanStdDev(grey)
    contrast = float(deviation[0, 0])
    edges = min(float(np.abs(cv2.filter2D(grey, cv2.CV_16S, kernel)).mean()) for kernel in (_ACROSS, _ACROSS.T))
    small_size = (_CHANGE_WIDTH, max(1, round(size[1] * _CHANGE_WIDTH / size[0])))
    small = cv2.resize(grey, small_size, interpolation=cv2.INTER_AREA).astype(np.float32)
    return Look(float(mean[0, 0]), float((grey > 250).mean()), contrast, edges / max(contrast, 1.0), small)
