"""Arrays of a bundle's files that must all be there, each of its type and shape."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from delf_edge.errors import BundleError


def named(arrays: Mapping[str, NDArray[Any]], names: Iterable[str], what: str) -> dict[str, NDArray[Any]]:
    """The arrays of these names.

    Raises:
        BundleError: one is missing; `what` says of which part of the bundle.
    """
    if missing := set(names) - set(arrays):
        raise BundleError(f"{what}: array {', '.join(sorted(missing))} is missing; pack the bundle again")
    return {name: arrays[name] for name in names}


def require_forms(
    arrays: Mapping[str, NDArray[Any]], forms: Mapping[str, tuple[DTypeLike, tuple[int, ...]]], what: str, remedy: str
) -> None:
    """Make sure that arrays have these types and shapes, by name; a dimension of -1 fits nothing.

    Raises:
        BundleError: one has another; it names both and the remedy.
    """
    for name, (dtype, shape) in forms.items():
        array = arrays[name]
        if array.dtype != dtype or array.shape != shape:
            raise BundleError(
                f"{what}: {name} is {array.dtype} {array.shape}, expected {np.dtype(dtype)} {shape}; {remedy}"
            )
