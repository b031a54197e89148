"""The kiosk's pages in Chromium, for tests: a service as a process, a camera that plays a film, and a page."""

from __future__ import annotations

import base64
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from delf_edge import Recognizer
from delf_edge.images.decode import load_image
from testing.paths import ROOT

DEMO = ROOT / "assets" / "demo"
OUT = ROOT / "out" / "browser"
TOKEN, PIN = "only-for-this-test-0", "246810"
LANDMARKS = ("Colosseum", "Mount Rushmore", "Petra", "Taj Mahal", "Brandenburg Gate", "Hawa Mahal")
FPS, SIZE = 5, (640, 480)
PATIENCE = 60  # seconds, for busy machines
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
]
SCREENS = {  # every state of every page is tried at each of them
    "360": (360, 740),
    "414": (414, 896),
    "tablet": (768, 1024),
    "pi": (800, 480),
    "1024x600": (1024, 600),
    "1024x768": (1024, 768),
    "1280x800": (1280, 800),
    "1080p": (1920, 1080),
    "portrait": (1080, 1920),
    "1440p": (2560, 1440),
    "4k": (3840, 2160),
}
ARABIC = {"title": "الكولوسيوم", "summary": "أكبر مدرّج روماني في العالم، افتتحه الإمبراطور تيتوس سنة 80."}
BODY = "## History\n\nThe *amphitheatre* held some fifty thousand people.\n\n* Travertine\n* Tuff\n* Concrete"


def reference(landmark: str) -> np.ndarray:
    """The demo photo of a landmark, RGB."""
    return load_image(DEMO / "references" / landmark / "photo.webp").pixels


def view_of(photo: np.ndarray, turn: float, zoom: float = 1.0, size: tuple[int, int] = SIZE) -> np.ndarray:
    """A photo as a camera in the hand sees it: turned, at another distance, filling the frame."""
    height, width = photo.shape[:2]
    factor = max(size[0] / width, size[1] / height) * zoom
    map_ = cv2.getRotationMatrix2D((width / 2, height / 2), turn, factor)
    map_[:, 2] += np.array([size[0] - width, size[1] - height]) / 2
    return np.asarray(cv2.warpAffine(photo, map_, size, flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REFLECT_101))


WALK: tuple[tuple[str | None, int], ...] = (("Colosseum", 12), (None, 6), ("Petra", 12), ("stranger", 14))


def write_film(path: Path, scenes: Sequence[tuple[str | None, int]] = WALK) -> None:
    """YUV4MPEG, which Chromium plays in a loop: (landmark, "stranger" or None for darkness; seconds) each."""
    with path.open("wb") as film:
        film.write(f"YUV4MPEG2 W{SIZE[0]} H{SIZE[1]} F{FPS}:1 Ip A1:1 C420jpeg\n".encode())
        for scene, seconds in scenes:
            photo = None
            if scene is not None:
                stranger = DEMO / "queries" / "zimniPalace.webp"
                photo = load_image(stranger).pixels if scene == "stranger" else reference(scene)
            for i in range(seconds * FPS):
                black = np.zeros((SIZE[1], SIZE[0], 3), np.uint8)
                frame = black if photo is None else view_of(photo, 3 * np.sin(i / 9), 1.05)
                film.write(b"FRAME\n" + cv2.cvtColor(frame, cv2.COLOR_RGB2YUV_I420).tobytes())


class Service:
    """`delf-edge serve` as a process, on a port that it keeps when it is started again.

    Args:
        database: the file; made where it is not there.
        prefix: words before the command.
        options: more options of `serve`.
    """

    def __init__(self, database: Path, prefix: tuple[str, ...] = (), options: tuple[str, ...] = ()) -> None:
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = int(s.getsockname()[1])
        self.url = f"http://127.0.0.1:{self.port}"
        self._command = [*prefix, sys.executable, "-m", "delf_edge.cli.main", "serve", str(database), "--new"]
        self._command += ["--port", str(self.port), *options]
        self.start()

    def start(self) -> None:
        """Start it, and wait until it answers."""
        environment = os.environ | {"DELF_EDGE_TOKEN": TOKEN, "DELF_EDGE_PIN": PIN}
        self.process = subprocess.Popen(self._command, env=environment, stdout=subprocess.DEVNULL)
        for _ in range(1200):
            try:
                urllib.request.urlopen(f"{self.url}/healthz").close()
                return
            except OSError:
                assert self.process.poll() is None
                time.sleep(0.1)

    def names(self) -> dict[str, int]:
        """Landmark -> how many photos it has."""
        with urllib.request.urlopen(f"{self.url}/v1/landmarks") as response:
            return {row["name"]: len(row["images"]) for row in json.load(response)["landmarks"]}

    def stop(self) -> None:
        """Stop it; it must end in an orderly way."""
        self.process.terminate()
        assert self.process.wait(60) == 0


def fill(database: Path, names: dict[str, str]) -> Path:
    """A database of demo photos, each under a name of its own."""
    with Recognizer.open(database) as recognizer:
        for folder, landmark in names.items():
            photo = DEMO / "references" / folder / "photo.webp"
            recognizer.add(photo, landmark=landmark, name=f"{folder}/photo.webp", thumbnail=True)
    return database


