"""HEIC and AVIF, the photos of phones, by the extra `heif`: the only door to pillow-heif and to Pillow's AVIF decoder.

Their boxes are read here in Python, and their sizes capped by `limits`, before a decoder sees the file.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from typing import Any

import numpy as np

from delf_edge.errors import ImageDecodeError
from delf_edge.types import UInt8Array

INSTALL = "python -m pip install 'delf-edge[heif]'"
_MAX_BOXES = 4096  # of a file, on the way to its size
_AVIF = {b"avif", b"avis"}
_HEIF = {*_AVIF, *(b"heic heix heim heis hevc hevx hevm hevs mif1 mif2 msf1".split())}


def is_heif(data: bytes) -> bool:
    """Whether a file says that it holds HEIC or AVIF pictures."""
    return bool(file_brands(data) & _HEIF)


def file_boxes(data: bytes, at: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """(name, position of the content, end) of each box of an ISO base media file (ISO/IEC 14496-12, section 4.2)."""
    for _ in range(_MAX_BOXES):
        if at + 8 > end:
            return
        size, name, content = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8], at + 8
        if size == 1:
            size, content = int.from_bytes(data[at + 8 : at + 16], "big"), at + 16
        stop = end if size == 0 else at + size
        if stop < content:
            return
        yield name, content, stop
        at = stop


def probe_heif(data: bytes) -> tuple[int, int, str]:
    """Width, height and format: of the largest picture, as a grid of tiles is (ISO/IEC 23008-12, section 6.5.3)."""
    kind = "AVIF" if file_brands(data) & _AVIF else "HEIC"
    metas = [(content + 4, end) for name, content, end in file_boxes(data, 0, len(data)) if name == b"meta"]
    sizes = [
        struct.unpack_from(">II", data, content + 4)
        for meta in metas
        for content, _ in _inside(data, *meta, (b"iprp", b"ipco", b"ispe"))
    ]
    width, height = max(sizes, key=lambda size: size[0] * size[1], default=(0, 0))
    if not width:
        raise ImageDecodeError(f"the {kind} holds no still picture, or its header is cut off; save it as JPEG")
    return width, height, kind


def _inside(data: bytes, at: int, end: int, path: tuple[bytes, ...]) -> Iterator[tuple[int, int]]:
    """(position of the content, end) of the boxes that lie at a path of names below a box."""
    for name, content, stop in file_boxes(data, at, min(end, len(data))):
        if name == path[0]:
            if len(path) == 1:
                yield content, stop
            else:
                yield from _inside(data, content, stop, path[1:])


def file_brands(data: bytes) -> set[bytes]:
    """The brands that an ISO base media file says it is of; none for other files."""
    if data[4:8] != b"ftyp":
        return set()
    end = min(int.from_bytes(data[:4], "big"), len(data), 8 + 4 * 64)
    return {data[8:12], *(data[i : i + 4] for i in range(16, end - 3, 4))}


def decode_heif(data: bytes, kind: str) -> tuple[UInt8Array, int]:
    """The main picture of a HEIC or AVIF file.

    Args:
        data: the whole file.
        kind: "HEIC" or "AVIF".

    Returns:
        uint8 (H, W, 3) RGB, and the EXIF orientation 1..8 that is still to be undone.

    Raises:
        ImageDecodeError: the extra is missing, or the file is damaged; the message does not name the photo.
    """
    try:
        return _avif(data) if kind == "AVIF" else _heic(data)
    except ImportError as e:
        raise ImageDecodeError(f"a photo in {kind}; to read it install the extra: {INSTALL}, or save it as JPEG") from e
    except MemoryError:
        raise
    except Exception as e:  # of damaged files the decoders raise what they like
        raise ImageDecodeError(f"this {kind} is damaged or of an unsupported form: {e}; save it as JPEG") from e


def _heic(data: bytes) -> tuple[UInt8Array, int]:
    import pillow_heif

    image: Any = pillow_heif.open_heif(io.BytesIO(data), convert_hdr_to_8bit=True)  # the main picture of the file
    pixels = np.asarray(image)
    if image.mode == "L":
        pixels = np.repeat(pixels.reshape(*pixels.shape[:2], 1), 3, axis=2)
    return np.array(pixels[..., :3], np.uint8, order="C"), 1  # libheif has turned and mirrored it


def _avif(data: bytes) -> tuple[UInt8Array, int]:
    from PIL import AvifImagePlugin, features

    if not features.check("avif"):
        raise ImportError("this Pillow has no AVIF decoder")
    with AvifImagePlugin.AvifImageFile(io.BytesIO(data)) as image:  # `Image.open` would warn of large ones
        orientation = int(image.getexif().get(274, 1))
        return np.array(image.convert("RGB"), np.uint8), orientation if 1 <= orientation <= 8 else 1
