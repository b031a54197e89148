"""The other scoring, "asmk": aggregated residuals per word in place of votes (Tolias et al., IJCV 2016).

For a word w of the query (every feature counts for its P nearest), V is the unit sum of the residuals R (q - c_w). The
stored side is PQ codes, where the paper has bits::

    u(w, i) = sum of <V, pq(code_f)> / sqrt(sum of |pq(code_f)|^2)      over the features f of image i in the list of w
                                                                        with <V, pq(code_f)> > 0
    votes_i = sum over w of u ** alpha, where u > tau                  (divided by sqrt(features of i))
"""

from __future__ import annotations

import numpy as np

from delf_edge.arrays import l2_normalise
from delf_edge.index.inverted_lists import IndexSnapshot
from delf_edge.index.scoring import neighbours
from delf_edge.quantization.product_quantizer import inner_product_tables
from delf_edge.types import Codebook, Float32Array, Float64Array, Int32Array


def asmk(
    snapshot: IndexSnapshot, queries: Float32Array, words: Int32Array, codebook: Codebook, *, alpha: float, tau: float
) -> Float64Array:
    """Votes of every slot by aggregated residuals (see the module), float64 (S,).

    Args:
        snapshot: where to look.
        queries: float32 (N, D).
        words: int32 (N, P), the nearest words of each.
        codebook: of the codes.
        alpha: exponent, at least 1.
        tau: what a similarity must exceed, 0 .. 1.
    """
    asked, inverse = np.unique(words.ravel(), return_inverse=True)
    residual = queries[:, None] - codebook.centroids[words]
    total = np.zeros((len(asked), queries.shape[1]), np.float64)
    np.add.at(total, inverse.ravel(), residual.reshape(-1, queries.shape[1]))
    tables = inner_product_tables(l2_normalise(total.astype(np.float32)), codebook)
    none = np.zeros((len(asked), 1), np.float32)
    everything = int(np.iinfo(np.int32).max)
    hits = neighbours(snapshot, asked[:, None].astype(np.int32), none, tables, everything, 0.0)
    square = np.einsum("mkd,mkd->mk", codebook.pq, codebook.pq)
    norm2 = np.empty(len(hits.feature))
    for number, segment in enumerate(snapshot.segments):
        mine = np.flatnonzero(hits.feature >> 40 == number)
        codes = segment.codes[hits.feature[mine] & ((1 << 40) - 1)]
        norm2[mine] = square[np.arange(codes.shape[1]), codes].sum(axis=1)
    pair, inverse = np.unique(hits.query << 32 | hits.slot, return_inverse=True)
    u = np.bincount(inverse, hits.score, len(pair)) / np.sqrt(np.maximum(np.bincount(inverse, norm2, len(pair)), 1e-12))
    weight = np.where(u > tau, np.minimum(u, 1.0) ** alpha, 0.0)
    votes = np.bincount(pair & 0xFFFFFFFF, weight, minlength=len(snapshot.image_ids))
    return np.asarray(votes / np.sqrt(np.maximum(snapshot.counts, 1)), np.float64)
