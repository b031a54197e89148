"""Voting with a clock in hand, the gate on made frames, and the loop on folders of pictures: no camera is needed."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from delf_edge import Bundle, CameraError, OptionError, Recognizer
from delf_edge.bundle.calibration import Calibration
from delf_edge.camera.frame_gate import Gate, GateOptions
from delf_edge.camera.sources import (
    FolderSource,
    Frame,
    PicameraSource,
    VideoFileSource,
    VideoSource,
    open_source,
)
from delf_edge.camera.temporal_voting import Decision, VoteOptions, Voter
from delf_edge.camera.watcher import CameraOptions, Event, Watcher, crop, watch
from delf_edge.camera.worker import CameraWorker, watch_async
from delf_edge.images.quality import measure
from delf_edge.query.options import IdentifyOptions
from testing.paths import TINY_BUNDLE
from testing.rtsp_camera import RtspCamera

SURE = {"A": 0.99}


def scene(seed: int) -> np.ndarray:
    """uint8 (240, 320, 3), BGR: blocks of random colours."""
    blocks = np.random.default_rng(seed).integers(0, 256, (12, 16, 3)).astype(np.uint8)
    return np.asarray(cv2.resize(blocks, (320, 240), interpolation=cv2.INTER_NEAREST))


# ---------------------------------------------------------------- voting


def run(voter: Voter, frames: str, step: float = 0.2, start: float = 0.0) -> list[tuple[float, Decision]]:
    """Letters name a landmark, `.` is unknown, `=` unchanged, `-` nothing to see; one every `step` seconds."""
    events = []
    for i, letter in enumerate(frames):
        now = round(start + i * step, 6)
        if letter == "=":
            decisions = voter.unchanged(now)
        elif letter == "-":
            decisions = voter.tick(now)
        else:
            decisions = voter.observe({} if letter == "." else {letter: 0.99}, now)
        events += [(now, decision) for decision in decisions]
    return events


def kinds(events: list[tuple[float, Decision]]) -> list[tuple[str, str]]:
    return [(d.change, d.landmark) for _, d in events]


def test_one_frame_decides_nothing_and_two_do() -> None:
    voter = Voter()
    assert voter.observe(SURE, 0.0) == []
    assert voter.state == "looking"
    assert voter.observe(SURE, 0.2) == [Decision("appeared", "A")]
    assert (voter.state, voter.present) == ("present", ("A",))
    assert voter.observe(SURE, 0.4) == []


def test_single_wrong_frames_cause_no_event() -> None:
    assert kinds(run(Voter(), "..B...C...B....")) == []
    assert kinds(run(Voter(), "AAAABAAACAAAABAAA")) == [("appeared", "A")]
    assert kinds(run(Voter(), "AAAA.A..AA.AA")) == [("appeared", "A")]


def test_it_appears_changes_and_leaves() -> None:
    events = run(Voter(), "AAAAABBBBBBBB..............")
    assert kinds(events) == [("appeared", "A"), ("changed", "B"), ("left", "B")]
    assert events[1][1].previous == "A"


def test_weak_answers_need_more_frames() -> None:
    voter = Voter()
    n = next(i for i in range(1, 50) if voter.observe({"A": 0.75}, 0.1 * i))
    assert n == 4  # logit(0.75) = 1.1, and 4.0 are needed
    for i in range(20):
        assert voter.observe({"B": 0.45}, 6 + 0.1 * i) in ([], [Decision("left", "A")])
    assert voter.present == ()


def test_an_unchanged_scene_keeps_what_is_there_and_proves_nothing() -> None:
    assert kinds(run(Voter(), "AA" + "=" * 100)) == [("appeared", "A")]
    assert kinds(run(Voter(), "A" + "=" * 100)) == []


def test_darkness_lets_it_leave_after_the_hold() -> None:
    events = run(Voter(VoteOptions(hold=2.0)), "AA" + "-" * 30)
    assert kinds(events) == [("appeared", "A"), ("left", "A")]
    assert events[1][0] == pytest.approx(2.4)


def test_one_slow_frame_makes_nothing_leave() -> None:
    assert kinds(run(Voter(), "AAAAA.A", step=4.0)) == [("appeared", "A")]


def test_cooldown_delays_the_return() -> None:
    voter = Voter(VoteOptions(cooldown=3.0))
    run(voter, "AA")
    assert kinds(run(voter, "......", start=0.4)) == [("left", "A")]
    back = run(voter, "A" * 30, start=1.6)
    assert kinds(back) == [("appeared", "A")]
    assert back[0][0] >= 1.0 + 3.0


def test_unknown_is_a_state_and_not_an_event() -> None:
    voter = Voter()
    states = [voter.state]
    assert run(voter, "..") == []
    states.append(voter.state)
    assert states == ["looking", "unknown"]
    assert voter.settled
    voter.observe(SURE, 1.0)
    assert not voter.settled


def test_several_landmarks_stand_side_by_side() -> None:
    voter = Voter(VoteOptions(several=True))
    both = {"A": 0.99, "B": 0.95}
    assert voter.observe(both, 0.0) == []
    assert set(voter.observe(both, 0.2)) == {Decision("appeared", "A"), Decision("appeared", "B")}
    assert [d for i in range(6) for d in voter.observe({"B": 0.95}, 0.4 + 0.2 * i)] == [Decision("left", "A")]
    assert voter.present == ("B",)


def test_the_clock_is_asked_where_no_time_is_given() -> None:
    times = iter([0.0, 0.1, 9.0, 9.1])
    voter = Voter(clock=lambda: next(times))
    voter.observe(SURE)
    assert voter.observe(SURE) == [Decision("appeared", "A")]
    assert voter.tick() + voter.tick() == [Decision("left", "A")]


@pytest.mark.parametrize("wrong", [{"step": 0}, {"cap": 1.0}, {"frames": 0}, {"hold": 0}, {"cooldown": -1}])
def test_vote_options_are_checked(wrong: dict[str, Any]) -> None:
    with pytest.raises(OptionError):
        VoteOptions(**wrong)


# ---------------------------------------------------------------- gate


def test_the_gate_skips_what_shows_nothing() -> None:
    gate, sharp = Gate(), scene(0)
    verdicts = [
        gate.judge(np.zeros((240, 320, 3), np.uint8), "BGR", 0.0),
        gate.judge(np.full((240, 320, 3), 255, np.uint8), "BGR", 0.1),
        gate.judge(np.full((240, 320, 3), 120, np.uint8), "BGR", 0.2),
        gate.judge(cv2.GaussianBlur(sharp, (0, 0), 14), "BGR", 0.3),
        gate.judge(sharp, "BGR", 0.4),
        gate.judge(sharp, "BGR", 0.5),
        gate.judge(sharp, "BGR", 0.6, settled=False),
        gate.judge(scene(1), "BGR", 0.7),
        gate.judge(scene(1), "BGR", 0.8 + GateOptions().refresh),
    ]
    assert verdicts == ["black", "blown out", "flat", "blurred", "look", "unchanged", "look", "look", "look"]


def test_measures_know_the_channel_order_and_small_frames() -> None:
    red = np.zeros((20, 30, 3), np.uint8)
    red[..., 0] = 255
    assert measure(red, "RGB").brightness == pytest.approx(76, abs=1)  # 0.299 of 255
    assert measure(red, "BGR").brightness == pytest.approx(29, abs=1)
    assert measure(red[:1, :1], "RGB").contrast == 0
    assert measure(scene(0) // 4, "BGR").sharpness == pytest.approx(measure(scene(0), "BGR").sharpness, rel=0.1)


# ---------------------------------------------------------------- sources


def write_video(path: Path, frames: list[np.ndarray], fps: float = 10.0) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), fps, (320, 240))
    assert writer.isOpened()
    for frame in frames:
        writer.write(frame)
    writer.release()
    return path


def drain(source: Any) -> list[Frame]:
    frames = []
    while (frame := source.read(1.0)) is not None:
        frames.append(frame)
    assert source.ended
    return frames


def test_a_video_file_gives_every_frame_at_its_time(tmp_path: Path) -> None:
    path = write_video(tmp_path / "walk.avi", [scene(i) for i in range(5)])
    with VideoFileSource(path) as source:
        frames = drain(source)
    assert [frame.time for frame in frames] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])
    assert {frame.channel_order for frame in frames} == {"BGR"}
    assert np.abs(frames[3].pixels.astype(int) - scene(3)).mean() < 30
    with pytest.raises(CameraError, match="cannot open"):
        VideoFileSource(tmp_path / "none.avi")


def test_a_folder_gives_its_photos_and_leaves_out_the_rest(tmp_path: Path) -> None:
    for i in range(3):
        cv2.imwrite(str(tmp_path / f"{i}.png"), scene(i))
    (tmp_path / "3.png").write_bytes(b"no photo")
    (tmp_path / "notes.txt").write_text("x")
    frames = drain(FolderSource(tmp_path, fps=4))
    assert [frame.time for frame in frames] == [0.0, 0.25, 0.5]
    np.testing.assert_array_equal(frames[2].pixels, scene(2)[..., ::-1])
    assert len(drain(FolderSource(tmp_path, fps=200, realtime=True))) >= 1
    (tmp_path / "empty").mkdir()
    with pytest.raises(CameraError, match="no photos"):
        FolderSource(tmp_path / "empty")


class Capture:
    """A `cv2.VideoCapture` for a cable that is pulled after every third frame."""

    def __init__(self, device: int | str) -> None:
        self.left = 3

    def isOpened(self) -> bool:  # noqa: N802 (OpenCV's name)
        return True

    def set(self, key: int, value: float) -> bool:
        return True

    def read(self) -> tuple[bool, np.ndarray | None]:
        self.left -= 1
        return (True, scene(self.left)) if self.left >= 0 else (False, None)

    def release(self) -> None:
        self.left = -1


def test_a_lost_camera_is_opened_again() -> None:
    opened: list[Capture] = []

    def plug(device: int | str) -> Capture:
        opened.append(Capture(device))
        return opened[-1]

    with VideoSource(0, open_capture=plug) as source:
        assert source.read(5.0) is not None
        assert not source.ended
        while len(opened) < 2:
            source.read(0.1)
        frame = source.read(5.0)
        assert frame is None or frame.channel_order == "BGR"
    assert source.ended


def test_a_camera_that_is_not_there_is_an_error() -> None:
    class Nothing(Capture):
        def isOpened(self) -> bool:  # noqa: N802
            return False

    with VideoSource(7, patience=0.01, open_capture=Nothing) as source, pytest.raises(CameraError, match=r"7.*cable"):
        drain(source)


def test_picamera_arrays_say_their_order() -> None:
    class Camera:
        stopped = False

        def capture_array(self) -> np.ndarray:
            return np.dstack([scene(0), np.zeros((240, 320), np.uint8)])  # XBGR8888 has four channels

        def stop(self) -> None:
            self.stopped = True

    camera = Camera()
    with PicameraSource(camera) as source:
        frame = source.read(1.0)
        assert frame is not None
        assert frame.channel_order == "BGR"
        np.testing.assert_array_equal(frame.pixels, scene(0))
    assert camera.stopped
    assert source.read(1.0) is None


def test_a_picamera_that_fails_ends_with_its_error_and_one_that_hangs_is_no_frame() -> None:
    class Camera:
        def __init__(self, hang: bool) -> None:
            self.left, self.hang, self.go = 1, hang, threading.Event()

        def capture_array(self) -> np.ndarray:
            self.left -= 1
            if self.left < 0:
                if not self.hang:
                    raise RuntimeError("Camera frontend has timed out!")
                self.go.wait(30)
            return scene(0)

        def stop(self) -> None:
            pass

    with PicameraSource(Camera(hang=False)) as source, pytest.raises(CameraError, match="timed out"):
        drain(source)
    hanging = Camera(hang=True)
    with PicameraSource(hanging) as source:
        assert source.read(5.0) is not None
        assert source.read(0.05) is None  # `watch` calls this a lost signal
        hanging.go.set()


def test_a_source_is_named_in_one_word(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "0.png"), scene(0))
    assert isinstance(open_source(str(tmp_path)), FolderSource)
    assert isinstance(open_source(str(write_video(tmp_path / "w.avi", [scene(0)]))), VideoFileSource)
    try:
        with pytest.raises(CameraError, match="picamera2 is not installed"):
            open_source("picamera")
    except CameraError:  # on a Raspberry Pi it is installed, and then there may be no camera
        pass


# ---------------------------------------------------------------- the loop


@pytest.fixture(scope="module")
def recognizer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recognizer]:
    path = tmp_path_factory.mktemp("camera") / "places.db"
    with Recognizer.open(path, bundle=Bundle.load(TINY_BUNDLE), preset="fast") as opened:
        for seed, name in enumerate("AB"):
            opened.add(scene(seed), landmark=name, name=f"{name}.png", channel_order="BGR")
        opened.pipeline.calibration = Calibration(threshold=0.5)
        yield opened


OPTIONS = CameraOptions(identify=IdentifyOptions(min_inliers=12))
DARK = np.zeros((240, 320, 3), np.uint8)


class Script:
    """A source that plays arrays, one every 0.2 s of its own clock; None is a camera that gives nothing."""

    def __init__(self, *frames: np.ndarray | None) -> None:
        self.frames = list(frames)
        self.at = 0

    @property
    def ended(self) -> bool:
        return self.at >= len(self.frames)

    def read(self, timeout: float) -> Frame | None:
        if self.ended:
            return None
        pixels = self.frames[self.at]
        self.at += 1
        return None if pixels is None else Frame(pixels, "BGR", 0.2 * self.at)

    def close(self) -> None:
        self.at = len(self.frames)


def walk() -> Script:
    rng = np.random.default_rng(5)
    noisy = [np.clip(scene(s) + rng.normal(0, 6, (240, 320, 3)), 0, 255).astype(np.uint8) for s in (0, 0, 0, 1, 1, 1)]
    return Script(*noisy[:3], DARK, noisy[3], *noisy[4:], noisy[4], noisy[5], *[DARK] * 20)


def heard(events: list[Event]) -> list[tuple[str, str | None]]:
    return [(event.kind, event.landmark) for event in events]


EXPECTED = [("appeared", "A"), ("changed", "B"), ("left", "B")]


def test_the_iterator_tells_what_comes_changes_and_goes(recognizer: Recognizer) -> None:
    watcher = Watcher(recognizer, OPTIONS)
    events = list(watch(recognizer, walk(), watcher=watcher))
    assert heard(events) == EXPECTED
    proof = events[0].proof
    assert proof is not None
    assert proof.answer.image == "A.png"
    assert len(proof.query_keypoints) == proof.answer.n_inliers >= 12
    assert events[1].previous == "A"
    assert events[2].proof is not None
    assert watcher.counts.verdicts["black"] == 21
    assert watcher.counts.asked < watcher.counts.frames
    assert watcher.latest is not None


def test_the_worker_calls_back_and_survives_a_callback_that_fails(recognizer: Recognizer) -> None:
    events: list[Event] = []

    def on_event(event: Event) -> None:
        events.append(event)
        if len(events) == 1:
            raise ValueError("an app's mistake")

    with CameraWorker(recognizer, walk(), on_event, OPTIONS) as worker:
        worker.join(60)
    assert heard(events) == EXPECTED
    assert isinstance(worker.error, ValueError)
    assert not worker.running


def test_a_slow_callback_misses_the_oldest_events_and_they_are_counted(recognizer: Recognizer) -> None:
    go = threading.Event()
    events: list[Event] = []

    def on_event(event: Event) -> None:
        go.wait(60)
        events.append(event)

    worker = CameraWorker(recognizer, walk(), on_event, OPTIONS, queue=1)
    worker.start()
    while worker.running:
        time.sleep(0.01)
    go.set()
    worker.join(60)
    assert worker.dropped >= 1
    assert len(events) == 3 - worker.dropped
    assert heard(events)[-1] == ("left", "B")


def test_asyncio_gives_the_same_events(recognizer: Recognizer) -> None:
    async def gather() -> list[Event]:
        return [event async for event in watch_async(recognizer, walk(), OPTIONS)]

    assert heard(asyncio.run(gather())) == EXPECTED


def test_asyncio_can_be_left_early_and_passes_errors_on(recognizer: Recognizer) -> None:
    async def first() -> Event:
        stream = watch_async(recognizer, walk(), OPTIONS)
        async for event in stream:
            await stream.aclose()  # type: ignore[attr-defined]
            return event
        raise AssertionError("no event")

    assert asyncio.run(first()).kind == "appeared"

    class Broken(Script):
        def read(self, timeout: float) -> Frame | None:
            raise CameraError("unplugged")

    async def fail() -> None:
        async for _ in watch_async(recognizer, Broken(DARK), OPTIONS):
            pass

    with pytest.raises(CameraError, match="unplugged"):
        asyncio.run(fail())


def test_a_camera_without_signal_is_reported_once_and_back_again(recognizer: Recognizer) -> None:
    options = CameraOptions(identify=OPTIONS.identify, signal=1e-9)
    events = list(watch(recognizer, Script(DARK, None, None, DARK, None, None), options))
    assert heard(events) == [("signal lost", None), ("signal back", None), ("signal lost", None)]


def test_only_the_region_is_looked_at(recognizer: Recognizer) -> None:
    wide = np.hstack([scene(1), scene(0)])
    assert crop(wide, (0.5, 0, 0.5, 1)).shape == (240, 320, 3)
    assert crop(wide, (0, 0, 1e-6, 1e-6)).shape == (1, 1, 3)
    options = CameraOptions(identify=OPTIONS.identify, region=(0.5, 0, 0.5, 1))
    events = list(watch(recognizer, Script(wide, wide, wide), options))
    assert heard(events) == [("appeared", "A")]
    with pytest.raises(OptionError, match="region"):
        CameraOptions(region=(0.6, 0, 0.5, 1))


def test_a_network_camera_that_dies_is_reported_and_comes_back(recognizer: Recognizer) -> None:
    """A real RTSP stream, whose server is closed and opened again."""
    camera = RtspCamera(scene(0))
    port, closed, opened = camera.port, False, False
    kinds: list[str] = []
    options = CameraOptions(identify=OPTIONS.identify, gate=GateOptions(refresh=0.5), signal=2.0)
    with VideoSource(camera.url, patience=60.0) as source:
        for event in watch(recognizer, source, options):
            kinds += [event.kind] if closed else []
            if event.kind == "appeared" and not closed:
                assert event.landmark == "A"
                camera.close()
                closed = True
            elif event.kind == "signal lost" and closed and not opened:
                camera = RtspCamera(scene(0), port)
                opened = True
            elif event.kind == "appeared" and opened:
                break
    camera.close()
    assert {"left", "signal lost", "signal back"} <= set(kinds)
    assert kinds.index("signal lost") < kinds.index("signal back") < len(kinds) - 1
    assert kinds[-1] == "appeared"


def test_a_film_that_breaks_off_ends_the_loop(recognizer: Recognizer, tmp_path: Path) -> None:
    path = write_video(tmp_path / "walk.avi", [scene(0)] * 20)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])  # as after a power cut while it was recorded
    watcher = Watcher(recognizer, OPTIONS)
    with VideoFileSource(path) as source:
        events = list(watch(recognizer, source, watcher=watcher))
    assert [(event.kind, event.landmark) for event in events] == [("appeared", "A")]
    assert 2 <= watcher.counts.frames < 20
