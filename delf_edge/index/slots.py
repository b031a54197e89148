"""Which slot of the index an image has: 12 bytes an image in two arrays, where a dict of integers takes a hundred."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from delf_edge.types import Int64Array

RECENT = 1024  # changes kept in a dict, and an eighth of the images; then they are sorted in


class Slots:
    """Image id -> slot.

    Args:
        image_ids: int64 (n,), all different.
        slots: int (n,), below 2^31.
    """

    def __init__(self, image_ids: Int64Array, slots: NDArray[np.integer]) -> None:
        self._recent: dict[int, int] = {}  # what differs from the arrays; -1 for an image that is gone
        self._n = len(image_ids)
        self._sort(image_ids, slots)

    def __len__(self) -> int:
        return self._n

    def __contains__(self, image_id: int) -> bool:
        return self.get(image_id) >= 0

    def get(self, image_id: int) -> int:
        """The slot of an image, -1 for none."""
        if (slot := self._recent.get(image_id)) is not None:
            return slot
        at = int(np.searchsorted(self._ids, image_id))
        return int(self._slots[at]) if at < len(self._ids) and self._ids[at] == image_id else -1

    def put(self, image_ids: Sequence[int], first: int) -> None:
        """Images that are not there yet get the slots from `first` on."""
        self._recent.update(zip(image_ids, range(first, first + len(image_ids)), strict=True))
        self._n += len(image_ids)
        self._sort_in()

    def drop(self, image_ids: Iterable[int]) -> None:
        """Forget images that are there."""
        for image_id in image_ids:
            self._recent[image_id] = -1
            self._n -= 1
        self._sort_in()

    def _sort_in(self) -> None:
        if len(self._recent) <= RECENT + len(self._ids) // 8:
            return
        changed = np.fromiter(self._recent, np.int64, len(self._recent))
        slots = np.fromiter(self._recent.values(), np.int64, len(self._recent))
        keep = ~np.isin(self._ids, changed)
        there = slots >= 0
        self._sort(np.concatenate([self._ids[keep], changed[there]]), np.concatenate([self._slots[keep], slots[there]]))
        self._recent.clear()

    def _sort(self, image_ids: Int64Array, slots: NDArray[np.integer]) -> None:
        order = np.argsort(image_ids)
        self._ids: Int64Array = image_ids[order]
        self._slots = slots[order].astype(np.int32)
