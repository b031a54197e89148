"""Logistic regression by iteratively reweighted least squares, numpy only.

Few features and a few hundred answers: Newton's method converges in ten steps, and a small ridge keeps weights
finite where the classes can be separated (Bishop 2006, section 4.3.3).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.metrics.protocols import Floats


@dataclass(frozen=True, slots=True, eq=False)
class Logistic:
    """p = 1 / (1 + exp(-(bias + sum_i weight_i x_i))) on raw features.

    Attributes:
        names: names of the features, in order.
        weights: float64 (F,).
        bias: the constant term.
    """

    names: tuple[str, ...]
    weights: Floats
    bias: float

    def logit(self, x: NDArray[Any]) -> Floats:
        """Log odds of rows (N, F)."""
        out: Floats = np.asarray(x, np.float64) @ self.weights + self.bias
        return out

    def probability(self, x: NDArray[Any]) -> Floats:
        """Probability of rows (N, F)."""
        return sigmoid(self.logit(x))

    def to_json(self) -> dict[str, Any]:
        """`{"bias": b, "weights": {name: w}}`, the form of a bundle manifest."""
        return {"bias": self.bias, "weights": {n: float(w) for n, w in zip(self.names, self.weights, strict=True)}}

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Logistic:
        """The inverse of `to_json`."""
        weights = raw["weights"]
        return cls(tuple(weights), np.array([float(w) for w in weights.values()]), float(raw["bias"]))


def sigmoid(z: NDArray[Any]) -> Floats:
    """1 / (1 + exp(-z)) without overflow."""
    out: Floats = np.exp(-np.logaddexp(0, -np.asarray(z, np.float64)))
    return out


def fit(
    x: NDArray[Any],
    y: NDArray[Any],
    names: Sequence[str],
    *,
    ridge: float = 1e-2,
    weight: NDArray[Any] | None = None,
    steps: int = 100,
) -> Logistic:
    """Fit by Newton steps on standardised features, with halving where a step would not improve.

    Args:
        x: (N, F) features.
        y: bool (N,) outcomes.
        names: F names.
        ridge: penalty `ridge * N / 2 * |w|^2` on standardised weights; the bias is free.
        weight: (N,) weight of each example; None weighs them equally.
        steps: at most this many.

    Raises:
        ValueError: shapes do not fit, a value is not finite, or only one outcome occurs.
    """
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if x.ndim != 2 or len(x) != len(y) or x.shape[1] != len(names):
        raise ValueError(f"features {x.shape}, outcomes {y.shape} and {len(names)} names do not fit")
    if not np.isfinite(x).all():
        raise ValueError("a feature is not finite")
    if not 0 < y.mean() < 1:
        raise ValueError("all outcomes are the same; a fit needs right and wrong answers")
    s = np.ones(len(y)) if weight is None else np.asarray(weight, np.float64)
    s = s / s.mean()
    centre, scale = x.mean(axis=0), x.std(axis=0)
    scale = np.where(scale > 0, scale, 1.0)
    z = np.column_stack([np.ones(len(x)), (x - centre) / scale])
    penalty = np.full(z.shape[1], ridge * len(x))
    penalty[0] = 0.0

    def loss(w: Floats) -> float:
        t = z @ w
        return float((s * (np.logaddexp(0, t) - y * t)).sum() + 0.5 * (penalty * w * w).sum())

    w = np.zeros(z.shape[1])
    for _ in range(steps):
        p = sigmoid(z @ w)
        gradient = z.T @ (s * (p - y)) + penalty * w
        hessian = (z * (s * p * (1 - p))[:, None]).T @ z + np.diag(penalty + 1e-12)
        step = np.linalg.solve(hessian, gradient)
        rate, before = 1.0, loss(w)
        while loss(w - rate * step) > before and rate > 1e-6:
            rate /= 2
        w = w - rate * step
        if np.abs(rate * step).max() < 1e-9:
            break
    weights = w[1:] / scale
    return Logistic(tuple(names), weights, float(w[0] - weights @ centre))
