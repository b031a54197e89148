"""How long the stages of a query take."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def clock(times: dict[str, float], stage: str) -> Iterator[None]:
    """Note the milliseconds that the block takes as `times[stage]`."""
    began = time.perf_counter()
    try:
        yield
    finally:
        times[stage] = (time.perf_counter() - began) * 1000
