"""Product quantisation: descriptors become codes, and queries are compared with codes.

A descriptor d of word w is stored as M bytes: its residual r = R (d - c_w) is cut into M pieces, and each piece is
replaced by the index of the nearest of 256 codewords (Jegou et al., TPAMI 2011; R is the rotation of OPQ, Ge et al.,
CVPR 2013). A query is never quantised: <q, d> is approximated by <q, c_w> + <R q, pq(code)>, whose second term
is a sum of M table entries that do not depend on w.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from delf_edge import native
from delf_edge.arrays import l2_normalise
from delf_edge.errors import OptionError
from delf_edge.quantization.packed_codes import quantise_keypoints
from delf_edge.types import Codebook, Codes, Features, Float32Array


def encode(features: Features, words: NDArray[np.integer], codebook: Codebook) -> Codes:
    """Quantise features.

    Args:
        features: N features, descriptors float32 (N, D).
        words: int (N,), the coarse centroid of each descriptor (`CoarseIndex.assign`).
        codebook: codebook the words belong to.

    Returns:
        Codes of the same N features, in the same order.

    Raises:
        OptionError: the dimension of the descriptors is not the codebook's.
    """
    N = len(features)
    _, _, d = codebook.pq.shape
    if features.descriptors.shape != (N, codebook.dim) or len(words) != N:
        raise OptionError(
            f"{len(words)} words and descriptors {features.descriptors.shape} do not fit: the codebook has dimension "
            f"{codebook.dim}"
        )
    words = np.asarray(words, np.intp)
    residual = (features.descriptors - codebook.centroids[words]) @ codebook.rotation.T
    codes = np.empty((N, codebook.code_size), np.uint8)
    for m, codewords in enumerate(codebook.pq):  # M small products; |p|^2 / 2 - <r, p> orders like |r - p|^2
        distance = 0.5 * np.einsum("kd,kd->k", codewords, codewords) - residual[:, m * d : (m + 1) * d] @ codewords.T
        codes[:, m] = distance.argmin(axis=1)
    return Codes(
        keypoints=quantise_keypoints(features.keypoints, features.image_size),
        words=words.astype(np.uint16),
        codes=codes,
        global_code=quantise_global(features.global_descriptor),
        image_size=features.image_size,
    )


def decode(codes: Codes, codebook: Codebook, *, unit: bool = True) -> Float32Array:
    """Descriptors of stored features.

    Args:
        codes: N stored features.
        codebook: codebook they were encoded with.
        unit: scale each to unit L2 norm. Without it, the exact centroid plus codewords.

    Returns:
        float32 (N, D).
    """
    N, M = codes.codes.shape
    residual = codebook.pq[np.arange(M), codes.codes].reshape(N, codebook.dim)  # [n, m] = pq[m, code[n, m]]
    descriptors = codebook.centroids[codes.words] + residual @ codebook.rotation  # R^-1 = R^T
    return l2_normalise(descriptors) if unit else np.asarray(descriptors, np.float32)


class TurnedDecoder:
    """Unit descriptors turned by the codebook's R: for inner products with queries that are turned as well.

    Codewords are stored turned, so this spares `decode` a product with R for every image.

    Args:
        codebook: of the codes; its centroids are turned once.
    """

    def __init__(self, codebook: Codebook) -> None:
        self._rotation, self._pq = codebook.rotation, np.ascontiguousarray(codebook.pq, np.float32)
        self._centroids = np.ascontiguousarray(codebook.centroids @ codebook.rotation.T, np.float32)

    def turn(self, descriptors: Float32Array) -> Float32Array:
        """R d for each of (N, D)."""
        return np.asarray(descriptors @ self._rotation.T, np.float32)

    def decode(self, codes: Codes) -> Float32Array:
        """`turn(decode(codes, codebook))`, float32 (N, D), but for rounding."""
        N, M = codes.codes.shape
        if len(codes.words) and int(codes.words.max()) >= len(self._centroids):
            raise OptionError(f"word {int(codes.words.max())}; the codebook has {len(self._centroids)} words")
        lib = native.library()
        if lib is not None:
            return native.decode_codes(lib, self._centroids, self._pq, codes.words, codes.codes)
        residual = self._pq[np.arange(M), codes.codes].reshape(N, self._centroids.shape[1])
        return l2_normalise(self._centroids[codes.words] + residual)


def inner_product_tables(queries: Float32Array, codebook: Codebook) -> Float32Array:
    """<R q, p> of every query and codeword.

    Args:
        queries: float32 (N, D).
        codebook: codebook of the codes to be scored.

    Returns:
        float32 (N, M, 256), contiguous. <q, decode(code)> = <q, c_w> + sum over m of table[m, code[m]].
    """
    N = len(queries)
    M, _, d = codebook.pq.shape
    pieces = (queries @ codebook.rotation.T).reshape(N, M, d).transpose(1, 0, 2)  # (M, N, d)
    return np.ascontiguousarray((pieces @ codebook.pq.transpose(0, 2, 1)).transpose(1, 0, 2), np.float32)


def quantise_global(descriptor: NDArray[np.floating]) -> NDArray[np.int8]:
    """Global descriptor (G,) to int8: times 127 / its largest absolute value; zeros stay zeros."""
    peak = float(np.abs(descriptor).max(initial=0.0))
    return np.asarray(np.rint(descriptor * (127.0 / peak if peak > 0 else 0.0)), np.int8)


def decode_global(codes: NDArray[np.int8]) -> Float32Array:
    """int8 (..., G) back to float32 (..., G) of unit L2 norm; zeros stay zeros."""
    return l2_normalise(codes.astype(np.float32))
