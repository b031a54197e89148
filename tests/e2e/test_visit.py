"""The page for phones in Chromium (make test-browser): offline, updates, camera, languages, accessibility.

The page is built with a recogniser that tells places by colour (`web-sdk/visit/build.js --fake`): the tests are of the
page alone. Screenshots go to out/browser: look at them after a change.
"""

from __future__ import annotations

import functools
import http.server
import json
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from delf_edge import Bundle, Recognizer
from delf_edge.web.media_types import TYPES
from delf_edge.web.visit import describe_release, write_webapp
from testing.kiosk import DEMO, OUT, PATIENCE, chromium, playwright_or_skip, until
from testing.paths import ROOT, TINY_BUNDLE
from testing.web_sdk import SDK, built_or_skip, packages_or_skip

pytestmark = pytest.mark.browser
RED, GREEN, BLUE, GREY = (200, 30, 30), (30, 160, 40), (30, 40, 200), (128, 128, 128)


class Handler(http.server.SimpleHTTPRequestHandler):
    """Plain files, as any web server gives them out: no headers of its own, but for those of a test."""

    extensions_map = dict(TYPES)  # noqa: RUF012

    def __init__(self, *arguments: Any, headers: dict[str, str], **more: Any) -> None:
        self._added = headers
        super().__init__(*arguments, **more)

    def end_headers(self) -> None:
        for name, value in self._added.items():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, *arguments: object) -> None:
        pass


class Site:
    """The files at an address; `stop` and `start` are a network that goes and comes."""

    def __init__(self, folder: Path, database: Recognizer, page: Path, bundle: Path = TINY_BUNDLE) -> None:
        self.folder, self.database, self._page, self._bundle = folder, database, page, bundle
        self.write()
        self.port = 0
        self.headers: dict[str, str] = {}
        self.start()

    def write(self) -> dict[str, Any]:
        return write_webapp(self.database.store, self.folder, bundle=self._bundle, page=self._page)

    def start(self) -> None:
        handler = functools.partial(Handler, directory=str(self.folder), headers=self.headers)
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", self.port), handler)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    close = stop

    @property
    def url(self) -> str:
        return f"http://localhost:{self.port}/"


def solid(colour: tuple[int, int, int]) -> bytes:
    return cv2.imencode(".png", np.full((240, 320, 3), colour[::-1], np.uint8))[1].tobytes()


@pytest.fixture(scope="module")
def page_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    subprocess.run(["node", "visit/build.js", "--fake"], cwd=packages_or_skip(), check=True)
    target = tmp_path_factory.mktemp("page") / "visit"
    shutil.copytree(SDK / "build" / "visit", target)
    return target


@pytest.fixture
def site(page_files: Path, tmp_path: Path) -> Iterator[Site]:
    with Recognizer.open(tmp_path / "places.db", bundle=TINY_BUNDLE, preset="fast") as places:
        noise = np.random.default_rng(0).integers(0, 256, (240, 320, 3)).astype(np.uint8)
        places.add(noise, landmark="red", name="a", channel_order="RGB")
        opened = Site(tmp_path / "site", places, page_files)
        with closing(opened):
            yield opened


def film(path: Path) -> Path:
    """Red for 4 s, grey for 4 s, green for 4 s, again and again."""
    with path.open("wb") as f:
        f.write(b"YUV4MPEG2 W320 H240 F5:1 Ip A1:1 C420jpeg\n")
        for colour in (RED, GREY, GREEN):
            frame = cv2.cvtColor(np.full((240, 320, 3), colour, np.uint8), cv2.COLOR_RGB2YUV_I420).tobytes()
            f.write((b"FRAME\n" + frame) * 20)
    return path


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    film_path = film(tmp_path_factory.mktemp("film") / "film.y4m")
    with playwright_or_skip() as playwright, chromium(playwright, film_path) as opened:
        yield opened


def phone(browser: Any, **more: Any) -> Any:
    settings = {"viewport": {"width": 360, "height": 740}, "locale": "en-GB", "permissions": ["camera"]}
    context = browser.new_context(**{**settings, **more})
    context.set_default_timeout(PATIENCE * 1000)
    return context


def open_page(context: Any, url: str, wait: bool = True) -> Any:
    page = context.new_page()
    page.complaints = []
    page.on("pageerror", lambda e: page.complaints.append(str(e)))
    page.on("console", lambda m: page.complaints.append(m.text) if "Content Security" in m.text else None)
    page.goto(url)
    if wait:
        until(page, "document.documentElement.dataset.ready !== undefined")
        until(page, "document.getElementById('about').dataset.places !== undefined")
    return page


def ask(page: Any, data: bytes) -> None:
    page.set_input_files("#photo", {"name": "a.png", "mimeType": "image/png", "buffer": data})


