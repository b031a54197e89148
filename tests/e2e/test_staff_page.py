"""The staff's page in Chromium, in front of a camera that plays a film of the demo photographs (make test-browser).

Screenshots go to out/browser: look at them after a change to the page.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from delf_edge.images.decode import load_image
from testing.kiosk import (
    DEMO,
    LANDMARKS,
    OUT,
    PIN,
    SCREENS,
    TOKEN,
    Service,
    chromium,
    fill,
    name_is,
    open_page,
    playwright_or_skip,
    reference,
    resize,
    until,
    upload,
    view_of,
    write_film,
)
from testing.page_checks import accessible, fits, nothing_lost

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A running service with six landmarks."""
    service = Service(fill(tmp_path_factory.mktemp("kiosk") / "places.db", {name: name for name in LANDMARKS}))
    yield f"{service.url}/staff"
    service.stop()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    film = tmp_path_factory.mktemp("film") / "walk.y4m"
    write_film(film)
    with playwright_or_skip() as playwright, chromium(playwright, film) as opened:
        yield opened


def test_a_place_appears_changes_and_leaves_before_the_camera(browser: Any, address: str) -> None:
    page = open_page(browser, address, "1080p", "dark")
    page.click("#look-camera")
    name_is(page, "Colosseum")
    page.wait_for_selector("#known:not([hidden])")
    page.screenshot(path=OUT / "camera_1080p_dark.png")
    until(page, "document.getElementById('answer').dataset.state !== 'present'")
    name_is(page, "Petra")
    until(page, "document.getElementById('answer').dataset.state === 'unknown'")
    page.screenshot(path=OUT / "unknown_1080p_dark.png")
    page.click("#look-camera")
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
    page.wait_for_selector("#token-wrong:not([hidden])")
    page.screenshot(path=OUT / "staff_wrong_pin_1080p_light.png")
    for digit in PIN:
        page.click(f"#keypad button:text-is('{digit}')")  # a kiosk may have no keyboard
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


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_view_fits_every_screen(browser: Any, address: str, scheme: str) -> None:
    page = open_page(browser, address, "1080p", scheme)
    until(page, "document.querySelectorAll('#mosaic img').length === 6")  # some of the places that it knows
    for screen in SCREENS:
        resize(page, screen)
        page.screenshot(path=OUT / f"start_{screen}_{scheme}.png")
        fits(page)
        nothing_lost(page)
        tiles = page.evaluate("document.querySelectorAll('#mosaic img:not([hidden])').length")
        columns = page.evaluate("getComputedStyle(mosaic).gridTemplateColumns.split(' ').length")
        assert tiles >= 4, (screen, tiles)
        assert tiles % columns == 0, (screen, tiles, columns)  # in full rows
    page.set_input_files("#file", [upload("petra", view_of(reference("Petra"), 6, 1.0, (960, 720)))])
    name_is(page, "Petra")
    page.wait_for_selector("#known:not([hidden])")
    until(page, "document.getElementById('stored').complete")
    for view in ("look", "teach", "places"):
        page.click(f"nav button[data-view={view}]")
        if view == "places":
            page.wait_for_selector("#list img")
        for screen in SCREENS:
            resize(page, screen)
            page.screenshot(path=OUT / f"{view}_{screen}_{scheme}.png")
            fits(page)
            nothing_lost(page)
    assert page.complaints == []
    page.close()


TROUBLE = "document.getElementById('trouble-words').textContent"


def teach(page: Any, landmark: str) -> None:
    """Three photos and a name are ready to be saved."""
    capitol = load_image(DEMO / "queries" / "usCapitol.webp").pixels
    page.keyboard.press("2")
    page.set_input_files("#files", [upload(str(i), view_of(capitol, 5 * i, 1 + 0.1 * i)) for i in range(3)])
    until(page, "document.querySelectorAll('#shots .score[data-level]').length === 3")
    page.fill("#landmark", landmark)


def test_a_service_that_is_killed_while_it_is_taught_loses_nothing(browser: Any, tmp_path: Path) -> None:
    service = Service(fill(tmp_path / "places.db", {"Petra": "Petra"}))
    page = open_page(browser, f"{service.url}/staff#token={TOKEN}")
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
    page.wait_for_selector("#ask-token[open]")  # a session of staff ends with the service
    page.fill("#token", PIN)
    page.click("#token-form button[type=submit]")
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
    page = open_page(browser, f"{service.url}/staff#token={TOKEN}", "360", "light")
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


@pytest.mark.parametrize("screen", ["360", "1080p"])
def test_names_of_any_length_and_direction_fit(browser: Any, tmp_path: Path, screen: str) -> None:
    names = {
        "Petra": "البتراء، المدينة الوردية",
        "Colosseum": "Basilica of the Sacred Heart " * 6,
        "Taj Mahal": "x" * 200,
    }
    service = Service(fill(tmp_path / "places.db", names))
    page = open_page(browser, f"{service.url}/staff", screen, "dark")
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


def test_a_place_is_opened_told_of_and_counted(browser: Any, tmp_path: Path) -> None:
    database = fill(tmp_path / "places.db", {"Petra": "Petra", "Taj Mahal": "Taj Mahal"})
    service = Service(database, options=("--keep-questions", str(tmp_path / "questions")))
    page = open_page(browser, f"{service.url}/staff#token={TOKEN}", "360")
    page.click("nav button[data-view=places]")
    page.click("button[aria-label='Open Petra']")
    page.wait_for_selector("#editor:not([hidden])")
    page.fill("#editor-new", "de")
    page.click("#editor-add")
    page.fill("#editor-title-text", "Felsenstadt Petra")
    page.fill("#editor-summary", "In den Fels gehauen.")
    page.click("#editor-form button[type=submit]")
    until(page, "document.getElementById('editor-saved').textContent === 'Saved.'")
    assert page.input_value("#editor-title-text") == "Felsenstadt Petra"
    for view in ("places", "statistics", "check", "questions", "screen", "look", "teach"):
        if view != "places":
            page.click(f"nav button[data-view={view}]")
            page.wait_for_timeout(500)
        for screen in SCREENS:
            resize(page, screen)
            page.screenshot(path=OUT / f"staff_{view}_{screen}_light.png")
            fits(page)
            nothing_lost(page)
            accessible(page, contrast=True)
    page.click("nav button[data-view=check]")
    page.click("#check-start")
    until(page, "document.getElementById('check-words').textContent === '2 of 2 photos'", 120)
    with page.expect_navigation():
        page.click("#lock")  # the page begins anew, with nothing open
    assert page.is_hidden("#lock")
    assert page.complaints == []
    page.close()
    service.stop()
