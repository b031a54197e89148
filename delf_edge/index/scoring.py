"""Scores of the features in the lists of a query, and the votes that follow from them.

For query features q and their P nearest words w (Noh et al., ICCV 2017, section 3.5; Jegou et al., TPAMI 2011)::

    s(q, f) = <q, c_w> + sum over m of <R q, pq[m, code_f[m]]>     for every stored feature f in the lists of q
    N(q)    = the K features of largest s (and those equal to the K-th), of those with s > min_similarity
    r(q)    = min_similarity + reference * (the K-th s - min_similarity)       (min_similarity where there are fewer)
    v(q, i) = a(q) * max over f in N(q) of image i of max(0, s - r(q)) ** power
    votes_i = sum over q of v(q, i)                 (divided as `SearchOptions` says)

a(q) is the attention of q over its mean, to a power. r(q) counts a similarity by how far it stands out: a wall or a
window that K stored features look like says little (Jegou et al., ACM Multimedia 2011). The first two lines are
compiled (`native.py`); `scan` is the same in NumPy, to the bit, for where they are not.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from delf_edge import native
from delf_edge.arrays import l2_normalise
from delf_edge.errors import OptionError
from delf_edge.index.inverted_lists import IndexSnapshot, Segment
from delf_edge.native import Hits
from delf_edge.types import BoolArray, Float32Array, Float64Array, Int32Array, Int64Array

CHUNK = 1 << 15  # scores computed at a time: their arrays stay in the processor's cache
_GLOBAL_CHUNK = 4096  # images


def neighbours(
    snapshot: IndexSnapshot, words: Int32Array, base: Float32Array, tables: Float32Array, k: int, min_similarity: float
) -> Hits:
    """N(q) of every query.

    Args:
        snapshot: where to look.
        words: int32 (N, P).
        base: float32 (N, P), <q, c_w>.
        tables: float32 (N, M, 256), of `inner_product_tables`.
        k: K.
        min_similarity: what a score must exceed.

    Returns:
        Hits in no order.
    """
    lib = native.library()
    if lib is not None:
        alive = None if snapshot.all_alive else snapshot.alive
        parts = [s.pointers for s in snapshot.segments]
        return native.scan_lists(lib, parts, words, base, tables, k, min_similarity, alive)
    hits = Hits.join(
        part
        for number, segment in enumerate(snapshot.segments)
        for part in scan(segment, number, words, base, tables, snapshot, min_similarity)
    )
    return hits.take(_nearest(hits.query, hits.score, len(words), k))


def scan(
    segment: Segment,
    number: int,
    words: Int32Array,
    base: Float32Array,
    tables: Float32Array,
    snapshot: IndexSnapshot,
    min_similarity: float,
) -> Iterator[Hits]:
    """Score the lists of all queries in one segment: the hits whose score exceeds `min_similarity`.

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
    all_alive = snapshot.all_alive
    cuts = np.searchsorted(end, np.arange(CHUNK, (end[-1] if len(end) else 0) + CHUNK, CHUNK))
    none = np.zeros(0, np.int64)
    yield Hits(none, none, none, np.zeros(0, np.float32))
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
        keep = np.flatnonzero(score > np.float32(min_similarity))
        slot = segment.list_slots(index, n)[keep]
        if not all_alive:
            live = snapshot.alive[slot]
            keep, slot = keep[live], slot[live]
        yield Hits(row[pair[keep]], slot, index[keep] | number << 40, score[keep])


def _nearest(query: Int64Array, score: Float32Array, n_queries: int, k: int) -> BoolArray:
    """Which entries are among the k largest scores of their query, ties with the k-th included; scores are positive."""
    bits = score.view(np.uint32).astype(np.int64)  # positive floats order like their bits
    key = query << 32 | (0xFFFFFFFF - bits)
    counts = np.bincount(query, minlength=n_queries)
    last = np.cumsum(counts) - counts + np.minimum(counts, k) - 1  # of the k best of each query, in sorted order
    limit = np.sort(key)[np.maximum(last, 0)] if len(key) else np.zeros(n_queries, np.int64)
    return np.asarray(key <= limit[query])


def weigh(
    hits: Hits,
    attention: Float32Array,
    *,
    k: int,
    min_similarity: float,
    reference: float,
    power: float,
    exponent: float,
) -> Hits:
    """What `neighbours` found with the weight of the vote, a(q) * max(0, s - r(q)) ** power, in place of its score.

    Args:
        hits: from `neighbours` with the same `k` and `min_similarity`; what weighs nothing is left out.
        attention: float32 (N,), scores of the query's features.
        exponent: of the attention; the others as in `SearchOptions`.
    """
    N = len(attention)
    least = np.full(N, np.inf, np.float32)
    np.minimum.at(least, hits.query, hits.score)
    many = np.bincount(hits.query, minlength=N) >= k
    zero = np.full(N, min_similarity, np.float64)
    zero[many] += reference * (least[many] - min_similarity)
    share = np.maximum(attention.astype(np.float64), 0.0) ** exponent
    mean = share.mean() if N else 0.0
    share = share / mean if mean > 0 and np.isfinite(mean) else np.ones(N)
    gain = hits.score - zero[hits.query]
    weight = (share[hits.query] * np.maximum(gain, 0.0) ** power).astype(np.float32)
    return hits._replace(score=weight).take(gain > 0)


def count_votes(snapshot: IndexSnapshot, hits: Hits, *, burst: bool, length_norm: bool) -> Float64Array:
    """Votes of every slot, float64 (S,), from hits and their weights (`weigh`); the arguments as in `SearchOptions`."""
    chosen, times = voters(hits)
    weight = hits.score[chosen].astype(np.float64)
    if burst:
        weight /= np.sqrt(times)
    votes = np.bincount(hits.slot[chosen], weight, minlength=len(snapshot.image_ids)).astype(np.float64)
    return np.asarray(votes / np.sqrt(np.maximum(snapshot.counts, 1))) if length_norm else votes


def voters(hits: Hits) -> tuple[Int64Array, Int64Array]:
    """Of every (query, image) the best hit: indices by query and slot, and how many of them are of the same feature."""
    lib = native.library()
    if lib is not None:
        return native.pick_voters(lib, hits)
    pair = hits.query << 32 | hits.slot
    order = np.lexsort((hits.feature, -hits.score, pair))  # the best feature of each (query, image) comes first
    ordered = pair[order]
    chosen = order[np.r_[True, ordered[1:] != ordered[:-1]][: len(ordered)]]
    _, inverse, times = np.unique(hits.feature[chosen], return_inverse=True, return_counts=True)
    return chosen, times[inverse]


def global_similarity(snapshot: IndexSnapshot, descriptor: Float32Array) -> Float64Array:
    """float64 (S,), cosine of the global descriptors; 0 where either has none."""
    S, G = snapshot.global_codes.shape
    if descriptor.shape != (G,):
        raise OptionError(f"a global descriptor {descriptor.shape}; the index has dimension {G}")
    query, lib = l2_normalise(descriptor), native.library()
    if lib is not None:
        return (native.inner_products(lib, snapshot.global_codes, query) * snapshot.global_scale).astype(np.float64)
    similarity: NDArray[np.float64] = np.zeros(S)
    for i in range(0, S, _GLOBAL_CHUNK):
        part = slice(i, i + _GLOBAL_CHUNK)
        similarity[part] = snapshot.global_codes[part].astype(np.float32) @ query * snapshot.global_scale[part]
    return similarity
