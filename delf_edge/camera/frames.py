"""A frame, and what every source of frames can do."""

from __future__ import annotations

from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from delf_edge.images.photo_source import ChannelOrder
from delf_edge.types import UInt8Array


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One picture of a source.

    Attributes:
        pixels: uint8 (H, W, 3).
        channel_order: "RGB" or "BGR".
        time: seconds on the source's clock, never decreasing.
    """

    pixels: UInt8Array
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
