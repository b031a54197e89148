"""What people pass as a photo, read once: a path, bytes, an open file, an array, a Pillow image.

What comes out is either the bytes of an image file or an array uint8 (H, W) or (H, W, 3), so that what is hashed is
what is decoded and stored.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from delf_edge.errors import ImageError, ImageTooLargeError, OptionError
from delf_edge.images.limits import DEFAULT_LIMITS, ImageLimits, check_pixels
from delf_edge.types import UInt8Array

ChannelOrder: TypeAlias = Literal["RGB", "BGR"]


class BinaryFile(Protocol):
    """A file that is open for reading bytes."""

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes."""


class PillowImage(Protocol):
    """What is used of a `PIL.Image.Image`; Pillow itself is not needed."""

    @property
    def mode(self) -> str:
        """Such as "RGB"."""

    @property
    def size(self) -> tuple[int, int]:
        """(width, height)."""

    def getexif(self) -> Mapping[int, Any]:
        """EXIF tags."""

    def convert(self, mode: str) -> Any:
        """The same picture in another mode."""


# None is what `cv2.imread` gives for a file that it cannot read; it is refused with a message that says so.
PhotoSource: TypeAlias = (
    "str | os.PathLike[str] | bytes | bytearray | memoryview | NDArray[Any] | BinaryFile | PillowImage | None"
)


def read_source(
    source: PhotoSource, *, channel_order: ChannelOrder | None = None, limits: ImageLimits = DEFAULT_LIMITS
) -> tuple[bytes | UInt8Array, ChannelOrder | None]:
    """A photo, read once: give both values to `content_hash` and `load_image` as often as you like.

    Args:
        source: path; bytes of an image file; file open for bytes, read from where it stands; Pillow image; or array
            uint8 (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), whose fourth channel, the transparency, is dropped.
        channel_order: "RGB" or "BGR"; required for arrays with colours (OpenCV gives BGR), refused otherwise.
        limits: caps on what is read.

    Returns:
        Bytes and None; or an array (H, W) and None, or (H, W, 3) and its order. Arrays are not copied.

    Raises:
        ImageTooLargeError: more bytes or pixels than the limits allow.
        ImageError: the file is missing or cannot be read; an array or image of another form.
        OptionError: `channel_order` is missing, unknown, or given for something that is not a colour array.
    """
    if isinstance(source, np.ndarray):
        return _checked_array(source, channel_order, limits)
    if source is None:
        raise ImageError("None is no photo; cv2.imread gives None for a file that it cannot read: pass the path itself")
    if channel_order is not None:
        kind = "a Pillow image" if _is_pillow(source) else "an image file"
        raise OptionError(f"channel_order={channel_order!r} is for arrays; {kind} knows its own, leave it out")
    if _is_pillow(source):
        return _from_pillow(source, limits)
    return _as_bytes(source, limits), None


def name_of(source: PhotoSource) -> str:
    """How messages call a photo."""
    return printable(os.fspath(source)) if isinstance(source, str | os.PathLike) else "the photo"


def printable(text: str) -> str:
    """A name as it can be printed and stored: what is no UTF-8 in it is shown as an escape."""
    return os.fsdecode(text).encode("utf-8", "backslashreplace").decode()


def read_photo(path: str | os.PathLike[str], *, limits: ImageLimits = DEFAULT_LIMITS) -> bytes:
    """The bytes of a photo's file: read once, then give them to both `content_hash` and `load_image`.

    Raises:
        ImageTooLargeError: the file has more than `limits.max_bytes`.
        ImageError: missing, a folder or device, or not readable.
    """
    p = Path(path)
    name = name_of(p)
    try:
        if p.is_dir():
            raise ImageError(f"{name} is a folder, not a photo; to add a folder use `delf-edge index`")
        if p.exists() and not p.is_file():
            raise ImageError(f"{name} is a device or pipe, not a photo; read it yourself and pass the bytes")
        size = p.stat().st_size
        if size > limits.max_bytes:
            raise ImageTooLargeError(f"{name} has {size} bytes, the cap is {limits.max_bytes}; shrink the photo")
        return p.read_bytes()
    except FileNotFoundError:
        raise ImageError(f"{name} does not exist; check the path") from None
    except PermissionError:
        raise ImageError(f"{name} may not be read by this user; check its permissions") from None
    except (OSError, ValueError) as e:  # ValueError: a NUL in the path
        raise ImageError(f"{name} cannot be read: {e}") from e


