"""The visitors' page on a wall: somebody who taps everything for an hour, and a day with restarts of the service.

Hours are simulated: the page's own clock is moved on (Playwright), while the camera's film, the service and its answers
run in real time. DELF_EDGE_WALK_SEED chooses another walk.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from testing.kiosk import OUT, Service, chromium, fill, playwright_or_skip, until, write_film

pytestmark = pytest.mark.browser
STATE = "document.body.dataset.state"
SEES = "document.getElementById('live').videoWidth > 0 && !document.getElementById('live').paused"
KEYS = ["Tab", "Enter", "Space", "Escape", "c", "1", "2", "3", "ArrowDown", "ArrowUp", "PageDown", "Home", "End", "a"]
KEYS += ["Shift+Tab", "Backspace", "Delete", "Control+a", "F6", "Alt+ArrowLeft"]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    film = tmp_path_factory.mktemp("film") / "wall.y4m"
    write_film(film, [("Colosseum", 6), (None, 2), ("stranger", 8), ("Petra", 6)])
    with playwright_or_skip() as playwright, chromium(playwright, film) as opened:
        yield opened


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    names = {name: name for name in ("Colosseum", "Petra", "Taj Mahal", "Hawa Mahal")}
    options = ("--kiosk", "--keep-questions", str(tmp_path / "questions"))
    running = Service(fill(tmp_path / "places.db", names), options=options)
    yield running
    if running.process.poll() is None:
        running.stop()


def open_with_clock(browser: Any, url: str, **context: Any) -> tuple[Any, list[str]]:
    page = browser.new_page(viewport={"width": 1080, "height": 1920}, **context)
    trouble: list[str] = []
    for kind in ("dialog", "filechooser", "download", "popup", "pageerror"):
        page.on(kind, lambda event, kind=kind: trouble.append(f"{kind}: {event}"))
    page.clock.install()
    page.goto(url)
    until(page, "window.kioskReady === true")
    return page, trouble


def act(page: Any, chance: random.Random) -> str:
    """One thing that a visitor does."""
    x, y = chance.randrange(1080), chance.randrange(1920)
    kind = chance.choice(["tap"] * 5 + ["button"] * 4 + ["key"] * 3 + ["right", "double", "drag", "wheel"])
    if kind == "tap":
        page.touchscreen.tap(x, y)
    elif kind == "button":
        boxes = page.evaluate(
            "[...document.querySelectorAll('button, img, h1, video')].filter(e => e.offsetParent)"
            ".map(e => e.getBoundingClientRect()).map(r => [r.x + r.width / 2, r.y + r.height / 2])"
        )
        x, y = chance.choice(boxes)
        page.touchscreen.tap(min(max(x, 0), 1079), min(max(y, 0), 1919))
    elif kind == "key":
        key = chance.choice(KEYS)
        page.keyboard.press(key)
        return f"key {key}"
    elif kind == "right":
        page.mouse.click(x, y, button="right")
    elif kind == "double":
        page.mouse.dblclick(x, y)
    elif kind == "drag":
        page.mouse.move(x, y)
        page.mouse.down()
        page.mouse.move(chance.randrange(1080), chance.randrange(1920), steps=3)
        page.mouse.up()
    else:
        page.mouse.wheel(0, chance.choice([-800, 800]))
    return f"{kind} at {x:.0f}, {y:.0f}"


def test_somebody_who_taps_everything_for_an_hour(browser: Any, service: Service) -> None:
    seed = int(os.environ.get("DELF_EDGE_WALK_SEED", "16"))
    chance = random.Random(seed)
    page, trouble = open_with_clock(browser, service.url, has_touch=True)
    address = page.url
    steps, simulated, states = [], 0.0, set()
    while simulated < 3600:
        steps.append(act(page, chance))
        seconds = chance.uniform(1, 10)
        page.clock.fast_forward(int(seconds * 1000))
        page.clock.run_for(150)
        simulated += seconds
        page.wait_for_timeout(40)
        last = (seed, steps[-5:])
        assert page.url == address, last
        assert len(page.context.pages) == 1, last
        assert page.evaluate("document.querySelectorAll('dialog').length") == 0, last
        assert trouble == [], last
        states.add(page.evaluate(STATE))
    page.screenshot(path=OUT / "wall_after_an_hour.png")
    print(f"seed {seed}: {len(steps)} actions in an hour; states {sorted(states)}")
    for _ in range(30):  # nobody is there any more
        page.clock.fast_forward(10_000)
        page.wait_for_timeout(50)
    until(page, SEES)
    assert page.evaluate("document.documentElement.lang") == "en"
    assert page.is_hidden("#languages")
    assert page.evaluate("document.activeElement === document.body")
    assert page.evaluate("document.documentElement.dataset.zoom === undefined")
    assert "attract" in states
    back_at_work(page)
    page.close()


def back_at_work(page: Any, seconds: float = 60) -> None:
    """A place is named again within a real minute."""
    end = time.monotonic() + seconds
    while page.evaluate(STATE) != "place":
        assert time.monotonic() < end, page.evaluate(STATE)
        page.clock.run_for(300)
        page.wait_for_timeout(50)


def test_a_day_with_restarts_of_the_service(browser: Any, service: Service) -> None:
    page, trouble = open_with_clock(browser, service.url)
    back_at_work(page)
    cdp = page.context.new_cdp_session(page)

    def heap() -> float:
        cdp.send("HeapProfiler.collectGarbage")
        return float(cdp.send("Runtime.getHeapUsage")["usedSize"]) / 1e6

    heaps = []
    restarts = 0
    for minute in range(24 * 60):
        page.clock.fast_forward(60_000)
        page.wait_for_timeout(30)
        if minute % 180 == 90:  # every three hours, in turn: stopped in an orderly way, and killed
            if restarts % 2:
                service.process.send_signal(signal.SIGKILL)
                service.process.wait()
            else:
                service.stop()
            for _ in range(40):
                page.clock.fast_forward(1000)
                page.wait_for_timeout(50)
            assert page.evaluate(STATE) == "break"
            assert page.text_content("#name") == ""
            service.start()
            restarts += 1
            back_at_work(page)
        if minute % 240 == 120:
            heaps.append(heap())
    back_at_work(page)
    until(page, SEES)
    assert trouble == []
    print(f"{restarts} restarts in a day; heap in MB every four hours: {[round(h, 1) for h in heaps]}")
    assert restarts == 8
    assert heaps[-1] < heaps[0] + 8
    page.close()
