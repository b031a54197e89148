"""Rows in parts of a fixed order, wherever they lie: in this process (`Whole`) or on a cluster.

(Those of a cluster: `distributed.partitioned_fit`.) A fit asks every part for its statistics, a pure function of the
part, and adds them up in the order of the parts. So its result does not depend on who computes them, nor when.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np

from delf_edge.types import Float32Array

_R = TypeVar("_R")


class Parts(Protocol):
    """Rows float32 (N, D) in parts.

    A function that is mapped is one of a module, gets (rows of the part, argument), and with `each`
    (rows of the part, (argument, each[i])).
    """

    def sizes(self) -> Sequence[int]:
        """Rows of each part."""
        ...

    def map(
        self, function: Callable[[Float32Array, Any], _R], argument: Any, each: Sequence[Any] | None = None
    ) -> Iterator[_R]:
        """What the function gives for each part, in their order."""
        ...

    def derive(
        self, function: Callable[[Float32Array, Any], Float32Array], argument: Any, each: Sequence[Any] | None = None
    ) -> Parts:
        """New rows, made of those of each part."""
        ...


class Whole:
    """All rows as one part in this process."""

    def __init__(self, rows: Float32Array) -> None:
        self._rows = rows

    def sizes(self) -> Sequence[int]:
        """Rows of the only part."""
        return [len(self._rows)]

    def map(
        self, function: Callable[[Float32Array, Any], _R], argument: Any, each: Sequence[Any] | None = None
    ) -> Iterator[_R]:
        """See `Parts`."""
        yield function(self._rows, argument if each is None else (argument, each[0]))

    def derive(
        self, function: Callable[[Float32Array, Any], Float32Array], argument: Any, each: Sequence[Any] | None = None
    ) -> Whole:
        """See `Parts`."""
        return Whole(next(self.map(function, argument, each)))


def as_parts(rows: Float32Array | Parts) -> Parts:
    """An array as one part; parts as they are."""
    return Whole(rows) if isinstance(rows, np.ndarray) else rows


def every(rows: Parts, step: int) -> Parts:
    """Every `step`-th row, counted over all parts."""
    return rows.derive(_every, step, _offsets(rows))


def head(rows: Parts, n: int) -> Float32Array:
    """The first n rows."""
    return np.concatenate(list(rows.map(_head, n, _offsets(rows))))


def _offsets(rows: Parts) -> list[int]:
    """Rows before each part."""
    sizes = rows.sizes()
    return [sum(sizes[:i]) for i in range(len(sizes))]


def _every(x: Float32Array, argument: tuple[int, int]) -> Float32Array:
    step, offset = argument
    return x[-offset % step :: step]


def _head(x: Float32Array, argument: tuple[int, int]) -> Float32Array:
    n, offset = argument
    return x[: max(0, n - offset)]
