"""What people's cameras and programs do: odd frames, other mountings, films of varying rate, ends of all kinds."""

from __future__ import annotations

import logging
import os
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from delf_edge import CameraError, ImageError, OptionError, Recognizer
from delf_edge.camera.frames import Frame, colour_pixels
from delf_edge.camera.sources import FolderSource, PicameraSource, VideoFileSource, VideoSource, open_source
from delf_edge.camera.watcher import CameraOptions, Event, Watcher, stand_upright, watch
from delf_edge.camera.worker import CameraWorker
from delf_edge.query.options import IdentifyOptions
from testing.paths import ROOT, TINY_BUNDLE


def scene(seed: int) -> np.ndarray:
    blocks = np.random.default_rng(seed).integers(0, 256, (12, 16, 3)).astype(np.uint8)
    return np.asarray(cv2.resize(blocks, (320, 240), interpolation=cv2.INTER_NEAREST))


@pytest.fixture(scope="module")
def recognizer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recognizer]:
    path = tmp_path_factory.mktemp("field") / "places.db"
    with Recognizer.open(path, bundle=TINY_BUNDLE, preset="fast") as opened:
        opened.add(scene(0), landmark="Town hall", name="hall.png", channel_order="BGR")
        yield opened


def drain(source: Any) -> None:
    """Read until the source says what is wrong."""
    while True:
        source.read(0.1)


class Frames:
    """A source of arrays, 0.2 s apart; an error in place of an array is raised."""

    def __init__(self, *frames: Any) -> None:
        self._frames, self._at = list(frames), 0

    @property
    def ended(self) -> bool:
        return self._at >= len(self._frames)

    def read(self, timeout: float) -> Frame | None:
        if self.ended:
            return None
        self._at += 1
        pixels = self._frames[self._at - 1]
        if isinstance(pixels, Exception):
            raise pixels
        return Frame(pixels, "BGR", 0.2 * self._at)

    def close(self) -> None:
        self._at = len(self._frames)


# ---------------------------------------------------------------- frames


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((240, 320, 2), np.uint8),  # YUYV
        np.zeros((240, 320, 3), np.uint16),
        np.zeros((240, 320, 3), np.float32),
        np.zeros((240, 320), np.float64),
        np.zeros((240, 320, 5), np.uint8),
        np.zeros((1, 240, 320, 3), np.uint8),
        np.zeros(320, np.uint8),
        np.zeros((0, 320, 3), np.uint8),
        None,
        [[1, 2, 3]],
    ],
)
def test_frames_of_another_form_are_refused_in_words(recognizer: Recognizer, wrong: Any) -> None:
    with pytest.raises(ImageError, match="a frame"):
        Watcher(recognizer).step(Frame(wrong, "BGR", 0.0))


def test_an_unknown_channel_order_is_refused(recognizer: Recognizer) -> None:
    with pytest.raises(OptionError, match="channel order 'RGBA'"):
        Watcher(recognizer).step(Frame(scene(0), "RGBA", 0.0))  # type: ignore[arg-type]


def test_grey_frames_and_a_fourth_channel_are_understood(recognizer: Recognizer) -> None:
    grey = cv2.cvtColor(scene(0), cv2.COLOR_BGR2GRAY)
    for pixels in (grey, grey[..., None], np.dstack([scene(0), np.zeros((240, 320), np.uint8)])):
        watcher = Watcher(recognizer)
        watcher.step(Frame(np.asarray(pixels, np.uint8), "BGR", 0.0))
        assert watcher.counts.asked == 1
    np.testing.assert_array_equal(colour_pixels(Frame(np.asarray(grey, np.uint8), "RGB", 0.0))[..., 1], grey)


