"""What the bytes of an image file say before anything is decoded: size, format, end, orientation.

Read in Python, so that a hostile header meets no decoder. No NumPy, no OpenCV.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import Literal, NamedTuple

from delf_edge.errors import ImageDecodeError

_FORMATS = "JPEG, PNG, WebP, BMP and TIFF"


class Probe(NamedTuple):
    """What a file's header says: stored width and height in pixels (before orientation), and its format."""

    width: int
    height: int
    format: str


def probe_size(data: bytes) -> Probe:
    """Width, height and format from the header of an image file, without decoding it.

    Raises:
        ImageDecodeError: not a supported image, or the header is cut off.
    """
    if not data:
        raise ImageDecodeError("the file is empty (0 bytes); copy the photo again")
    for magic, probe in _PROBES:
        if data.startswith(magic):
            try:
                width, height, name = probe(data)
            except (struct.error, IndexError):
                raise ImageDecodeError(f"the header is cut off after {len(data)} bytes; copy the photo again") from None
            if width < 1 or height < 1:
                raise ImageDecodeError(f"the {name} header declares {width} x {height} pixels; the file is damaged")
            return Probe(width, height, name)
    raise ImageDecodeError(f"{_what_else(data)}; {_FORMATS} are supported, convert it to one of them")


def check_end(data: bytes, kind: str) -> None:
    """Refuse a file whose end is missing. Some decoders return what came before, filled up with grey."""
    if kind == "JPEG":
        # Within compressed data 0xFF is followed by 0 or a restart marker, so the first FF D9 behind the start of
        # scan is the end of this picture, and not that of an EXIF thumbnail.
        scan = next((at for marker, at in _jpeg_segments(data) if marker == 0xDA), -1)
        complete = scan >= 0 and data.find(b"\xff\xd9", scan) >= 0
    elif kind == "PNG":
        complete = False
        for name, at, size in _png_chunks(data):
            stored = data[at + size : at + size + 4]
            if len(stored) < 4:
                break
            # libpng prints its complaints to stderr: find damage before it does.
            if zlib.crc32(memoryview(data)[at - 4 : at + size]) != int.from_bytes(stored, "big"):
                raise ImageDecodeError(f"the PNG is damaged: wrong checksum of chunk {name!r}; copy the photo again")
            complete = complete or name == b"IEND"
    elif kind == "WebP":
        complete = len(data) >= 8 + int.from_bytes(data[4:8], "little")
    else:  # BMP and TIFF decoders read all rows or fail
        complete = True
    if not complete:
        raise ImageDecodeError(f"the {kind} is cut off: {len(data)} bytes and no end; copy the photo again")


def orientation_of(data: bytes, kind: str) -> int:
    """EXIF orientation 1..8; 1 where there is none or the EXIF block is damaged."""
    try:
        value = _tiff_tags(_exif(data, kind)).get(274, 1)
    except struct.error:
        return 1
    return value if 1 <= value <= 8 else 1


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, int]]:
    """(marker, position behind its length field) of each segment up to the start of scan."""
    at = 2
    while at + 4 <= len(data):
        if data[at] != 0xFF:
            return
        marker = data[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
            continue
        if marker == 0x01 or 0xD0 <= marker <= 0xD8:  # markers without a segment
            at += 2
            continue
        if marker == 0xD9:
            return
        yield marker, at + 4
        if marker == 0xDA:
            return
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")


def _probe_jpeg(data: bytes) -> tuple[int, int, str]:
    for marker, at in _jpeg_segments(data):
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # SOFn, without DHT, JPG, DAC
            _, height, width = struct.unpack_from(">BHH", data, at)
            return width, height, "JPEG"
    raise ImageDecodeError(f"the JPEG has no frame header in its {len(data)} bytes; it is cut off or damaged")


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """(name, position of the content, size of the content) of each chunk."""
    at = 8
    while at + 8 <= len(data):
        size, name = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        yield name, at + 8, size
        if name == b"IEND":
            return
        at += 12 + size


def _probe_png(data: bytes) -> tuple[int, int, str]:
    width, height = struct.unpack_from(">II", data, 16)
    if data[12:16] != b"IHDR":
        raise ImageDecodeError("the PNG does not begin with its header; it is damaged")
    return width, height, "PNG"


def _probe_webp(data: bytes) -> tuple[int, int, str]:
    kind = data[8:16]
    if kind == b"WEBPVP8X":
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little"), "WebP"
    if kind == b"WEBPVP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF), "WebP"
    if kind == b"WEBPVP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF, "WebP"
    raise ImageDecodeError(f"a RIFF file that is not a WebP picture; {_FORMATS} are supported")


def _probe_bmp(data: bytes) -> tuple[int, int, str]:
    (size,) = struct.unpack_from("<I", data, 14)
    width, height = struct.unpack_from("<HH" if size == 12 else "<ii", data, 18)
    return width, abs(height), "BMP"  # a negative height means that rows go downwards


def _tiff_tags(data: bytes) -> dict[int, int]:
    """First value of the SHORT and LONG tags of the first directory of a TIFF, or of the EXIF block that is one."""
    order: Literal["<", ">"] = "<" if data[:2] == b"II" else ">"
    (at,) = struct.unpack_from(order + "I", data, 4)
    (n,) = struct.unpack_from(order + "H", data, at)
    tags: dict[int, int] = {}
    for i in range(n):
        tag, kind, _ = struct.unpack_from(order + "HHI", data, at + 2 + 12 * i)
        if kind in (3, 4):
            (tags[tag],) = struct.unpack_from(order + ("H" if kind == 3 else "I"), data, at + 10 + 12 * i)
    return tags


def _probe_tiff(data: bytes) -> tuple[int, int, str]:
    tags = _tiff_tags(data)
    return tags.get(256, 0), tags.get(257, 0), "TIFF"


_PROBES = (
    (b"\xff\xd8\xff", _probe_jpeg),
    (b"\x89PNG\r\n\x1a\n", _probe_png),
    (b"RIFF", _probe_webp),
    (b"BM", _probe_bmp),
    (b"II*\0", _probe_tiff),
    (b"MM\0*", _probe_tiff),
)


def _what_else(data: bytes) -> str:
    """Name what was given instead of a photo, so that the message helps."""
    if data[:4] == b"GIF8":
        return "a GIF"
    if data[4:8] == b"ftyp":
        return f"a {data[8:12].decode('ascii', 'replace').strip()} file (HEIC, AVIF or video)"
    if data[:4] == b"%PDF":
        return "a PDF"
    if b"\0" not in data[:512]:
        return f"text, beginning with {data[:24].decode('utf-8', 'replace')!r}"
    return f"not an image (first bytes {data[:8].hex(' ')})"


def _exif(data: bytes, kind: str) -> bytes:
    """The TIFF structure inside the EXIF block, or nothing."""
    if kind == "JPEG":
        for marker, at in _jpeg_segments(data):
            if marker == 0xE1 and data[at : at + 6] == b"Exif\0\0":
                return data[at + 6 : at - 2 + int.from_bytes(data[at - 2 : at], "big")]
    elif kind == "PNG":
        for name, at, size in _png_chunks(data):
            if name == b"eXIf":
                return data[at : at + size]
    elif kind == "WebP":
        at = 12
        while at + 8 <= len(data):
            size = int.from_bytes(data[at + 4 : at + 8], "little")
            if data[at : at + 4] == b"EXIF":
                return data[at + 8 : at + 8 + size].removeprefix(b"Exif\0\0")
            at += 8 + size + size % 2
    return b""
