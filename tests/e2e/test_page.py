"""The page in Chromium, in front of a camera that plays a film of the demo photographs (make test-browser).

Screenshots go to out/browser: look at them after a change to the page.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from delf_edge import Recognizer
from delf_edge.images.decode import load_image
from testing.paths import ROOT

pytestmark = pytest.mark.browser
DEMO = ROOT / "assets" / "demo"
OUT = ROOT / "out" / "browser"
TOKEN = "only-for-this-test-0"
LANDMARKS = ("Colosseum", "Mount Rushmore", "Petra", "Taj Mahal", "Brandenburg Gate", "Hawa Mahal")
FPS, SIZE = 5, (640, 480)
PATIENCE = 300  # seconds, for busy machines
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
SCREENS = {"360": (360, 740), "1080p": (1920, 1080)}


def reference(landmark: str) -> np.ndarray:
    return load_image(DEMO / "references" / landmark / "photo.webp").pixels


def view_of(photo: np.ndarray, turn: float, zoom: float = 1.0, size: tuple[int, int] = SIZE) -> np.ndarray:
    """A photo as a camera in the hand sees it: turned, at another distance, filling the frame."""
    height, width = photo.shape[:2]
    factor = max(size[0] / width, size[1] / height) * zoom
    map_ = cv2.getRotationMatrix2D((width / 2, height / 2), turn, factor)
    map_[:, 2] += np.array([size[0] - width, size[1] - height]) / 2
    return np.asarray(cv2.warpAffine(photo, map_, size, flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REFLECT_101))


def write_film(path: Path) -> None:
    """YUV4MPEG, in a loop: a place for 12 s, darkness for 6 s, another place for 12 s, something unknown for 14 s."""
    stranger = load_image(DEMO / "queries" / "zimniPalace.webp").pixels
    with path.open("wb") as film:
        film.write(f"YUV4MPEG2 W{SIZE[0]} H{SIZE[1]} F{FPS}:1 Ip A1:1 C420jpeg\n".encode())
        for photo, seconds in ((reference("Colosseum"), 12), (None, 6), (reference("Petra"), 12), (stranger, 14)):
            for i in range(seconds * FPS):
                black = np.zeros((SIZE[1], SIZE[0], 3), np.uint8)
                frame = black if photo is None else view_of(photo, 3 * np.sin(i / 9), 1.05)
                film.write(b"FRAME\n" + cv2.cvtColor(frame, cv2.COLOR_RGB2YUV_I420).tobytes())


class Service:
    """`delf-edge serve` as a process, on a port that it keeps when it is started again."""

    def __init__(self, database: Path, prefix: tuple[str, ...] = ()) -> None:
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = int(s.getsockname()[1])
        self.url = f"http://127.0.0.1:{self.port}"
        self._command = [*prefix, sys.executable, "-m", "delf_edge.cli.main", "serve", str(database), "--new"]
        self._command += ["--port", str(self.port)]
        self.start()

    def start(self) -> None:
        environment = os.environ | {"DELF_EDGE_TOKEN": TOKEN}
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
        self.process.terminate()
        assert self.process.wait(60) == 0


def fill(database: Path, names: dict[str, str]) -> Path:
    """A database of demo photos, each under a name of its own."""
    with Recognizer.open(database) as recognizer:
        for folder, landmark in names.items():
            photo = DEMO / "references" / folder / "photo.webp"
            recognizer.add(photo, landmark=landmark, name=f"{folder}/photo.webp", thumbnail=True)
    return database


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A running service with six landmarks."""
    service = Service(fill(tmp_path_factory.mktemp("kiosk") / "places.db", {name: name for name in LANDMARKS}))
    yield service.url
    service.stop()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("no Chromium; Debian: apt-get install chromium")
    film = tmp_path_factory.mktemp("film") / "walk.y4m"
    write_film(film)
    OUT.mkdir(parents=True, exist_ok=True)
    with sync_api.sync_playwright() as playwright:
        flags = [*FLAGS, f"--use-file-for-fake-video-capture={film}"]
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield opened
        opened.close()


def open_page(browser: Any, url: str, screen: str = "1080p", scheme: str = "light") -> Any:
    width, height = SCREENS[screen]
    page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
    page.set_default_timeout(PATIENCE * 1000)
    complaints: list[str] = []
    page.on("pageerror", lambda e: complaints.append(str(e)))
    page.on("console", lambda m: complaints.append(m.text) if "Content Security Policy" in m.text else None)
    page.complaints = complaints
    page.goto(url)
    until(page, "window.kioskReady === true")
    return page


def encoded(pixels: np.ndarray) -> bytes:
    return cv2.imencode(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))[1].tobytes()


def upload(name: str, pixels: np.ndarray) -> dict[str, Any]:
    return {"name": f"{name}.jpg", "mimeType": "image/jpeg", "buffer": encoded(pixels)}


