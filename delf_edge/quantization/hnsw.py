"""HNSW over the words. The only door to hnswlib.

hnswlib keeps no promise we need: damaged files crash it, wrong dimensions pass, and `ef`, how far it looks, is one
setting for all threads. So a graph is built here, with a fixed seed on one thread, or it comes from links that were
checked one by one (`bundle.word_graph`); hnswlib never reads a file. And a search asks for as many neighbours as it is
to look at, which does the same as `ef` without being a setting.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from delf_edge.bundle.word_graph import WordGraph, digest_of
from delf_edge.types import Float32Array

M = 16  # links of a word above level 0; twice as many on level 0
EF_CONSTRUCTION = 200
_SEED = 1
_LEAST, _MORE = 20, 8  # words looked at for a query: so many at least, and so many more than are asked for
_STEP = 16  # numbers that hnswlib's fast loops take at a time; other dimensions are filled up with zeros


class HnswGraph:
    """A graph over centroids that can be searched by any number of threads. Use `build` or `restore`."""

    def __init__(self, index: Any) -> None:
        self._index = index
        index.set_num_threads(1)
        index.set_ef(1)

    @classmethod
    def build(cls, centroids: Float32Array, *, links: int = M, ef_construction: int = EF_CONSTRUCTION) -> HnswGraph:
        """A new graph: 0.8 s for 8,192 words, 12 s for 65,536.

        Args:
            centroids: float32 (K, D).
            links: M, links of a word.
            ef_construction: words looked at for each link.
        """
        import hnswlib

        K = len(centroids)
        vectors = _filled_up(centroids)
        index = hnswlib.Index("l2", vectors.shape[1])
        index.init_index(K, M=links, ef_construction=ef_construction, random_seed=_SEED)
        index.add_items(vectors, np.arange(K), num_threads=1)
        return cls(index)

    @classmethod
    def restore(cls, graph: WordGraph, centroids: Float32Array) -> HnswGraph | None:
        """The graph of a bundle; None where it is of other centroids."""
        import hnswlib

        if not graph.fits(centroids):
            return None
        vectors = _filled_up(centroids)
        K, D = vectors.shape
        below, above = graph.links.shape[1], graph.upper.shape[1]
        level0 = np.zeros(K, _record(below, D))
        rows = np.arange(K)
        level0["n"], level0["links"] = _counts(graph.links, rows), graph.links
        level0["vector"], level0["label"] = vectors, rows
        upper = np.zeros(len(graph.nodes), _record(above))
        upper["n"], upper["links"] = _counts(graph.upper, graph.nodes), graph.upper
        levels = graph.levels
        state = {
            "ser_version": 1,
            "space": "l2",
            "dim": D,
            "index_inited": True,
            "ep_added": True,
            "normalize": False,
            "num_threads": 1,
            "seed": _SEED,
            "offset_level0": 0,
            "max_elements": K,
            "cur_element_count": K,
            "size_data_per_element": level0.dtype.itemsize,
            "label_offset": 4 + 4 * below + 4 * D,
            "offset_data": 4 + 4 * below,
            "max_level": int(levels.max()),
            "enterpoint_node": int(graph.entry[0]),
            "max_M": above,
            "max_M0": below,
            "M": above,
            "mult": 1 / np.log(above),
            "ef_construction": EF_CONSTRUCTION,
            "ef": 1,
            "has_deletions": False,
            "size_links_per_element": upper.dtype.itemsize,
            "allow_replace_deleted": False,
            "label_lookup_external": rows.astype(np.uint64),
            "label_lookup_internal": rows.astype(np.uint32),
            "element_levels": levels.astype(np.int32),
            "data_level0": level0.view(np.int8),
            "link_lists": upper.view(np.int8) if len(upper) else np.zeros(0, np.int8),
        }
        index = hnswlib.Index.__new__(hnswlib.Index)
        index.__setstate__((state,))  # as pickle does, without pickle
        return cls(index)

    def links(self, centroids: Float32Array) -> WordGraph:
        """What a bundle keeps of the graph of these centroids."""
        (state,) = self._index.__getstate__()
        K = len(centroids)
        level0 = state["data_level0"].view(_record(state["max_M0"], state["dim"]))
        external, internal = state["label_lookup_external"], state["label_lookup_internal"]
        if not (external == internal).all() or len(level0) != K:
            raise AssertionError("hnswlib numbers words in another way than they were given")
        upper = state["link_lists"].view(_record(state["max_M"]))
        nodes = np.repeat(np.arange(K), state["element_levels"])
        return WordGraph(
            links=_padded(level0, np.arange(K)),
            nodes=nodes.astype(np.uint16),
            upper=_padded(upper, nodes),
            entry=np.array([state["enterpoint_node"]], np.uint16),
            made_for=np.frombuffer(digest_of(centroids), np.uint8),
        )

    def nearest(self, descriptors: Float32Array, n: int) -> NDArray[np.intp] | None:
        """Words near to each descriptor, nearest first.

        Args:
            descriptors: float32 (N, D).
            n: how many.

        Returns:
            intp (N, n); None where the graph hangs together so badly that fewer are found.
        """
        looked_at = min(max(_LEAST, n + _MORE), self._index.element_count)
        try:
            labels, _ = self._index.knn_query(_filled_up(descriptors), k=looked_at, num_threads=1)
        except RuntimeError:
            return None
        return np.asarray(labels[:, :n], np.intp)


def _filled_up(vectors: Float32Array) -> Float32Array:
    """The vectors with zeros behind them, which change no distance, up to a multiple of `_STEP`."""
    missing = -vectors.shape[1] % _STEP
    return np.pad(vectors, ((0, 0), (0, missing))) if missing else vectors


def _record(links: int, dim: int | None = None) -> np.dtype[np.void]:
    """How hnswlib lays out a word: number of links, links, and on level 0 its centroid and its label."""
    fields: list[Any] = [("n", "<u2"), ("flags", "<u2"), ("links", "<u4", (links,))]
    return np.dtype(fields if dim is None else [*fields, ("vector", "<f4", (dim,)), ("label", "<u8")])


def _counts(links: NDArray[np.uint16], words: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
    """Links of each row: those before the word itself."""
    padded = links == words[:, None]
    return np.asarray(np.where(padded.any(axis=1), padded.argmax(axis=1), links.shape[1]), np.int64)


def _padded(records: NDArray[np.void], words: NDArray[np.integer[Any]]) -> NDArray[np.uint16]:
    links = records["links"]
    used = np.arange(links.shape[1]) < records["n"][:, None]
    return np.where(used, links, words[:, None]).astype(np.uint16)


@cache
def library_version() -> str:
    """The version of hnswlib."""
    from importlib.metadata import version

    return version("hnswlib")