def _as_bytes(source: Any, limits: ImageLimits) -> bytes:
    if isinstance(source, str | os.PathLike):
        return read_photo(source, limits=limits)
    if isinstance(source, bytes | bytearray | memoryview):
        data = bytes(source)
    elif callable(getattr(source, "read", None)):
        data = _read_file(source, limits)
    else:
        raise ImageError(
            f"a photo is a path, bytes, an open file, a uint8 array or a Pillow image, not {type(source).__name__}"
        )
    if len(data) > limits.max_bytes:
        raise ImageTooLargeError(f"the photo has more than {limits.max_bytes} bytes, which is the cap; shrink it")
    return data


def _read_file(file: BinaryFile, limits: ImageLimits) -> bytes:
    parts, size = [], 0
    while size <= limits.max_bytes:
        try:
            part: object = file.read(limits.max_bytes + 1 - size)
        except (OSError, ValueError) as e:  # ValueError: it is closed, or text that is none
            raise ImageError(f"the open file cannot be read: {e}") from e
        if not isinstance(part, bytes | bytearray | memoryview):
            raise ImageError(f"the open file gives {type(part).__name__}, not bytes; open it with mode 'rb'")
        if not part:
            break
        parts.append(bytes(part))
        size += len(part)
    return b"".join(parts)


def _checked_array(
    array: NDArray[Any], channel_order: ChannelOrder | None, limits: ImageLimits
) -> tuple[UInt8Array, ChannelOrder | None]:
    if array.dtype != np.uint8:
        raise ImageError(f"the array is {array.dtype}; pass uint8 with values 0..255")
    channels = array.shape[2] if array.ndim == 3 else 1
    if array.ndim not in (2, 3) or channels not in (1, 3, 4) or 0 in array.shape:
        raise ImageError(f"the array has shape {array.shape}; pass (H, W, 3), or (H, W) for grey")
    if channels > 1 and channel_order not in ("RGB", "BGR"):
        raise OptionError(f'channel_order is {channel_order!r}; say "RGB" or "BGR" (OpenCV gives BGR)')
    if channels == 1 and channel_order is not None:
        raise OptionError(f"channel_order={channel_order!r} was given for a grey array; leave it out")
    check_pixels(array.shape[1], array.shape[0], "the array", limits)
    if channels == 1:
        return array.reshape(array.shape[:2]), None
    return array[..., :3], channel_order


def _is_pillow(source: object) -> bool:
    """Whether it is a Pillow image; Pillow is not imported for that."""
    pillow = sys.modules.get("PIL.Image")
    return pillow is not None and isinstance(source, pillow.Image)


def _from_pillow(image: Any, limits: ImageLimits) -> tuple[UInt8Array, ChannelOrder]:
    """A Pillow image as RGB, upright by its EXIF orientation, as `PIL.ImageOps.exif_transpose` makes it."""
    width, height = image.size
    if not width or not height:
        raise ImageError(f"the Pillow image has {width} x {height} pixels; there is nothing to see")
    check_pixels(width, height, "the Pillow image", limits)
    if image.mode in ("I", "F"):
        raise ImageError(f"the Pillow image has mode {image.mode}, numbers without a range; convert it to RGB first")
    try:
        orientation = image.getexif().get(274, 1)
        if image.mode.startswith("I;16"):
            grey = (np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8)
            pixels = np.repeat(grey[..., None], 3, axis=2)
        else:
            pixels = np.array(image.convert("RGB"), np.uint8)
    except (OSError, ValueError, SyntaxError) as e:  # an image that Pillow has opened but not read yet
        raise ImageError(f"Pillow cannot read this image: {e}; pass its path instead") from e
    return upright(pixels, orientation if orientation in range(1, 9) else 1), "RGB"


def upright(pixels: UInt8Array, orientation: int) -> UInt8Array:
    """Undo an EXIF orientation 1..8 (EXIF 2.3, section 4.6.4 A)."""
    if orientation >= 5:  # 5: transposed, 6: turn 90 degrees clockwise, 7: transversed, 8: turn 90 anticlockwise
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)
