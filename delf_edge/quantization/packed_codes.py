"""The bytes of a stored image: its codes in packed form, and the codes of many images at once.

Packed form of `Codes`, little-endian, version 1 (`pack_codes`, `unpack_codes`)::

    offset      size  what
    0           1     version of this layout: 1
    1           1     M, bytes of a PQ code
    2           2     G, dimension of the global descriptor
    4           4     N, number of features
    8           4     width of the image the keypoints refer to, pixels
    12          4     height
    16          G     global descriptor, int8
    16 + G      N (5 + M), one record a feature, best score first:
                3     keypoint: two 12-bit numbers X, Y; bytes X & 255, X >> 8 | (Y & 15) << 4, Y >> 4
                      x = X / 4095 * max(width, height), y likewise
                2     word
                M     PQ code

Twelve bits are a fraction of a pixel at 640 px, far below the tolerance of verification.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from delf_edge import native
from delf_edge.errors import OptionError
from delf_edge.types import Codebook, Codes, Float32Array, UInt8Array, UInt16Array

PACK_VERSION = 1
TINY_BYTES = 1024  # of the packed form of an image
_HEADER = struct.Struct("<BBHIII")
_STEPS = 4095  # of a 12-bit keypoint coordinate


@dataclass(frozen=True, slots=True)
class CodeLayout:
    """The sizes that all codes of one database share.

    Attributes:
        code_size: M, bytes of a PQ code, 1..255.
        global_dim: G, 0..65535.
        n_words: K, 1..65536; a stored word is below it.
    """

    code_size: int
    global_dim: int
    n_words: int

    def __post_init__(self) -> None:
        if not (1 <= self.code_size <= 255 and 0 <= self.global_dim <= 65535 and 1 <= self.n_words <= 65536):
            raise OptionError(
                f"codes of {self.code_size} bytes, {self.global_dim} global dimensions and {self.n_words} words "
                "cannot be stored: at most 255, 65535 and 65536"
            )

    @classmethod
    def of(cls, codebook: Codebook) -> CodeLayout:
        """The layout of codes made with `codebook`."""
        return cls(codebook.code_size, codebook.global_dim, codebook.n_words)

    @property
    def feature_bytes(self) -> int:
        """Bytes of one packed feature."""
        return 5 + self.code_size

    def record(self) -> np.dtype[np.void]:
        """NumPy dtype of one packed feature: fields `keypoint` (3 bytes), `word`, `code`."""
        return np.dtype([("keypoint", "u1", (3,)), ("word", "<u2"), ("code", "u1", (self.code_size,))])


def tiny(codes: Codes) -> Codes:
    """The best features of an image, as many as `TINY_BYTES` of the packed form hold."""
    layout = CodeLayout(codes.codes.shape[1], len(codes.global_code), 65536)
    n = max(0, (TINY_BYTES - _HEADER.size - layout.global_dim) // layout.feature_bytes)
    return replace(codes, keypoints=codes.keypoints[:n], words=codes.words[:n], codes=codes.codes[:n])


def quantise_keypoints(keypoints: NDArray[np.floating], image_size: tuple[int, int]) -> Float32Array:
    """Keypoints (N, 2) moved onto the grid that the packed form can hold, clipped to the image's long side."""
    return _from_grid(_to_grid(keypoints, image_size), image_size)


def _to_grid(keypoints: NDArray[np.floating], image_size: tuple[int, int]) -> UInt16Array:
    side = max(*image_size, 1)
    return np.asarray(np.rint(np.clip(keypoints, 0, side) * (_STEPS / side)), np.uint16)


def _from_grid(grid: UInt16Array, image_size: tuple[int, int]) -> Float32Array:
    return (grid * _grid_step(image_size)).astype(np.float32)


def _grid_step(image_size: tuple[int, int]) -> float:
    return max(*image_size, 1) / _STEPS


def pack_codes(codes: Codes) -> bytes:
    """The packed form (see the head of this module)."""
    N, M = codes.codes.shape
    layout = CodeLayout(M, len(codes.global_code), 65536)
    width, height = codes.image_size
    records = np.empty(N, layout.record())
    X, Y = _to_grid(codes.keypoints, codes.image_size).T
    records["keypoint"] = np.stack([X & 255, X >> 8 | (Y & 15) << 4, Y >> 4], axis=1)
    records["word"] = codes.words
    records["code"] = codes.codes
    header = _HEADER.pack(PACK_VERSION, M, layout.global_dim, N, width, height)
    return header + codes.global_code.astype("<i1").tobytes() + records.tobytes()


