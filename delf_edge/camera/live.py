"""Cameras: OpenCV's devices and streams, and the Raspberry Pi's camera module; always the newest frame."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from delf_edge.camera.frames import Closing, Frame, stop_at_exit
from delf_edge.errors import CameraError
from delf_edge.images.photo_source import ChannelOrder
from delf_edge.types import UInt8Array

_RETRY_FIRST, _RETRY_MOST = 0.5, 10.0  # seconds between attempts to open a lost camera
_STREAM_TIMEOUT = 5000  # milliseconds that a stream may be silent; OpenCV itself waits for 30 s


class _Newest(Closing):
    """A thread keeps reading, so that `read` gives the newest frame however long the last one took."""

    def __init__(self, name: str) -> None:
        self._newest: Frame | None = None
        self._news = threading.Condition()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        this = weakref.ref(self)
        stop_at_exit(self, lambda: None if (source := this()) is None else source.close())

    @property
    def ended(self) -> bool:
        """True once closed: a lost camera may come back."""
        return self._stop.is_set()

    def read(self, timeout: float) -> Frame | None:
        """See `FrameSource`."""
        with self._news:
            self._news.wait_for(lambda: self._newest is not None or self._over, timeout)
            frame, self._newest = self._newest, None
        return None if self._stop.is_set() else frame

    def close(self) -> None:
        """Stop the thread and let go of the camera."""
        self._stop.set()
        with self._news:
            self._news.notify_all()
        if self._thread.ident is not None:
            self._thread.join(timeout=_STREAM_TIMEOUT / 1000 + 1)

    @property
    def _over(self) -> bool:
        """Whether waiting is of no use."""
        return self._stop.is_set()

    def _put(self, pixels: UInt8Array, channel_order: ChannelOrder) -> None:
        """A frame has come; the one before it, if nobody asked for it, is dropped."""
        with self._news:
            self._newest = Frame(pixels, channel_order, time.monotonic())
            self._news.notify_all()

    def _run(self) -> None:
        raise NotImplementedError


class VideoSource(_Newest):
    """A camera through OpenCV: an index, a device file, or the address of a stream.

    A camera that is unplugged and a stream that dies are opened again, after half a second at first, then less and
    less often, up to every ten seconds.

    Args:
        device: index, path, or URL.
        size: (width, height) to ask the camera for; None takes its own.
        patience: seconds that the first frame may take.
        open_capture: makes an object like `cv2.VideoCapture` from `device`; for cameras that need settings.

    Raises:
        CameraError: `read` raises it where the camera could not be opened even once, after `patience` seconds.
    """

    def __init__(
        self,
        device: int | str,
        *,
        size: tuple[int, int] | None = None,
        patience: float = 5.0,
        open_capture: Callable[[int | str], Any] | None = None,
    ) -> None:
        super().__init__(f"camera {device}")
        self.device, self._size, self._patience = device, size, patience
        self._open_capture = open_capture or open_device
        self._seen_any = False
        self._began = time.monotonic()
        self._thread.start()

    def read(self, timeout: float) -> Frame | None:
        """See `FrameSource`."""
        frame = super().read(timeout)
        if frame is None and not self.ended and not self._seen_any and time.monotonic() - self._began > self._patience:
            raise CameraError(_no_frame(self.device, self._patience))
        return frame

    def _run(self) -> None:
        pause = _RETRY_FIRST
        while not self._stop.is_set():
            capture = self._open_capture(self.device)
            if capture.isOpened():
                _set_up(capture, self._size)
                if self._pump(capture):
                    pause = _RETRY_FIRST
            capture.release()
            self._stop.wait(pause)
            pause = min(2 * pause, _RETRY_MOST)

    def _pump(self, capture: Any) -> bool:
        """Read until the camera fails; returns whether it gave any frame."""
        got = False
        while not self._stop.is_set():
            ok, pixels = capture.read()
            if not ok or pixels is None:
                return got
            got = self._seen_any = True
            self._put(pixels, "BGR")
        return got


class PicameraSource(_Newest):
    """A Raspberry Pi camera module through Picamera2, the newest frame only.

    Its ribbon cable cannot be plugged in again while the machine runs, so it is not reopened: a camera that fails ends
    the source with its error, and one that falls silent is a lost signal to `camera.watch`.

    Args:
        camera: a configured and started `Picamera2`, or anything with `capture_array()` and `stop()`; None opens the
            first camera at `size`.
        size: (width, height).
        channel_order: of the arrays. Picamera2's format "RGB888", which is used here, gives B, G, R.

    Raises:
        CameraError: Picamera2 is not installed, or there is no camera.
    """

    def __init__(
        self, camera: Any = None, *, size: tuple[int, int] = (1280, 720), channel_order: ChannelOrder = "BGR"
    ) -> None:
        super().__init__("picamera")
        self._camera = _open_picamera(size) if camera is None else camera
        self._channel_order = channel_order
        self._error: Exception | None = None
        self._thread.start()

    def read(self, timeout: float) -> Frame | None:
        """See `FrameSource`.

        Raises:
            CameraError: the camera has failed.
        """
        frame = super().read(timeout)
        if self._error is not None:
            raise CameraError(f"the camera failed ({self._error}); check the ribbon cable and restart") from self._error
        return frame

    def close(self) -> None:
        """Stop the camera."""
        if not self.ended:
            super().close()
            self._camera.stop()

    @property
    def _over(self) -> bool:
        return self._stop.is_set() or self._error is not None

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                pixels = self._camera.capture_array()
            except Exception as e:  # whatever libcamera raises
                self._fail(e)
                return
            if pixels.ndim != 3 or pixels.shape[2] not in (3, 4):
                shape = f"{pixels.dtype} {pixels.shape}"
                self._fail(CameraError(f"it gives {shape}, perhaps YUV; configure its main stream as RGB888"))
                return
            self._put(np.ascontiguousarray(pixels[..., :3]), self._channel_order)

    def _fail(self, e: Exception) -> None:
        """No frame will come any more, because of `e`."""
        self._error = e
        with self._news:
            self._news.notify_all()


def open_device(device: int | str) -> Any:
    """An `cv2.VideoCapture` of a device, a stream or a file."""
    import cv2

    cv2.utils.logging.setLogLevel(0)  # a missing camera is reported by `read`
    if isinstance(device, str) and "://" in device:
        limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, _STREAM_TIMEOUT, cv2.CAP_PROP_READ_TIMEOUT_MSEC, _STREAM_TIMEOUT]
        return cv2.VideoCapture(device, cv2.CAP_FFMPEG, limits)
    return cv2.VideoCapture(device)


def _no_frame(device: int | str, patience: float) -> str:
    """Why a camera gives no frame, as far as can be told."""
    if isinstance(device, str) and "://" in device:
        what = "check the address, the network, and the user's name and password in it"
    elif isinstance(device, str) and not Path(device).exists():
        return f"{device}: no such file or device; check the path"
    elif isinstance(device, str) and Path(device).is_file():
        what = "it is a file: use VideoFileSource, and save it as .mp4 or .avi if OpenCV cannot read it"
    else:
        what = "check the cable, that no other program uses it, and that this user may read it (group video)"
    return f"camera {device!r} gave no frame for {patience:.0f} s; {what}"


def _set_up(capture: Any, size: tuple[int, int] | None) -> None:
    import cv2

    capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
    if size is not None:
        capture.set(cv2.CAP_PROP_FRAME_WIDTH, size[0])
        capture.set(cv2.CAP_PROP_FRAME_HEIGHT, size[1])


def _open_picamera(size: tuple[int, int]) -> Any:
    try:
        from picamera2 import Picamera2
    except ImportError as e:
        raise CameraError("picamera2 is not installed; `sudo apt install python3-picamera2`") from e
    try:
        camera = Picamera2()
        camera.configure(camera.create_video_configuration(main={"size": size, "format": "RGB888"}))
        camera.start()
    except (RuntimeError, IndexError) as e:
        raise CameraError(f"no camera was found by Picamera2 ({e}); check the ribbon cable") from e
    return camera