def title_is(page: Any, title: str) -> None:
    until(
        page,
        f"!document.getElementById('card').hidden && document.getElementById('card-title').textContent === {title!r}",
    )


def trouble_of(page: Any) -> str:
    until(page, "!document.getElementById('trouble').hidden")
    text: str = page.text_content("#trouble")
    return text


def test_a_photo_is_answered_with_what_is_known(browser: Any, site: Site) -> None:
    context = phone(browser)
    page = open_page(context, site.url)
    page.screenshot(path=OUT / "visit_start_360.png")
    ask(page, solid(RED))
    title_is(page, "Red tower")
    assert "40 points" in page.text_content("#card-sure")
    assert page.locator("#card-text p").count() == 2
    until(page, "document.getElementById('card-picture').naturalWidth === 320")
    assert page.text_content("#card-credit") == "A. Painter"
    assert page.get_attribute("#card-link a", "href") == "https://red.example/"
    page.click("summary")
    until(page, "document.getElementById('proof-canvas').width === 320")
    page.screenshot(path=OUT / "visit_found_360.png", full_page=True)
    assert page.locator("#found-list li").all_text_contents()[0].startswith("Red tower")
    assert re.fullmatch(r"\d\d:\d\d", page.text_content("#found-list time"))  # as in en-GB, not in en-US
    ask(page, solid(GREEN))
    title_is(page, "Green garden")
    assert page.is_hidden("#card-link")  # a link of another kind than http is not shown
    assert page.locator("#found-list li").count() == 2
    ask(page, solid(GREY))
    title_is(page, "Not known")
    page.screenshot(path=OUT / "visit_unknown_360.png")
    page.locator("#found-list button").last.click()
    title_is(page, "Red tower")
    ask(page, b"no photo")
    assert "cannot be read" in trouble_of(page)
    page.reload()
    until(page, "document.querySelectorAll('#found-list li').length === 2")  # kept on this phone
    page.click("#forget")
    assert page.is_hidden("#found")
    assert page.complaints == []
    context.close()


def test_it_works_in_flight_mode_after_the_first_visit(browser: Any, site: Site) -> None:
    context = phone(browser)
    page = open_page(context, site.url)
    assert page.evaluate("document.documentElement.dataset.ready") == "true"
    # The worker's own policy, on a server that sends none: no photo leaves it.
    policy = page.evaluate("fetch('worker.js').then(r => r.headers.get('content-security-policy'))")
    assert "connect-src 'self'" in policy
    page.close()
    site.stop()
    try:
        page = open_page(context, site.url + "?from=qr")
        ask(page, solid(RED))
        title_is(page, "Red tower")
        page.close()
    finally:
        site.start()
    context.close()


def test_a_new_release_is_taken_whole_or_not_at_all(browser: Any, site: Site) -> None:
    context = phone(browser)
    page = open_page(context, site.url)
    first = page.evaluate("fetch('app.json').then(r => r.json()).then(r => r.version)")
    noise = np.random.default_rng(1).integers(0, 256, (240, 320, 3)).astype(np.uint8)
    site.database.add(noise, landmark="green", name="b", channel_order="RGB")
    second = site.write()["version"]
    damaged = bytearray((site.folder / "places.pack").read_bytes())
    damaged[5000] ^= 1
    whole = (site.folder / "places.pack").read_bytes()
    (site.folder / "places.pack").write_bytes(damaged)  # the update arrives half: a file does not fit
    page.evaluate("navigator.serviceWorker.controller.postMessage({kind: 'update'})")
    page.wait_for_timeout(1500)
    assert page.is_hidden("#update")
    page.reload()
    until(page, "document.getElementById('about').dataset.places !== undefined")
    version = "fetch('app.json').then(r => r.json()).then(r => r.version)"
    assert page.evaluate(version) == first
    (site.folder / "places.pack").write_bytes(whole)
    page.evaluate("navigator.serviceWorker.controller.postMessage({kind: 'update'})")
    until(page, "!document.getElementById('update').hidden")
    page.screenshot(path=OUT / "visit_update_360.png")
    ask(page, solid(RED))  # the open page goes on with what it has
    title_is(page, "Red tower")
    page.click("#reload")
    until(page, f"{version}.then(v => v === {second!r})")
    until(page, "document.getElementById('about').dataset.places !== undefined")
    site.stop()
    try:
        page.reload()
        until(page, "document.getElementById('about').dataset.places !== undefined")
        ask(page, solid(GREEN))
        title_is(page, "Green garden")
    finally:
        site.start()
    context.close()