def packed_size(blob: bytes, layout: CodeLayout) -> int:
    """N of a packed form, after checking its header against `layout` and its length.

    Raises:
        ValueError: the bytes are not a packed form of this layout; the message shows both.
    """
    if len(blob) < _HEADER.size:
        raise ValueError(f"{len(blob)} bytes are too few for packed codes")
    version, M, G, N, _, _ = _HEADER.unpack_from(blob)
    if (version, M, G) != (PACK_VERSION, layout.code_size, layout.global_dim):
        raise ValueError(
            f"packed codes of version {version} with M={M}, G={G}; this database has version {PACK_VERSION} with "
            f"M={layout.code_size}, G={layout.global_dim}"
        )
    if len(blob) != _HEADER.size + G + N * layout.feature_bytes:
        raise ValueError(f"{len(blob)} bytes do not hold {N} packed features")
    return int(N)


def unpack_codes(blob: bytes, layout: CodeLayout) -> Codes:
    """Codes from their packed form; every array is a copy.

    Raises:
        ValueError: the bytes are not a packed form of this layout, or a word is not below `layout.n_words`.
    """
    packed_size(blob, layout)
    _, M, G, N, width, height = _HEADER.unpack_from(blob)
    lib, start = native.library(), _HEADER.size + G
    if lib is not None:
        keypoints, words, codes, most = native.unpack(lib, blob, start, N, M, _grid_step((width, height)))
    else:
        records = np.frombuffer(blob, layout.record(), offset=start)
        words, codes = records["word"].astype(np.uint16), records["code"].copy()
        a, b, c = records["keypoint"].astype(np.uint16).T
        keypoints = _from_grid(np.stack([a | (b & 15) << 8, b >> 4 | c << 4], axis=1), (width, height))
        most = int(words.max(initial=0))
    if most >= layout.n_words:
        raise ValueError(f"word {most} of packed codes; the codebook has {layout.n_words} words")
    global_code = np.frombuffer(blob, "<i1", G, _HEADER.size).astype(np.int8)
    return Codes(keypoints, words, codes, global_code, (width, height))


@dataclass(frozen=True, slots=True, eq=False)
class CodeBatch:
    """Codes of many images, concatenated: what the search index takes in bulk.

    Attributes:
        image_ids: int64 (I,).
        counts: int64 (I,), features of each image, in order; their sum is N.
        words: uint16 (N,).
        codes: uint8 (N, M).
        global_codes: int8 (I, G).
        row_checksums: uint32 (I,), the CRC-32 of each image's row in `images`, by which a later reader sees whether it
            has this very version of the image; 0 where there is none.
    """

    image_ids: NDArray[np.int64]
    counts: NDArray[np.int64]
    words: UInt16Array
    codes: UInt8Array
    global_codes: NDArray[np.int8]
    row_checksums: NDArray[np.uint32]

    @classmethod
    def of(cls, images: list[tuple[int, Codes]], layout: CodeLayout) -> CodeBatch:
        """A batch of (image id, its codes)."""
        M, G = layout.code_size, layout.global_dim
        return cls(
            image_ids=np.array([i for i, _ in images], np.int64),
            counts=np.array([len(c) for _, c in images], np.int64),
            words=np.concatenate([np.zeros(0, np.uint16), *(c.words for _, c in images)]),
            codes=np.concatenate([np.zeros((0, M), np.uint8), *(c.codes for _, c in images)]),
            global_codes=np.concatenate([np.zeros((0, G), np.int8), *(c.global_code[None] for _, c in images)]),
            row_checksums=np.zeros(len(images), np.uint32),
        )

    @classmethod
    def join(cls, batches: list[CodeBatch], layout: CodeLayout) -> CodeBatch:
        """Batches one after the other."""
        empty = cls.of([], layout)
        fields = ("image_ids", "counts", "words", "codes", "global_codes", "row_checksums")
        return cls(*(np.concatenate([getattr(b, name) for b in (empty, *batches)]) for name in fields))

    @classmethod
    def unpack(cls, image_ids: list[int], blobs: list[bytes], layout: CodeLayout) -> CodeBatch:
        """A batch from packed forms whose `packed_size` was checked in one go."""
        skip = _HEADER.size + layout.global_dim
        records = np.frombuffer(b"".join(blob[skip:] for blob in blobs), layout.record())
        heads = np.frombuffer(b"".join(blob[:skip] for blob in blobs), np.uint8).reshape(len(blobs), skip)
        return cls(
            image_ids=np.array(image_ids, np.int64),
            counts=np.array([(len(blob) - skip) // layout.feature_bytes for blob in blobs], np.int64),
            words=records["word"].astype(np.uint16),
            codes=records["code"].copy(),
            global_codes=heads[:, _HEADER.size :].view(np.int8).copy(),
            row_checksums=np.zeros(len(blobs), np.uint32),
        )
