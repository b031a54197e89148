"""The managed policies of deploy/chromium-kiosk.json, really in force in Chromium; nobody else's settings are touched.

Chromium reads policies from /etc/chromium. Here it runs in a mount namespace of its own, with another folder there.
Each thing is tried without the policies as well: a check that finds the same in both would be none.
"""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from testing.kiosk import CHROMIUM, Service, fill, playwright_or_skip, until, write_film
from testing.paths import ROOT

pytestmark = pytest.mark.browser
POLICIES = ROOT / "deploy" / "chromium-kiosk.json"
KIOSK = "http://localhost:8000"  # of the file
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--use-fake-device-for-media-stream",  # the camera is a film; the question whether it may be used is a real one
    "--remote-debugging-port=0",
]
ASK_FOR_THE_CAMERA = """() => Promise.race([
    navigator.mediaDevices.getUserMedia({ video: true }).then(() => "given", (e) => e.name),
    new Promise((end) => setTimeout(end, 5000, "asked")),
])"""
ASK_FOR_THE_MICROPHONE = ASK_FOR_THE_CAMERA.replace("video", "audio")
WATCH_THE_CHOOSER = "() => { window.chosen = 'open'; file.oncancel = () => { chosen = 'refused'; }; }"


def in_force(url: str) -> dict[str, Any]:
    """The policies of the file, for a kiosk at another address."""
    policies: dict[str, Any] = json.loads(POLICIES.read_text("utf-8").replace(KIOSK, url))
    assert policies["VideoCaptureAllowedUrls"] == policies["URLAllowlist"] == [url]
    return policies


def may_inspect(policies: dict[str, Any]) -> dict[str, Any]:
    """The same, but a test may see the page."""
    return {name: value for name, value in policies.items() if name != "DeveloperToolsAvailability"}