def test_a_picamera_that_gives_yuv_is_no_stripes() -> None:
    class Camera:
        def capture_array(self) -> np.ndarray:
            return np.zeros((1080, 1280), np.uint8)  # YUV420 of 1280 x 720

        def stop(self) -> None:
            pass

    with PicameraSource(Camera()) as source, pytest.raises(CameraError, match="RGB888"):
        drain(source)


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("turn", [0, 90, 180, 270])
def test_a_camera_mounted_otherwise_is_set_upright(recognizer: Recognizer, turn: int, mirrored: bool) -> None:
    upright = scene(0)
    seen = np.rot90(upright, turn // 90)  # anticlockwise: what a camera turned clockwise sees
    seen = np.ascontiguousarray(seen[:, ::-1] if mirrored else seen)
    np.testing.assert_array_equal(stand_upright(seen, turn, mirrored), upright)
    options = CameraOptions(identify=IdentifyOptions(min_inliers=12), turn=turn, mirrored=mirrored)
    events = list(watch(recognizer, Frames(seen, seen + 1, seen + 2), options))
    assert [(event.kind, event.landmark) for event in events] == [("appeared", "Town hall")]
    with pytest.raises(OptionError, match="turn"):
        CameraOptions(turn=45)


# ---------------------------------------------------------------- sources


def write_film(path: Path, n: int, seconds: list[float]) -> Path:
    """An MP4 whose frames last as many seconds as given: OpenCV writes it, then its table of times is replaced."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 10.0, (320, 240))
    assert writer.isOpened()
    for number in range(n):
        writer.write(scene(number))
    writer.release()
    data = bytearray(path.read_bytes())
    scale_at = data.index(b"mdhd") + 16
    (scale,) = struct.unpack_from(">I", data, scale_at)
    at = data.index(b"stts") - 4
    (old_size,) = struct.unpack_from(">I", data, at)
    entries = b"".join(struct.pack(">II", 1, round(scale * s)) for s in seconds)
    table = struct.pack(">I4sII", 16 + len(entries), b"stts", 0, len(seconds)) + entries
    assert data.index(b"moov") > data.index(b"mdat")  # so that no offset of a frame changes
    for box in (b"moov", b"trak", b"mdia", b"minf", b"stbl"):
        size_at = data.index(box) - 4
        struct.pack_into(">I", data, size_at, struct.unpack_from(">I", data, size_at)[0] + len(table) - old_size)
    data[at : at + old_size] = table
    edits = data.find(b"edts")  # a list of edits would cut off what lasts longer than before
    if edits >= 0:
        data[edits : edits + 4] = b"free"
    path.write_bytes(bytes(data))
    return path


def test_a_film_of_varying_rate_has_its_own_times(tmp_path: Path) -> None:
    path = write_film(tmp_path / "phone.mp4", 6, [0.1, 0.1, 1.5, 0.1, 0.5, 0.1])
    times = []
    with VideoFileSource(path) as source:
        while (frame := source.read(1.0)) is not None:
            times.append(frame.time)
    assert times == pytest.approx([0, 0.1, 0.2, 1.7, 1.8, 2.3], abs=0.01)


def test_what_is_not_there_is_not_a_matter_of_cables(tmp_path: Path) -> None:
    absent = str(tmp_path / "absent.mp4")
    for make in (VideoFileSource, FolderSource, open_source):
        with pytest.raises(CameraError, match=r"absent\.mp4.*no such"):
            make(absent)
    with VideoSource(absent, patience=0.01) as source, pytest.raises(CameraError, match="no such file") as caught:
        drain(source)
    assert "cable" not in str(caught.value)
    (tmp_path / "text.mp4").write_text("no film")
    with VideoSource(str(tmp_path / "text.mp4"), patience=0.01) as source, pytest.raises(CameraError, match="a file"):
        drain(source)


# ---------------------------------------------------------------- ends


def test_a_worker_that_dies_says_so(recognizer: Recognizer, caplog: pytest.LogCaptureFixture) -> None:
    told: list[BaseException] = []
    dark = np.zeros((240, 320, 3), np.uint8)
    with (
        caplog.at_level(logging.ERROR, "delf_edge.camera"),
        pytest.raises(CameraError, match="unplugged"),
        CameraWorker(
            recognizer, Frames(dark, CameraError("unplugged")), lambda _: None, on_error=told.append
        ) as worker,
    ):
        worker.join(60)
    assert [str(e) for e in told] == ["unplugged"]
    assert "the camera's loop has ended: unplugged" in caplog.text


def fail_after(worker: CameraWorker) -> None:
    worker.join(60)
    raise ZeroDivisionError


def test_an_error_of_the_block_is_not_hidden_by_one_of_the_camera(recognizer: Recognizer) -> None:
    worker = CameraWorker(recognizer, Frames(CameraError("x")), lambda _: None)
    with pytest.raises(ZeroDivisionError), worker:
        fail_after(worker)


def test_an_event_is_one_short_line(recognizer: Recognizer) -> None:
    pixels = scene(0)
    options = CameraOptions(identify=IdentifyOptions(min_inliers=12))
    (event,) = watch(recognizer, Frames(pixels, pixels + 1, pixels + 2), options)
    assert str(event).startswith("0.4 s: appeared Town hall (")
    assert len(str(event)) < 80
    assert len(repr(event)) < 200
    assert str(Event("signal lost", None, 3.0)) == "3.0 s: signal lost"


ENDING = """
import atexit, signal, sys, threading
signal.signal(signal.SIGINT, signal.default_int_handler)  # tests in the background ignore it, and so would this
atexit.register(lambda: print([t.name for t in threading.enumerate() if t is not threading.main_thread()]))
import numpy as np
from delf_edge import Recognizer, VideoSource, watch
from delf_edge.camera.worker import CameraWorker
film, database, bundle, how = sys.argv[1:]
source = VideoSource(film)
recognizer = Recognizer.open(database, bundle=bundle)
if how == "worker":
    CameraWorker(recognizer, source, print).start()
while source.read(5.0) is None:
    pass
print("ready", flush=True)
if how == "raise":
    raise KeyboardInterrupt
for event in watch(recognizer, source):
    pass
"""


@pytest.mark.parametrize("how", ["raise", "signal", "worker"])
def test_no_thread_of_a_camera_outlives_the_program(tmp_path: Path, how: str) -> None:
    """Otherwise OpenCV aborts it, now and then."""
    film = tmp_path / "film.avi"
    writer = cv2.VideoWriter(str(film), cv2.VideoWriter.fourcc(*"MJPG"), 10.0, (320, 240))
    for number in range(50):
        writer.write(scene(number))
    writer.release()
    arguments = [str(film), str(tmp_path / "places.db"), str(TINY_BUNDLE), how]
    command = [sys.executable, "-c", ENDING, *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as program:
        assert program.stdout is not None
        assert program.stderr is not None
        assert program.stdout.readline() == "ready\n"
        if how != "raise":
            program.send_signal(signal.SIGINT)
        out, err = program.stdout.read(), program.stderr.read()  # `communicate` loses what `readline` has read ahead
    assert out.splitlines()[-1] == "[]"
    assert "KeyboardInterrupt" in err
    assert program.returncode in (-signal.SIGINT, 130)
