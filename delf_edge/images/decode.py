"""Photos as bytes become `Image`: header probe, size cap, decoding, orientation. The only door to cv2.imdecode.

::

    path ──read──> bytes ──probe──> width, height, format ──cap──> imdecode ──orientation──> Image

Rules, each with a test:

* The header is read in Python before OpenCV sees the file, so that a small file which declares a huge picture is
  refused without decoding it.
* A large picture in a tiny file is a decompression bomb, and refused as one.
* Large JPEGs are decoded at 1/2, 1/4 or 1/8 (the decoder skips the work), but not below `decode_max_side`.
* EXIF orientation is applied here, once, and never by OpenCV; TIFF alone is turned by its decoder.
* The transparency of a photo is ignored: its colours are taken as they are stored.
* Grey, palette, CMYK and 16-bit pictures become 8-bit RGB.
* A file without its end is refused, also where the decoder would fill the rest with grey.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

from delf_edge.errors import ImageDecodeError, ImageError, ImageTooLargeError, OptionError
from delf_edge.images.headers import check_end, orientation_of, probe_size
from delf_edge.types import Image, UInt8Array

if TYPE_CHECKING:
    from types import ModuleType

ChannelOrder: TypeAlias = Literal["RGB", "BGR"]
PhotoSource: TypeAlias = "str | os.PathLike[str] | bytes | bytearray | memoryview | UInt8Array"

_DENSE_FROM, _MAX_DENSITY = 16_000_000, 100  # pixels, and pixels per byte of the file above that


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """What `load_image` accepts.

    Attributes:
        max_pixels: most pixels a photo may have. A picture that is not a JPEG needs 3 bytes of RAM for each; the
            default lets 108-megapixel phone photos pass.
        max_bytes: largest file that is read.
        decode_max_side: a JPEG is decoded at reduced size while its longer side stays at least this many pixels.
            The default leaves enough for pyramid levels of 1280 px.
    """

    max_pixels: int = 120_000_000
    max_bytes: int = 256 * 1024 * 1024
    decode_max_side: int = 1280

    def __post_init__(self) -> None:
        for name in ("max_pixels", "max_bytes", "decode_max_side"):
            if getattr(self, name) < 1:
                raise OptionError(f"{name} is {getattr(self, name)}; it must be at least 1")


DEFAULT_LIMITS = ImageLimits()


def load_image(
    source: PhotoSource, *, channel_order: ChannelOrder | None = None, limits: ImageLimits = DEFAULT_LIMITS
) -> Image:
    """A photo from a path, from the bytes of an image file, or from an array.

    Args:
        source: path, file bytes, or uint8 array (H, W) grey or (H, W, 3). Arrays are copied.
        channel_order: "RGB" or "BGR"; required for (H, W, 3) arrays (OpenCV's cameras give BGR), refused otherwise.
        limits: caps on what is read and decoded.

    Returns:
        The photo, upright, uint8 (H, W, 3) RGB.

    Raises:
        ImageDecodeError: not an image, truncated, damaged, or of an unsupported form.
        ImageTooLargeError: more pixels or bytes than the limits allow.
        ImageError: the file is missing or cannot be read; an array of the wrong dtype or shape.
        OptionError: `channel_order` is missing, unknown, or given for something that is not a colour array.
    """
    if isinstance(source, np.ndarray):
        return _from_array(source, channel_order, limits)
    if channel_order is not None:
        raise OptionError(f"channel_order={channel_order!r} is for arrays; an image file knows its own, leave it out")
    return _decode(_as_bytes(source, limits), _name(source), limits)


def content_hash(
    source: PhotoSource, *, channel_order: ChannelOrder | None = None, limits: ImageLimits = DEFAULT_LIMITS
) -> bytes:
    """Identity of a photo: 32 bytes, SHA-256 of the file's bytes, or of an array's order, shape and pixels.

    Raises:
        ImageError: as `load_image`, except that files are not decoded.
        OptionError: as `load_image`.
    """
    if not isinstance(source, np.ndarray):
        return hashlib.sha256(_as_bytes(source, limits)).digest()
    _check_array(source, channel_order, limits)
    digest = hashlib.sha256(f"{channel_order or 'grey'} {source.shape}\n".encode())
    digest.update(np.ascontiguousarray(source).data)
    return digest.digest()


def read_photo(path: str | os.PathLike[str], *, limits: ImageLimits = DEFAULT_LIMITS) -> bytes:
    """The bytes of a photo's file: read once, then give them to both `content_hash` and `load_image`.

    Raises:
        ImageTooLargeError: the file has more than `limits.max_bytes`.
        ImageError: missing, a folder or device, or not readable.
    """
    p = Path(path)
    try:
        if p.is_dir():
            raise ImageError(f"{p} is a folder, not a photo; to add a folder use `delf-edge index`")
        if p.exists() and not p.is_file():
            raise ImageError(f"{p} is a device or pipe, not a photo; read it yourself and pass the bytes")
        size = p.stat().st_size
        if size > limits.max_bytes:
            raise ImageTooLargeError(f"{p} has {size} bytes, the cap is {limits.max_bytes}; shrink the photo")
        return p.read_bytes()
    except FileNotFoundError:
        raise ImageError(f"{p} does not exist; check the path") from None
    except PermissionError:
        raise ImageError(f"{p} may not be read by this user; check its permissions") from None
    except (OSError, ValueError) as e:  # ValueError: a NUL in the path
        raise ImageError(f"{p} cannot be read: {e}") from e


def make_thumbnail(image: Image, max_side: int = 480) -> bytes:
    """A small JPEG of a photo (quality 75), its longer side at most `max_side` pixels."""
    cv2 = load_opencv()
    factor = min(1.0, max_side / max(image.size))
    width, height = (max(1, round(side * factor)) for side in image.size)
    small = cv2.resize(image.pixels, (width, height), interpolation=cv2.INTER_AREA)
    _, data = cv2.imencode(".jpg", cv2.cvtColor(small, cv2.COLOR_RGB2BGR), (cv2.IMWRITE_JPEG_QUALITY, 75))
    return bytes(data.tobytes())


def _name(source: PhotoSource) -> str:
    return os.fspath(source) if isinstance(source, str | os.PathLike) else "the photo"


def _as_bytes(source: PhotoSource, limits: ImageLimits) -> bytes:
    if isinstance(source, str | os.PathLike):
        return read_photo(source, limits=limits)
    if isinstance(source, bytes | bytearray | memoryview):
        data = bytes(source)
        if len(data) > limits.max_bytes:
            raise ImageTooLargeError(f"the photo has {len(data)} bytes, the cap is {limits.max_bytes}; shrink it")
        return data
    raise ImageError(f"a photo is a path, bytes or a uint8 array, not {type(source).__name__}")


# -- arrays --------------------------------------------------------------------------------------------------------


def _check_array(array: UInt8Array, channel_order: ChannelOrder | None, limits: ImageLimits) -> None:
    if array.dtype != np.uint8:
        raise ImageError(f"the array is {array.dtype}; pass uint8 with values 0..255")
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] != 3) or 0 in array.shape:
        raise ImageError(f"the array has shape {array.shape}; pass (H, W, 3), or (H, W) for grey")
    if array.ndim == 3 and channel_order not in ("RGB", "BGR"):
        raise OptionError(f'channel_order is {channel_order!r}; say "RGB" or "BGR" (OpenCV gives BGR)')
    if array.ndim == 2 and channel_order is not None:
        raise OptionError(f"channel_order={channel_order!r} was given for a grey array; leave it out")
    _check_size(array.shape[1], array.shape[0], "the array", limits)


def _from_array(array: UInt8Array, channel_order: ChannelOrder | None, limits: ImageLimits) -> Image:
    _check_array(array, channel_order, limits)
    if array.ndim == 2:
        pixels = np.repeat(array[..., None], 3, axis=2)
    else:
        # A copy, so that neither side can change the other's pixels: cameras reuse their buffers.
        pixels = np.array(array[..., ::-1] if channel_order == "BGR" else array, order="C")
    return Image(pixels, (pixels.shape[1], pixels.shape[0]))


# -- decoding ------------------------------------------------------------------------------------------------------


def load_opencv() -> ModuleType:
    """OpenCV, without its own messages on stderr."""
    import cv2

    # Errors are raised, not printed. OpenCV 5 moved this function.
    silence = cv2.setLogLevel if hasattr(cv2, "setLogLevel") else cv2.utils.logging.setLogLevel
    silence(0)
    return cv2


def _check_size(width: int, height: int, name: str, limits: ImageLimits) -> None:
    if width * height > limits.max_pixels:
        raise ImageTooLargeError(
            f"{name} declares {width} x {height} pixels, {width * height / 1e6:.1f} million; "
            f"the cap is {limits.max_pixels / 1e6:.1f} million. Shrink it, or raise ImageLimits.max_pixels"
        )


def _check_density(pixels: int, size: int, name: str) -> None:
    """Refuse a large picture with almost nothing in it, a bomb; a black baseline JPEG has 64 pixels a byte."""
    if pixels > _DENSE_FROM and pixels > _MAX_DENSITY * size:
        raise ImageTooLargeError(
            f"{name} declares {pixels / 1e6:.1f} million pixels in {size} bytes; above {_DENSE_FROM / 1e6:.0f} million "
            f"pixels a photo has at most {_MAX_DENSITY} a byte. Shrink it"
        )


def _decode(data: bytes, name: str, limits: ImageLimits) -> Image:
    try:
        width, height, kind = probe_size(data)
        _check_size(width, height, name, limits)
        _check_density(width * height, len(data), name)
        check_end(data, kind)
    except ImageDecodeError as e:
        raise ImageDecodeError(f"{name}: {e}") from None
    cv2 = load_opencv()
    flags = cv2.IMREAD_COLOR
    if kind == "JPEG":
        long_side = max(width, height)
        for factor, reduced in (
            (8, cv2.IMREAD_REDUCED_COLOR_8),
            (4, cv2.IMREAD_REDUCED_COLOR_4),
            (2, cv2.IMREAD_REDUCED_COLOR_2),
        ):
            if long_side // factor >= limits.decode_max_side:
                flags = reduced
                break
    try:
        bgr = cv2.imdecode(np.frombuffer(data, np.uint8), flags | cv2.IMREAD_IGNORE_ORIENTATION)
    except (cv2.error, MemoryError) as e:
        raise ImageDecodeError(f"{name}: OpenCV cannot decode this {kind}: {e}") from e
    if bgr is None or bgr.dtype != np.uint8 or bgr.ndim != 3:
        raise ImageDecodeError(
            f"{name}: this {kind} is damaged or of an unsupported form; save it again as JPEG or PNG"
        )
    orientation = 1 if kind == "TIFF" else orientation_of(data, kind)
    turned = orientation >= 5 or (kind == "TIFF" and (bgr.shape[1] > bgr.shape[0]) != (width > height))
    rgb = cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB, dst=bgr)
    return Image(_upright(rgb, orientation), (height, width) if turned else (width, height))


def _upright(pixels: UInt8Array, orientation: int) -> UInt8Array:
    """Undo an EXIF orientation 1..8 (EXIF 2.3, section 4.6.4 A)."""
    if orientation >= 5:  # 5: transposed, 6: turn 90 degrees clockwise, 7: transversed, 8: turn 90 anticlockwise
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)
