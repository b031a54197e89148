"""Which stored images may show the query's place: inverted lists in RAM, asymmetric distances, votes.

The lists are derived from the store and never saved. Layout: a few immutable segments, each holding its features
sorted by word; per feature M bytes of code and four bytes naming the image's slot, which with M = 12 is 16 bytes; per
image a slot with its id, its number of features and its global descriptor. A change publishes a new tuple of segments
and arrays at once, so a search sees an image whole or not at all, and never waits. Small segments are merged as they
come; none grows beyond 4 million features, so that merging needs little memory beside the index itself.

One search, for query features q and their P nearest words w (Noh et al., ICCV 2017, section 3.5; Jegou et al., TPAMI
2011)::

    s(q, f) = <q, c_w> + sum over m of <R q, pq[m, code_f[m]]>     for every stored feature f in the lists of q
    N(q)    = the K features of largest s (and those equal to the K-th), of those with s > min_similarity
    v(q, i) = max over f in N(q) of image i of (s - min_similarity) ** power
    votes_i = sum over q of v(q, i)                 (divided as `SearchOptions` says)
    score_i = sqrt(votes_i / N_q) + global_weight * similarity_i
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from delf_edge.coarse import CoarseIndex
from delf_edge.codec import CodeBatch, CodeLayout, decode_global, inner_product_tables
from delf_edge.errors import OptionError
from delf_edge.features import l2_normalise
from delf_edge.store import Store
from delf_edge.types import (
    BoolArray,
    Candidate,
    Codebook,
    Features,
    Float32Array,
    Float64Array,
    UInt8Array,
    UInt16Array,
)

IntArray = NDArray[np.int64]
SlotArray = NDArray[np.uint32]
T = TypeVar("T", bound=np.generic)

_MAX_SEGMENT = 4_000_000  # features
_MERGE_RATIO = 4  # a segment is merged into its left neighbour unless that is this much larger
_DEAD_SHARE = 0.25  # of dead features, from which on lists are rewritten
_CHUNK = 1 << 15  # scores computed at a time: their arrays stay in the processor's cache
_GLOBAL_CHUNK = 4096  # images


@dataclass(frozen=True, slots=True)
class SearchOptions:
    """How candidates are found.

    Attributes:
        n_probe: P, words looked up per query feature.
        k_neighbours: K, nearest stored features that vote per query feature.
        top: candidates returned at most.
        min_similarity: 0..1, similarity from which on a stored feature votes.
        power: exponent of the vote's weight; 0 counts votes, as the paper does.
        burst: divide a vote by the square root of the number of query features that vote for the same stored feature
            (Jegou et al., CVPR 2009).
        length_norm: divide an image's votes by the square root of its number of features.
        global_weight: weight of the global descriptors' cosine beside the square root of the votes per query feature.
    """

    n_probe: int = 8
    k_neighbours: int = 60
    top: int = 50
    min_similarity: float = 0.3
    power: float = 2.0
    burst: bool = True
    length_norm: bool = False
    global_weight: float = 0.25

    def __post_init__(self) -> None:
        if min(self.n_probe, self.k_neighbours, self.top) < 1:
            raise OptionError(f"n_probe, k_neighbours and top must be at least 1: {self}")
        if not (0 <= self.min_similarity < 1 and self.power >= 0 and self.global_weight >= 0):
            raise OptionError(f"min_similarity must be in [0, 1), power and global_weight not negative: {self}")


@dataclass(frozen=True, slots=True, eq=False)
class _Segment:
    """Features sorted by word.

    Attributes:
        codes: uint8 (T, M).
        slots: uint32 (T,), the image of each feature.
        starts: int64 (K + 1,), list w is [starts[w], starts[w + 1]); None in a segment of fewer than K features.
        words: uint16 (T,), ascending; None where there are `starts`.
    """

    codes: UInt8Array
    slots: SlotArray
    starts: IntArray | None
    words: UInt16Array | None

    def __len__(self) -> int:
        return len(self.slots)

    @classmethod
    def build(cls, words: UInt16Array, codes: UInt8Array, slots: SlotArray, n_words: int) -> _Segment:
        order = np.argsort(words, kind="stable")  # a radix sort for 16 bits
        codes, slots = codes.take(order, axis=0), slots.take(order)
        if len(words) < n_words:
            return cls(codes, slots, None, words.take(order))
        starts = np.zeros(n_words + 1, np.int64)
        np.cumsum(np.bincount(words, minlength=n_words), out=starts[1:])
        return cls(codes, slots, starts, None)

    def all_words(self) -> UInt16Array:
        if self.words is not None:
            return self.words
        assert self.starts is not None
        return np.repeat(np.arange(len(self.starts) - 1, dtype=np.uint16), np.diff(self.starts))

    def ranges(self, words: IntArray) -> tuple[IntArray, IntArray]:
        """First index and length of each word's list."""
        if self.starts is not None:
            first = self.starts[words]
            return first, self.starts[words + 1] - first
        assert self.words is not None
        first = np.searchsorted(self.words, words.astype(np.uint16))
        return first, np.searchsorted(self.words, words.astype(np.uint16), side="right") - first

    @property
    def nbytes(self) -> int:
        arrays = (self.codes, self.slots, self.starts, self.words)
        return sum(a.nbytes for a in arrays if a is not None)


