"""An image becomes the levels that the network sees.

Level sizes are counted from a working size, not from the photo: at scale s the longer side has
`round(working_size * s)` pixels, whatever the camera's resolution.

Source: Noh et al., ICCV 2017, section 3 (image pyramid); the scales themselves belong to the presets of a bundle.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from delf_edge.types import Image, PyramidLevel, UInt8Array

BASE_SIZE = 640
MAX_UPSCALE = 2.0
MIN_SIDE = 32  # pixels; a level narrower than two cells of the stride-16 map has no inside


def working_size(image: Image, base_size: int = BASE_SIZE, max_upscale: float = MAX_UPSCALE) -> float:
    """Longer side in pixels that scale 1 stands for.

    `base_size`, except for photos so small that they would be enlarged more than `max_upscale` times: small photos
    gain from being enlarged (their details reach the size the network knows), tiny ones only cost time.
    """
    return min(float(base_size), max_upscale * max(image.size))


def build_pyramid(
    image: Image, scales: Sequence[float], base_size: int = BASE_SIZE, max_upscale: float = MAX_UPSCALE
) -> list[PyramidLevel]:
    """The levels of an image, the largest first.

    Args:
        image: the photo.
        scales: level sizes relative to the working size; more than 1 enlarges beyond it.
        base_size: longer side in pixels at scale 1.
        max_upscale: how many times a small photo may be enlarged to reach `base_size`.

    Returns:
        One level per distinct size. Levels whose shorter side would be below 32 px are left out, so the list is empty
        for a photo that is tiny or a thin strip.
    """
    width, height = image.size
    work = working_size(image, base_size, max_upscale)
    sizes = set()
    for scale in scales:
        factor = work * scale / max(width, height)
        size = max(1, round(width * factor)), max(1, round(height * factor))
        if min(size) >= MIN_SIDE:
            sizes.add(size)
    halves = [image.pixels]
    levels = []
    for size in sorted(sizes, reverse=True):
        pixels = _resize(halves, size)
        levels.append(PyramidLevel(pixels, np.array([size[0] / width, size[1] / height], np.float64)))
    return levels


def _resize(halves: list[UInt8Array], size: tuple[int, int]) -> UInt8Array:
    """`size` (w, h) from the smallest of the photo, its half, its quarter ... that is not smaller; `halves` grows.

    Averaging areas by a factor that is no integer takes many times as long as interpolating, which moves descriptors
    little more where the factor is small.
    """
    import cv2

    def half(n: int) -> int:
        return (n + 1) // 2

    def enough(pixels: int, wanted: int) -> bool:
        return pixels >= 0.97 * wanted  # a level of 320 px may come from 316: nothing is lost

    while enough(half(halves[-1].shape[1]), size[0]) and enough(half(halves[-1].shape[0]), size[1]):
        height, width = halves[-1].shape[:2]
        # By a factor of 2 interpolation is averaging as well: it reads the middle between two pixels.
        even = width % 2 == 0 and height % 2 == 0
        way = cv2.INTER_AREA if even else cv2.INTER_LINEAR
        halves.append(cv2.resize(halves[-1], (half(width), half(height)), interpolation=way))
    source = next(
        (p for p in reversed(halves) if enough(p.shape[1], size[0]) and enough(p.shape[0], size[1])), halves[0]
    )
    height, width = source.shape[:2]
    if (width, height) == size:
        return source
    way = cv2.INTER_AREA if width > 1.5 * size[0] else cv2.INTER_LINEAR
    resized: UInt8Array = cv2.resize(source, size, interpolation=way)
    return resized