@contextmanager
def managed(folder: Path, url: str, policies: dict[str, Any], *flags: str) -> Iterator[Path]:
    """A whole Chromium, started as on a kiosk and managed by these policies; its profile's folder."""
    if CHROMIUM is None or not Path("/etc/chromium").is_dir():
        pytest.skip("no Chromium that reads /etc/chromium")
    settings, profile = folder / "etc", folder / "profile"
    (settings / "policies" / "managed").mkdir(parents=True)
    (settings / "policies" / "managed" / "kiosk.json").write_text(json.dumps(policies), "utf-8")
    private = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"])]
    private += ["sh", "-c", f'mount --bind "{settings}" /etc/chromium && exec "$@"', "sh"]
    if subprocess.run([*private, "true"], capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a folder over /etc/chromium in a namespace of its own")
    command = [*private, CHROMIUM, *FLAGS, *flags, f"--user-data-dir={profile}", url]
    with (folder / "chromium.log").open("wb") as log:
        process = subprocess.Popen(command, stderr=log, stdout=log, env=os.environ | {"HOME": str(folder)})
    try:
        yield profile
    finally:
        process.terminate()
        process.wait(30)
        shutil.rmtree(profile, ignore_errors=True)


def connected(playwright: Any, address: str) -> Any:
    """Connect to a Chromium that has just been started; while it opens its page it may leave that unanswered."""
    from playwright.sync_api import TimeoutError as NoAnswerError

    for _ in range(8):
        with contextlib.suppress(NoAnswerError):
            return playwright.chromium.connect_over_cdp(address, timeout=15_000)
    return playwright.chromium.connect_over_cdp(address, timeout=30_000)


def pages(playwright: Any, profile: Path) -> tuple[Any, list[Any]]:
    """Connect to it; what it lets be seen."""
    port = profile / "DevToolsActivePort"
    end = time.monotonic() + 60
    while not (port.exists() and port.read_text("utf-8")):
        assert time.monotonic() < end, "Chromium did not start"
        time.sleep(0.1)
    browser = connected(playwright, f"http://127.0.0.1:{port.read_text('utf-8').split()[0]}")
    for _ in range(50):
        if browser.contexts[0].pages:
            break
        time.sleep(0.1)
    return browser, browser.contexts[0].pages


@pytest.fixture(scope="module")
def kiosk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    database = fill(tmp_path_factory.mktemp("kiosk") / "places.db", {"Colosseum": "Colosseum"})
    running = Service(database, options=("--kiosk",))
    yield running
    running.stop()


@pytest.fixture(scope="module")
def screen() -> Iterator[list[str]]:
    """Flags for a Chromium whose dialogs would open: on a display in memory, where there is none."""
    if os.environ.get("DISPLAY"):
        yield []
        return
    xvfb = shutil.which("Xvfb")
    if xvfb is None:
        pytest.skip("no display and no Xvfb: without one no Chromium opens a file chooser")
    reader, writer = os.pipe()
    command = [xvfb, "-displayfd", str(writer), "-screen", "0", "1280x800x24", "-nolisten", "tcp"]
    process = subprocess.Popen(command, pass_fds=[writer], stderr=subprocess.DEVNULL)
    os.close(writer)
    with os.fdopen(reader) as numbers:
        number = numbers.readline().strip()
    os.environ["DISPLAY"] = f":{number}"
    yield ["--ozone-platform=x11"]
    del os.environ["DISPLAY"]
    process.terminate()
    process.wait(30)


def opens(page: Any, address: str) -> str:
    """What comes of going to another page."""
    from playwright.sync_api import Error

    try:
        page.goto(address, timeout=10_000)
    except Error as e:
        blocked = "BLOCKED_BY_ADMINISTRATOR" in e.message or "chrome-error://" in e.message
        return "blocked" if blocked else e.message
    return "opened"


def tried(page: Any, url: str) -> dict[str, str]:
    """What comes of each thing that a policy allows or forbids."""
    found = {}
    page.goto(url)
    until(page, "window.kioskReady === true")
    found["camera"] = page.evaluate(ASK_FOR_THE_CAMERA)
    found["microphone"] = page.evaluate(ASK_FOR_THE_MICROPHONE)
    page.goto(f"{url}/staff")
    until(page, "window.kioskReady === true")
    page.evaluate(WATCH_THE_CHOOSER)
    page.click("label:has(#file)")
    with contextlib.suppress(AssertionError):
        until(page, "chosen === 'refused'", 5)
    found["file chooser"] = page.evaluate("chosen")
    page.reload()
    page.once("dialog", lambda dialog: dialog.dismiss())
    other = url.replace("localhost", "127.0.0.1")
    for name, address in {"page": other, "file": "file:///etc/hostname", "settings": "chrome://version"}.items():
        found[f"another {name}"] = opens(page, address)
    return found


def test_the_camera_is_allowed_and_nothing_else(kiosk: Service, tmp_path: Path, screen: list[str]) -> None:
    film = tmp_path / "film.y4m"
    write_film(film, [("Colosseum", 4)])
    url = kiosk.url.replace("127.0.0.1", "localhost")
    flags = [*screen, f"--use-file-for-fake-video-capture={film}"]
    found = {}
    with playwright_or_skip() as playwright:
        for name, policies in {"with": may_inspect(in_force(url)), "without": {}}.items():
            with managed(tmp_path / name, url, policies, *flags) as profile:
                browser, shown = pages(playwright, profile)
                found[name] = tried(shown[0], url)
                browser.close()
    print(found)
    others = ("another page", "another file", "another settings")
    assert found["with"] == {
        "camera": "given",
        "microphone": "NotAllowedError",
        "file chooser": "refused",
        **dict.fromkeys(others, "blocked"),
    }
    assert found["without"] == {
        "camera": "asked",
        "microphone": "asked",
        "file chooser": "open",
        **dict.fromkeys(others, "opened"),
    }


def test_nobody_looks_into_the_page(kiosk: Service, tmp_path: Path) -> None:
    url = kiosk.url.replace("127.0.0.1", "localhost")
    with playwright_or_skip() as playwright:
        for name, policies, seen in (("with", in_force(url), 0), ("without", may_inspect(in_force(url)), 1)):
            with managed(tmp_path / name, url, policies, "--headless") as profile:
                browser, shown = pages(playwright, profile)
                assert len(shown) == seen, name
                browser.close()


def test_nothing_is_downloaded(tmp_path: Path) -> None:
    asked = threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-type", "text/csv")
            self.send_header("content-disposition", 'attachment; filename="table.csv"')
            self.end_headers()
            self.wfile.write(b"a,b\n1,2\n")
            asked.set()

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://localhost:{server.server_port}"
    there = {}
    for name, policies in (("without", {}), ("with", in_force(url))):
        asked.clear()
        with managed(tmp_path / name, f"{url}/table.csv", policies, "--headless"):
            assert asked.wait(60)
            end = time.monotonic() + 10
            while time.monotonic() < end and not list((tmp_path / name).rglob("table.csv")):
                time.sleep(0.2)
            there[name] = [path.name for path in (tmp_path / name).rglob("table.csv")]
    server.shutdown()
    server.server_close()
    assert there == {"without": ["table.csv"], "with": []}
