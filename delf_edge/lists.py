"""Inverted lists in RAM: immutable segments of features sorted by word, and the images they belong to.

Bytes in RAM: M + 2 a feature (its code, and the slot of its image counted from the segment's first), 4 (K + 1) a
segment, and G + 25 an image. A segment spans at most 65,536 images and 4 million features, so merging needs little
memory beside the index itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from delf_edge import native
from delf_edge.codec import CodeBatch, CodeLayout
from delf_edge.types import BoolArray, Float32Array, UInt8Array, UInt16Array

IntArray = NDArray[np.int64]
T = TypeVar("T", bound=np.generic)

MAX_SEGMENT = 4_000_000  # features
MAX_SPAN = 1 << 16  # slots of a segment
MERGE_RATIO = 4  # a segment is merged into its left neighbour unless that is this much larger


@dataclass(frozen=True, slots=True, eq=False)
class Segment:
    """Features sorted by word.

    Attributes:
        codes: uint8 (T, M).
        slots: uint16 (T,), the image of each feature, counted from `first_slot`.
        first_slot, last_slot: of the segment.
        starts: uint32 (K + 1,), list w is [starts[w], starts[w + 1]); None in a segment of fewer than K features.
        words: uint16 (T,), ascending; None where there are `starts`.
    """

    codes: UInt8Array
    slots: UInt16Array
    first_slot: int
    last_slot: int
    starts: NDArray[np.uint32] | None
    words: UInt16Array | None
    pointers: native.SegmentPointers = field(init=False)

    def __post_init__(self) -> None:
        pointers = native.segment_pointers(self.codes, self.slots, self.starts, self.words, self.first_slot)
        object.__setattr__(self, "pointers", pointers)

    def __len__(self) -> int:
        return len(self.slots)

    @classmethod
    def build(cls, words: UInt16Array, codes: UInt8Array, slots: IntArray, n_words: int) -> Segment:
        """Sort features by word; slots (T,) of images must lie within `MAX_SPAN`."""
        first, last = (int(slots.min()), int(slots.max())) if len(slots) else (0, 0)
        order = np.argsort(words, kind="stable")  # a radix sort for 16 bits
        codes, local = codes.take(order, axis=0), (slots - first).astype(np.uint16).take(order)
        if len(words) < n_words:
            return cls(codes, local, first, last, None, words.take(order))
        starts = np.zeros(n_words + 1, np.uint32)
        np.cumsum(np.bincount(words, minlength=n_words), out=starts[1:])
        return cls(codes, local, first, last, starts, None)

    def all_words(self) -> UInt16Array:
        """uint16 (T,), the word of each feature."""
        if self.words is not None:
            return self.words
        assert self.starts is not None
        return np.repeat(np.arange(len(self.starts) - 1, dtype=np.uint16), self.starts[1:] - self.starts[:-1])

    def all_slots(self) -> IntArray:
        """int64 (T,), the slot of each feature in the whole index."""
        return self.slots.astype(np.int64) + self.first_slot

    def ranges(self, words: IntArray) -> tuple[IntArray, IntArray]:
        """First index and length of each word's list."""
        if self.starts is not None:
            first = self.starts[words].astype(np.int64)
            return first, self.starts[words + 1] - first
        assert self.words is not None
        first = np.searchsorted(self.words, words.astype(np.uint16))
        return first, np.searchsorted(self.words, words.astype(np.uint16), side="right") - first

    @property
    def nbytes(self) -> int:
        """Bytes of its arrays."""
        arrays = (self.codes, self.slots, self.starts, self.words)
        return sum(a.nbytes for a in arrays if a is not None)


