"""Quantile regression as a linear program (Koenker and Bassett, Econometrica 1978)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.metrics.protocols import Floats


def fit(x: NDArray[Any], y: NDArray[Any], share: float, weight: NDArray[Any] | None = None) -> tuple[float, Floats]:
    """A constant a and weights w, none negative, so that about this share of y lies below a + x @ w everywhere.

    Args:
        x: numbers (N, F).
        y: numbers (N,).
        share: 0..1.
        weight: of each row, (N,); None: all alike.

    Returns:
        a, and w as float64 (F,).
    """
    from scipy.optimize import linprog

    n, f = x.shape
    weight = np.ones(n) if weight is None else weight
    # y - (a + x @ w) = above - below, both at least 0; the mean of share * above + (1 - share) * below is least.
    equal = np.hstack([np.ones((n, 1)), x, np.eye(n), -np.eye(n)])
    cost = np.concatenate([np.zeros(1 + f), share * weight, (1 - share) * weight])
    found = linprog(cost, A_eq=equal, b_eq=y, bounds=[(None, None)] + [(0, None)] * (f + 2 * n), method="highs")
    return float(found.x[0]), np.asarray(found.x[1 : 1 + f], np.float64)