def until(page: Any, condition: str, seconds: float = PATIENCE) -> None:
    """Wait for a condition; Playwright's own waiting evaluates strings in the page, which its CSP forbids."""
    end = time.monotonic() + seconds
    while not page.evaluate(condition):
        assert time.monotonic() < end, condition
        page.wait_for_timeout(100)


def name_is(page: Any, name: str) -> None:
    until(page, f"document.getElementById('name').textContent === {name!r}")


def test_a_place_appears_changes_and_leaves_before_the_camera(browser: Any, address: str) -> None:
    page = open_page(browser, address, "1080p", "dark")
    page.click("#camera")
    name_is(page, "Colosseum")
    page.wait_for_selector("#known:not([hidden])")
    page.screenshot(path=OUT / "camera_1080p_dark.png")
    until(page, "document.getElementById('answer').dataset.state !== 'present'")
    name_is(page, "Petra")
    until(page, "document.getElementById('answer').dataset.state === 'unknown'")
    page.screenshot(path=OUT / "unknown_1080p_dark.png")
    page.click("#camera")
    assert page.text_content("#name") == "Show me a place"
    assert page.complaints == []
    page.close()


def test_a_new_place_is_taught_recognised_and_deleted(browser: Any, address: str) -> None:
    page = open_page(browser, address)
    capitol = load_image(DEMO / "queries" / "usCapitol.webp").pixels
    page.keyboard.press("2")
    shots = [
        upload(str(i), view_of(capitol, turn, zoom)) for i, (turn, zoom) in enumerate([(0, 1), (5, 1.1), (-5, 1.2)])
    ]
    page.set_input_files("#files", shots)
    until(page, "document.querySelectorAll('#shots .score[data-level]').length === 3")
    page.fill("#landmark", "US Capitol")
    page.screenshot(path=OUT / "enrol_1080p_light.png")
    page.click("#save")
    page.wait_for_selector("#ask-token[open]")  # nobody changes anything without the token
    page.fill("#token", "wrong")
    page.click("#token-form button[type=submit]")
    page.wait_for_selector("#trouble:not([hidden])")
    page.click("#save")
    page.wait_for_selector("#ask-token[open]")
    page.fill("#token", TOKEN)
    page.click("#token-form button[type=submit]")
    until(page, "document.getElementById('saved').textContent.includes('is known now')")

    page.keyboard.press("Escape")
    page.click("nav button[data-view=look]")
    page.set_input_files("#file", [upload("again", view_of(capitol, 8, 1.15))])
    name_is(page, "US Capitol")
    page.wait_for_selector("#known:not([hidden])")

    page.click("nav button[data-view=places]")
    until(page, "document.querySelectorAll('#list li').length === 7")
    page.click("button[aria-label='Delete US Capitol']")
    page.wait_for_selector("#ask-delete[open]")
    page.click("#delete-yes")
    until(page, "document.querySelectorAll('#list li').length === 6")
    assert page.complaints == []
    page.close()


@pytest.mark.parametrize("screen", SCREENS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_view_fits_the_screen(browser: Any, address: str, screen: str, scheme: str) -> None:
    page = open_page(browser, address, screen, scheme)
    until(page, "document.querySelectorAll('#mosaic img').length === 6")  # some of the places that it knows
    page.screenshot(path=OUT / f"start_{screen}_{scheme}.png")
    assert page.evaluate("document.querySelectorAll('#mosaic img:not([hidden])').length") == 6  # in full rows
    page.set_input_files("#file", [upload("petra", view_of(reference("Petra"), 6, 1.0, (960, 720)))])
    name_is(page, "Petra")
    page.wait_for_selector("#known:not([hidden])")
    until(page, "document.getElementById('stored').complete")
    page.wait_for_timeout(500)
    views = {
        "look": "nav button[data-view=look]",
        "teach": "nav button[data-view=teach]",
        "places": "nav button[data-view=places]",
    }
    for view, button in views.items():
        page.click(button)
        if view == "places":
            page.wait_for_selector("#list img")
        page.wait_for_timeout(300)
        page.screenshot(path=OUT / f"{view}_{screen}_{scheme}.png")
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), f"{view} is too wide"
        small = page.evaluate(
            "[...document.querySelectorAll('button, .button')].filter(b => b.offsetParent && b.offsetHeight < 44)"
            ".map(b => b.textContent)"
        )
        assert small == [], "a finger needs 44 pixels"
    assert page.complaints == []
    page.close()


NO_CAMERA = """kind => {
    navigator.mediaDevices.getUserMedia = () => Promise.reject(new DOMException("", kind));
}"""
TROUBLE = "document.getElementById('trouble-words').textContent"
SEES = "!document.getElementById('video').hidden && document.getElementById('video').videoWidth > 0"


