"""Stores of made-up images, for tests of what is stored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from delf_edge.quantization.packed_codes import CodeLayout
from delf_edge.storage.records import NewImage
from delf_edge.storage.store import Store
from delf_edge.types import Codes

LAYOUT = CodeLayout(code_size=4, global_dim=8, n_words=1000)


def make_codes(seed: int = 0, n: int = 30, size: tuple[int, int] = (640, 480)) -> Codes:
    """Codes of n features."""
    rng = np.random.default_rng(seed)
    return Codes(
        (rng.random((n, 2)) * size).astype(np.float32),
        rng.integers(0, LAYOUT.n_words, n).astype(np.uint16),
        rng.integers(0, 256, (n, LAYOUT.code_size)).astype(np.uint8),
        rng.integers(-127, 128, LAYOUT.global_dim).astype(np.int8),
        size,
    )


def new_image(i: int, **kwargs: Any) -> NewImage:
    """Image i, of the landmark i // 4."""
    fields: dict[str, Any] = {"name": f"{i}.jpg", "landmark": f"place {i // 4}"}
    fields |= {"content_hash": i.to_bytes(32), "codes": make_codes(i)}
    return NewImage(**(fields | kwargs))


def open_store(path: Path) -> Store:
    """A store for them."""
    return Store.open(path, bundle_id="3f2a", layout=LAYOUT)
