"""k-means: numpy, seeded, sums in a fixed order.

Rows may lie in parts (`partitions.py`). Every step asks each part for sums and counts and adds them up; nothing
else of the data is ever in one place.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from delf_edge.arrays import unit
from delf_edge.codebooks.partitions import Parts, as_parts
from delf_edge.types import Float32Array, Float64Array, Int32Array

IntArray = NDArray[np.int64]
Sets = list[Float32Array]  # the centroids of every piece

_BLOCK_BYTES = 16 << 20  # of one block of a product of all rows with all centroids


def assign(x: Float32Array, centroids: Float32Array) -> tuple[Int32Array, Float32Array]:
    """Nearest centroid by L2 distance.

    Returns:
        int32 (N,) index, the smallest on a tie; float32 (N,) of x.c - |c|^2 / 2, larger is nearer.
    """
    words, score = np.empty(len(x), np.int32), np.empty(len(x), np.float32)
    half = np.float32(-0.5) * np.einsum("kd,kd->k", centroids, centroids)
    # One more column holds -|c|^2 / 2, so that the product is the score and needs no second pass over the block.
    right = np.ascontiguousarray(np.concatenate([centroids, half[:, None]], axis=1).T)
    step = min(16384, max(128, _BLOCK_BYTES // (4 * max(1, len(centroids)))))
    for i in range(0, len(x), step):
        rows = x[i : i + step]
        product = np.concatenate([rows, np.ones((len(rows), 1), np.float32)], axis=1) @ right
        best = product.argmax(axis=1)
        words[i : i + step] = best
        score[i : i + step] = product[np.arange(len(best)), best]
    return words, score


def _cluster_sums(x: Float32Array, words: Int32Array, k: int) -> tuple[Float64Array, NDArray[np.int64]]:
    """Sum of the rows of each cluster (float64, in row order) and their number."""
    counts = np.bincount(words, minlength=k)
    order = np.argsort(words, kind="stable")
    sums = np.zeros((k, x.shape[1]))
    present = np.flatnonzero(counts)
    if len(present):
        starts = np.concatenate([[0], np.cumsum(counts[present])[:-1]])
        sums[present] = np.add.reduceat(x[order].astype(np.float64), starts, axis=0)
    return sums, counts


class Split(Protocol):
    """Cuts rows into pieces, each of which is clustered for itself."""

    def __call__(self, x: Float32Array) -> list[Float32Array]:
        """The pieces of a part, always as many."""
        ...


class Uncut:
    """All rows are one piece."""

    def __call__(self, x: Float32Array) -> list[Float32Array]:
        """The rows."""
        return [x]


@dataclass(frozen=True, slots=True, eq=False)
class Nearest:
    """The rows that are nearest to each of some centroids."""

    centroids: Float32Array

    def __call__(self, x: Float32Array) -> list[Float32Array]:
        """The rows of each centroid, in their order."""
        words = assign(x, self.centroids)[0]
        counts = np.bincount(words, minlength=len(self.centroids))
        order, ends = np.argsort(words, kind="stable"), np.cumsum(counts)
        return [x[order[end - n : end]] for n, end in zip(counts, ends, strict=True)]


def _piece_sizes(x: Float32Array, split: Split) -> list[int]:
    return [len(piece) for piece in split(x)]


def _picked(x: Float32Array, argument: tuple[tuple[Split, list[IntArray]], IntArray]) -> list[Float32Array]:
    """Rows of each piece by their rank over all parts; `before` rows of the piece lie in earlier parts."""
    (split, ranks), before = argument
    local = [wanted - n for wanted, n in zip(ranks, before, strict=True)]
    return [p[own[(own >= 0) & (own < len(p))]] for p, own in zip(split(x), local, strict=True)]


def _statistics(x: Float32Array, argument: tuple[Split, Sets]) -> list[tuple[Float64Array, IntArray]]:
    """Sums and counts of the clusters of each piece."""
    split, sets = argument
    return [
        _cluster_sums(piece, assign(piece, c)[0] if len(c) else np.zeros(0, np.int32), len(c))
        for piece, c in zip(split(x), sets, strict=True)
    ]


def _worst_served(x: Float32Array, argument: tuple[Split, Sets, list[int]]) -> list[tuple[Float32Array, Float32Array]]:
    """Of each piece the `n` rows that fit worst: their scores (see `assign`), worst first, and the rows."""
    split, sets, wanted = argument
    found = []
    for piece, centroids, n in zip(split(x), sets, wanted, strict=True):
        score = assign(piece, centroids)[1] if n else np.zeros(0, np.float32)
        order = np.argsort(score, kind="stable")[:n]
        found.append((score[order], piece[order]))
    return found


def pick_rows(rows: Parts, split: Split, sizes: IntArray, ks: Sequence[int], seeds: Sequence[int]) -> Sets:
    """k random rows of each piece, in their order; `sizes` (parts, pieces) are the rows of the pieces."""
    totals = sizes.sum(axis=0)
    ranks = [
        np.sort(np.random.default_rng(seed).permutation(n)[:k]) for seed, n, k in zip(seeds, totals, ks, strict=True)
    ]
    before = list(np.cumsum(sizes, axis=0) - sizes)
    found = list(rows.map(_picked, (split, ranks), before))
    return [np.concatenate(pieces) for pieces in zip(*found, strict=True)]


def lloyd(rows: Parts, split: Split, sets: Sets, *, iterations: int, spherical: bool = False) -> Sets:
    """Move the centroids of every piece to the means of their rows, `iterations` times.

    Args:
        rows: the data.
        split: cuts it into pieces.
        sets: float32 (k, D) of each piece; k may be 0.
        iterations: how often.
        spherical: keep centroids at unit length.
    """
    for _ in range(iterations):
        totals = _totals(rows.map(_statistics, (split, sets)))
        empty = [np.flatnonzero(counts == 0) for _, counts in totals]
        wanted = [len(e) for e in empty]
        worst: list[Float32Array] = [np.zeros((0, 0), np.float32)] * len(sets)
        if any(wanted):  # an empty cluster starts again at one of the rows that are worst served now
            found = list(rows.map(_worst_served, (split, sets, wanted)))
            worst = [_first_of(piece, n) for piece, n in zip(zip(*found, strict=True), wanted, strict=True)]
        moved = []
        for (sums, counts), old, gone, again in zip(totals, sets, empty, worst, strict=True):
            new = np.where(counts[:, None] > 0, sums / np.maximum(counts, 1)[:, None], old)
            if len(gone):
                new[gone[: len(again)]] = again
            moved.append(unit(new) if spherical else np.asarray(new, np.float32))
        sets = moved
    return sets


def _totals(parts: Iterable[list[tuple[Float64Array, IntArray]]]) -> list[tuple[Float64Array, IntArray]]:
    """Statistics of all parts, added up in their order."""
    iterator = iter(parts)
    totals = next(iterator)
    for part in iterator:
        totals = [(s + more_s, n + more_n) for (s, n), (more_s, more_n) in zip(totals, part, strict=True)]
    return totals


def _first_of(parts: Sequence[tuple[Float32Array, Float32Array]], n: int) -> Float32Array:
    """The n rows of the lowest scores; of equal ones the first part's."""
    scores, rows = (np.concatenate(column) for column in zip(*parts, strict=True))
    return np.asarray(rows[np.argsort(scores, kind="stable")[:n]])


