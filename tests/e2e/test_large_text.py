"""Letters twice as large, and the zoom of the browser at 200 and 400 %, on the pages of visitors and staff.

WCAG 2.2, 1.4.4 (letters to 200 %) and 1.4.10 (a screen of 1,280 pixels at 400 %): nothing is cut off, nothing lies on
something else, and nothing scrolls sideways.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from testing.kiosk import (
    OUT,
    TOKEN,
    Service,
    chromium,
    chromium_with_letters,
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
LETTERS = ["360", "414", "pi", "1280x800", "1080p"]  # letters alone, at 200 %
ZOOMS = [("pi", 200), ("1280x800", 200), ("1080p", 200), ("1280x800", 400), ("1080p", 400)]
LETTER = "parseFloat(getComputedStyle(document.body).fontSize)"


@contextmanager
def large(playwright: Any, film: Path, folder: Path, url: str) -> Iterator[Iterator[tuple[str, Any]]]:
    """Pages of one kiosk, each with a name: with large letters on some screens, with a zoom on others."""

    def pages() -> Iterator[tuple[str, Any]]:
        with chromium_with_letters(playwright, film, folder / "profile", 200) as browser:
            for screen in LETTERS:
                page = open_page(browser, url, screen)
                assert page.evaluate(LETTER) >= 32, "letters are not twice as large"
                yield f"{screen}_letters200", page
                assert page.evaluate(LETTER) >= 32, "letters were not twice as large all the time"
                assert page.complaints == []
                page.close()
        with chromium(playwright, film) as browser:
            for screen, zoom in ZOOMS:
                page = open_page(browser, url, screen, zoom=zoom)
                yield f"{screen}_zoom{zoom}", page
                assert page.complaints == []
                page.close()

    yield pages()


class Faults(list[str]):
    """What was found wrong on all screens, so that one run tells of all."""

    def look(self, page: Any, name: str) -> None:
        page.wait_for_timeout(300)
        page.screenshot(path=OUT / f"large_{name}.png", full_page=True)
        for check in (fits, nothing_lost, partial(accessible, contrast=True)):
            try:
                check(page)
            except AssertionError as e:
                self.append(f"{name}: {e}")


def choose(page: Any, language: str) -> None:
    page.click("#language")
    page.click(f"#languages button[lang={language}]")
    until(page, f"document.documentElement.lang === {language!r}")


def test_a_place_and_the_menu(service: Service, playwright: Any, films: dict[str, Path], tmp_path: Path) -> None:
    faults = Faults()
    with large(playwright, films["colosseum"], tmp_path, service.url) as pages:
        for name, page in pages:
            for language in ("de", "ar"):
                choose(page, language)
                until(page, f"{STATE} === 'place' && document.getElementById('name').lang === {language!r}")
                faults.look(page, f"place_{name}_{language}")
            choose(page, "en")
            until(page, "!document.getElementById('more').hidden")
            page.click("#more")
            faults.look(page, f"story_{name}_en")
            page.evaluate("scrollTo(0, 0)")
            page.click("#language")
            faults.look(page, f"menu_{name}_en")
    assert faults == []


@pytest.mark.parametrize("film", ["stranger", "dark"])
def test_what_is_not_known_and_what_is_not_seen(
    service: Service, playwright: Any, films: dict[str, Path], film: str, tmp_path: Path
) -> None:
    faults = Faults()
    with large(playwright, films[film], tmp_path, service.url) as pages:
        for name, page in pages:
            choose(page, "de")
            if film == "stranger":
                until(page, f"{STATE} === 'unknown' && !document.getElementById('keep').hidden")
            else:
                until(page, f"{STATE} === 'attract' && document.querySelector('.pictures img')?.naturalWidth > 0")
            faults.look(page, f"{film}_{name}_de")
    assert faults == []


def test_the_staff_page(service: Service, playwright: Any, films: dict[str, Path], tmp_path: Path) -> None:
    faults = Faults()
    with large(playwright, films["colosseum"], tmp_path, f"{service.url}/staff#token={TOKEN}") as pages:
        for name, page in pages:
            page.set_input_files("#file", [upload("petra", view_of(reference("Petra"), 6, 1.0, (960, 720)))])
            name_is(page, "Petra")
            page.wait_for_selector("#known:not([hidden])", state="attached")
            faults.look(page, f"staff_look_{name}")
            for view in ("teach", "places", "statistics", "check", "questions", "screen"):
                page.click(f"nav button[data-view={view}]")
                if view == "places":
                    page.wait_for_selector("#list li")
                faults.look(page, f"staff_{view}_{name}")
            page.click("nav button[data-view=places]")
            page.click("button[aria-label='Open Petra']")
            page.wait_for_selector("#editor:not([hidden])")
            faults.look(page, f"staff_editor_{name}")
            with page.expect_navigation():
                page.click("#lock")
            until(page, "window.kioskReady === true")
            page.click("nav button[data-view=statistics]")
            page.wait_for_selector("#ask-token[open]")
            faults.look(page, f"staff_sign_in_{name}")
    assert faults == []
