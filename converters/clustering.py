"""k-means, product quantiser and OPQ: numpy, seeded, sums in a fixed order.

Sources: Jegou et al., TPAMI 2011 (product quantisation of residuals); Ge et al., CVPR 2013 (OPQ, the
non-parametric solution).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from delf_edge.types import Float32Array, Float64Array, Int32Array

_BLOCK_BYTES = 16 << 20  # of one block of a product of all rows with all centroids


def unit(x: NDArray[Any]) -> Float32Array:
    """Rows of (N, D) scaled to unit L2 norm; zero rows stay zero."""
    norms = np.linalg.norm(x, axis=1, keepdims=True)
    return np.asarray(x / np.maximum(norms, 1e-12), np.float32)


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


def _update(
    x: Float32Array, words: Int32Array, score: Float32Array, old: Float32Array, spherical: bool
) -> Float32Array:
    k = len(old)
    sums, counts = _cluster_sums(x, words, k)
    new = np.where(counts[:, None] > 0, sums / np.maximum(counts, 1)[:, None], old)
    empty = np.flatnonzero(counts == 0)
    if len(empty):  # an empty cluster starts again at one of the rows that are worst served now
        new[empty[: len(x)]] = x[np.argsort(score, kind="stable")[: len(empty)]]
    return unit(new) if spherical else np.asarray(new, np.float32)


def kmeans(
    x: Float32Array,
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
    if len(x) < k:
        raise ValueError(f"{k} centroids need at least as many descriptors, got {len(x)}; lower n_words or add photos")
    chosen = np.sort(np.random.default_rng(seed).permutation(len(x))[:k])
    centroids = x[chosen].copy() if start is None else start
    for _ in range(iterations):
        words, score = assign(x, centroids)
        centroids = _update(x, words, score, centroids, spherical)
    return centroids


def tree_kmeans(x: Float32Array, k: int, *, iterations: int = 8, refine: int = 1, seed: int = 1) -> Float32Array:
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
    if len(x) < k or k < 4:
        return kmeans(x, k, iterations=iterations + refine, seed=seed)  # too small to cut, or the error of kmeans
    top = kmeans(x, int(np.sqrt(k)), iterations=iterations, seed=seed)
    words = assign(x, top)[0]
    counts = np.bincount(words, minlength=len(top))
    shares = _shares(counts, k)
    order, ends = np.argsort(words, kind="stable"), np.cumsum(counts)
    leaves = [
        kmeans(x[order[end - n : end]], int(share), iterations=iterations, seed=seed + i)
        for i, (n, end, share) in enumerate(zip(counts, ends, shares, strict=True))
        if share
    ]
    return kmeans(x, k, iterations=refine, seed=seed, start=np.concatenate(leaves))


def _shares(counts: NDArray[np.int64], k: int) -> NDArray[np.int64]:
    """k split in proportion to `counts`, by largest remainder; a cluster never gets more than it has rows."""
    exact = counts * (k / counts.sum())
    shares = np.floor(exact).astype(np.int64)
    shares[np.argsort(shares - exact, kind="stable")[: k - shares.sum()]] += 1
    return shares


def pq_encode(x: Float32Array, pq: Float32Array) -> NDArray[np.uint8]:
    """Codes uint8 (N, M) of rows (N, D) with codewords (M, 256, D/M)."""
    m, _, d = pq.shape
    parts = [assign(np.ascontiguousarray(x[:, i * d : (i + 1) * d]), pq[i])[0] for i in range(m)]
    return np.stack(parts, axis=1).astype(np.uint8)


def pq_decode(codes: NDArray[np.uint8], pq: Float32Array) -> Float32Array:
    """Rows (N, D) of codes (N, M)."""
    n, m = codes.shape
    return np.ascontiguousarray(pq[np.arange(m), codes].reshape(n, -1))


def fit_pq(x: Float32Array, code_size: int, *, iterations: int = 20, seed: int = 1) -> Float32Array:
    """Codewords float32 (M, 256, D/M) of rows (N, D).

    Raises:
        ValueError: fewer than 256 rows.
    """
    d = x.shape[1] // code_size
    parts = [np.ascontiguousarray(x[:, i * d : (i + 1) * d]) for i in range(code_size)]
    return np.stack([kmeans(p, 256, iterations=iterations, seed=seed + i) for i, p in enumerate(parts)])


def fit_opq(
    x: Float32Array, code_size: int, *, iterations: int = 20, seed: int = 1
) -> tuple[Float32Array, Float32Array]:
    """Rotation float32 (D, D) and codewords (M, 256, D/M): y = rotation x is what PQ sees.

    Alternates between the codewords (one Lloyd step each) and the rotation that fits them best (orthogonal
    Procrustes). It starts from plain PQ, so its error on `x` is not above plain PQ's by more than rounding.
    """
    rotation = np.eye(x.shape[1])
    pq = fit_pq(x, code_size, iterations=max(1, iterations // 2), seed=seed)
    d = x.shape[1] // code_size
    outer = x.astype(np.float64).T
    for _ in range(iterations):
        y = np.asarray(x @ rotation.T.astype(np.float32), np.float32)
        parts = []
        for i in range(code_size):
            part = np.ascontiguousarray(y[:, i * d : (i + 1) * d])
            words, score = assign(part, pq[i])
            parts.append(_update(part, words, score, pq[i], spherical=False))
        pq = np.stack(parts)
        u, _, vt = np.linalg.svd(outer @ pq_decode(pq_encode(y, pq), pq))
        rotation = (u @ vt).T
    return np.asarray(rotation, np.float32), pq