def silence() -> bytes:
    """A second of a sound that is heard as nothing (WAV, 8 kHz)."""
    samples = bytes([128] * 8000)
    head = b"RIFF" + (36 + len(samples)).to_bytes(4, "little") + b"WAVEfmt " + (16).to_bytes(4, "little")
    form = b"\x01\x00\x01\x00" + (8000).to_bytes(4, "little") * 2 + b"\x01\x00\x08\x00"
    return head + form + b"data" + len(samples).to_bytes(4, "little") + samples


def tell(database: Path) -> Path:
    """The demo's texts, and more of the Colosseum: Arabic, a picture, a sound, a long text."""
    picture = base64.b64encode(encoded(reference("Colosseum")[::2, ::2])).decode()
    sound = base64.b64encode(silence()).decode()
    with Recognizer.open(database) as recognizer:
        recognizer.catalogue.import_file(DEMO / "catalogue.csv")
        media = [
            {"name": "arena.jpg", "data": picture, "credit": "Demo"},
            {"name": "arena.wav", "data": sound, "credit": "Demo"},
        ]
        recognizer.catalogue.set("colosseum", {"media": media})
        texts = {"ar": ARABIC, "en": {"body": BODY, "audio": "arena.wav"}}
        recognizer.catalogue.set("colosseum", {"texts": texts})
    return database


@contextmanager
def chromium(playwright: Any, film: Path) -> Iterator[Any]:
    """Chromium in front of a camera that plays a film; `playwright` is what `sync_playwright` gives."""
    OUT.mkdir(parents=True, exist_ok=True)
    flags = [*FLAGS, f"--use-file-for-fake-video-capture={film}"]
    opened = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
    yield opened
    opened.close()


class LargeLetters:
    """A browser whose user has chosen larger letters in its settings; `new_page` as of Playwright's browser.

    What a debugger sets instead (`Page.setFontSizes`) is gone again after a screenshot.
    """

    def __init__(self, context: Any) -> None:
        self._context = context

    def new_page(self, viewport: dict[str, int], color_scheme: str, device_scale_factor: float) -> Any:
        """A page of this size."""
        assert device_scale_factor == 1, "letters alone: the zoom stays"
        page = self._context.new_page()
        page.set_viewport_size(viewport)
        page.emulate_media(color_scheme=color_scheme)
        return page


@contextmanager
def chromium_with_letters(playwright: Any, film: Path, folder: Path, percent: int) -> Iterator[LargeLetters]:
    """As `chromium`, with letters of another size and all else as it is; `folder` is for its profile."""
    OUT.mkdir(parents=True, exist_ok=True)
    settings = {"webkit": {"webprefs": {"default_font_size": 16 * percent // 100}}}
    (folder / "Default").mkdir(parents=True)
    (folder / "Default" / "Preferences").write_text(json.dumps(settings), "utf-8")
    flags = [*FLAGS, f"--use-file-for-fake-video-capture={film}"]
    context = playwright.chromium.launch_persistent_context(str(folder), executable_path=CHROMIUM, args=flags)
    yield LargeLetters(context)
    context.close()


@contextmanager
def playwright_or_skip() -> Iterator[Any]:
    """Playwright; a test is skipped where it or Chromium is not there."""
    sync_api = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("no Chromium; Debian: apt-get install chromium")
    with sync_api.sync_playwright() as started:
        yield started


def open_page(
    browser: Any, url: str, screen: str = "1080p", scheme: str = "light", *, zoom: int = 100, **context: Any
) -> Any:
    """A page that is ready; what it complains of is in `page.complaints`.

    Args:
        browser: of Playwright.
        url: of the page.
        screen: one of `SCREENS`.
        scheme: "light" or "dark".
        zoom: of the browser, in percent: the same screen has fewer pixels of CSS, and each is larger.
        context: more options of the browser's context.
    """
    width, height = (round(side * 100 / zoom) for side in SCREENS[screen])
    view = {"width": width, "height": height}
    page = browser.new_page(viewport=view, color_scheme=scheme, device_scale_factor=zoom / 100, **context)
    page.set_default_timeout(PATIENCE * 1000)
    complaints: list[str] = []
    page.on("pageerror", lambda e: complaints.append(str(e)))
    page.on("console", lambda m: complaints.append(m.text) if "Content Security Policy" in m.text else None)
    page.complaints = complaints
    page.goto(url)
    until(page, "window.kioskReady === true")
    return page


def encoded(pixels: np.ndarray) -> bytes:
    """A JPEG."""
    return cv2.imencode(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))[1].tobytes()


def upload(name: str, pixels: np.ndarray) -> dict[str, Any]:
    """A photo for a file chooser."""
    return {"name": f"{name}.jpg", "mimeType": "image/jpeg", "buffer": encoded(pixels)}


def until(page: Any, condition: str, seconds: float = PATIENCE) -> None:
    """Wait for a condition; Playwright's own waiting evaluates strings in the page, which its CSP forbids."""
    end = time.monotonic() + seconds
    while not page.evaluate(condition):
        assert time.monotonic() < end, condition
        page.wait_for_timeout(100)


def name_is(page: Any, name: str) -> None:
    """Wait until the page names a place."""
    until(page, f"document.getElementById('name').textContent === {name!r}")


def resize(page: Any, screen: str) -> None:
    """The same page on another of `SCREENS`."""
    width, height = SCREENS[screen]
    page.set_viewport_size({"width": width, "height": height})
    page.wait_for_timeout(250)
