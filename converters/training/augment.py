"""Training views: geometric crops with a known homography, and what light, phone and kiosk cameras do to a photo."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

UInt8Array = NDArray[np.uint8]
Float64Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class CropOptions:
    """How a training crop is drawn.

    Attributes:
        min_side, max_side: side of the crop as a share of the photo's shorter side.
        max_rotation: degrees.
        perspective: largest displacement of a corner as a share of the crop's side.
    """

    min_side: float = 0.4
    max_side: float = 1.1
    max_rotation: float = 12.0
    perspective: float = 0.10


def _homography(quad: Float64Array, size: int) -> Float64Array:
    """Map from photo pixels to crop pixels that takes the corners `quad` (4, 2) to those of a size x size crop."""
    e = size - 1.0
    square = np.array([[0, 0], [e, 0], [e, e], [0, e]], np.float32)
    return np.asarray(cv2.getPerspectiveTransform(quad.astype(np.float32), square), np.float64)


def draw_crop(
    rng: np.random.Generator,
    photo_size: tuple[int, int],
    size: int,
    options: CropOptions,
    centre: Float64Array | None = None,
    side: float | None = None,
) -> tuple[Float64Array, Float64Array, float]:
    """Draw a crop.

    Args:
        rng: the source of chance.
        photo_size: (width, height).
        size: side of the crop in pixels.
        options: the ranges.
        centre: (x, y) around which to draw; default: anywhere that keeps the crop inside.
        side: side in photo pixels around which to draw; default: from the options.

    Returns:
        (3, 3) homography from photo pixels to crop pixels, the centre, and the side in photo pixels.
    """
    w, h = photo_size
    short = min(w, h)
    if side is None:
        side = short * float(np.exp(rng.uniform(np.log(options.min_side), np.log(options.max_side))))
    else:
        side = side * float(np.exp(rng.uniform(-0.5, 0.5)))
    side = float(np.clip(side, 0.25 * short, 1.3 * short))
    half = side / 2
    if centre is None:
        centre = np.array(
            [rng.uniform(min(half, w / 2), max(w - half, w / 2)), rng.uniform(min(half, h / 2), max(h - half, h / 2))]
        )
    else:
        centre = centre + rng.uniform(-0.22, 0.22, 2) * side
    angle = np.deg2rad(rng.uniform(-options.max_rotation, options.max_rotation)) * (rng.random() < 0.5)
    aspect = float(np.exp(rng.uniform(-0.2, 0.2)))
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]], np.float64) * half * [aspect**0.5, aspect**-0.5]
    corners += rng.uniform(-1, 1, (4, 2)) * options.perspective * side * 0.5
    c, s = np.cos(angle), np.sin(angle)
    quad = corners @ np.array([[c, s], [-s, c]]) + centre
    return _homography(quad, size), centre, side


def warp(photo: UInt8Array, homography: Float64Array, size: int) -> UInt8Array:
    """The size x size crop, antialiased when it shrinks, mirrored beyond the photo's edge."""
    # Pixels of the photo per crop pixel at the crop's centre, from the inverse map's Jacobian.
    inverse = np.linalg.inv(homography)
    p = np.array([[size / 2, size / 2, 1], [size / 2 + 1, size / 2, 1]]) @ inverse.T
    step = float(np.linalg.norm(p[1, :2] / p[1, 2] - p[0, :2] / p[0, 2]))
    if step > 1.5:
        k = 1.0 / step * 1.2
        small = cv2.resize(photo, None, fx=k, fy=k, interpolation=cv2.INTER_AREA)
        sx, sy = small.shape[1] / photo.shape[1], small.shape[0] / photo.shape[0]
        shrink = np.array([[sx, 0, 0.5 * sx - 0.5], [0, sy, 0.5 * sy - 0.5], [0, 0, 1]])
        photo, homography = np.asarray(small, np.uint8), homography @ np.linalg.inv(shrink)
    crop = cv2.warpPerspective(
        photo, homography, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101
    )
    return np.asarray(crop, np.uint8)


