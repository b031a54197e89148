"""A frame, and what every source of frames can do.

A thread that reads a camera must not run when the process ends: OpenCV would abort it (SIGABRT). So whatever has such
a thread is stopped and joined then, if nobody has closed it before.
"""

from __future__ import annotations

import atexit
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Protocol, Self

import numpy as np

from delf_edge.errors import ImageError, OptionError
from delf_edge.images.photo_source import ChannelOrder
from delf_edge.types import UInt8Array


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One picture of a source.

    Attributes:
        pixels: uint8 (H, W, 3); grey (H, W) and a fourth channel are understood, too. Anything else, such as YUV or
            16 bits, is refused when it is looked at: convert it with `cv2.cvtColor` first.
        channel_order: "RGB" or "BGR".
        time: seconds on the source's clock, never decreasing.
    """

    pixels: UInt8Array = field(repr=False)
    channel_order: ChannelOrder
    time: float


class FrameSource(Protocol):
    """What `camera.watch` reads from; an app may pass its own."""

    @property
    def ended(self) -> bool:
        """Whether no frame will ever come again."""
        ...

    def read(self, timeout: float) -> Frame | None:
        """The newest frame that was not returned before; None where none came within `timeout` seconds."""
        ...

    def close(self) -> None:
        """Let go of the device; closing twice is fine."""
        ...


class Closing:
    """`with` for the sources below."""

    def close(self) -> None:
        """Let go of the device; closing twice is fine."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def colour_pixels(frame: Frame) -> UInt8Array:
    """The pixels of a frame as uint8 (H, W, 3), in its own channel order.

    Raises:
        ImageError: they are of another form.
        OptionError: the channel order is unknown.
    """
    pixels: object = frame.pixels
    if frame.channel_order not in ("RGB", "BGR"):
        raise OptionError(f'a frame has the channel order {frame.channel_order!r}; say "RGB" or "BGR"')
    if not isinstance(pixels, np.ndarray) or 0 in pixels.shape:
        raise ImageError(f"a frame is {type(pixels).__name__} without pixels; pass an array uint8 (H, W, 3)")
    if pixels.dtype != np.uint8:
        raise ImageError(f"a frame is {pixels.dtype} {pixels.shape}; scale it to 0..255 and pass uint8 (H, W, 3)")
    channels = 1 if pixels.ndim == 2 else pixels.shape[2] if pixels.ndim == 3 else 0
    if channels not in (1, 3, 4):
        raise ImageError(
            f"a frame has the shape {pixels.shape}, perhaps YUV; convert it with cv2.cvtColor to (H, W, 3), or set the "
            "camera to RGB"
        )
    if channels == 1:
        return np.repeat(pixels.reshape(*pixels.shape[:2], 1), 3, axis=2)
    return pixels[..., :3]


_STOPPING: weakref.WeakKeyDictionary[object, Callable[[], None]] = weakref.WeakKeyDictionary()


def stop_at_exit(owner: object, stop: Callable[[], None]) -> None:
    """Call `stop` when the process ends, if `owner` is there still; what came last is stopped first."""
    _STOPPING[owner] = stop


@atexit.register
def _stop_all() -> None:
    for stop in reversed(list(_STOPPING.values())):
        stop()