def test_what_the_browser_threw_away_is_fetched_again(browser: Any, site: Site) -> None:
    context = phone(browser)
    page = open_page(context, site.url)
    page.evaluate("caches.keys().then(names => Promise.all(names.map(name => caches.delete(name))))")
    page.reload()
    until(page, "document.getElementById('about').dataset.places !== undefined")
    ask(page, solid(RED))
    title_is(page, "Red tower")
    context.close()


def test_a_damaged_file_is_named(browser: Any, site: Site) -> None:
    path = site.folder / "bundle" / "manifest.json"
    path.write_bytes(path.read_bytes().replace(b'"name"', b'"mane"'))
    context = phone(browser)
    page = open_page(context, site.url, wait=False)
    trouble_of(page)
    context.close()


def test_two_tabs_and_no_storage(browser: Any, site: Site) -> None:
    context = phone(browser)
    pages = [open_page(context, site.url) for _ in range(2)]
    for page, colour, title in zip(pages, (RED, GREEN), ("Red tower", "Green garden"), strict=True):
        ask(page, solid(colour))
        title_is(page, title)
    context.close()
    context = phone(browser, service_workers="block")
    page = open_page(context, site.url)
    assert page.evaluate("document.documentElement.dataset.ready") == "false"
    ask(page, solid(RED))
    title_is(page, "Red tower")
    context.close()


def test_the_camera_finds_changes_and_loses(browser: Any, site: Site) -> None:
    context = phone(browser)
    page = open_page(context, site.url)
    page.click("#open-camera")
    title_is(page, "Red tower")
    page.screenshot(path=OUT / "visit_camera_360.png")
    until(page, "document.getElementById('card').hidden")  # lost
    title_is(page, "Green garden")
    until(page, "document.getElementById('card').hidden")
    page.click("#close-camera")
    assert page.is_visible("#start")
    assert page.evaluate("document.getElementById('video').srcObject") is None
    assert page.complaints == []
    context.close()


def test_a_camera_in_the_background_is_off(browser: Any, site: Site) -> None:
    context = phone(browser)
    page = open_page(context, site.url)
    page.click("#open-camera")
    title_is(page, "Red tower")
    live = "document.getElementById('video').srcObject?.getTracks().some(t => t.readyState === 'live') ?? false"
    assert page.evaluate(live)
    hide = "Object.defineProperty(document, 'hidden', {value: %s, configurable: true});"
    hide += "document.dispatchEvent(new Event('visibilitychange'))"
    page.evaluate(hide % "true")
    until(page, f"!({live})")
    page.evaluate(hide % "false")
    until(page, live)
    context.close()


def test_a_camera_that_is_not_allowed_or_not_there_is_said_in_words(browser: Any, site: Site) -> None:
    for name, words in (
        ("NotAllowedError", "not allowed"),
        ("NotFoundError", "No camera"),
        ("NotReadableError", "Another app"),
    ):
        context = phone(browser)
        page = open_page(context, site.url)
        page.evaluate(
            f"void (navigator.mediaDevices.getUserMedia = () => Promise.reject(new DOMException('no', {name!r})))"
        )
        page.click("#open-camera")
        assert words in trouble_of(page)
        assert page.is_visible("#start")
        ask(page, solid(RED))
        title_is(page, "Red tower")
        assert page.is_hidden("#trouble")
        context.close()


@pytest.mark.parametrize(
    ("locale", "direction", "title"), [("de-AT", "ltr", "Roter Turm"), ("ar", "rtl", "البرج الأحمر")]
)
def test_it_speaks_the_visitors_language(browser: Any, site: Site, locale: str, direction: str, title: str) -> None:
    context = phone(browser, locale=locale, color_scheme="dark")
    page = open_page(context, site.url)
    assert page.evaluate("document.documentElement.dir") == direction
    ask(page, solid(RED))
    title_is(page, title)
    page.screenshot(path=OUT / f"visit_{locale}_dark_360.png", full_page=True)
    page.select_option("#language", "fr")
    until(page, "document.documentElement.lang === 'fr'")
    # There is no French text: the browser's languages come next, then what there is.
    title_is(page, title if locale == "ar" else "Red tower")
    assert page.text_content("#open-camera") == "Ouvrir l’appareil photo"
    page.reload()
    until(page, "document.documentElement.lang === 'fr'")
    context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [(360, 740), (820, 1180), (740, 360), (320, 256)])
def test_it_fits_and_is_accessible(browser: Any, site: Site, size: tuple[int, int], scheme: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    context = phone(browser, viewport={"width": size[0], "height": size[1]}, color_scheme=scheme)
    page = open_page(context, site.url)
    for colour in (None, GREEN, RED):
        if colour is not None:
            ask(page, solid(colour))
            title_is(page, "Red tower" if colour == RED else "Green garden")
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide <= size[0], (colour, wide)
        tags = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "wcag2aaa"]
        found = axe.Axe().run(page, options={"runOnly": {"type": "tag", "values": tags}})
        assert found.violations_count == 0, found.generate_report()
    page.screenshot(path=OUT / f"visit_found_{size[0]}_{scheme}.png", full_page=True)
    context.close()


