"""Photos become `Image`: header probe, size cap, decoding, orientation. The only door to cv2.imdecode.

::

    path ──read──> bytes ──probe──> width, height, format ──cap──> imdecode ──orientation──> Image

Rules, each with a test:

* The header is read in Python before a decoder sees the file, so that a small file which declares a huge picture is
  refused without decoding it (`headers`, `limits`).
* A large picture in a tiny file is a decompression bomb, and refused as one.
* Large JPEGs are decoded at 1/2, 1/4 or 1/8 (the decoder skips the work), but not below `decode_max_side`.
* EXIF orientation is applied here, once, and never by OpenCV; TIFF and HEIC alone are turned by their decoders.
* The transparency of a photo is ignored: its colours are taken as they are stored.
* Grey, palette, CMYK and 16-bit pictures become 8-bit RGB.
* A file without its end is refused, also where the decoder would fill the rest with grey.
* HEIC and AVIF need the extra `heif`; the same rules hold for them (`heif`).
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

from delf_edge.errors import ImageDecodeError
from delf_edge.images.headers import (
    check_end,
    orientation_of,
    without_damaged_extras,
)
from delf_edge.images.heif import decode_heif
from delf_edge.images.limits import DEFAULT_LIMITS, ImageLimits, check_header, check_pixels
from delf_edge.images.photo_source import ChannelOrder, PhotoSource, name_of, read_source, upright
from delf_edge.images.tiff import unsupported_form
from delf_edge.types import Image, UInt8Array

if TYPE_CHECKING:
    from types import ModuleType


def load_image(
    source: PhotoSource,
    *,
    channel_order: ChannelOrder | None = None,
    limits: ImageLimits = DEFAULT_LIMITS,
    name: str | None = None,
) -> Image:
    """A photo from a path, from the bytes of an image file, from an array, and whatever else `read_source` takes.

    Args:
        source: path, file bytes, open file, Pillow image, or uint8 array; see `read_source`. Arrays are copied.
        channel_order: "RGB" or "BGR"; required for arrays with colours (OpenCV's cameras give BGR), refused otherwise.
        limits: caps on what is read and decoded.
        name: how errors call the photo; default: its path, or "the photo".

    Returns:
        The photo, upright, uint8 (H, W, 3) RGB.

    Raises:
        ImageDecodeError: not an image, truncated, damaged, or of an unsupported form.
        ImageTooLargeError: more pixels or bytes than the limits allow.
        ImageError: the file is missing or cannot be read; an array of the wrong dtype or shape.
        OptionError: `channel_order` is missing, unknown, or given for something that is not a colour array.
    """
    photo, order = read_source(source, channel_order=channel_order, limits=limits)
    if isinstance(photo, np.ndarray):
        return _from_array(photo, order)
    return _decode(photo, name_of(source) if name is None else name, limits)


def content_hash(
    source: PhotoSource, *, channel_order: ChannelOrder | None = None, limits: ImageLimits = DEFAULT_LIMITS
) -> bytes:
    """Identity of a photo: 32 bytes, SHA-256 of the file's bytes, or of an array's order, shape and pixels.

    Raises:
        ImageError: as `load_image`, except that files are not decoded.
        OptionError: as `load_image`.
    """
    photo, order = read_source(source, channel_order=channel_order, limits=limits)
    if isinstance(photo, bytes):
        return hashlib.sha256(photo).digest()
    digest = hashlib.sha256(f"{order or 'grey'} {photo.shape}\n".encode())
    digest.update(np.ascontiguousarray(photo).data)
    return digest.digest()


def make_thumbnail(image: Image, max_side: int = 480) -> bytes:
    """A small JPEG of a photo (quality 75), its longer side at most `max_side` pixels."""
    cv2 = load_opencv()
    factor = min(1.0, max_side / max(image.size))
    width, height = (max(1, round(side * factor)) for side in image.size)
    small = cv2.resize(image.pixels, (width, height), interpolation=cv2.INTER_AREA)
    _, data = cv2.imencode(".jpg", cv2.cvtColor(small, cv2.COLOR_RGB2BGR), (cv2.IMWRITE_JPEG_QUALITY, 75))
    return bytes(data.tobytes())


def _from_array(array: UInt8Array, channel_order: ChannelOrder | None) -> Image:
    if array.ndim == 2:
        pixels = np.repeat(array[..., None], 3, axis=2)
    else:
        # A copy, so that neither side can change the other's pixels: cameras reuse their buffers.
        pixels = np.array(array[..., ::-1] if channel_order == "BGR" else array, order="C")
    return Image(pixels, (pixels.shape[1], pixels.shape[0]))


def load_opencv() -> ModuleType:
    """OpenCV, without its own messages on stderr."""
    import cv2

    # Errors are raised, not printed. OpenCV 5 moved this function.
    silence = cv2.setLogLevel if hasattr(cv2, "setLogLevel") else cv2.utils.logging.setLogLevel
    silence(0)
    return cv2


def _decode(data: bytes, name: str, limits: ImageLimits) -> Image:
    try:
        width, height, kind = check_header(data, name, limits)
        check_end(data, kind)
        if kind in ("HEIC", "AVIF"):
            pixels, orientation = decode_heif(data, kind)
            check_pixels(pixels.shape[1], pixels.shape[0], name, limits)
            pixels = upright(pixels, orientation)
            return Image(pixels, (pixels.shape[1], pixels.shape[0]))
    except ImageDecodeError as e:
        raise ImageDecodeError(f"{name}: {e}") from None
    cv2 = load_opencv()
    flags = cv2.IMREAD_COLOR
    if kind == "JPEG" and (factor := limits.reduction(width, height)) > 1:
        flags = getattr(cv2, f"IMREAD_REDUCED_COLOR_{factor}")
    data = without_damaged_extras(data, kind)
    try:
        bgr = cv2.imdecode(np.frombuffer(data, np.uint8), flags | cv2.IMREAD_IGNORE_ORIENTATION)
    except (cv2.error, MemoryError) as e:
        raise ImageDecodeError(f"{name}: OpenCV cannot decode this {kind}: {e}") from e
    if bgr is None or bgr.dtype != np.uint8 or bgr.ndim != 3:
        what = unsupported_form(data, kind) or "is damaged or of an unsupported form"
        raise ImageDecodeError(f"{name}: this {kind} {what}; save it again as JPEG or PNG")
    orientation = 1 if kind == "TIFF" else orientation_of(data, kind)
    turned = orientation >= 5 or (kind == "TIFF" and (bgr.shape[1] > bgr.shape[0]) != (width > height))
    rgb = cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB, dst=bgr)
    return Image(upright(rgb, orientation), (height, width) if turned else (width, height))
