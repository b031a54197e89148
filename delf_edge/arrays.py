"""Rows of unit length: the two forms of L2 normalisation, which differ in the last bit.

Descriptors that are stored or searched with go through `l2_normalise`, what codebooks are fitted on through `unit`. The
two add up squares in another order. Each must stay as it is, or a database or a codebook made before would not be
found again bit by bit.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from delf_edge.types import Float32Array


def l2_normalise(rows: NDArray[np.floating[Any]]) -> Float32Array:
    """Rows of (..., D) scaled to unit L2, float32; a zero row stays zero."""
    norm = np.sqrt(np.einsum("...d,...d->...", rows, rows))[..., None]
    return np.asarray(rows / np.maximum(norm, np.float32(1e-12)), np.float32)


def unit(rows: NDArray[Any]) -> Float32Array:
    """Rows of (N, D) scaled to unit L2, float32, for the fit of a codebook; a zero row stays zero."""
    norm = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.maximum(norm, 1e-12), np.float32)