def test_an_unplugged_camera_is_told_of_and_starts_by_itself(browser: Any, address: str) -> None:
    page = open_page(browser, f"{address}/#camera", "360", "dark")  # nobody touches a kiosk after a power cut
    until(page, SEES)
    page.evaluate(NO_CAMERA, "NotFoundError")
    page.evaluate(
        "const track = document.getElementById('video').srcObject.getVideoTracks()[0];"
        "track.stop(); track.dispatchEvent(new Event('ended'))"
    )
    until(page, f"{TROUBLE}.includes('Plug it in again')")
    page.screenshot(path=OUT / "unplugged_360_dark.png")
    until(page, f"{TROUBLE}.includes('No camera was found')")  # it has been tried again
    page.evaluate("() => { delete navigator.mediaDevices.getUserMedia; }")
    until(page, SEES)
    assert page.is_hidden("#trouble")
    page.evaluate(NO_CAMERA, "NotAllowedError")
    page.keyboard.press("c")
    page.keyboard.press("c")
    until(page, f"{TROUBLE}.includes('may not use the camera')")
    assert page.complaints == []
    page.close()


def teach(page: Any, landmark: str) -> None:
    """Three photos and a name are ready to be saved."""
    capitol = load_image(DEMO / "queries" / "usCapitol.webp").pixels
    page.keyboard.press("2")
    page.set_input_files("#files", [upload(str(i), view_of(capitol, 5 * i, 1 + 0.1 * i)) for i in range(3)])
    until(page, "document.querySelectorAll('#shots .score[data-level]').length === 3")
    page.fill("#landmark", landmark)


def test_a_service_that_is_killed_while_it_is_taught_loses_nothing(browser: Any, tmp_path: Path) -> None:
    service = Service(fill(tmp_path / "places.db", {"Petra": "Petra"}))
    page = open_page(browser, f"{service.url}/#token={TOKEN}")
    assert TOKEN not in page.url
    teach(page, "US Capitol")
    page.click("#save")
    until(page, "document.querySelectorAll('#shots img').length === 2")  # one is acknowledged
    service.process.send_signal(signal.SIGKILL)
    service.process.wait()
    until(page, "document.getElementById('trouble-words').textContent.includes('photos are saved')")
    page.screenshot(path=OUT / "killed_1080p_light.png")
    service.start()
    assert service.names()["US Capitol"] in (1, 2)  # what was sent when it died may be there or not
    until(page, "!document.getElementById('save').disabled")
    page.click("#save")
    until(page, "document.getElementById('saved').textContent.includes('is known now')")
    assert service.names() == {"Petra": 1, "US Capitol": 3}
    page.close()
    service.stop()


def test_a_full_disk_is_told_of_and_the_photos_wait(browser: Any, tmp_path: Path) -> None:
    private = ["unshare", "--mount"]
    if os.geteuid() != 0 or subprocess.run([*private, "true"], capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a file system")
    mount = f'mount -t tmpfs -o size=6m none {tmp_path} && exec "$@"'
    service = Service(tmp_path / "places.db", prefix=(*private, "sh", "-c", mount, "sh"))
    inside = ["nsenter", "-t", str(service.process.pid), "-m"]
    subprocess.run([*inside, "sh", "-c", f"cat /dev/zero > {tmp_path}/ballast"], capture_output=True, check=False)
    page = open_page(browser, f"{service.url}/#token={TOKEN}", "360", "light")
    teach(page, "US Capitol")
    page.click("#save")
    until(page, f"{TROUBLE}.includes('disk is full')")
    page.screenshot(path=OUT / "full_360_light.png")
    assert service.names() == {}
    subprocess.run([*inside, "rm", f"{tmp_path}/ballast"], check=True)
    page.click("#save")
    until(page, "document.getElementById('saved').textContent.includes('is known now')")
    assert service.names() == {"US Capitol": 3}
    page.close()
    service.stop()


@pytest.mark.parametrize("screen", SCREENS)
def test_names_of_any_length_and_direction_fit(browser: Any, tmp_path: Path, screen: str) -> None:
    names = {
        "Petra": "البتراء، المدينة الوردية",
        "Colosseum": "Basilica of the Sacred Heart " * 6,
        "Taj Mahal": "x" * 200,
    }
    service = Service(fill(tmp_path / "places.db", names))
    page = open_page(browser, service.url, screen, "dark")
    for number, (folder, name) in enumerate(names.items()):
        page.set_input_files("#file", [upload("x", view_of(reference(folder), 5, 1.0, (960, 720)))])
        name_is(page, name)
        page.wait_for_selector("#known:not([hidden])")
        page.wait_for_timeout(300)
        page.screenshot(path=OUT / f"name{number}_{screen}_dark.png")
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), name
        assert page.evaluate("document.getElementById('stage').clientHeight > 250"), name
    page.click("nav button[data-view=places]")
    page.wait_for_selector("#list img")
    page.screenshot(path=OUT / f"names_{screen}_dark.png")
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    page.close()
    service.stop()
