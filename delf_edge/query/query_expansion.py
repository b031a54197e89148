"""A ranked list helps itself: what looks like proven images rises, and images that look alike stand up for each other.

Both work on the global descriptors of the candidates alone, so they cost a small matrix product and nothing is stored::

    q' = q + sum over proven i of cos(q, g_i) ** alpha * g_i                      query expansion
    g'_c = g_c + sum over the `support` candidates j most like c of cos(g_c, g_j) ** 2 * g_j
    similarity'_c = max(<q, g_c>, <q', g'_c>), all unit L2

Query expansion is that of Radenovic et al., TPAMI 2018, section 3.3, over images that RANSAC has confirmed; the second
line is database-side augmentation (Arandjelovic and Zisserman, CVPR 2012; Gordo et al., IJCV 2017), with the candidates
as the database. Images of a landmark that share no surface with the query are found through those that do.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from delf_edge.arrays import l2_normalise
from delf_edge.bundle.calibration import Calibration
from delf_edge.types import Float32Array, Float64Array, Int32Array

POOL = 100  # candidates, the best first, that take part; the others keep their similarity


def proven(calibration: Calibration, n_inliers: NDArray[np.integer[Any]]) -> NDArray[np.intp]:
    """The candidates that join the query: at most `calibration.expansion`, with twice the inliers that say nothing.

    Args:
        calibration: a bundle's weights.
        n_inliers: int (n,), RANSAC inliers of the candidates, in the order of their score before verification.
    """
    enough = max(2 * calibration.floor, 12.0)
    return np.flatnonzero(n_inliers[:POOL] >= enough)[: calibration.expansion]


def expand(
    calibration: Calibration,
    query: Float32Array,
    known: Float32Array,
    similarity: Float64Array,
    n_inliers: Int32Array | NDArray[np.int64],
) -> Float64Array:
    """Similarities after query expansion and support.

    Args:
        calibration: says how many images take part (`expansion`, `support`); zeros leave everything as it is.
        query: float32 (G,), the query's global descriptor.
        known: float32 (n, G), unit L2, those of the candidates, the best first.
        similarity: float64 (n,), their cosines with the query.
        n_inliers: int (n,), their RANSAC inliers, 0 where not verified.

    Returns:
        float64 (n,), none less than it was.
    """
    known = known[:POOL]
    chosen = proven(calibration, n_inliers)
    if not len(known) or not (len(chosen) or calibration.support):
        return similarity
    asked, seen = l2_normalise(query), known
    if len(chosen):
        weight = np.maximum(similarity[chosen], 0.0) ** calibration.alpha
        asked = l2_normalise(asked + weight.astype(np.float32) @ known[chosen])
    neighbours = min(calibration.support, len(known) - 1)
    if neighbours > 0:
        alike = known @ known.T
        np.fill_diagonal(alike, 0.0)
        limit = np.partition(alike, -neighbours, axis=1)[:, -neighbours, None]
        seen = l2_normalise(known + np.where(alike >= limit, np.maximum(alike, 0.0) ** 2, 0.0) @ known)
    expanded = np.array(similarity, np.float64)
    expanded[: len(known)] = np.maximum(expanded[: len(known)], seen @ asked)
    return expanded
