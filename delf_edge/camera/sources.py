"""Where frames come from: cameras, video files, folders of photos, or whatever an app passes.

::

    source = VideoSource(0)                 a camera, a device file or an rtsp:// address; newest frame only, reconnects
    source = VideoFileSource("walk.mp4")    every frame, at the video's own times
    source = FolderSource("photos", fps=2)  every photo, in order of names
    source = PicameraSource()               a Raspberry Pi camera, with picamera2 installed

Every frame says its channel order. OpenCV's arrays are B, G, R; so are Picamera2's of the format "RGB888".
"""

from __future__ import annotations

from pathlib import Path

from delf_edge.camera.frames import Frame as Frame
from delf_edge.camera.frames import FrameSource as FrameSource
from delf_edge.camera.live import PicameraSource as PicameraSource
from delf_edge.camera.live import VideoSource as VideoSource
from delf_edge.camera.recorded import FolderSource as FolderSource
from delf_edge.camera.recorded import VideoFileSource as VideoFileSource
from delf_edge.errors import CameraError


def open_source(what: str) -> FrameSource:
    """The source that a command line names: "0" a camera, "picamera", a folder, a video file, or a URL.

    Raises:
        CameraError: it cannot be opened.
    """
    if what == "picamera":
        return PicameraSource()
    if what.isdigit():
        return VideoSource(int(what))
    if Path(what).is_dir():
        return FolderSource(what, realtime=True)
    if Path(what).is_file():
        return VideoFileSource(what, realtime=True)
    if "://" not in what and not Path(what).exists():
        raise CameraError(f"{what}: no such camera, file, folder or address; check the spelling")
    return VideoSource(what)
