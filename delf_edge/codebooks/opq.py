"""Product quantiser and OPQ: numpy, seeded, sums in a fixed order, of rows that may lie in parts (`partitions.py`).

Sources: Jegou et al., TPAMI 2011 (product quantisation of residuals); Ge et al., CVPR 2013 (OPQ, the
non-parametric solution).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from delf_edge.codebooks.kmeans import assign, lloyd, pick_rows
from delf_edge.codebooks.partitions import Parts, as_parts
from delf_edge.types import Float32Array, Float64Array


@dataclass(frozen=True, slots=True, eq=False)
class Columns:
    """Pieces of D/M columns, as the product quantiser cuts them.

    Attributes:
        n: M, number of pieces.
        turn: float32 (D, D), what rows are multiplied with before; None: nothing.
    """

    n: int
    turn: Float32Array | None = None

    def turned(self, x: Float32Array) -> Float32Array:
        """The rows before they are cut."""
        return x if self.turn is None else np.asarray(x @ self.turn, np.float32)

    def __call__(self, x: Float32Array) -> list[Float32Array]:
        """The columns of each piece."""
        y, d = self.turned(x), x.shape[1] // self.n
        return [np.ascontiguousarray(y[:, i * d : (i + 1) * d]) for i in range(self.n)]


def pq_encode(x: Float32Array, pq: Float32Array) -> NDArray[np.uint8]:
    """Codes uint8 (N, M) of rows (N, D) with codewords (M, 256, D/M)."""
    m, _, d = pq.shape
    parts = [assign(np.ascontiguousarray(x[:, i * d : (i + 1) * d]), pq[i])[0] for i in range(m)]
    return np.stack(parts, axis=1).astype(np.uint8)


def pq_decode(codes: NDArray[np.uint8], pq: Float32Array) -> Float32Array:
    """Rows (N, D) of codes (N, M)."""
    n, m = codes.shape
    return np.ascontiguousarray(pq[np.arange(m), codes].reshape(n, m * pq.shape[2]))


def fit_pq(x: Float32Array | Parts, code_size: int, *, iterations: int = 20, seed: int = 1) -> Float32Array:
    """Codewords float32 (M, 256, D/M) of rows (N, D).

    Raises:
        ValueError: fewer than 256 rows.
    """
    rows, split = as_parts(x), Columns(code_size)
    sizes = np.repeat(np.array(rows.sizes(), np.int64)[:, None], code_size, axis=1)
    if (n := int(sizes[:, 0].sum())) < 256:
        raise ValueError(f"256 codewords need at least as many descriptors, got {n}; add photos")
    start = pick_rows(rows, split, sizes, [256] * code_size, range(seed, seed + code_size))
    return np.stack(lloyd(rows, split, start, iterations=iterations))


def fit_opq(
    x: Float32Array | Parts, code_size: int, *, iterations: int = 20, seed: int = 1
) -> tuple[Float32Array, Float32Array]:
    """Rotation float32 (D, D) and codewords (M, 256, D/M): y = rotation x is what PQ sees.

    Alternates between the codewords (one Lloyd step each) and the rotation that fits them best (orthogonal
    Procrustes). It starts from plain PQ, so its error on `x` is not above plain PQ's by more than rounding.
    """
    rows = as_parts(x)
    pq = fit_pq(rows, code_size, iterations=max(1, iterations // 2), seed=seed)
    rotation = np.eye(code_size * pq.shape[2])
    for _ in range(iterations):
        split = Columns(code_size, rotation.T.astype(np.float32))
        pq = np.stack(lloyd(rows, split, list(pq), iterations=1))
        products = rows.map(_products, (split, pq))
        u, _, vt = np.linalg.svd(sum(products, start=next(products)))
        rotation = (u @ vt).T
    return np.asarray(rotation, np.float32), pq


def _products(x: Float32Array, argument: tuple[Columns, Float32Array]) -> Float64Array:
    """Outer products of rows with what their codes give back, summed: float64 (D, D)."""
    split, pq = argument
    return np.asarray(x.astype(np.float64).T @ pq_decode(pq_encode(split.turned(x), pq), pq))
