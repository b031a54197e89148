"""How large a photo may be: the caps that are checked on its header, before anything is decoded."""

from __future__ import annotations

from dataclasses import dataclass

from delf_edge.errors import ImageTooLargeError, OptionError
from delf_edge.images.headers import Probe, is_streamed, probe_size

_DENSE_FROM, _MAX_DENSITY = 16_000_000, 100  # pixels, and pixels per byte of the file above that


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """What `load_image` accepts. One value for the API, the commands and the service (`--max-megapixels`).

    Attributes:
        max_pixels: most pixels a photo may have. Decoding needs 3 bytes of RAM for each, so the default is 360 MB. A
            JPEG that is decoded row by row at reduced size needs less and may have four times as many: 480 million by
            default, enough for phone photos of 200 megapixels and for panoramas. A progressive JPEG is kept whole
            while it is decoded, and may not.
        max_bytes: largest file that is read.
        decode_max_side: a JPEG is decoded at reduced size while its longer side stays at least this many pixels.
            The default leaves enough for pyramid levels of 1280 px.
    """

    max_pixels: int = 120_000_000
    max_bytes: int = 256 * 1024 * 1024
    decode_max_side: int = 1280

    def __post_init__(self) -> None:
        for name in ("max_pixels", "max_bytes", "decode_max_side"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise OptionError(f"{name} is {value!r}; it must be a whole number, at least 1")

    def reduction(self, width: int, height: int) -> int:
        """1, 2, 4 or 8: the part of its size at which a JPEG is decoded."""
        return next((f for f in (8, 4, 2) if max(width, height) // f >= self.decode_max_side), 1)


DEFAULT_LIMITS = ImageLimits()


def limits_of(max_pixels: int | None) -> ImageLimits:
    """The limits with this many pixels; None: the default ones."""
    return DEFAULT_LIMITS if max_pixels is None else ImageLimits(max_pixels=max_pixels)


def check_header(data: bytes, name: str, limits: ImageLimits) -> Probe:
    """What an image file's header says, if a picture of this size may be decoded.

    Args:
        data: the file.
        name: of the photo, for the message.
        limits: the caps.

    Raises:
        ImageDecodeError: not a supported image, or the header is cut off.
        ImageTooLargeError: more pixels than the limits allow, or a large picture in a tiny file, which is a
            decompression bomb.
    """
    width, height, kind = probe_size(data)
    pixels = width * height
    reduced = kind == "JPEG" and limits.reduction(width, height) > 1
    if reduced and limits.max_pixels < pixels <= 4 * limits.max_pixels and not is_streamed(data):
        raise ImageTooLargeError(
            f"{name} declares {width} x {height} pixels, {pixels / 1e6:.1f} million, as a progressive JPEG, which is "
            f"kept whole while it is decoded (about {pixels * 3 // 10**6} MB); the cap is "
            f"{limits.max_pixels / 1e6:.1f} million. "
            "Save it as a baseline JPEG (jpegtran -copy all IN > OUT), or raise ImageLimits.max_pixels "
            f"(--max-megapixels {-(-pixels // 10**6)})"
        )
    check_pixels(width, height, name, limits, 4 if reduced and is_streamed(data) else 1)
    if pixels > _DENSE_FROM and pixels > _MAX_DENSITY * len(data):  # a black baseline JPEG has 64 pixels a byte
        raise ImageTooLargeError(
            f"{name} declares {pixels / 1e6:.1f} million pixels in {len(data)} bytes; above {_DENSE_FROM / 1e6:.0f} "
            f"million pixels a photo has at most {_MAX_DENSITY} a byte. Shrink it"
        )
    return Probe(width, height, kind)


def check_pixels(width: int, height: int, name: str, limits: ImageLimits, times: int = 1) -> None:
    """Refuse more than `times` as many pixels as the limits say."""
    most = limits.max_pixels * times
    if width * height > most:
        raise ImageTooLargeError(
            f"{name} declares {width} x {height} pixels, {width * height / 1e6:.1f} million; the cap is "
            f"{most / 1e6:.1f} million. Shrink it, or raise ImageLimits.max_pixels (--max-megapixels)"
        )
