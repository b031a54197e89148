"""From raw descriptors to fewer dimensions: moments of a stream, PCA, and a projection learnt from matches.

Sources: Jegou and Chum, ECCV 2012 (PCA-whitening); Radenovic et al., TPAMI 2018, section 3.3 (whitening learnt from
matches, after Mikolajczyk and Matas, ICCV 2007).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from delf_edge.arrays import unit
from delf_edge.types import Float32Array, Float64Array

Projection = tuple[Float32Array, Float32Array]  # mean (C,), basis (D, C)


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

    def merge(self, other: Moments) -> None:
        """Add what another one has seen: sums and outer products add up."""
        self.n += other.n
        self._sum += other._sum
        self._outer += other._outer

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


def matched_projection(
    moments: Moments, matches: Iterable[tuple[Float32Array, Float32Array]], dim: int, whiten: float = 1.0
) -> Projection:
    """Mean (C,) and basis (D, C) that keep what tells points apart and drop what changes between two photos of one.

    Raw descriptors are first divided by the standard deviations of the differences within matches (to the power
    `whiten`), then the directions of largest variance are taken.

    Args:
        moments: moments of the L2-normalised data.
        matches: raw descriptors (n, C) of the same n points in two photos, pair by pair.
        dim: D.
        whiten: 0 is PCA, 1 makes the variance within matches equal in all directions.

    Raises:
        ValueError: `dim` is larger than C, or there are fewer matches than channels.
    """
    mean, covariance = moments.mean, moments.covariance
    if dim > len(mean):
        raise ValueError(f"{dim} dimensions need at least as many channels, the data has {len(mean)}")
    within, n = np.zeros_like(covariance), 0
    for first, second in matches:
        difference = (unit(first) - unit(second)).astype(np.float64)
        within += difference.T @ difference
        n += len(difference)
    if n < len(mean):
        raise ValueError(
            f"a projection of {len(mean)} channels needs as many confirmed matches, there are {n}; "
            "give more photos of the same places, or fit a PCA"
        )
    values, vectors = np.linalg.eigh(within / n)
    values = np.maximum(values, float(values[-1]) * 1e-3)  # directions that hardly occur must not be blown up
    scale = (vectors * values ** (-0.5 * whiten)) @ vectors.T
    spread, directions = np.linalg.eigh(scale @ covariance @ scale)
    chosen = directions[:, ::-1][:, :dim].T
    chosen = chosen * np.sign(chosen[np.arange(dim), np.abs(chosen).argmax(axis=1)])[:, None]
    basis = chosen @ scale / np.sqrt(spread[-1])  # descriptors are normalised afterwards: only ratios count
    return mean.astype(np.float32), np.ascontiguousarray(basis, np.float32)


def moments_of(chunks: Iterable[Float32Array]) -> Moments:
    """Moments of the rows of all chunks.

    Raises:
        ValueError: there is none.
    """
    iterator: Iterator[Float32Array] = iter(chunks)
    first = next(iterator, None)
    if first is None:
        raise ValueError("the stream of descriptors is empty: no photo gave a feature")
    moments = Moments(first.shape[1])
    moments.add(first)
    for chunk in iterator:
        moments.add(chunk)
    return moments


def project(raw: Float32Array, mean: Float32Array, basis: Float32Array) -> Float32Array:
    """Raw descriptors (N, C) to unit descriptors (N, D): L2, minus mean, basis, L2."""
    return unit((unit(raw) - mean) @ basis.T)
