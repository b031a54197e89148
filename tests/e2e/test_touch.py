"""All that a visitor can do, with fingers alone: no mouse and no keyboard."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from testing.kiosk import OUT, Service, chromium, name_is, open_page, until
from testing.page_checks import fits

pytestmark = pytest.mark.browser
STATE = "document.body.dataset.state"
WATCH = """() => {
  window.others = []; // what came from anything but a finger
  for (const kind of ["pointerdown", "pointermove", "pointerup"]) {
    addEventListener(kind, (e) => { if (e.pointerType !== "touch") others.push(`${kind} ${e.pointerType}`); }, true);
  }
  for (const kind of ["keydown", "wheel"]) addEventListener(kind, () => others.push(kind), true);
}"""


def open_by_touch(browser: Any, url: str, screen: str) -> Any:
    page = open_page(browser, url, screen, has_touch=True)
    page.evaluate(WATCH)
    return page


def swipe(page: Any, selector: str, distance: int) -> None:
    """A finger that pulls an element up by so many pixels."""
    box = page.locator(selector).bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    cdp = page.context.new_cdp_session(page)
    for step in range(12):
        kind = "touchMove" if step else "touchStart"
        point = {"x": x, "y": y - distance * step / 11}
        cdp.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [point]})
        page.wait_for_timeout(16)
    cdp.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})


def tap(page: Any, selector: str) -> None:
    """A finger on an element, which must be on the screen and large enough."""
    box = page.locator(selector).bounding_box()
    assert min(box["width"], box["height"]) >= 44, selector
    page.tap(selector)


@pytest.mark.parametrize("screen", ["pi", "portrait", "360"])
def test_a_story_is_heard_and_read_in_another_language(service: Service, colosseum: Any, screen: str) -> None:
    page = open_by_touch(colosseum, service.url, screen)
    name_is(page, "Colosseum")
    tap(page, "#language")
    tap(page, "#languages button[lang=de]")
    until(page, "document.getElementById('name').textContent === 'Kolosseum'")
    tap(page, "#language")
    tap(page, "#languages button[lang=en]")
    name_is(page, "Colosseum")
    tap(page, "#language")
    page.touchscreen.tap(20, page.viewport_size["height"] - 20)  # beside the menu
    until(page, "document.getElementById('languages').hidden")

    tap(page, "#listen")
    until(page, "document.getElementById('listen').ariaPressed === 'true'")
    tap(page, "#listen")  # stops it again, before its end
    until(page, "document.getElementById('listen').ariaPressed === 'false'")
    assert page.evaluate("document.getElementById('sound').currentTime") == 0
    tap(page, "#more")
    until(page, "!document.getElementById('body').hidden")
    moved = "document.getElementById('panel').scrollTop + scrollY"
    before = page.evaluate(moved)
    hidden = page.evaluate("document.querySelector('#body').getBoundingClientRect().bottom > innerHeight - 40")
    if hidden:  # the story is longer than the screen
        swipe(page, "#panel", 300)
        until(page, f"{moved} > {before} + 20")
    page.screenshot(path=OUT / f"touch_story_{screen}.png")
    tap(page, "#more")  # and back
    until(page, "document.getElementById('body').hidden")

    for zoom in ("1.3", "1.7"):
        tap(page, "#text-size")
        assert page.evaluate("document.documentElement.dataset.zoom") == zoom
        fits(page)
        page.screenshot(path=OUT / f"touch_zoom{zoom}_{screen}.png")
    tap(page, "#text-size")
    assert page.evaluate("document.documentElement.dataset.zoom") == "1"
    assert page.evaluate("others") == []
    assert page.complaints == []
    page.close()


def test_a_picture_is_left_for_staff_or_not(service: Service, playwright: Any, films: dict[str, Path]) -> None:
    with chromium(playwright, films["stranger"]) as browser:
        for answer in ("#keep-no", "#keep-yes"):
            page = open_by_touch(browser, service.url, "pi")
            until(page, f"{STATE} === 'unknown' && !document.getElementById('keep').hidden")
            tap(page, answer)
            until(page, "document.getElementById('keep').hidden")
            if answer == "#keep-yes":
                until(page, "!document.getElementById('kept').hidden")
                page.screenshot(path=OUT / "touch_kept_pi.png")
            assert page.evaluate("others") == []
            page.close()


def test_the_changing_pictures_are_stopped_and_go_on(service: Service, playwright: Any, films: dict[str, Path]) -> None:
    with chromium(playwright, films["dark"]) as browser:
        page = open_by_touch(browser, service.url, "pi")
        until(page, f"{STATE} === 'attract' && !document.getElementById('pause').hidden")
        for paused in ("true", "false"):
            tap(page, "#pause")
            assert page.get_attribute("#pause", "data-paused") == paused
        assert page.evaluate("others") == []
        page.close()
