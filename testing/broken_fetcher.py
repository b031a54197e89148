"""A connection that breaks, for the tests and the benchmark of updates (extra `update`)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from delf_edge.updates.fetcher import Fetcher


class Cut(Fetcher):
    """A line that breaks after some bytes."""

    def __init__(self, scratch: Path, limit: int) -> None:
        super().__init__(scratch)
        self.limit = limit

    def _fetch(self, url: str) -> Iterator[bytes]:
        for block in super()._fetch(url):
            left = self.limit - (self.n_bytes - len(block))
            yield block[: max(left, 0)]
            if left < len(block):
                return
