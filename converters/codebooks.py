"""Fit what turns raw descriptors into words and codes: PCA, coarse centroids, product quantiser, whitening.

numpy only. Every fit is seeded, sums in a fixed order and gives the same bits when repeated on the same machine
with the same number of BLAS threads. Data comes as a re-readable stream of chunks: the covariance is accumulated
over all of it, k-means and PQ see a bounded, seeded sample.

::

    raw (N, C) ── L2, - mean, basis, L2 ──> x (N, D) ── nearest centroid ──> residual ── rotation, PQ ──> codes (N, M)

Sources: Jegou et al., TPAMI 2011 (product quantisation of residuals); Ge et al., CVPR 2013 (OPQ, the
non-parametric solution); Jegou and Chum, ECCV 2012 (PCA-whitening).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from delf_edge.types import Codebook, Float32Array, Float64Array, Int32Array

Stream = Callable[[], Iterable[Float32Array]]  # each call starts over
_BLOCK_BYTES = 16 << 20  # of one block of a product of all rows with all centroids


@dataclass(frozen=True, slots=True)
class CodebookOptions:
    """What to fit.

    Attributes:
        dim: D, dimension of a local descriptor.
        whiten: exponent of the PCA whitening, 0 (none) to 1 (full).
        n_words: K, coarse centroids (at most 65,536: a word is a uint16).
        spherical: keep coarse centroids at unit length instead of at the mean, which leaves larger residuals.
        code_size: M, bytes of a PQ code; divides D.
        opq: learn a rotation of the residuals before PQ.
        sample: rows that k-means and PQ see at most.
        iterations: Lloyd iterations on either level of the coarse centroids.
        refine: Lloyd iterations over all of them afterwards.
        pq_iterations: iterations of PQ or OPQ.
        global_dim: G, dimension of the global descriptor.
        global_whiten: exponent of its whitening, 0 to 1.
        centroid_storage: "int8" (with a scale per row) or "float16".
        seed: seed of everything random.
    """

    dim: int = 64
    whiten: float = 0.0
    n_words: int = 16384
    spherical: bool = False
    code_size: int = 16
    opq: bool = True
    sample: int = 250_000
    iterations: int = 8
    refine: int = 1
    pq_iterations: int = 12
    global_dim: int = 256
    global_whiten: float = 0.5
    centroid_storage: str = "int8"
    seed: int = 1

    def __post_init__(self) -> None:
        if self.dim % self.code_size:
            raise ValueError(
                f"PQ cuts {self.dim} dimensions into {self.code_size} parts: choose a divisor of {self.dim}"
            )
        if not 1 <= self.n_words <= 65536:
            raise ValueError(f"n_words is {self.n_words}, a word is a uint16: choose 1 to 65536")
        if self.centroid_storage not in ("int8", "float16"):
            raise ValueError(f"centroid_storage is {self.centroid_storage!r}, choose 'int8' or 'float16'")


def unit(x: NDArray[Any]) -> Float32Array:
    """Rows of (N, D) scaled to unit L2 norm; zero rows stay zero."""
    norms = np.linalg.norm(x, axis=1, keepdims=True)
    return np.asarray(x / np.maximum(norms, 1e-12), np.float32)


class Moments:
    """Mean and covariance of a stream of rows, in float64."""

    def __init__(self, dim: int) -> None:
        self.n = 0
        self._sum = np.zeros(dim)
        self._outer = np.zeros((dim, dim))

    def add(self, x: NDArray[Any]) -> None:
        """Add rows (n, C)."""
        rows = np.asarray(x, np.float64)
        self.n += len(rows)
        self._sum += rows.sum(axis=0)
        self._outer += rows.T @ rows

    @property
    def mean(self) -> Float64Array:
        """float64 (C,).

        Raises:
            ValueError: fewer than two rows were added.
        """
        if self.n < 2:
            raise ValueError(f"PCA needs at least 2 rows, got {self.n}")
        return np.asarray(self._sum / self.n)

    @property
    def covariance(self) -> Float64Array:
        """float64 (C, C)."""
        mean = self.mean
        return np.asarray(self._outer / self.n - np.outer(mean, mean))


def pca(moments: Moments, dim: int, whiten: float = 0.0) -> tuple[Float32Array, Float32Array]:
    """Mean (C,) and basis (D, C), directions of largest variance first.

    Args:
        moments: moments of the L2-normalised data.
        dim: D; more than C directions do not exist.
        whiten: 0 keeps the variances, 1 makes them equal: row i is divided by its standard deviation to that power.

    Raises:
        ValueError: `dim` is larger than C.
    """
    mean, covariance = moments.mean, moments.covariance
    if dim > len(mean):
        raise ValueError(f"PCA to {dim} dimensions needs at least as many channels, the data has {len(mean)}")
    values, vectors = np.linalg.eigh(covariance)
    basis = vectors[:, ::-1][:, :dim].T
    basis = basis * np.sign(basis[np.arange(dim), np.abs(basis).argmax(axis=1)])[:, None]  # eigenvectors have no sign
    if whiten:
        # Directions that the sample hardly covers would be blown up: bound them at 1/1000 of the largest variance.
        floor = max(float(values[-1]) * 1e-3, 1e-12)
        basis = basis / np.maximum(values[::-1][:dim], floor)[:, None] ** (0.5 * whiten)
    return mean.astype(np.float32), np.ascontiguousarray(basis, np.float32)


def reservoir(stream: Iterable[Float32Array], size: int, seed: int) -> Float32Array:
    """A uniform sample of at most `size` rows of a stream, in stream order (Vitter's algorithm R, by chunk).

    Every row gets a random key; the `size` smallest keys stay, so the result does not depend on the chunking.
    """
    rng = np.random.default_rng(seed)
    rows: list[Float32Array] = []
    keys: list[Float64Array] = []
    waiting = 0
    for chunk in stream:
        rows.append(np.asarray(chunk, np.float32))
        keys.append(rng.random(len(chunk)))
        waiting += len(chunk)
        if waiting > 2 * size:
            rows, keys = _smallest(rows, keys, size)
            waiting = size
    if not waiting:
        raise ValueError("the stream of descriptors is empty: no photo gave a feature")
    return _smallest(rows, keys, size)[0][0]


def _smallest(
    rows: list[Float32Array], keys: list[Float64Array], size: int
) -> tuple[list[Float32Array], list[Float64Array]]:
    all_rows, all_keys = np.concatenate(rows), np.concatenate(keys)
    keep = np.sort(np.argsort(all_keys, kind="stable")[:size])
    return [all_rows[keep]], [all_keys[keep]]


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


def compress_rows(x: Float32Array, storage: str) -> dict[str, NDArray[Any]]:
    """Rows (K, D) as float16, or as int8 with a float32 scale per row.

    Returns:
        {"values": float16 (K, D)} or {"values": int8 (K, D), "scale": float32 (K, 1)}; a row is values * scale.
    """
    if storage == "float16":
        return {"values": x.astype(np.float16)}
    scale = np.maximum(np.abs(x).max(axis=1, keepdims=True), 1e-12) / np.float32(127)
    return {"values": np.rint(x / scale).astype(np.int8), "scale": scale.astype(np.float32)}


def expand_rows(stored: dict[str, NDArray[Any]]) -> Float32Array:
    """Rows float32 (K, D) of what `compress_rows` gave."""
    values = stored["values"].astype(np.float32)
    return values * stored["scale"] if "scale" in stored else values


def project(raw: Float32Array, mean: Float32Array, basis: Float32Array) -> Float32Array:
    """Raw descriptors (N, C) to unit descriptors (N, D): L2, minus mean, basis, L2."""
    return unit((unit(raw) - mean) @ basis.T)


@dataclass(frozen=True, slots=True, eq=False)
class Fit:
    """A fitted codebook as it is stored, and what the compression lost.

    Attributes:
        codebook: the codebook as a device will load it, rounding of the stored form included.
        arrays: what to store, by name.
        report: figures: rows seen, variance kept, losses.
    """

    codebook: Codebook
    arrays: dict[str, NDArray[Any]]
    report: dict[str, float]


def fit(local: Stream, pooled: Float32Array, options: CodebookOptions) -> Fit:
    """Fit everything.

    Args:
        local: each call yields chunks of raw local descriptors, float32 (n, C).
        pooled: raw pooled global vectors, float32 (images, Cg).
        options: what to fit.

    Raises:
        ValueError: too little data for the options; the message says what is missing.
    """
    moments = _moments(unit(chunk) for chunk in local())
    mean, basis = pca(moments, options.dim, options.whiten)
    sample = reservoir((project(c, mean, basis) for c in local()), options.sample, options.seed)
    words = tree_kmeans(
        sample, options.n_words, iterations=options.iterations, refine=options.refine, seed=options.seed
    )
    words = unit(words) if options.spherical else words
    stored = compress_rows(words, options.centroid_storage)
    centroids = expand_rows(stored)  # PQ is fitted on residuals to what the device will load
    few = sample[:: max(1, len(sample) // 32768)]
    residual = few - centroids[assign(few, centroids)[0]]
    if options.opq:
        rotation, pq = fit_opq(residual, options.code_size, iterations=options.pq_iterations, seed=options.seed)
    else:
        rotation = np.eye(options.dim, dtype=np.float32)
        pq = fit_pq(residual, options.code_size, iterations=options.pq_iterations, seed=options.seed)
    pq16 = pq.astype(np.float16)
    global_moments = _moments([unit(pooled)])
    global_mean, global_basis = pca(global_moments, min(options.global_dim, pooled.shape[1]), options.global_whiten)
    stored_basis = compress_rows(global_basis, "int8")
    codebook = Codebook(
        pca_mean=mean,
        pca_basis=basis,
        centroids=centroids,
        pq=pq16.astype(np.float32),
        rotation=rotation,
        global_mean=global_mean,
        global_basis=expand_rows(stored_basis),
    )
    arrays: dict[str, NDArray[Any]] = {"pca_mean": mean, "pca_basis": basis, "pq": pq16, "rotation": rotation}
    arrays |= {"global_mean": global_mean}
    arrays |= _named("centroids", stored) | _named("global_basis", stored_basis)
    return Fit(codebook, arrays, _report(codebook, moments, sample, few, words, pooled, global_basis))


def _named(name: str, stored: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    return {name if key == "values" else f"{name}_{key}": value for key, value in stored.items()}


def _moments(chunks: Iterable[Float32Array]) -> Moments:
    iterator: Iterator[Float32Array] = iter(chunks)
    first = next(iterator, None)
    if first is None:
        raise ValueError("the stream of descriptors is empty: no photo gave a feature")
    moments = Moments(first.shape[1])
    moments.add(first)
    for chunk in iterator:
        moments.add(chunk)
    return moments


def _report(
    codebook: Codebook,
    moments: Moments,
    sample: Float32Array,
    few: Float32Array,
    words: Float32Array,
    pooled: Float32Array,
    global_basis: Float32Array,
) -> dict[str, float]:
    """What each lossy step costs, as cosines to the input of that step."""
    basis = codebook.pca_basis / np.linalg.norm(codebook.pca_basis, axis=1, keepdims=True)
    kept = np.einsum("dc,ce,de->", basis, moments.covariance, basis) / np.trace(moments.covariance)
    chosen = few[:4096]
    nearest = assign(chosen, codebook.centroids)[0]
    coarse = codebook.centroids[nearest]
    rotated = np.asarray((chosen - coarse) @ codebook.rotation.T, np.float32)
    decoded = coarse + pq_decode(pq_encode(rotated, codebook.pq), codebook.pq) @ codebook.rotation
    whole, short = (unit((unit(pooled) - codebook.global_mean) @ b.T) for b in (global_basis, codebook.global_basis))
    return {
        "descriptors_seen": float(moments.n),
        "descriptors_sampled": float(len(sample)),
        "images": float(len(pooled)),
        "pca_variance_kept": float(kept),
        "centroid_storage_cosine": _mean_cosine(words, codebook.centroids),
        "word_changed_by_storage": float(np.mean(assign(chosen, words)[0] != nearest)),
        "word_cosine": _mean_cosine(chosen, coarse),
        "code_cosine": _mean_cosine(chosen, decoded),
        "global_basis_storage_cosine": _mean_cosine(whole, short),
    }


def _mean_cosine(a: NDArray[Any], b: NDArray[Any]) -> float:
    return float(np.einsum("nd,nd->n", unit(a), unit(b)).mean())