@dataclass(frozen=True, slots=True, eq=False)
class State:
    """One consistent content of the index; S slots, of which some are dead.

    Attributes:
        segments: slots ascend from one to the next.
        image_ids: int64 (S,).
        counts: int64 (S,), features of each image.
        marks: uint32 (S,), what `CodeBatch.marks` said.
        alive: bool (S,).
        global_codes: int8 (S, G).
        global_scale: float32 (S,), 1 / L2 norm of global_codes, 0 for none.
    """

    segments: tuple[Segment, ...]
    image_ids: IntArray
    counts: IntArray
    marks: NDArray[np.uint32]
    alive: BoolArray
    global_codes: NDArray[np.int8]
    global_scale: Float32Array

    @classmethod
    def empty(cls, layout: CodeLayout) -> State:
        """No image."""
        zero, codes = np.zeros(0, np.int64), np.zeros((0, layout.global_dim), np.int8)
        return cls((), zero, zero, np.zeros(0, np.uint32), np.zeros(0, np.bool_), codes, np.zeros(0, np.float32))

    @property
    def all_alive(self) -> bool:
        """Whether no slot is dead."""
        return bool(self.alive.all())

    @property
    def n_features(self) -> int:
        """Features in the lists, those of dead slots included."""
        return sum(map(len, self.segments))

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        per_image = (self.image_ids, self.counts, self.marks, self.alive, self.global_codes, self.global_scale)
        return sum(s.nbytes for s in self.segments) + sum(a.nbytes for a in per_image)

    def without(self, slots: Sequence[int]) -> State:
        """The same with some slots dead."""
        alive = self.alive.copy()
        alive[list(slots)] = False
        return replace(self, alive=alive)

    def hiding(self, image_ids: Sequence[int]) -> State:
        """The same content in which these images are not found; ids that are not there are ignored."""
        return replace(self, alive=self.alive & ~np.isin(self.image_ids, image_ids))

    def extended(self, batch: CodeBatch, n_words: int) -> State:
        """The same with the images of a batch in new slots at the end."""
        first, n = len(self.image_ids), len(batch.image_ids)
        alive = np.append(self.alive, np.ones(n, np.bool_))
        segments = list(self.segments)
        ends = np.cumsum(batch.counts)
        for a in range(0, n, MAX_SPAN):
            b = min(a + MAX_SPAN, n)
            slots = np.repeat(np.arange(first + a, first + b), batch.counts[a:b])
            if len(slots):
                part = slice(int(ends[a] - batch.counts[a]), int(ends[b - 1]))
                segments.append(Segment.build(batch.words[part], batch.codes[part], slots, n_words))
        norms = np.linalg.norm(batch.global_codes.astype(np.float32), axis=1)
        scale = np.divide(1, norms, out=np.zeros_like(norms), where=norms > 0)
        return State(
            _merged(segments, alive, n_words),
            append(self.image_ids, batch.image_ids),
            append(self.counts, batch.counts),
            append(self.marks, batch.marks),
            alive,
            append(self.global_codes, batch.global_codes),
            append(self.global_scale, scale.astype(np.float32)),
        )

    def dead_features(self) -> int:
        """Features of dead slots that lists still hold."""
        return int(self.counts[~self.alive].sum())

    def swept(self, n_words: int) -> Iterator[State]:
        """States with ever fewer dead features, one segment rewritten at a time: the others need no second copy."""
        state = self
        for i, segment in enumerate(self.segments):
            segments = list(state.segments)
            segments[i] = merge([segment], self.alive, n_words)
            state = replace(state, segments=tuple(segments))
            yield state
        segments = [s for s in state.segments if len(s)]
        merged = _merged(segments, self.alive, n_words)
        yield replace(state, segments=merged, counts=np.where(self.alive, state.counts, 0))

    def renumbered(self, n_words: int) -> State:
        """Without dead slots; its lists must hold none of their features."""
        new_slot = np.cumsum(self.alive, dtype=np.int64) - 1
        segments = []
        for s in self.segments:
            slots = new_slot[s.all_slots()]
            first, last = int(slots.min()), int(slots.max())
            segments.append(Segment(s.codes, (slots - first).astype(np.uint16), first, last, s.starts, s.words))
        alive = self.alive
        return State(
            _merged(segments, np.ones(int(alive.sum()), np.bool_), n_words),
            self.image_ids[alive],
            self.counts[alive],
            self.marks[alive],
            np.ones(int(alive.sum()), np.bool_),
            self.global_codes[alive],
            self.global_scale[alive],
        )


def _merged(segments: Iterable[Segment], alive: BoolArray, n_words: int) -> tuple[Segment, ...]:
    """Sizes fall by `MERGE_RATIO` from left to right, so that there are few."""
    done: list[Segment] = []
    for segment in segments:
        done.append(segment)
        while len(done) > 1:
            left, right = done[-2:]
            span = right.last_slot + 1 - left.first_slot
            full = len(left) + len(right) > MAX_SEGMENT or span > MAX_SPAN
            if len(left) >= MERGE_RATIO * len(right) or full:
                break
            merged = merge([left, right], alive, n_words)
            done[-2:] = [merged] if len(merged) else []
    return tuple(done)


def merge(parts: list[Segment], alive: BoolArray, n_words: int) -> Segment:
    """One segment of several, without the features of dead slots."""
    words = np.concatenate([p.all_words() for p in parts])
    codes = np.concatenate([p.codes for p in parts])
    slots = np.concatenate([p.all_slots() for p in parts])
    keep = alive[slots]
    if not keep.all():
        words, codes, slots = words[keep], codes[keep], slots[keep]
    return Segment.build(words, codes, slots, n_words)


def append(array: NDArray[T], more: NDArray[T]) -> NDArray[T]:
    """`array` followed by `more`, in place where its buffer has room.

    Readers of `array` never look beyond their own length, so writing behind it is safe; only one array may be the
    longest view of a buffer, which the writer's lock guarantees.
    """
    n, total = len(array), len(array) + len(more)
    buffer = array.base
    if not isinstance(buffer, np.ndarray) or buffer.ndim != array.ndim or len(buffer) < total:
        buffer = np.empty((total + total // 4 + 16, *array.shape[1:]), array.dtype)
        buffer[:n] = array
    buffer[n:total] = more
    return buffer[:total]
