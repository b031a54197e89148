"""The first directory of a TIFF, a BigTIFF, or an EXIF block, which is one: size, orientation, form of the samples."""

from __future__ import annotations

import struct
from typing import Literal

from delf_edge.errors import ImageDecodeError

_SIZES = {1: ("B", 1), 3: ("H", 2), 4: ("I", 4), 16: ("Q", 8)}  # BYTE, SHORT, LONG, LONG8: struct code and bytes


def tiff_tags(data: bytes) -> dict[int, int]:
    """First value of each whole-number tag of the first directory of a TIFF, BigTIFF, or EXIF block, which is one.

    Raises:
        struct.error: the directory is not inside of the data.
    """
    order: Literal["<", ">"] = "<" if data[:2] == b"II" else ">"
    big = data[2:4] in (b"+\0", b"\0+")
    (at,) = struct.unpack_from(order + "Q", data, 8) if big else struct.unpack_from(order + "I", data, 4)
    if at > len(data):  # one of 64 bits may be more than `unpack_from` takes
        raise struct.error("the directory lies behind the end")
    (n,) = struct.unpack_from(order + ("Q" if big else "H"), data, at)
    at, entry, inline = (at + 8, 20, 8) if big else (at + 2, 12, 4)
    tags: dict[int, int] = {}
    for i in range(min(n, 1 << 16)):
        here = at + entry * i
        tag, kind, count = struct.unpack_from(order + ("HHQ" if big else "HHI"), data, here)
        code, size = _SIZES.get(kind, ("", 0))
        if not code or not count:
            continue
        value = here + entry - inline
        if count * size > inline:  # the entry says where the values are
            (value,) = struct.unpack_from(order + ("Q" if big else "I"), data, value)
        if value + size <= len(data):
            (tags[tag],) = struct.unpack_from(order + code, data, value)
    return tags


def probe_tiff(data: bytes) -> tuple[int, int, str]:
    """Width, height and format; a camera's RAW picture, which is a TIFF with a preview in front, is refused."""
    tags = tiff_tags(data)
    if data[8:10] == b"CR" or 50706 in tags or (tags.get(254, 0) & 1 and 330 in tags):
        raise ImageDecodeError("a camera's RAW picture; convert it to JPEG, PNG or WebP")
    return tags.get(256, 0), tags.get(257, 0), "TIFF"


def unsupported_form(data: bytes, kind: str) -> str | None:
    """Why a TIFF that is not damaged cannot be decoded, as far as its header tells."""
    if kind != "TIFF":
        return None
    try:
        tags = tiff_tags(data)
    except struct.error:
        return None
    bits, sample = tags.get(258, 1), tags.get(339, 1)
    if sample == 3:
        return f"holds {bits}-bit floating-point numbers; 8 or 16 bits a colour are supported"
    if bits > 16:
        return f"has {bits} bits a colour; 8 or 16 are supported"
    return None
