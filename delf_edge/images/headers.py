"""What the bytes of an image file say before anything is decoded: size, format, end, orientation.

Read in Python, so that a hostile header meets no decoder. What cannot be read is named, so that the message helps.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from delf_edge.errors import ImageDecodeError
from delf_edge.images.heif import file_boxes, file_brands, is_heif, probe_heif
from delf_edge.images.tiff import probe_tiff, tiff_tags

PHOTO_SUFFIXES = frozenset(
    [".avif", ".bmp", ".heic", ".heif", ".hif", ".jfif", ".jpe", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"]
)  # by which photos are found in a folder; what a file is, its bytes say
_FORMATS = "JPEG, PNG, WebP, BMP, TIFF, HEIC and AVIF"
_CRITICAL = (b"IHDR", b"PLTE", b"IDAT", b"IEND")  # the chunks of a PNG without which there is no picture


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
    probe = probe_heif if is_heif(data) else next((p for magic, p in _PROBES if data.startswith(magic)), None)
    if probe is not None:
        try:
            width, height, name = probe(data)
        except (struct.error, IndexError):
            raise ImageDecodeError(f"the header is cut off after {len(data)} bytes; copy the photo again") from None
        if width < 1 or height < 1:
            raise ImageDecodeError(f"the {name} header declares {width} x {height} pixels; the file is damaged")
        return Probe(width, height, name)
    raise ImageDecodeError(f"{_what_else(data)}; {_FORMATS} are supported, {_CONVERT}")


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
            if len(data) < at + size + 4:
                break
            # libpng prints its complaints to stderr: find damage before it does.
            if name in _CRITICAL and not _is_sound(data, at, size):
                raise ImageDecodeError(f"the PNG is damaged: wrong checksum of chunk {name!r}; copy the photo again")
            complete = complete or name == b"IEND"
    elif kind == "WebP":
        complete = len(data) >= 8 + int.from_bytes(data[4:8], "little")
    elif kind in ("HEIC", "AVIF"):
        ends = [end for _, _, end in file_boxes(data, 0, len(data))]
        complete = bool(ends) and ends[-1] == len(data)
    else:  # BMP and TIFF decoders read all rows or fail
        complete = True
    if not complete:
        raise ImageDecodeError(f"the {kind} is cut off: {len(data)} bytes and no end; copy the photo again")


def without_damaged_extras(data: bytes, kind: str) -> bytes:
    """The file without the comments, times and the like of a PNG whose checksum is wrong; the picture needs none."""
    if kind != "PNG":
        return data
    bad = [(at - 8, at + size + 4) for _, at, size in _png_chunks(data) if not _is_sound(data, at, size)]
    parts, begin = [], 0
    for a, b in bad:
        parts.append(data[begin:a])
        begin = b
    return b"".join([*parts, data[begin:]]) if bad else data


def is_streamed(jpeg: bytes) -> bool:
    """Whether a JPEG is decoded row by row: baseline, all colours in one scan. Others are kept whole meanwhile."""
    n_colours = None
    for marker, at in _jpeg_segments(jpeg):
        if marker in (0xC0, 0xC1) and at + 6 <= len(jpeg):
            n_colours = jpeg[at + 5]
        elif marker == 0xDA and at < len(jpeg):
            return n_colours == jpeg[at]
    return False


def orientation_of(data: bytes, kind: str) -> int:
    """EXIF orientation 1..8; 1 where there is none or the EXIF block is damaged."""
    try:
        value = tiff_tags(_exif(data, kind)).get(274, 1)
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


def _is_sound(data: bytes, at: int, size: int) -> bool:
    """Whether the content of a PNG chunk has its checksum."""
    stored = data[at + size : at + size + 4]
    return zlib.crc32(memoryview(data)[at - 4 : at + size]) == int.from_bytes(stored, "big")


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


_PROBES = (
    (b"\xff\xd8\xff", _probe_jpeg),
    (b"\x89PNG\r\n\x1a\n", _probe_png),
    (b"RIFF", _probe_webp),
    (b"BM", _probe_bmp),
    (b"II*\0", probe_tiff),
    (b"MM\0*", probe_tiff),
    (b"II+\0", probe_tiff),
    (b"MM\0+", probe_tiff),
)
_CONVERT = "convert it to JPEG, PNG or WebP"
# First bytes: what it is. `ftyp` files are told apart by `_brands`.
_OTHERS = (
    (b"GIF8", "a GIF"),
    (b"\0\0\0\x0cjP  ", "a JPEG 2000"),
    (b"\xff\x4f\xff\x51", "a JPEG 2000"),
    (b"\0\0\0\x0cJXL ", "a JPEG XL"),
    (b"\xff\x0a", "a JPEG XL"),
    (b"FUJIFILMCCD-RAW", "a camera's RAW picture"),
    (b"IIU\0", "a camera's RAW picture"),
    (b"IIRO", "a camera's RAW picture"),
    (b"IIRS", "a camera's RAW picture"),
    (b"MMOR", "a camera's RAW picture"),
    (b"8BPS", "a Photoshop picture"),
    (b"gimp xcf", "a GIMP picture"),
    (b"v/1\x01", "an OpenEXR picture"),
    (b"\0\0\x01\0", "an icon"),
    (b"qoif", "a QOI picture"),
    (b"%PDF", "a PDF"),
    (b"\x1aE\xdf\xa3", "a video"),
    (b"PK\x03\x04", "a ZIP archive"),
)


def _what_else(data: bytes) -> str:
    """Name what was given instead of a photo, so that the message helps."""
    for magic, name in _OTHERS:
        if data.startswith(magic):
            return name
    if data[4:8] == b"ftyp":
        return "a camera's RAW picture" if b"crx " in file_brands(data) else "a video"
    if data[:4] == b"RIFF":
        return "a RIFF file that is not a WebP picture"
    text = data[:512]
    if b"<svg" in text:
        return "an SVG drawing"
    if b"\0" not in text:
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
