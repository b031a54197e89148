"""Descriptors to visual words.

A descriptor belongs to the centroid nearest to it by L2 distance. Centroids are means of unit vectors and not exactly
unit themselves, so this is not always the centroid of the largest inner product; the residual to the L2-nearest
one is the smallest, which is what the product quantiser wants.

Queries find their words through a graph (`hnsw`) where the bundle brings one along, or where there are so many words
that building one at the start pays. What is stored is always encoded exactly.
"""

from __future__ import annotations

import ctypes
import hashlib
import io
import os
import tempfile
from dataclasses import fields
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from delf_edge import native
from delf_edge.bundle.word_graph import WordGraph
from delf_edge.errors import BundleError, OptionError
from delf_edge.quantization.hnsw import EF_CONSTRUCTION, HnswGraph, M, library_version
from delf_edge.types import Float32Array, Int32Array

# Up to here a graph is used only where the bundle has it: a matrix product costs less than building one at each start.
EXACT_UP_TO = 16_384
_BLOCK = 128
_CHUNK = 512
_PRODUCT = 1 << 19  # inner products made at a time: they stay in the processor's cache until they are looked at
_CACHE_MAGIC = b"delf-edge hnsw 2\n"


class CoarseIndex:
    """Nearest centroids of descriptors; safe to share between threads.

    Args:
        centroids: float32 (K, D).
        method: "exact", "graph" (hnswlib), or "auto": `graph` where it is given and of these centroids, else exact up
            to 16,384 centroids and a graph that is built for more.
        graph: what the bundle brings along; one of other centroids is passed over.
        cache_path: file that keeps a graph that had to be built; written atomically, ignored when anything about it
            does not fit. Failing to write it is not an error.

    Attributes:
        centroids: as given, read-only.
        method: how queries find their words, "exact" or "graph".

    Raises:
        OptionError: `centroids` is not (K, D) with K >= 1, or holds a value that is not finite.
    """

    def __init__(
        self,
        centroids: Float32Array,
        *,
        method: Literal["auto", "exact", "graph"] = "auto",
        graph: WordGraph | None = None,
        cache_path: str | Path | None = None,
    ) -> None:
        if centroids.ndim != 2 or not len(centroids) or not np.isfinite(centroids).all():
            raise OptionError(f"centroids must be finite (K, D) with K >= 1, got shape {centroids.shape}")
        self.centroids: Float32Array = np.array(centroids, np.float32, order="C")  # own copy: nobody can change it
        self.centroids.setflags(write=False)
        self._half_norms: Float32Array = 0.5 * np.einsum("kd,kd->k", self.centroids, self.centroids)
        self._graph: HnswGraph | None = None
        if method != "exact":
            self._graph = None if graph is None else HnswGraph.restore(graph, self.centroids)
            if self._graph is None and (method == "graph" or len(centroids) > EXACT_UP_TO):
                self._graph = _kept_or_built(self.centroids, None if cache_path is None else Path(cache_path))
        self.method: Literal["exact", "graph"] = "exact" if self._graph is None else "graph"

    @property
    def n_words(self) -> int:
        """K, the number of centroids."""
        return len(self.centroids)

    def assign(
        self, descriptors: Float32Array, n_probe: int = 1, *, exact: bool = False
    ) -> tuple[Int32Array, Float32Array]:
        """The nearest words of each descriptor.

        Args:
            descriptors: float32 (N, D).
            n_probe: P, words per descriptor; at most K are returned.
            exact: search all centroids even where there is a graph. For encoding: a word is then a pure function of
                the descriptor and the codebook.

        Returns:
            words int32 (N, P), nearest by L2 first, and their inner products <d, c_w> float32 (N, P).

        Raises:
            OptionError: `n_probe` is below 1, or the dimension is not that of the centroids.
        """
        N, P = len(descriptors), min(n_probe, self.n_words)
        if n_probe < 1 or descriptors.ndim != 2 or descriptors.shape[1] != self.centroids.shape[1]:
            raise OptionError(
                f"descriptors {descriptors.shape} with n_probe={n_probe}: need (N, {self.centroids.shape[1]}) and "
                "n_probe >= 1"
            )
        if self._graph is not None and not exact and N:
            found = self._graph.nearest(descriptors, P)
            if found is not None:
                return self._ordered(descriptors, found)
        lib = native.library()
        if lib is not None:
            return self._compiled(lib, descriptors, P)
        words = np.empty((N, P), np.intp)
        for i in range(0, N, _CHUNK):  # bounds memory: 512 x 65,536 float32 are 128 MB
            words[i : i + _CHUNK] = self._exact(descriptors[i : i + _CHUNK], P)
        return self._ordered(descriptors, words)

    def _ordered(self, descriptors: Float32Array, words: NDArray[np.intp]) -> tuple[Int32Array, Float32Array]:
        """Words (N, P) in any order, nearest first, of equal ones the lower; and their inner products."""
        similarity = np.einsum("npd,nd->np", self.centroids[words], descriptors)
        order = np.lexsort((words, self._half_norms[words] - similarity), axis=1)
        ordered = np.take_along_axis(words, order, 1).astype(np.int32)
        return ordered, np.take_along_axis(similarity, order, 1).astype(np.float32)

    def _compiled(self, lib: ctypes.CDLL, descriptors: Float32Array, P: int) -> tuple[Int32Array, Float32Array]:
        words, similarity = np.empty((len(descriptors), P), np.int32), np.empty((len(descriptors), P), np.float32)
        descriptors, step = np.asarray(descriptors, np.float32), max(1, _PRODUCT // self.n_words)
        product = np.empty((min(step, len(descriptors)), self.n_words), np.float32)  # one for all: new memory is slow
        for i in range(0, len(descriptors), step):
            part = slice(i, i + step)
            rows = np.matmul(descriptors[part], self.centroids.T, out=product[: len(descriptors[part])])
            words[part], similarity[part] = native.nearest(lib, rows, self._half_norms, P)
        return words, similarity

    def _exact(self, descriptors: Float32Array, P: int) -> NDArray[np.intp]:
        """The P nearest words of each row, in no order."""
        closeness = descriptors @ self.centroids.T - self._half_norms  # orders like -|d - c|^2
        N, K = closeness.shape
        if P == 1:
            return np.asarray(closeness.argmax(axis=1)[:, None])
        if K < 4 * _BLOCK or K // _BLOCK <= P:
            return np.argpartition(-closeness, P - 1, axis=1)[:, :P]
        # The P best lie in the P blocks of the best maxima, which spares partitioning whole rows.
        whole = K // _BLOCK * _BLOCK
        best = closeness[:, :whole].reshape(N, -1, _BLOCK).max(axis=2)
        blocks = np.argpartition(-best, P - 1, axis=1)[:, :P]
        among = (blocks[:, :, None] * _BLOCK + np.arange(_BLOCK)).reshape(N, P * _BLOCK)
        among = np.concatenate([among, np.broadcast_to(np.arange(whole, K), (N, K - whole))], axis=1)
        part = np.argpartition(-np.take_along_axis(closeness, among, 1), P - 1, axis=1)[:, :P]
        return np.take_along_axis(among, part, 1)


def _kept_or_built(centroids: Float32Array, path: Path | None) -> HnswGraph:
    """The graph of the cache file, or a new one, which is then written there."""
    key = hashlib.sha256(repr((centroids.shape, M, EF_CONSTRUCTION, library_version())).encode())
    key.update(centroids.astype("<f4").tobytes())
    if path is not None:
        kept = _read_cache(path, key.digest(), len(centroids))
        graph = None if kept is None else HnswGraph.restore(kept, centroids)
        if graph is not None:
            return graph
    graph = HnswGraph.build(centroids)
    if path is not None:
        _write_cache(path, key.digest(), graph.links(centroids))
    return graph


def _read_cache(path: Path, key: bytes, n_words: int) -> WordGraph | None:
    """The graph of a cache file, or None where it is absent, damaged, or of other centroids."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    n = len(_CACHE_MAGIC)
    head, body = data[: n + 64], data[n + 64 :]
    if head != _CACHE_MAGIC + key + hashlib.sha256(body).digest():
        return None
    stream = io.BytesIO(body)
    try:
        arrays = {f.name: np.lib.format.read_array(stream, allow_pickle=False) for f in fields(WordGraph)}
        return WordGraph.from_arrays(arrays, n_words)
    except (ValueError, BundleError):
        return None


def _write_cache(path: Path, key: bytes, graph: WordGraph) -> None:
    """Write the cache atomically; a cache that cannot be written is done without."""
    stream = io.BytesIO()
    for array in graph.arrays().values():
        np.lib.format.write_array(stream, array, allow_pickle=False)
    body = stream.getvalue()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".delf-edge-", dir=path.parent) as folder:
            whole = Path(folder) / "whole"
            with whole.open("wb") as f:
                f.write(_CACHE_MAGIC + key + hashlib.sha256(body).digest() + body)
                f.flush()
                os.fsync(f.fileno())
            whole.replace(path)
    except OSError:
        return