@dataclass(frozen=True, slots=True, eq=False)
class _State:
    """One consistent content of the index; S slots, of which some are dead."""

    segments: tuple[_Segment, ...]
    image_ids: IntArray  # (S,)
    counts: IntArray  # (S,) features
    alive: BoolArray  # (S,)
    global_codes: NDArray[np.int8]  # (S, G)
    global_scale: Float32Array  # (S,) 1 / L2 norm of global_codes, 0 for none

    @property
    def all_alive(self) -> bool:
        return bool(self.alive.all())


class CandidateIndex:
    """Searchable content of one or more stores; may be changed in one thread while others search.

    Args:
        layout: sizes of the codes.
    """

    def __init__(self, layout: CodeLayout) -> None:
        self.layout = layout
        self.revision = -1
        self._lock = threading.Lock()  # of writers
        self._refresh_lock = threading.Lock()
        self._slot_of: dict[int, int] = {}
        zero = np.zeros(0, np.int64)
        no_globals = np.zeros((0, layout.global_dim), np.int8)
        self._state = _State((), zero, zero, np.zeros(0, np.bool_), no_globals, np.zeros(0, np.float32))

    @classmethod
    def from_store(cls, store: Store) -> CandidateIndex:
        """An index of everything readable in a store."""
        index = cls(store.layout)
        index.refresh(store)
        return index

    def refresh(self, store: Store) -> bool:
        """Take over what changed in the store since the last call, by whichever process.

        Returns:
            Whether anything had changed.
        """
        with self._refresh_lock:  # else an older change could be applied after a newer one
            since = self.revision
            if since >= 0 and store.revision() == since:
                return False
            changes = store.changes(max(since, 0))
            if since < 0 or not changes.complete:
                self._reload(store)
            else:
                self.apply(removed=changes.removed)
                seen: set[int] = set()
                for batch in store.code_batches(changes.updated):
                    self.apply(batch)
                    seen.update(batch.image_ids.tolist())
                self.apply(removed=set(changes.updated) - seen)  # changed, and now damaged or gone
            self.revision = changes.revision
            return True

    def _reload(self, store: Store) -> None:
        """Everything anew, beside the old content, which serves searches until the new one is complete."""
        fresh = CandidateIndex(self.layout)
        for batch in _gathered(store.code_batches(), self.layout):
            fresh.apply(batch)
        with self._lock:
            self._state, self._slot_of = fresh._state, fresh._slot_of

    @property
    def n_images(self) -> int:
        """Images that a search can find."""
        return len(self._slot_of)

    @property
    def n_features(self) -> int:
        """Features in the lists, of removed images too until the next merge."""
        return sum(map(len, self._state.segments))

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        state = self._state
        per_image = (state.image_ids, state.counts, state.alive, state.global_codes, state.global_scale)
        return sum(s.nbytes for s in state.segments) + sum(a.nbytes for a in per_image)

    # ------------------------------------------------------------------ changes

    def apply(self, batch: CodeBatch | None = None, *, removed: Iterable[int] = ()) -> None:
        """Add or replace the images of a batch and drop others, as one change.

        Args:
            batch: images to add; an id that is there already is replaced.
            removed: ids to drop; unknown ones are ignored.

        Raises:
            OptionError: the codes are not of this index's layout, or a word is out of range.
        """
        if batch is not None:
            self._check(batch)
        with self._lock:
            state, ids = self._state, [] if batch is None else batch.image_ids.tolist()
            gone = [i for i in {*map(int, removed), *ids} if i in self._slot_of]
            if gone:
                alive = state.alive.copy()
                alive[[self._slot_of[i] for i in gone]] = False
                state = replace(state, alive=alive)
            first = len(state.image_ids)
            if batch is not None and ids:
                state = self._extended(state, batch)
            self._state = state
            for i in gone:
                del self._slot_of[i]
            self._slot_of.update(zip(ids, range(first, first + len(ids)), strict=True))
            if gone:
                self._sweep()

    def _check(self, batch: CodeBatch) -> None:
        M, G, K = self.layout.code_size, self.layout.global_dim, self.layout.n_words
        if batch.codes.shape[1:] != (M,) or batch.global_codes.shape[1:] != (G,):
            raise OptionError(f"codes {batch.codes.shape} and {batch.global_codes.shape} do not fit {self.layout}")
        if len(np.unique(batch.image_ids)) != len(batch.image_ids):
            raise OptionError("a batch names an image twice; apply the two versions one after the other")
        if len(batch.words) and int(batch.words.max()) >= K:
            raise OptionError(f"word {int(batch.words.max())} is out of range: the codebook has {K} words")

    def _extended(self, state: _State, batch: CodeBatch) -> _State:
        first, n = len(state.image_ids), len(batch.image_ids)
        slots = np.repeat(np.arange(first, first + n, dtype=np.uint32), batch.counts)
        segments = list(state.segments)
        if len(slots):
            segments.append(_Segment.build(batch.words, batch.codes, slots, self.layout.n_words))
        norms = np.linalg.norm(batch.global_codes.astype(np.float32), axis=1)
        scale = np.divide(1, norms, out=np.zeros_like(norms), where=norms > 0)
        return _State(
            self._merged(segments, np.append(state.alive, np.ones(n, np.bool_))),
            _append(state.image_ids, batch.image_ids),
            _append(state.counts, batch.counts),
            np.append(state.alive, np.ones(n, np.bool_)),
            _append(state.global_codes, batch.global_codes),
            _append(state.global_scale, scale.astype(np.float32)),
        )

    def _merged(self, segments: list[_Segment], alive: BoolArray) -> tuple[_Segment, ...]:
        """Sizes fall by `_MERGE_RATIO` from left to right, so that there are few."""
        while len(segments) > 1:
            left, right = segments[-2:]
            if len(left) >= _MERGE_RATIO * len(right) or len(left) + len(right) > _MAX_SEGMENT:
                break
            segments[-2:] = [self._merge([left, right], alive)]
        return tuple(segments)

    def _merge(self, parts: list[_Segment], alive: BoolArray) -> _Segment:
        """One segment of several, without the features of dead slots."""
        words = np.concatenate([p.all_words() for p in parts])
        codes = np.concatenate([p.codes for p in parts])
        slots = np.concatenate([p.slots for p in parts])
        keep = alive[slots]
        if not keep.all():
            words, codes, slots = words[keep], codes[keep], slots[keep]
        return _Segment.build(words, codes, slots, self.layout.n_words)

    def _sweep(self) -> None:
        """Rewrite lists and number slots anew once enough of them are dead; searches go on meanwhile."""
        state = self._state
        dead = int(state.counts[~state.alive].sum())
        if dead > _DEAD_SHARE * (self.n_features + 1):
            for i, segment in enumerate(state.segments):  # one at a time: the others need no second copy
                segments = list(self._state.segments)
                segments[i] = self._merge([segment], state.alive)
                self._state = replace(self._state, segments=tuple(segments))
            counts = np.where(state.alive, state.counts, 0)
            self._state = replace(self._state, segments=tuple(s for s in self._state.segments if len(s)), counts=counts)
        n_slots = len(state.alive)
        if dead == 0 or n_slots - len(self._slot_of) <= max(1000, n_slots // 2):
            return
        state = self._state
        new_slot = np.cumsum(state.alive, dtype=np.uint32) - 1  # dead slots are in no list after the rewrite above
        merged = [self._merge([s], state.alive) for s in state.segments]
        self._state = _State(
            tuple(replace(s, slots=new_slot[s.slots].astype(np.uint32)) for s in merged if len(s)),
            state.image_ids[state.alive],
            state.counts[state.alive],
            np.ones(len(self._slot_of), np.bool_),
            state.global_codes[state.alive],
            state.global_scale[state.alive],
        )
        self._slot_of = {image_id: slot for slot, image_id in enumerate(self._state.image_ids.tolist())}

    # ------------------------------------------------------------------ search

    def search(
        self,
        features: Features,
        codebook: Codebook,
        coarse: CoarseIndex,
        options: SearchOptions | None = None,
        *,
        without: Sequence[int] = (),
    ) -> list[Candidate]:
        """Candidates for a query, the best first; equal scores by ascending image id.

        Args:
            features: the query's N features; none is ordinary, and leaves the global descriptor to decide.
            codebook: codebook of the stored codes.
            coarse: index of its centroids.
            options: see `SearchOptions`.
            without: ids of images that are no candidates for this query.

        Returns:
            At most `options.top` candidates that have a vote or a positive similarity.

        Raises:
            OptionError: the features' dimensions are not the codebook's.
        """
        options = options or SearchOptions()
        if features.descriptors.shape[1] != codebook.dim:
            raise OptionError(f"descriptors {features.descriptors.shape}; the codebook has dimension {codebook.dim}")
        state = self._state  # everything below sees this one content
        similarity = _global_similarity(state, features.global_descriptor)
        votes = self._votes(state, features.descriptors, codebook, coarse, options)
        score = np.sqrt(votes / max(len(features), 1)) + options.global_weight * similarity
        found = np.flatnonzero(state.alive & ((votes > 0) | (similarity > 0)))
        if len(without):
            found = found[~np.isin(state.image_ids[found], without)]
        if len(found) > options.top:
            worst = np.partition(score[found], -options.top)[-options.top]
            found = found[score[found] >= worst]
        found = found[np.lexsort((state.image_ids[found], -score[found]))][: options.top]
        return [
            Candidate(int(state.image_ids[i]), float(score[i]), float(votes[i]), float(similarity[i])) for i in found
        ]

    def global_descriptors(self, image_ids: Sequence[int]) -> Float32Array:
        """Global descriptors of images, float32 (n, G), unit L2; zeros for an image that is not in the index."""
        with self._lock:
            state, slots = self._state, np.array([self._slot_of.get(i, -1) for i in image_ids], np.int64)
        found = l2_normalise(decode_global(state.global_codes[slots])) if len(state.image_ids) else None
        if found is None:
            return np.zeros((len(image_ids), self.layout.global_dim), np.float32)
        found[slots < 0] = 0
        return found

    def _votes(
        self, state: _State, queries: Float32Array, codebook: Codebook, coarse: CoarseIndex, options: SearchOptions
    ) -> Float64Array:
        """float64 (S,), votes of every slot."""
        S = len(state.image_ids)
        if not len(queries) or not state.segments:
            return np.zeros(S)
        words, base = coarse.assign(queries, options.n_probe)
        tables = inner_product_tables(queries, codebook)
        found = [
            part
            for i, segment in enumerate(state.segments)
            for part in _scan(segment, i, words, base, tables, state, options.min_similarity)
        ]
        query, slot, feature, score = (np.concatenate(column) for column in zip(*found, strict=True))
        keep = _nearest(query, score, len(queries), options.k_neighbours)
        query, slot, feature, score = query[keep], slot[keep], feature[keep], score[keep]
        order = np.lexsort((feature, -score, query << 32 | slot))  # the best feature of each (query, image) comes first
        pair = (query << 32 | slot)[order]
        order = order[np.r_[True, pair[1:] != pair[:-1]][: len(pair)]]
        slot, feature = slot[order], feature[order]
        weight = (score[order].astype(np.float64) - options.min_similarity) ** options.power
        if options.burst and len(feature):
            _, inverse, n = np.unique(feature, return_inverse=True, return_counts=True)
            weight /= np.sqrt(n[inverse])
        votes = np.bincount(slot, weight, minlength=S).astype(np.float64)
        return np.asarray(votes / np.sqrt(np.maximum(state.counts, 1))) if options.length_norm else votes


def _scan(
    segment: _Segment,
    number: int,
    words: NDArray[np.int32],
    base: Float32Array,
    tables: Float32Array,
    state: _State,
    min_similarity: float,
) -> Iterator[tuple[IntArray, IntArray, IntArray, Float32Array]]:
    """Score the lists of all queries: (query, slot, feature, score) of what exceeds `min_similarity`.

    The plain form::

        for q in range(N):
            for p in range(P):
                for f in list(words[q, p]):
                    score = base[q, p] + sum(tables[q, m, codes[f, m]] for m in range(M))
    """
    M = tables.shape[1]
    flat = tables.ravel()
    first, length = segment.ranges(words.ravel().astype(np.int64))
    pairs = np.flatnonzero(length)
    first, length = first[pairs], length[pairs]
    end = np.cumsum(length)
    base, row = base.ravel()[pairs], pairs // words.shape[1]  # of each (query, list) pair
    all_alive = state.all_alive
    cuts = np.searchsorted(end, np.arange(_CHUNK, (end[-1] if len(end) else 0) + _CHUNK, _CHUNK))
    none = np.zeros(0, np.int64)
    yield none, none, none, np.zeros(0, np.float32)
    for a, b in zip(np.r_[0, cuts[:-1] + 1], np.minimum(cuts + 1, len(pairs)), strict=False):
        if a >= b:
            continue
        n = length[a:b]
        pair = np.repeat(np.arange(a, b), n)
        index = np.arange(len(pair)) + np.repeat(first[a:b] - (np.cumsum(n) - n), n)
        codes = np.ascontiguousarray(segment.codes.take(index, axis=0).T)
        at = row[pair] * (M * 256)
        score, entry, where = base[pair], np.empty(len(pair), np.float32), np.empty(len(pair), np.int64)
        for m in range(M):
            np.add(at, codes[m], out=where)
            flat.take(where, out=entry, mode="clip")  # in range by construction; "clip" spares a copy
            score += entry
            at += 256
        keep = np.flatnonzero(score > min_similarity)
        slot = segment.slots[index[keep]].astype(np.int64)
        if not all_alive:
            live = state.alive[slot]
            keep, slot = keep[live], slot[live]
        yield row[pair[keep]], slot, index[keep] | number << 40, score[keep]


def _nearest(query: IntArray, score: Float32Array, n_queries: int, k: int) -> BoolArray:
    """Which entries are among the k largest scores of their query, ties with the k-th included; scores are positive."""
    bits = score.view(np.uint32).astype(np.int64)  # positive floats order like their bits
    key = query << 32 | (0xFFFFFFFF - bits)
    counts = np.bincount(query, minlength=n_queries)
    last = np.cumsum(counts) - counts + np.minimum(counts, k) - 1  # of the k best of each query, in sorted order
    limit = np.sort(key)[np.maximum(last, 0)] if len(key) else np.zeros(n_queries, np.int64)
    return np.asarray(key <= limit[query])


def _global_similarity(state: _State, descriptor: Float32Array) -> Float64Array:
    """float64 (S,), cosine of the global descriptors; 0 where either has none."""
    S, G = state.global_codes.shape
    similarity = np.zeros(S)
    if descriptor.shape != (G,):
        raise OptionError(f"a global descriptor {descriptor.shape}; the index has dimension {G}")
    query = l2_normalise(descriptor)
    for i in range(0, S, _GLOBAL_CHUNK):
        part = slice(i, i + _GLOBAL_CHUNK)
        similarity[part] = state.global_codes[part].astype(np.float32) @ query * state.global_scale[part]
    return similarity


def _append(array: NDArray[T], more: NDArray[T]) -> NDArray[T]:
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


def _gathered(batches: Iterator[CodeBatch], layout: CodeLayout) -> Iterator[CodeBatch]:
    """Batches joined to whole segments, so that a first load sorts every feature once."""
    waiting: list[CodeBatch] = []
    for batch in batches:
        if waiting and sum(len(b.words) for b in waiting) + len(batch.words) > _MAX_SEGMENT:
            yield CodeBatch.join(waiting, layout)
            waiting = []
        waiting.append(batch)
    if waiting:
        yield CodeBatch.join(waiting, layout)
