"""The page in Chromium, in front of a camera that plays a film of the demo photographs (make test-browser).

Screenshots go to out/browser: look at them after a change to the page.
"""

from __future__ import annotations

import os
import shutil
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
from delf_edge.images import load_image

pytestmark = pytest.mark.browser
ROOT = Path(__file__).resolve().parent.parent.parent
DEMO = ROOT / "assets" / "demo"
OUT = ROOT / "out" / "browser"
TOKEN = "only-for-this-test-0"
LANDMARKS = ("Colosseum", "Mount Rushmore", "Petra", "Taj Mahal", "Brandenburg Gate", "Hawa Mahal")
FPS, SIZE = 5, (640, 480)
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
    return cv2.warpAffine(photo, map_, size, flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REFLECT_101)


def write_film(path: Path) -> None:
    """YUV4MPEG, in a loop: a place for 12 s, darkness for 8 s, another place for 12 s, something unknown for 8 s."""
    stranger = load_image(DEMO / "queries" / "zimniPalace.webp").pixels
    with path.open("wb") as film:
        film.write(f"YUV4MPEG2 W{SIZE[0]} H{SIZE[1]} F{FPS}:1 Ip A1:1 C420jpeg\n".encode())
        for photo, seconds in ((reference("Colosseum"), 12), (None, 8), (reference("Petra"), 12), (stranger, 8)):
            for i in range(seconds * FPS):
                black = np.zeros((SIZE[1], SIZE[0], 3), np.uint8)
                frame = black if photo is None else view_of(photo, 3 * np.sin(i / 9), 1.05)
                film.write(b"FRAME\n" + cv2.cvtColor(frame, cv2.COLOR_RGB2YUV_I420).tobytes())


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A running service with six landmarks."""
    database = tmp_path_factory.mktemp("kiosk") / "places.db"
    with Recognizer.open(database) as places:
        for landmark in LANDMARKS:
            photo = DEMO / "references" / landmark / "photo.webp"
            places.add(photo, landmark=landmark, name=f"{landmark}/photo.webp", thumbnail=True)
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    command = [sys.executable, "-m", "delf_edge.cli", "serve", str(database), "--port", str(port)]
    service = subprocess.Popen(command, env=os.environ | {"DELF_EDGE_TOKEN": TOKEN}, stdout=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            try:
                urllib.request.urlopen(f"{url}/healthz").close()
                break
            except OSError:
                assert service.poll() is None
                time.sleep(0.1)
        yield url
    finally:
        service.terminate()
        assert service.wait(30) == 0


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
    page.set_default_timeout(90_000)
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


def until(page: Any, condition: str, seconds: float = 90) -> None:
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
    page.screenshot(path=OUT / f"start_{screen}_{scheme}.png")
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
            "[...document.querySelectorAll('button, .button')].filter(b => b.offsetParent && b.offsetHeight < 40)"
            ".map(b => b.textContent)"
        )
        assert small == [], "a finger needs 40 pixels"
    assert page.complaints == []
    page.close()
