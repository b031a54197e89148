"""The only door to the compiled loops of `_native.cpp`; every caller has a NumPy form for where they are missing.

The library is compiled when the package is installed, and is optional: without a C++ compiler everything works, only
slower. It is loaded with ctypes, which releases Python's lock while it runs.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from delf_edge.types import BoolArray, Float32Array, Float64Array, Int32Array, UInt8Array, UInt16Array

VERSION = 5
_p, _i64, _f32, _f64 = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float, ctypes.c_double


class Hits(NamedTuple):
    """Stored features that a search found, H of them.

    Attributes:
        query: int64 (H,), number of the query's feature.
        slot: int64 (H,), slot of the image in the index.
        feature: int64 (H,), index in its segment | number of the segment << 40.
        score: float32 (H,), similarity to the query's feature, or the weight of its vote.
    """

    query: NDArray[np.int64]
    slot: NDArray[np.int64]
    feature: NDArray[np.int64]
    score: Float32Array

    @classmethod
    def join(cls, parts: Iterable[Hits]) -> Hits:
        """All hits of several searches, one after the other."""
        return cls(*(np.concatenate(column) for column in zip(*parts, strict=True)))

    def take(self, keep: NDArray[np.bool_]) -> Hits:
        """The hits for which `keep`, bool (H,), is true."""
        return Hits(self.query[keep], self.slot[keep], self.feature[keep], self.score[keep])


class SegmentPointers(ctypes.Structure):
    """One segment of the inverted lists, as `struct Segment` in `_native.cpp`; null pointers where it has no array."""

    _fields_ = (
        *((name, _p) for name in ("codes", "starts", "steps", "jump_at", "jump_by", "words", "slots")),
        *((name, _i64) for name in ("length", "n_jumps", "first_slot")),
    )


@cache
def library() -> ctypes.CDLL | None:
    """The compiled loops, or None where they were not compiled, or are of another version."""
    for path in sorted(Path(__file__).parent.glob("_native*.so")):
        try:
            found = load(path)
        except (OSError, AttributeError):
            continue
        if found is not None:
            return found
    return None


def load(path: Path) -> ctypes.CDLL | None:
    """The library at `path`; None where it is of another version.

    Raises:
        OSError: it cannot be loaded.
        AttributeError: it is another library.
    """
    found = ctypes.CDLL(str(path))
    if found.delf_edge_version() != VERSION:
        return None
    found.delf_edge_scan.restype = _p
    found.delf_edge_scan.argtypes = (_p, _i64, _p, _p, _p, _i64, _i64, _i64, _i64, _f32, _p, _p)
    found.delf_edge_take.restype = None
    found.delf_edge_take.argtypes = (_p, _p, _p, _p, _p)
    found.delf_edge_nearest.restype = None
    found.delf_edge_nearest.argtypes = (_p, _p, _i64, _i64, _i64, _p, _p)
    found.delf_edge_inner_products.restype = None
    found.delf_edge_inner_products.argtypes = (_p, _p, _i64, _i64, _p)
    found.delf_edge_affine.restype = _i64
    found.delf_edge_affine.argtypes = (_p, _p, _i64, _p, _i64, _f64, _i64, _i64, _f64, _f64, _p, _p)
    found.delf_edge_voters.restype = _i64
    found.delf_edge_voters.argtypes = (_p, _p, _p, _p, _i64, _p, _p)
    found.delf_edge_decode.restype = None
    found.delf_edge_decode.argtypes = (_p, _p, _p, _p, _i64, _i64, _i64, _p)
    found.delf_edge_unpack.restype = _i64
    found.delf_edge_unpack.argtypes = (_p, _i64, _i64, _f64, _p, _p, _p)
    return found


def segment_pointers(
    arrays: Sequence[NDArray[np.generic] | None], length: int, n_jumps: int, first_slot: int
) -> SegmentPointers:
    """Where the arrays of a segment lie, in the order of `SegmentPointers`; they must outlive the value."""
    return SegmentPointers(*(None if a is None else _address(a) for a in arrays), length, n_jumps, first_slot)


def scan_lists(
    lib: ctypes.CDLL,
    segments: Sequence[SegmentPointers],
    words: Int32Array,
    base: Float32Array,
    tables: Float32Array,
    k: int,
    min_similarity: float,
    alive: BoolArray | None,
) -> Hits:
    """The k best stored features of every query, and those equal to the k-th.

    Args:
        lib: `library()`.
        segments: where to look.
        words: int32 (N, P), lists of each query; every word below the K of the segments.
        base: float32 (N, P), <q, c_w>.
        tables: float32 (N, M, 256).
        k: K, at least 1.
        min_similarity: only larger scores count.
        alive: bool (S,), slots that may be found; None: all.

    Returns:
        Hits in no order.

    Raises:
        MemoryError: as it says.
    """
    words, base = np.ascontiguousarray(words, np.int32), np.ascontiguousarray(base, np.float32)
    tables = np.ascontiguousarray(tables, np.float32)
    N, P = words.shape
    found = ctypes.c_int64()
    parts = (SegmentPointers * len(segments))(*segments)
    handle = lib.delf_edge_scan(
        parts,
        len(segments),
        _address(words),
        _address(base),
        _address(tables),
        N,
        P,
        tables.shape[1],
        k,
        float(np.float32(min_similarity)),
        None if alive is None else _address(alive),
        ctypes.byref(found),
    )
    if not handle:
        raise MemoryError("no memory for what the search found")
    n = found.value
    hits = Hits(np.empty(n, np.int64), np.empty(n, np.int64), np.empty(n, np.int64), _floats(n))
    lib.delf_edge_take(handle, _address(hits.query), _address(hits.slot), _address(hits.feature), _address(hits.score))
    return hits


def nearest(
    lib: ctypes.CDLL, product: Float32Array, half_norms: Float32Array, p: int
) -> tuple[Int32Array, Float32Array]:
    """The p columns of largest product - half_norms of every row, the largest first; equal ones by column.

    Args:
        lib: `library()`.
        product: float32 (N, K), contiguous.
        half_norms: float32 (K,).
        p: at most K.

    Returns:
        Columns int32 (N, p), and the product there float32 (N, p).
    """
    N, K = product.shape
    words, similarity = np.empty((N, p), np.int32), np.empty((N, p), np.float32)
    lib.delf_edge_nearest(_address(product), _address(half_norms), N, K, p, _address(words), _address(similarity))
    return words, similarity


def inner_products(lib: ctypes.CDLL, rows: NDArray[np.int8], query: Float32Array) -> Float32Array:
    """<row, query> of int8 rows (n, G), contiguous: float32 (n,)."""
    n, G = rows.shape
    out, query = _floats(n), np.ascontiguousarray(query, np.float32)
    lib.delf_edge_inner_products(_address(rows), _address(query), n, G, _address(out))
    return out


def affine(
    lib: ctypes.CDLL,
    source: Float32Array,
    target: Float32Array,
    draws: Float64Array,
    *,
    tolerance: float,
    refined: int,
    refinements: int,
    max_scale: float,
    max_anisotropy: float,
) -> tuple[Float64Array, BoolArray]:
    """As `verification.estimate_affine`, for at least 3 pairs; `draws` float64 (H, 3) in [0, 1) make the samples.

    Raises:
        MemoryError: as it says.
    """
    source, target = np.ascontiguousarray(source, np.float32), np.ascontiguousarray(target, np.float32)
    P = len(source)
    transform, inliers = np.full((2, 3), np.nan), np.zeros(P, np.bool_)
    found = lib.delf_edge_affine(
        _address(source),
        _address(target),
        P,
        _address(draws),
        len(draws),
        tolerance,
        refined,
        refinements,
        max_scale,
        max_anisotropy,
        _address(transform),
        _address(inliers),
    )
    if found < 0:
        raise MemoryError("no memory for the hypotheses of a verification")
    return transform, inliers


def pick_voters(lib: ctypes.CDLL, hits: Hits) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Of every (query, slot) the best hit, by query and slot (see `scoring.count_votes`).

    Returns:
        int64 (V,), indices into the hits, and int64 (V,), how many of these are hits of the same feature.

    Raises:
        MemoryError: as it says.
    """
    columns = [np.ascontiguousarray(column) for column in hits]
    n = len(hits.query)
    chosen, times = np.empty(n, np.int64), np.empty(n, np.int64)
    kept = lib.delf_edge_voters(*map(_address, columns), n, _address(chosen), _address(times))
    if kept < 0:
        raise MemoryError("no memory for counting votes")
    return chosen[:kept], times[:kept]


