"""Fit what turns raw descriptors into words and codes: PCA, coarse centroids, product quantiser, whitening.

numpy only. Every fit is seeded, sums in a fixed order and gives the same bits when repeated on the same machine
with the same number of BLAS threads. Data comes as a re-readable stream of chunks: the covariance is accumulated
over all of it, k-means and PQ see a bounded, seeded sample. On a cluster (`distributed.partitioned_fit`) moments and
sample come from its workers, and `quantise` does the rest with the statistics of their parts.

::

    raw (N, C) ── L2, - mean, basis, L2 ──> x (N, D) ── nearest centroid ──> residual ── rotation, PQ ──> codes (N, M)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from delf_edge.arrays import unit
from delf_edge.codebooks.kmeans import assign, tree_kmeans
from delf_edge.codebooks.opq import fit_opq, fit_pq, pq_decode, pq_encode
from delf_edge.codebooks.partitions import Parts, Whole, every, head
from delf_edge.codebooks.projections import Moments, Projection, matched_projection, moments_of, pca, project
from delf_edge.types import Codebook, Float32Array, Float64Array

Stream = Callable[[], Iterable[Float32Array]]  # each call starts over
PROJECTIONS = ("pca", "matched")
_PQ_ROWS = 32768  # rows that PQ sees, up to twice as many
_REPORT_ROWS = 4096  # rows whose loss the report gives


@dataclass(frozen=True, slots=True)
class CodebookOptions:
    """What to fit.

    Attributes:
        dim: D, dimension of a local descriptor.
        projection: "pca" (directions of large variance) or "matched" (of large variance against the variance
            between descriptors of one point in two photos).
        whiten: exponent of the whitening, 0 (none) to 1 (full): of the variances, or of those between matches.
        n_words: K, coarse centroids (at most 65,536: a word is a uint16). 0: as many as the descriptors allow, a
            power of two with at least 8 descriptors a word, at most 16,384.
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
    projection: str = "pca"
    whiten: float = 0.0
    n_words: int = 0
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
        if not 0 <= self.n_words <= 65536:
            raise ValueError(f"n_words is {self.n_words}, a word is a uint16: choose 1 to 65536, or 0 for automatic")
        if self.projection not in PROJECTIONS:
            raise ValueError(f"projection is {self.projection!r}, choose {' or '.join(map(repr, PROJECTIONS))}")
        if self.centroid_storage not in ("int8", "float16"):
            raise ValueError(f"centroid_storage is {self.centroid_storage!r}, choose 'int8' or 'float16'")


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


def fit(
    local: Stream,
    pooled: Float32Array,
    options: CodebookOptions,
    *,
    projection: Projection | None = None,
    matches: Callable[[], Iterable[tuple[Float32Array, Float32Array]]] | None = None,
) -> Fit:
    """Fit everything.

    Args:
        local: each call yields chunks of raw local descriptors, float32 (n, C).
        pooled: raw pooled global vectors, float32 (images, Cg).
        options: what to fit.
        projection: mean and basis of local descriptors to use instead of fitting them.
        matches: for `options.projection` "matched": yields raw descriptors of the same points in two photos.

    Raises:
        ValueError: too little data for the options; the message says what is missing.
    """
    moments = moments_of(unit(chunk) for chunk in local())
    mean, basis = projection or _fit_projection(moments, options, matches)
    sample = reservoir((project(c, mean, basis) for c in local()), options.sample, options.seed)
    return quantise(Whole(sample), moments, (mean, basis), moments_of([unit(pooled)]), pooled, options)


