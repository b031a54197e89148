"""Inverted lists in RAM: immutable segments of features sorted by word, and the images they belong to.

Bytes in RAM: M + 1 a feature (its code, and how far its image's slot is from that of the feature before it in the
list), 6 more for a step of 255 or more, 4 (K + 1) a segment, and G + 21 an image. A segment spans at most 65,536 images
and 4 million features, so merging needs little memory beside the index itself. With K words and n features an image, a
step is K / n on average, so one of 255 is rare but in the lists of rare words.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from delf_edge import native
from delf_edge.quantization.packed_codes import CodeBatch, CodeLayout
from delf_edge.types import BoolArray, Float32Array, Int64Array, UInt8Array, UInt16Array

_T = TypeVar("_T", bound=np.generic)

MAX_SEGMENT = 4_000_000  # features
MAX_SPAN = 1 << 16  # slots of a segment
FAR = 255  # a step that is not in `Segment.steps`
MERGE_RATIO = 4  # a segment is merged into its left neighbour unless that is this much larger


@dataclass(frozen=True, slots=True, eq=False)
class Segment:
    """Features sorted by word, then by slot: K or more with `starts` and `steps`, fewer with `words` and `slots`.

    Attributes:
        codes: uint8 (T, M).
        first_slot, last_slot: of the segment.
        starts: uint32 (K + 1,), list w is [starts[w], starts[w + 1]).
        steps: uint8 (T,), slot of each feature less that of the feature before it in its list, of the first one less
            `first_slot`; 255 stands for a step of 255 or more, which is in `jumps`.
        jump_at, jump_by: uint32 (J,) ascending and uint16 (J,), features of such steps, and the steps.
        words: uint16 (T,), ascending.
        slots: uint16 (T,), the image of each feature, counted from `first_slot`.
    """

    codes: UInt8Array
    first_slot: int
    last_slot: int
    starts: NDArray[np.uint32] | None = None
    steps: UInt8Array | None = None
    jump_at: NDArray[np.uint32] | None = None
    jump_by: UInt16Array | None = None
    words: UInt16Array | None = None
    slots: UInt16Array | None = None
    pointers: native.SegmentPointers = field(init=False)

    def __post_init__(self) -> None:
        arrays = (self.codes, self.starts, self.steps, self.jump_at, self.jump_by, self.words, self.slots)
        n_jumps = 0 if self.jump_at is None else len(self.jump_at)
        pointers = native.segment_pointers(arrays, len(self.codes), n_jumps, self.first_slot)
        object.__setattr__(self, "pointers", pointers)

    def __len__(self) -> int:
        return len(self.codes)

    @classmethod
    def build(cls, words: UInt16Array, codes: UInt8Array, slots: Int64Array, n_words: int) -> Segment:
        """Sort features by word; slots (T,) of images ascend, at least among features of a word, within `MAX_SPAN`."""
        first, last = (int(slots.min()), int(slots.max())) if len(slots) else (0, 0)
        order = np.argsort(words, kind="stable")  # a radix sort for 16 bits
        codes, local = codes.take(order, axis=0), (slots - first).astype(np.uint16).take(order)
        if len(words) < n_words:
            return cls(codes, first, last, words=words.take(order), slots=local)
        starts = np.zeros(n_words + 1, np.uint32)
        np.cumsum(np.bincount(words, minlength=n_words), out=starts[1:])
        step = np.diff(local, prepend=np.uint16(0))
        begins = starts[:-1][starts[:-1] < starts[1:]]
        step[begins] = local[begins]
        jump_at = np.flatnonzero(step >= FAR).astype(np.uint32)
        steps = np.minimum(step, FAR).astype(np.uint8)
        return cls(codes, first, last, starts, steps, jump_at, step[jump_at])

    def all_words(self) -> UInt16Array:
        """uint16 (T,), the word of each feature."""
        if self.words is not None:
            return self.words
        assert self.starts is not None
        return np.repeat(np.arange(len(self.starts) - 1, dtype=np.uint16), np.diff(self.starts))

    def all_slots(self) -> Int64Array:
        """int64 (T,), the slot of each feature in the whole index."""
        lengths: Int64Array = np.zeros(0, np.int64)
        if self.starts is not None:
            lengths = self.starts[1:].astype(np.int64) - self.starts[:-1]
        return self.list_slots(np.arange(len(self)), lengths[lengths > 0])

    def list_slots(self, features: Int64Array, lengths: Int64Array) -> Int64Array:
        """int64 (n,), slots in the whole index of the features of whole lists, one after the other.

        Args:
            features: int64 (n,), their indices.
            lengths: int64, features of each list, none of them 0.
        """
        if self.steps is None or self.jump_at is None or self.jump_by is None:
            assert self.slots is not None
            return self.slots[features] + np.int64(self.first_slot)
        steps = self.steps[features].astype(np.int64)
        far = np.flatnonzero(steps == FAR)
        steps[far] = self.jump_by[np.searchsorted(self.jump_at, features[far])]
        begins = np.cumsum(lengths) - lengths
        slots = np.cumsum(steps)
        slots -= np.repeat(slots[begins] - steps[begins], lengths)
        return slots + self.first_slot

    def ranges(self, words: Int64Array) -> tuple[Int64Array, Int64Array]:
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
        arrays = (self.codes, self.starts, self.steps, self.jump_at, self.jump_by, self.words, self.slots)
        return sum(a.nbytes for a in arrays if a is not None)


@dataclass(frozen=True, slots=True, eq=False)
class IndexSnapshot:
    """One consistent content of the index; S slots, of which some are dead.

    Attributes:
        segments: slots ascend from one to the next.
        image_ids: int64 (S,).
        counts: uint32 (S,), features of each image.
        row_checksums: uint32 (S,), what `CodeBatch.row_checksums` said.
        alive: bool (S,).
        global_codes: int8 (S, G).
        global_scale: float32 (S,), 1 / L2 norm of global_codes, 0 for none.
    """

    segments: tuple[Segment, ...]
    image_ids: Int64Array
    counts: NDArray[np.uint32]
    row_checksums: NDArray[np.uint32]
    alive: BoolArray
    global_codes: NDArray[np.int8]
    global_scale: Float32Array

    @classmethod
    def empty(cls, layout: CodeLayout) -> IndexSnapshot:
        """No image."""
        zero, codes = np.zeros(0, np.int64), np.zeros((0, layout.global_dim), np.int8)
        few = np.zeros(0, np.uint32)
        return cls((), zero, few, few, np.zeros(0, np.bool_), codes, np.zeros(0, np.float32))

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
        per_image = (self.image_ids, self.counts, self.row_checksums, self.alive, self.global_codes, self.global_scale)
        return sum(s.nbytes for s in self.segments) + sum(a.nbytes for a in per_image)

    def without(self, slots: Sequence[int]) -> IndexSnapshot:
        """The same with some slots dead."""
        alive = self.alive.copy()
        alive[list(slots)] = False
        return replace(self, alive=alive)

    def hiding(self, image_ids: Sequence[int]) -> IndexSnapshot:
        """The same content in which these images are not found; ids that are not there are ignored."""
        return replace(self, alive=self.alive & ~np.isin(self.image_ids, image_ids))

    def extended(self, batch: CodeBatch, n_words: int) -> IndexSnapshot:
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
        return IndexSnapshot(
            _merged(segments, alive, n_words),
            append(self.image_ids, batch.image_ids),
            append(self.counts, batch.counts.astype(np.uint32)),
            append(self.row_checksums, batch.row_checksums),
            alive,
            append(self.global_codes, batch.global_codes),
            append(self.global_scale, scale.astype(np.float32)),
        )

    def beside(self, other: IndexSnapshot) -> IndexSnapshot:
        """The lists of both, those of `other` in slots behind these, for the votes of one search.

        No list is copied, and there are no global descriptors in it.
        """
        first = len(self.image_ids)
        behind = (replace(s, first_slot=s.first_slot + first, last_slot=s.last_slot + first) for s in other.segments)
        return IndexSnapshot(
            (*self.segments, *behind),
            np.concatenate([self.image_ids, other.image_ids]),
            np.concatenate([self.counts, other.counts]),
            np.concatenate([self.row_checksums, other.row_checksums]),
            np.concatenate([self.alive, other.alive]),
            self.global_codes[:0],
            self.global_scale[:0],
        )

    def dead_features(self) -> int:
        """Features of dead slots that lists still hold."""
        return int(self.counts[~self.alive].sum())

    def swept(self, n_words: int) -> Iterator[IndexSnapshot]:
        """States with ever fewer dead features, one segment rewritten at a time: the others need no second copy."""
        snapshot = self
        for i, segment in enumerate(self.segments):
            segments = list(snapshot.segments)
            segments[i] = merge_segments([segment], self.alive, n_words)
            snapshot = replace(snapshot, segments=tuple(segments))
            yield snapshot
        segments = [s for s in snapshot.segments if len(s)]
        merged = _merged(segments, self.alive, n_words)
        yield replace(snapshot, segments=merged, counts=np.where(self.alive, snapshot.counts, np.uint32(0)))

    def renumbered(self, n_words: int) -> IndexSnapshot:
        """Without dead slots; its lists must hold none of their features."""
        new_slot = np.cumsum(self.alive, dtype=np.int64) - 1
        segments = []
        for s in self.segments:
            segments.append(Segment.build(s.all_words(), s.codes, new_slot[s.all_slots()], n_words))
        alive = self.alive
        return IndexSnapshot(
            _merged(segments, np.ones(int(alive.sum()), np.bool_), n_words),
            self.image_ids[alive],
            self.counts[alive],
            self.row_checksums[alive],
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
            merged = merge_segments([left, right], alive, n_words)
            done[-2:] = [merged] if len(merged) else []
    return tuple(done)


def merge_segments(parts: list[Segment], alive: BoolArray, n_words: int) -> Segment:
    """One segment of several, without the features of dead slots."""
    words = np.concatenate([p.all_words() for p in parts])
    codes = np.concatenate([p.codes for p in parts])
    slots = np.concatenate([p.all_slots() for p in parts])
    keep = alive[slots]
    if not keep.all():
        words, codes, slots = words[keep], codes[keep], slots[keep]
    return Segment.build(words, codes, slots, n_words)


def append(array: NDArray[_T], more: NDArray[_T]) -> NDArray[_T]:
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
