"""What one step of the training sees: views of photos, and where the cells of one view lie in the other."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from delf_edge.converters.networks.delf import STRIDE

OUTSIDE = -1e4  # coordinate of a cell that the second view does not show


@dataclass(frozen=True, slots=True)
class Pairs:
    """Geometrically verified pairs of photos.

    Attributes:
        index: int32 (P, 2), photos of a pair, indices into the training list.
        affine: float64 (P, 2, 3), from pixels of the first photo to pixels of the second (as held in memory).
        centre: float64 (P, 2), mean inlier in the first photo.
        side: float64 (P,), extent of the inliers in the first photo, pixels.
        points: float32 (T, 4), matched points (x, y) of the first and (x, y) of the second photo, all pairs in one
            table; a pair that has some is followed from point to point instead of by its affine map, which holds
            for a plane only.
        starts: int64 (P + 1,), pair p has points[starts[p]:starts[p + 1]].
    """

    index: NDArray[np.int32]
    affine: NDArray[np.float64]
    centre: NDArray[np.float64]
    side: NDArray[np.float64]
    points: NDArray[np.float32]
    starts: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Batch:
    """One step's input. `views` uint8 (2 B, S, S, 3): B first views, then their partners."""

    views: NDArray[np.uint8]
    places: NDArray[np.int64]  # (2 B,), of each view
    targets: NDArray[np.float32]  # (B, cells, 2), see `cell_targets`; empty without InfoNCE


def load_photo(path: Path, max_side: int) -> NDArray[np.uint8]:
    """Decode to RGB uint8 (H, W, 3) with the longer side at most `max_side`."""
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise ValueError(f"{path}: cannot be decoded; remove it from the training list")
    h, w = image.shape[:2]
    scale = max_side / max(h, w)
    if scale < 1:
        image = cv2.resize(image, (max(1, round(w * scale)), max(1, round(h * scale))), interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(image[:, :, ::-1])


def cell_centres(size: int) -> NDArray[np.float64]:
    """Centres of the cells of a square view: float64 (cells, 2), (x, y) in pixels, row by row."""
    n = -(-size // STRIDE)
    ys, xs = np.mgrid[:n, :n]
    return np.asarray(np.stack([xs, ys], axis=-1).reshape(-1, 2) * STRIDE, np.float64)


def _apply(homography: NDArray[np.float64], points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Points (N, 2) through a (3, 3) map; `OUTSIDE` where they fall behind the viewer."""
    mapped = np.column_stack([points, np.ones(len(points))]) @ homography.T
    good = mapped[:, 2] > 1e-6
    return np.where(good[:, None], mapped[:, :2] / np.where(good, mapped[:, 2], 1.0)[:, None], OUTSIDE)


def cell_targets(
    first: NDArray[np.float64],
    second: NDArray[np.float64],
    affine: NDArray[np.float64],
    points: NDArray[np.float32] | None,
    size: int,
) -> NDArray[np.float32]:
    """Where the cells of a first view lie in the second.

    Args:
        first, second: (3, 3), from a photo's pixels to its view's.
        affine: (2, 3), from pixels of the first photo to pixels of the second.
        points: (T, 4), matched points of the photos, or None where the affine map holds everywhere. With points, a
            cell is followed from the nearest point within three quarters of a cell; others are `OUTSIDE`.
        size: side of the views in pixels.

    Returns:
        float32 (cells, 2), pixels of the second view.
    """
    cells = cell_centres(size)
    here = _apply(np.asarray(np.linalg.inv(first), np.float64), cells)
    if points is None:
        there = here @ affine[:, :2].T + affine[:, 2]
        return _apply(second, there).astype(np.float32)
    seen = _apply(first, np.asarray(points[:, :2], np.float64))
    apart = np.linalg.norm(cells[:, None] - seen[None], axis=-1)
    nearest = apart.argmin(axis=1)
    there = points[nearest, 2:] + (here - points[nearest, :2]) @ affine[:, :2].T
    target = _apply(second, np.asarray(there, np.float64))
    target[apart.min(axis=1) > 0.75 * STRIDE] = OUTSIDE
    return target.astype(np.float32)


def prefetch(make: Callable[[int], Batch], start: int, stop: int, depth: int = 4) -> Iterator[Batch]:
    """Batches start..stop-1 in order, made by one background thread."""
    ready: queue.Queue[Batch | BaseException] = queue.Queue(depth)
    ended = threading.Event()

    def put(item: Batch | BaseException) -> None:
        while not ended.is_set():
            try:
                return ready.put(item, timeout=0.5)
            except queue.Full:
                continue

    def work() -> None:
        try:
            for step in range(start, stop):
                if ended.is_set():
                    return
                put(make(step))
        except BaseException as e:  # handed to the consumer, which raises it
            put(e)

    threading.Thread(target=work, daemon=True).start()
    try:
        for _ in range(start, stop):
            item = ready.get()
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        ended.set()