def relight(rng: np.random.Generator, crop: UInt8Array, other: UInt8Array) -> UInt8Array:
    """The same surface under another light: the colours of another photo, side light, night.

    Args:
        rng: the source of chance.
        crop: uint8 (S, S, 3), RGB.
        other: uint8 (H, W, 3), a photo whose mean and spread of colour may be taken over (Reinhard et al., CGA 2001).
    """
    x = crop.astype(np.float32)
    size = x.shape[0]
    if rng.random() < 0.5:
        lab = np.asarray(cv2.cvtColor(crop, cv2.COLOR_RGB2LAB), np.float32)
        goal = np.asarray(cv2.cvtColor(np.ascontiguousarray(other[::4, ::4]), cv2.COLOR_RGB2LAB), np.float32)
        spread = goal.std((0, 1)) / np.maximum(lab.std((0, 1)), 4.0)
        lab = (lab - lab.mean((0, 1))) * np.clip(spread, 0.4, 2.0) + goal.mean((0, 1))
        x = np.asarray(cv2.cvtColor(np.clip(lab, 0, 255).astype(np.uint8), cv2.COLOR_LAB2RGB), np.float32)
    if rng.random() < 0.6:  # light that falls unevenly: shadows and lamps
        cells = int(rng.integers(2, 6))
        field = cv2.resize(rng.normal(0, rng.uniform(0.3, 1.0), (cells, cells, 1)).astype(np.float32), (size, size))
        x *= np.exp(np.clip(field, -2.5, 1.5))[..., None]
    if rng.random() < 0.3:  # a dark sky
        edge = int(size * rng.uniform(0.1, 0.6))
        ramp = np.clip((np.arange(size) - edge) / (0.2 * size) + 1, rng.uniform(0.02, 0.3), 1.0)
        x *= ramp[:, None, None].astype(np.float32)
    x = 255.0 * np.power(np.clip(x / 255.0, 0, 1), np.exp(rng.uniform(-0.8, 0.8)))
    if rng.random() < 0.05:  # lit windows in a dark wall were dark windows in a lit wall
        x = 255.0 - x
    return np.clip(x, 0, 255).astype(np.uint8)


def degrade(rng: np.random.Generator, crop: UInt8Array) -> UInt8Array:
    """Exposure, colour cast, blur, compression, noise and an occluder, each with some probability."""
    x = crop.astype(np.float32)
    gain = np.exp(rng.uniform(-0.45, 0.45)) * np.exp(rng.uniform(-0.12, 0.12, 3))
    x = 255.0 * np.power(np.clip(x * gain / 255.0, 0, 1), np.exp(rng.uniform(-0.4, 0.4)))
    mean = x.mean()
    x = mean + (x - mean) * rng.uniform(0.6, 1.35)
    grey = x.mean(axis=2, keepdims=True)
    x = grey + (x - grey) * (0.0 if rng.random() < 0.12 else rng.uniform(0.4, 1.5))
    if rng.random() < 0.3:
        x = cv2.GaussianBlur(x, (0, 0), rng.uniform(0.4, 1.6))
    if rng.random() < 0.3:
        x += rng.normal(0, rng.uniform(2, 12), x.shape)
    out = np.clip(x, 0, 255).astype(np.uint8)
    if rng.random() < 0.3:
        _, data = cv2.imencode(".jpg", out, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(15, 70))])
        out = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)
    if rng.random() < 0.35:  # people in front: an upright block of one colour with noise
        s = out.shape[0]
        bw, bh = int(s * rng.uniform(0.1, 0.35)), int(s * rng.uniform(0.2, 0.6))
        x0, y0 = int(rng.integers(0, s - bw + 1)), int(rng.integers(max(0, s - 2 * bh), s - bh + 1))
        block = rng.integers(0, 256, 3) + rng.normal(0, 20, (bh, bw, 1))
        out[y0 : y0 + bh, x0 : x0 + bw] = np.clip(block, 0, 255).astype(np.uint8)
    return out
