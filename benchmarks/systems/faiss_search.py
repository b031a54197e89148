"""faiss' IVFPQ over the very codes of an index: the same lists, codewords and probes, only the program differs.

Rotating everything by the codebook's R turns our score, <q, c_w> + sum over m of <R q, pq[m, code_m]>, into faiss'
inner product metric with residuals, so both rank the same features by the same numbers.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.systems.base import NotInstalledError
from delf_edge.index.inverted_lists import IndexSnapshot
from delf_edge.types import Codebook, Float32Array


def faiss_module() -> Any:
    """faiss, on one thread.

    Raises:
        NotInstalledError: the benchmark's extra is not installed.
    """
    try:
        import faiss
    except ImportError as e:
        raise NotInstalledError("faiss is missing; pip install 'delf-edge[benchmarks]'") from e
    faiss.omp_set_num_threads(1)
    return faiss


class Peer:
    """The features of a snapshot in faiss; ids as in `scoring.neighbours` (index in the segment | its number << 40).

    Args:
        snapshot: content of an index, without dead images.
        codebook: of its codes.
        n_probe: lists looked up.
    """

    def __init__(self, snapshot: IndexSnapshot, codebook: Codebook, n_probe: int) -> None:
        faiss = faiss_module()
        K, D = codebook.centroids.shape
        M = codebook.code_size
        self._rotation = codebook.rotation
        coarse = faiss.IndexFlatL2(D)
        coarse.add(np.ascontiguousarray(codebook.centroids @ codebook.rotation.T, np.float32))
        self._coarse = coarse  # faiss keeps no reference
        self.index = faiss.IndexIVFPQ(coarse, D, K, M, 8, faiss.METRIC_INNER_PRODUCT)
        self.index.by_residual = True
        faiss.copy_array_to_vector(np.ascontiguousarray(codebook.pq, np.float32).ravel(), self.index.pq.centroids)
        self.index.is_trained = True
        self.index.nprobe = n_probe
        lists = self.index.invlists
        for number, segment in enumerate(snapshot.segments):
            words = segment.all_words()
            edges = np.searchsorted(words, np.arange(K + 1))
            for word in np.unique(words).tolist():
                a, b = int(edges[word]), int(edges[word + 1])
                ids = np.arange(a, b, dtype=np.int64) | number << 40
                codes = np.ascontiguousarray(segment.codes[a:b])
                lists.add_entries(word, b - a, faiss.swig_ptr(ids), faiss.swig_ptr(codes))
        self.index.ntotal = snapshot.n_features

    def search(self, queries: Float32Array, k: int) -> tuple[Float32Array, NDArray[np.int64]]:
        """Scores (N, k) and ids (N, k) of the k best."""
        scores, ids = self.index.search(np.ascontiguousarray(queries @ self._rotation.T, np.float32), k)
        return scores, ids