def quantise(
    sample: Parts,
    moments: Moments,
    projection: Projection,
    global_moments: Moments,
    pooled: Float32Array,
    options: CodebookOptions,
) -> Fit:
    """Fit words, codes and the projection of the global descriptor.

    Args:
        sample: projected descriptors (n, D), in parts.
        moments: of all raw descriptors, each of unit length.
        projection: mean and basis that the sample was projected with.
        global_moments: of all pooled vectors, each of unit length.
        pooled: some of the pooled vectors, for the report.
        options: what to fit.

    Raises:
        ValueError: as `fit`.
    """
    mean, basis = projection
    if basis.shape != (options.dim, len(moments.mean)) or mean.shape != (len(moments.mean),):
        raise ValueError(
            f"the projection has mean {mean.shape} and basis {basis.shape}; "
            f"the options and the network want {(len(moments.mean),)} and {(options.dim, len(moments.mean))}"
        )
    n = sum(sample.sizes())
    words = tree_kmeans(
        sample,
        options.n_words or automatic_words(n),
        iterations=options.iterations,
        refine=options.refine,
        seed=options.seed,
    )
    words = unit(words) if options.spherical else words
    stored = compress_rows(words, options.centroid_storage)
    centroids = expand_rows(stored)  # PQ is fitted on residuals to what the device will load
    few = every(sample, max(1, n // _PQ_ROWS))
    residual = few.derive(_residuals, centroids)
    if options.opq:
        rotation, pq = fit_opq(residual, options.code_size, iterations=options.pq_iterations, seed=options.seed)
    else:
        rotation = np.eye(options.dim, dtype=np.float32)
        pq = fit_pq(residual, options.code_size, iterations=options.pq_iterations, seed=options.seed)
    pq16 = pq.astype(np.float16)
    global_dim = min(options.global_dim, len(global_moments.mean))
    global_mean, global_basis = pca(global_moments, global_dim, options.global_whiten)
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
    arrays |= named_rows("centroids", stored) | named_rows("global_basis", stored_basis)
    seen = {"descriptors_seen": moments.n, "descriptors_sampled": n, "images": global_moments.n}
    losses = _losses(codebook, moments, head(few, _REPORT_ROWS), words, pooled, global_basis)
    return Fit(codebook, arrays, {name: float(value) for name, value in seen.items()} | losses)


def _residuals(x: Float32Array, centroids: Float32Array) -> Float32Array:
    return np.asarray(x - centroids[assign(x, centroids)[0]])


def _fit_projection(
    moments: Moments,
    options: CodebookOptions,
    matches: Callable[[], Iterable[tuple[Float32Array, Float32Array]]] | None,
) -> Projection:
    if options.projection == "pca":
        return pca(moments, options.dim, options.whiten)
    if matches is None:
        raise ValueError("a projection learnt from matches needs matches: several photos of each place")
    return matched_projection(moments, matches(), options.dim, options.whiten)


def automatic_words(descriptors: int) -> int:
    """The largest power of two that leaves 8 descriptors a word, 1 to 16,384."""
    return int(min(16384, 2 ** max(0, (descriptors // 8).bit_length() - 1)))


def named_rows(name: str, stored: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """What `compress_rows` gave, by the names that a codebook's file has for it."""
    return {name if key == "values" else f"{name}_{key}": value for key, value in stored.items()}


def _losses(
    codebook: Codebook,
    moments: Moments,
    chosen: Float32Array,
    words: Float32Array,
    pooled: Float32Array,
    global_basis: Float32Array,
) -> dict[str, float]:
    """What each lossy step costs, as cosines to the input of that step."""
    basis = codebook.pca_basis / np.linalg.norm(codebook.pca_basis, axis=1, keepdims=True)
    kept = np.einsum("dc,ce,de->", basis, moments.covariance, basis) / np.trace(moments.covariance)
    nearest = assign(chosen, codebook.centroids)[0]
    coarse = codebook.centroids[nearest]
    rotated = np.asarray((chosen - coarse) @ codebook.rotation.T, np.float32)
    decoded = coarse + pq_decode(pq_encode(rotated, codebook.pq), codebook.pq) @ codebook.rotation
    whole, short = (unit((unit(pooled) - codebook.global_mean) @ b.T) for b in (global_basis, codebook.global_basis))
    return {
        "words": float(len(words)),
        "pca_variance_kept": float(kept),
        "centroid_storage_cosine": _mean_cosine(words, codebook.centroids),
        "word_changed_by_storage": float(np.mean(assign(chosen, words)[0] != nearest)),
        "word_cosine": _mean_cosine(chosen, coarse),
        "code_cosine": _mean_cosine(chosen, decoded),
        "global_basis_storage_cosine": _mean_cosine(whole, short),
    }


def _mean_cosine(a: NDArray[Any], b: NDArray[Any]) -> float:
    return float(np.einsum("nd,nd->n", unit(a), unit(b)).mean())