def decode_codes(
    lib: ctypes.CDLL, centroids: Float32Array, pq: Float32Array, words: UInt16Array, codes: UInt8Array
) -> Float32Array:
    """Unit rows float32 (N, M d): centroids (K, M d) by words (N,), all below K, plus codewords of pq (M, 256, d)."""
    M, _, d = pq.shape
    out = np.empty((len(words), M * d), np.float32)
    arrays = (_address(a) for a in (centroids, words, pq, codes))
    lib.delf_edge_decode(*arrays, len(words), M, d, _address(out))
    return out


def unpack(
    lib: ctypes.CDLL, records: bytes, offset: int, n: int, code_size: int, step: float
) -> tuple[Float32Array, UInt16Array, UInt8Array, int]:
    """Keypoints, words and codes of n packed records (`CodeLayout.record`) from `offset` on, and the largest word.

    Raises:
        ValueError: there are fewer bytes.
    """
    raw = np.frombuffer(records, np.uint8, n * (5 + code_size), offset)
    keypoints, words = np.empty((n, 2), np.float32), np.empty(n, np.uint16)
    codes = np.empty((n, code_size), np.uint8)
    most = lib.delf_edge_unpack(
        _address(raw), n, code_size, step, _address(keypoints), _address(words), _address(codes)
    )
    return keypoints, words, codes, int(most)


def _floats(n: int) -> Float32Array:
    return np.empty(n, np.float32)


def _address(array: NDArray[np.generic]) -> int:
    if not array.flags.c_contiguous:
        raise ValueError(f"the compiled loops need contiguous arrays, got strides {array.strides}")
    return array.ctypes.data
