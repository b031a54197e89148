"""Descriptors to visual words. The only door to hnswlib.

A descriptor belongs to the centroid nearest to it by L2 distance. Centroids are means of unit vectors and not exactly
unit themselves, so this is not always the centroid of the largest inner product; the residual to the L2-nearest
one is the smallest, which is what the product quantiser wants.

hnswlib keeps no promise we need (damaged files crash it, `ef` is not saved, wrong dimensions pass): the graph is
built here with a fixed seed on one thread, or read from a cache file whose SHA-256 and parameters match, and never
trusted otherwise.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import tempfile
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from delf_edge import native
from delf_edge.errors import OptionError
from delf_edge.types import Float32Array, Int32Array

# Up to here one matrix product costs about as little as the graph, needs no building, and misses nothing.
EXACT_UP_TO = 16_384
_GRAPH = {"M": 16, "ef_construction": 100, "random_seed": 1}
_EF = 48
_BLOCK = 128
_CHUNK = 512
_PRODUCT = 1 << 19  # inner products made at a time: they stay in the processor's cache until they are looked at
_CACHE_MAGIC = b"delf-edge hnsw 1\n"


class CoarseIndex:
    """Nearest centroids of descriptors; safe to share between threads.

    Args:
        centroids: float32 (K, D).
        method: "exact", "graph" (hnswlib), or "auto": exact up to 16,384 centroids.
        cache_path: file that keeps the graph between starts; written atomically, ignored when anything about it
            does not fit. Failing to write it is not an error.

    Raises:
        OptionError: `centroids` is not (K, D) with K >= 1, or holds a value that is not finite.
    """

    def __init__(
        self,
        centroids: Float32Array,
        *,
        method: Literal["auto", "exact", "graph"] = "auto",
        cache_path: str | Path | None = None,
    ) -> None:
        if centroids.ndim != 2 or not len(centroids) or not np.isfinite(centroids).all():
            raise OptionError(f"centroids must be finite (K, D) with K >= 1, got shape {centroids.shape}")
        self.centroids: Float32Array = np.array(centroids, np.float32, order="C")  # own copy: nobody can change it
        self.centroids.setflags(write=False)
        self._half_norms: Float32Array = 0.5 * np.einsum("kd,kd->k", self.centroids, self.centroids)
        self.method = ("exact" if len(centroids) <= EXACT_UP_TO else "graph") if method == "auto" else method
        self._graph = _Graph(self.centroids, cache_path) if self.method == "graph" else None

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
        lib = native.library()
        if lib is not None and (self._graph is None or exact):
            return self._compiled(lib, descriptors, P)
        words = np.empty((N, P), np.int32)
        for i in range(0, N, _CHUNK):  # bounds memory: 512 x 65,536 float32 are 128 MB
            part = slice(i, i + _CHUNK)
            if self._graph is None or exact:
                words[part] = self._exact(descriptors[part], P)
            else:
                words[part] = self._graph.nearest(descriptors[part], P)
        similarity = np.einsum("npd,nd->np", self.centroids[words], descriptors)
        order = np.lexsort((words, self._half_norms[words] - similarity), axis=1)
        return np.take_along_axis(words, order, 1), np.take_along_axis(similarity, order, 1).astype(np.float32)

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


class _Graph:
    """An hnswlib graph over centroids, read-only once built."""

    def __init__(self, centroids: Float32Array, cache_path: str | Path | None) -> None:
        import hnswlib

        K, D = centroids.shape
        self._index = hnswlib.Index("l2", D)
        key = hashlib.sha256(repr((K, D, sorted(_GRAPH.items()), _library_version())).encode())
        key.update(centroids.astype("<f4").tobytes())
        path = None if cache_path is None else Path(cache_path)
        body = None if path is None else _read_cache(path, key.digest())
        if body is not None:
            with tempfile.TemporaryDirectory(
                prefix="delf-edge-"
            ) as folder:  # hnswlib reads files only, and trusts them:
                checked = Path(folder) / "graph"  # so it gets the very bytes that were checked
                checked.write_bytes(body)
                self._index.load_index(str(checked), max_elements=K)
        else:
            self._index.init_index(K, **_GRAPH)
            self._index.add_items(centroids, np.arange(K), num_threads=1)
            if path is not None:
                _write_cache(path, key.digest(), self._index)
        self._index.set_num_threads(1)
        self._ef = _EF
        self._index.set_ef(_EF)

    def nearest(self, descriptors: Float32Array, P: int) -> NDArray[np.intp]:
        """The P nearest words of each row."""
        if self._ef < 4 * P:  # only ever grows: a smaller value would fail a query of another thread
            self._ef = 4 * P
            self._index.set_ef(self._ef)
        labels, _ = self._index.knn_query(descriptors, k=P, num_threads=1)
        return np.asarray(labels, np.intp)


def _library_version() -> str:
    from importlib.metadata import version

    return version("hnswlib")


def _read_cache(path: Path, key: bytes) -> bytes | None:
    """The graph's bytes, or None where the file is absent, damaged, or of other centroids."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    n = len(_CACHE_MAGIC)
    head, body = data[: n + 64], data[n + 64 :]
    return body if head == _CACHE_MAGIC + key + hashlib.sha256(body).digest() else None


def _write_cache(path: Path, key: bytes, index: object) -> None:
    """Write the cache atomically; a cache that cannot be written is done without."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".delf-edge-", dir=path.parent) as folder:
            raw, whole = Path(folder) / "graph", Path(folder) / "whole"
            index.save_index(str(raw))  # type: ignore[attr-defined]
            body = raw.read_bytes()
            if len(body) != index.index_file_size():  # type: ignore[attr-defined]
                return  # hnswlib reports nothing when the disk is full
            with whole.open("wb") as f:
                f.write(_CACHE_MAGIC + key + hashlib.sha256(body).digest() + body)
                f.flush()
                os.fsync(f.fileno())
            whole.replace(path)
    except (OSError, RuntimeError):
        return
