"""How bright, how rich in contrast and how sharp a picture is: measures of a grey copy 160 pixels wide."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from delf_edge.images.photo_source import ChannelOrder
from delf_edge.types import Float32Array, UInt8Array

_WIDTH = 160  # pixels of the copy
_ACROSS = np.array([[1, -2, 1]], np.float32)  # second derivative along x
_CHANGE_WIDTH = 32  # pixels of the copy that is compared with the last frame


@dataclass(frozen=True, slots=True, eq=False)
class FrameMeasures:
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


def measure(pixels: UInt8Array, channel_order: ChannelOrder) -> FrameMeasures:
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
    return FrameMeasures(float(mean[0, 0]), float((grey > 250).mean()), contrast, edges / max(contrast, 1.0), small)