def kmeans(
    x: Float32Array | Parts,
    k: int,
    *,
    iterations: int = 10,
    seed: int = 1,
    spherical: bool = False,
    start: Float32Array | None = None,
) -> Float32Array:
    """Centroids (k, D) of rows (N, D) by Lloyd's algorithm.

    Args:
        x: float32 (N, D); unit rows for the spherical variant.
        k: number of centroids.
        iterations: Lloyd iterations.
        seed: picks the rows to start from.
        spherical: keep centroids at unit length (Dhillon and Modha 2001).
        start: centroids to start from instead of random rows.

    Raises:
        ValueError: fewer rows than centroids.
    """
    rows = as_parts(x)
    sizes = np.array(rows.sizes(), np.int64)[:, None]
    if sizes.sum() < k:
        raise ValueError(
            f"{k} centroids need at least as many descriptors, got {sizes.sum()}; lower n_words or add photos"
        )
    sets = pick_rows(rows, Uncut(), sizes, [k], [seed]) if start is None else [start]
    return lloyd(rows, Uncut(), sets, iterations=iterations, spherical=spherical)[0]


def tree_kmeans(
    x: Float32Array | Parts, k: int, *, iterations: int = 8, refine: int = 1, seed: int = 1
) -> Float32Array:
    """Centroids (k, D) by k-means in two levels: sqrt(k) clusters, each cut into its share of the k.

    A Lloyd iteration costs N k D operations, on two levels only 2 N sqrt(k) D. `refine` iterations over all k
    centroids then move what the first level's borders cut apart.

    Args:
        x: float32 (N, D).
        k: number of centroids.
        iterations: Lloyd iterations on either level.
        refine: Lloyd iterations with all centroids.
        seed: of both levels.

    Raises:
        ValueError: fewer rows than centroids.
    """
    rows = as_parts(x)
    if sum(rows.sizes()) < k or k < 4:
        return kmeans(rows, k, iterations=iterations + refine, seed=seed)  # too small to cut, or the error of kmeans
    split = Nearest(kmeans(rows, int(np.sqrt(k)), iterations=iterations, seed=seed))
    sizes = np.array(list(rows.map(_piece_sizes, split)), np.int64)
    shares = _shares(sizes.sum(axis=0), k).tolist()
    leaves = pick_rows(rows, split, sizes, shares, range(seed, seed + len(shares)))
    leaves = lloyd(rows, split, leaves, iterations=iterations)
    return kmeans(rows, k, iterations=refine, seed=seed, start=np.concatenate(leaves))


def _shares(counts: NDArray[np.int64], k: int) -> NDArray[np.int64]:
    """k split in proportion to `counts`, by largest remainder; a cluster never gets more than it has rows."""
    exact = counts * (k / counts.sum())
    shares: IntArray = np.floor(exact).astype(np.int64)
    shares[np.argsort(shares - exact, kind="stable")[: k - shares.sum()]] += 1
    return shares
