"""Frames from files: videos and folders of photos."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

from delf_edge.camera.frames import Closing, Frame
from delf_edge.camera.live import open_device
from delf_edge.errors import CameraError, ImageError, OptionError
from delf_edge.images.decode import load_image
from delf_edge.images.headers import PHOTO_SUFFIXES


class _Recorded(Closing):
    """Frames that wait to be fetched, at their own times or, `realtime`, paced by the wall clock."""

    def __init__(self, frames: Iterator[Frame], realtime: bool) -> None:
        self._frames, self._realtime = frames, realtime
        self._began = time.monotonic()
        self._ended = False

    @property
    def ended(self) -> bool:
        """Whether the last frame has been read."""
        return self._ended

    def read(self, timeout: float) -> Frame | None:
        """See `FrameSource`. In real time, frames whose time has passed are dropped for the newest."""
        frame = self._next()
        if frame is None or not self._realtime:
            return frame
        while (late := time.monotonic() - self._began - frame.time) > 0.1:
            newer = self._next()
            if newer is None:
                return frame
            frame = newer
        time.sleep(max(0.0, -late))
        return frame

    def _next(self) -> Frame | None:
        frame = None if self._ended else next(self._frames, None)
        self._ended = frame is None
        return frame

    def close(self) -> None:
        """Nothing is read any more."""
        self._ended = True


class VideoFileSource(_Recorded):
    """Every frame of a video file; times are the video's own, from 0, also where its frame rate varies.

    Raises:
        CameraError: OpenCV cannot open it.
    """

    def __init__(self, path: str | os.PathLike[str], *, realtime: bool = False) -> None:
        super().__init__(_video_frames(os.fspath(path)), realtime)


class FolderSource(_Recorded):
    """The photos of a folder in order of their names, `fps` a second; files that are no photos are left out.

    Raises:
        CameraError: there is no photo in it.
    """

    def __init__(self, folder: str | os.PathLike[str], *, fps: float = 2.0, realtime: bool = False) -> None:
        if not fps > 0:
            raise OptionError(f"fps is {fps}; it must be more than 0")
        if not Path(folder).is_dir():
            raise CameraError(f"{folder}: no such folder; check the path")
        paths = sorted(p for p in Path(folder).iterdir() if p.suffix.lower() in PHOTO_SUFFIXES)
        if not paths:
            raise CameraError(f"{folder}: no photos in this folder ({', '.join(sorted(PHOTO_SUFFIXES))})")
        super().__init__(_folder_frames(paths, fps), realtime)


def _video_frames(path: str) -> Iterator[Frame]:
    if not Path(path).is_file():
        raise CameraError(f"{path}: OpenCV cannot open this video: there is no such file; check the path")
    capture = open_device(path)
    if not capture.isOpened():
        raise CameraError(f"{path}: OpenCV cannot open this video; save it as .mp4 or .avi")

    def frames() -> Iterator[Frame]:
        import cv2

        fps = capture.get(cv2.CAP_PROP_FPS) or 25.0
        now = first = None
        try:
            while (read := capture.read())[0]:
                told = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000  # of the frame just read, whatever came between
                if now is None or first is None:
                    now, first = 0.0, told
                elif told - first > now:
                    now = told - first
                else:  # a container without times
                    now += 1 / fps
                yield Frame(read[1], "BGR", now)
        finally:
            capture.release()

    return frames()


def _folder_frames(paths: list[Path], fps: float) -> Iterator[Frame]:
    for number, path in enumerate(paths):
        try:
            pixels = load_image(path).pixels
        except ImageError:
            continue
        yield Frame(pixels, "RGB", number / fps)