def test_it_is_for_the_keyboard_and_installable(browser: Any, site: Site) -> None:
    context = phone(browser)
    page = open_page(context, site.url)
    seen = []
    for _ in range(4):
        page.keyboard.press("Tab")
        seen.append(page.evaluate("document.activeElement.id"))
    assert seen[:3] == ["language", "open-camera", "photo"]
    session = context.new_cdp_session(page)
    problems = session.send("Page.getInstallabilityErrors")["installabilityErrors"]
    assert [p for p in problems if p["errorId"] != "in-incognito"] == []
    manifest = session.send("Page.getAppManifest")
    assert manifest["errors"] == []
    context.close()


# ---------------------------------------------------------------- the built page, with the real recogniser

DEFAULT_BUNDLE = ROOT / "assets" / "default"


@pytest.fixture(scope="module")
def real_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    built = built_or_skip() / "visit"
    folder = tmp_path_factory.mktemp("real")
    fast = Bundle.load(DEFAULT_BUNDLE, variant="int8")  # the page's
    with Recognizer.open(folder / "places.db", bundle=fast) as places:
        for name in ("Eiffel Tower", "Colosseum", "Taj Mahal", "Brandenburg Gate"):
            places.add(DEMO / "references" / name / "photo.webp", landmark=name, name=name)
        opened = Site(folder / "site", places, built, DEFAULT_BUNDLE)
        with closing(opened):
            yield opened


@pytest.mark.parametrize("query", ["eiffelTower", "brandenburgGate"])
def test_the_real_page_says_what_python_says(browser: Any, real_site: Site, query: str) -> None:
    photo = DEMO / "queries" / f"{query}.webp"
    said = real_site.database.identify(photo)
    context = phone(browser)
    page = open_page(context, real_site.url)
    ask(page, photo.read_bytes())
    title_is(page, str(said.landmark))
    points = int(page.text_content("#card-sure").split()[-3])
    assert abs(points - said.n_inliers) <= 2
    if query == "eiffelTower":
        real_site.stop()
        try:
            page.reload()
            until(page, "document.getElementById('about').dataset.places !== undefined")
            assert page.evaluate("crossOriginIsolated")  # the service worker's headers: threads are allowed
            ask(page, photo.read_bytes())
            title_is(page, str(said.landmark))
        finally:
            real_site.start()
    page.screenshot(path=OUT / f"visit_real_{query}.png", full_page=True)
    assert page.complaints == []
    context.close()


def changed(site: Site, target: Path) -> Site:
    """A copy of a site's folder at an address of its own."""
    shutil.copytree(site.folder, target)
    copy = object.__new__(Site)
    copy.folder, copy.database, copy.port, copy.headers = target, site.database, 0, {}
    copy.start()
    return copy


def renew(site: Site) -> None:
    """Writes `app.json` anew, so that changed files belong to the release."""
    (site.folder / "app.json").write_text(json.dumps(describe_release(site.folder, None)), encoding="utf-8")


@pytest.mark.parametrize("told", [False, True])
def test_a_flipped_byte_in_the_database_is_refused(browser: Any, real_site: Site, tmp_path: Path, told: bool) -> None:
    with closing(changed(real_site, tmp_path / "site")) as site:
        pack = site.folder / "places.pack"
        data = bytearray(pack.read_bytes())
        data[len(data) // 2] ^= 1
        pack.write_bytes(data)
        if told:
            renew(site)  # app.json knows the changed bytes; the pack's own manifest does not
        context = phone(browser)
        page = open_page(context, site.url, wait=False)
        assert "places.pack" in trouble_of(page)
        context.close()


def test_a_bundle_of_another_id_is_refused(browser: Any, real_site: Site, tmp_path: Path) -> None:
    with closing(changed(real_site, tmp_path / "site")) as site:
        shutil.rmtree(site.folder / "bundle")
        shutil.copytree(TINY_BUNDLE, site.folder / "bundle")
        renew(site)
        context = phone(browser)
        page = open_page(context, site.url, wait=False)
        assert "damaged or does not fit" in trouble_of(page)
        context.close()


def test_a_browser_that_forbids_webassembly_is_told(browser: Any, real_site: Site) -> None:
    real_site.headers["content-security-policy"] = "script-src 'self'"
    try:
        context = phone(browser, service_workers="block")
        page = open_page(context, real_site.url, wait=False)
        assert "cannot run the recognition" in trouble_of(page)
        context.close()
    finally:
        real_site.headers.clear()
