"""Letters twice as large, and the zoom of the browser at 200 and 400 %, on the pages of visitors and staff.

WCAG 2.2, 1.4.4 (letters to 200 %) and 1.4.10 (a screen of 1,280 pixels at 400 %): nothing is cut off, nothing lies on
something else, and nothing scrolls sideways.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from testing.kiosk import (
    OUT,
    TOKEN,
    Service,
    chromium,
    letters_alone,
    name_is,
    open_page,
    reference,
    until,
    upload,
    view_of,
)
from testing.page_checks import accessible, fits, nothing_lost

pytestmark = pytest.mark.browser
STATE = "document.body.dataset.state"
LARGE = [  # screen, percent of the letters alone, percent of the zoom
    ("360", 200, 100),
    ("414", 200, 100),
    ("pi", 200, 100),
    ("1280x800", 200, 100),
    ("1080p", 200, 100),
    ("pi", 100, 200),
    ("1280x800", 100, 200),
    ("1080p", 100, 200),
    ("1280x800", 100, 400),
    ("1080p", 100, 400),
]


def enlarged(browser: Any, url: str, screen: str, letters: int, zoom: int) -> Any:
    page = open_page(browser, url, screen, zoom=zoom)
    if letters != 100:
        letters_alone(page, letters)
    return page


def looked_at(page: Any, name: str, *, contrast: bool = True) -> None:
    page.wait_for_timeout(400)
    page.screenshot(path=OUT / f"large_{name}.png", full_page=True)
    fits(page)
    nothing_lost(page)
    accessible(page, contrast=contrast)


def choose(page: Any, language: str) -> None:
    page.click("#language")
    page.click(f"#languages button[lang={language}]")
    until(page, f"document.documentElement.lang === {language!r}")


@pytest.mark.parametrize(("screen", "letters", "zoom"), LARGE)
def test_a_place_and_the_menu(service: Service, colosseum: Any, screen: str, letters: int, zoom: int) -> None:
    page = enlarged(colosseum, service.url, screen, letters, zoom)
    name = f"{screen}_letters{letters}_zoom{zoom}"
    for language in ("de", "ar"):
        choose(page, language)
        until(page, f"{STATE} === 'place' && document.getElementById('name').lang === {language!r}")
        looked_at(page, f"place_{name}_{language}")
    choose(page, "en")
    until(page, "!document.getElementById('more').hidden")
    page.click("#more")
    looked_at(page, f"story_{name}_en")
    page.evaluate("scrollTo(0, 0)")
    page.click("#language")
    looked_at(page, f"menu_{name}_en")
    assert page.complaints == []
    page.close()


@pytest.mark.parametrize("film", ["stranger", "dark"])
def test_what_is_not_known_and_what_is_not_seen(
    service: Service, playwright: Any, films: dict[str, Path], film: str
) -> None:
    with chromium(playwright, films[film]) as browser:
        for screen, letters, zoom in LARGE:
            page = enlarged(browser, service.url, screen, letters, zoom)
            choose(page, "de")
            if film == "stranger":
                until(page, f"{STATE} === 'unknown' && !document.getElementById('keep').hidden")
            else:
                until(page, f"{STATE} === 'attract' && document.querySelector('.pictures img')?.naturalWidth > 0")
            looked_at(page, f"{film}_{screen}_letters{letters}_zoom{zoom}_de")
            page.close()


@pytest.mark.parametrize(("screen", "letters", "zoom"), LARGE)
def test_the_staff_page(service: Service, colosseum: Any, screen: str, letters: int, zoom: int) -> None:
    page = enlarged(colosseum, f"{service.url}/staff#token={TOKEN}", screen, letters, zoom)
    name = f"{screen}_letters{letters}_zoom{zoom}"
    page.set_input_files("#file", [upload("petra", view_of(reference("Petra"), 6, 1.0, (960, 720)))])
    name_is(page, "Petra")
    page.wait_for_selector("#known:not([hidden])", state="attached")
    looked_at(page, f"staff_look_{name}")
    for view in ("teach", "places", "statistics", "check", "questions", "screen"):
        page.click(f"nav button[data-view={view}]")
        if view == "places":
            page.wait_for_selector("#list li")
        looked_at(page, f"staff_{view}_{name}")
    page.click("nav button[data-view=places]")
    page.click("button[aria-label='Open Petra']")
    page.wait_for_selector("#editor:not([hidden])")
    looked_at(page, f"staff_editor_{name}")
    page.click("#lock")
    page.wait_for_load_state()
    until(page, "window.kioskReady === true")
    page.click("nav button[data-view=statistics]")
    page.wait_for_selector("#ask-token[open]")
    looked_at(page, f"staff_sign_in_{name}")
    assert page.complaints == []
    page.close()
