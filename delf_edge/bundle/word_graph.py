"""The graph over the words that a bundle brings along, so that no start has to build it.

It is an HNSW graph (Malkov and Yashunin, TPAMI 2020), kept as the links between words and nothing else: the centroids
are in the codebook already. A library that searches such a graph follows the links without looking, so every one of
them is checked here before it gets any.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from delf_edge.bundle.arrays import named, require_forms
from delf_edge.errors import BundleError
from delf_edge.types import Float32Array, UInt8Array, UInt16Array


@dataclass(frozen=True, slots=True, eq=False)
class WordGraph:
    """Links between K words; the arrays of `graph.npz`.

    Level 0 has every word, each further level some of those of the level below. A row of links is filled up with the
    word itself, behind the last link.

    Attributes:
        links: uint16 (K, 2 M), words that each word is linked with on level 0.
        nodes: uint16 (U,), ascending: a word that is on levels 1 to l is here l times.
        upper: uint16 (U, M), links of these words on level 1, then 2, and so on.
        entry: uint16 (1,), the word where a search begins; none is on a higher level.
        made_for: uint8 (32,), SHA-256 of the centroids, float32 (K, D), little-endian.
    """

    links: UInt16Array
    nodes: UInt16Array
    upper: UInt16Array
    entry: UInt16Array
    made_for: UInt8Array

    @property
    def levels(self) -> NDArray[np.int64]:
        """int64 (K,), the highest level of each word."""
        return np.bincount(self.nodes, minlength=len(self.links))

    def fits(self, centroids: Float32Array) -> bool:
        """Whether the graph is of these centroids (K, D), by their hash."""
        return len(self.links) == len(centroids) and self.made_for.tobytes() == digest_of(centroids)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """What `from_arrays` reads."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]], n_words: int) -> WordGraph:
        """A graph whose links lead to words that are there.

        Args:
            arrays: by name.
            n_words: K of the codebook.

        Raises:
            BundleError: an array is missing, or of another type or shape, or a link leads nowhere.
        """
        own = named(arrays, [f.name for f in fields(cls)], "graph")
        found = cls(**own)
        M = found.upper.shape[1] if found.upper.ndim == 2 else -1
        forms = {
            "links": (np.uint16, (n_words, 2 * M)),
            "nodes": (np.uint16, (found.nodes.size,)),
            "upper": (np.uint16, (found.nodes.size, M if M >= 2 else -1)),
            "entry": (np.uint16, (1,)),
            "made_for": (np.uint8, (32,)),
        }
        require_forms(own, forms, "graph", "pack the bundle again")
        found._check(n_words)
        return found

    def _check(self, K: int) -> None:
        most = max((int(a.max(initial=0)) for a in (self.links, self.nodes, self.upper, self.entry)), default=0)
        if most >= K:
            raise BundleError(f"graph: a link leads to word {most}, but the codebook has {K}; pack the bundle again")
        if (np.diff(self.nodes.astype(np.int64)) < 0).any():
            raise BundleError("graph: its nodes do not ascend; pack the bundle again")
        levels = self.levels
        if levels[self.entry[0]] != levels.max():
            raise BundleError("graph: it does not begin on its highest level; pack the bundle again")
        if len(self.nodes) and (levels[self.upper] < self.level_of_rows()[:, None]).any():
            raise BundleError("graph: a link leads to a word that is not on its level; pack the bundle again")

    def level_of_rows(self) -> NDArray[np.int64]:
        """int64 (U,), the level of each row of `upper`."""
        U = len(self.nodes)
        new = np.r_[True, self.nodes[1:] != self.nodes[:-1]][:U]
        first = np.maximum.accumulate(np.where(new, np.arange(U), 0))
        return np.asarray(np.arange(U) - first + 1, np.int64)


def digest_of(centroids: Float32Array) -> bytes:
    """SHA-256 of centroids."""
    return hashlib.sha256(centroids.astype("<f4").tobytes()).digest()
