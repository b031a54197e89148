"""What the tests of the visitors' page share: a kiosk with texts in many languages, and what its camera sees."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from testing.kiosk import LANDMARKS, Service, chromium, fill, playwright_or_skip, tell, write_film


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A kiosk that knows six places, with texts, a picture and a sound, and keeps pictures that visitors leave."""
    folder = tmp_path_factory.mktemp("visitors")
    database = tell(fill(folder / "places.db", {name: name for name in LANDMARKS}))
    running = Service(database, options=("--kiosk", "--keep-questions", str(folder / "questions")))
    yield running
    running.stop()


@pytest.fixture(scope="session")
def films(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Name -> what a camera sees: always one place, nothing but darkness, something unknown."""
    folder = tmp_path_factory.mktemp("films")
    found = {name: folder / f"{name}.y4m" for name in ("colosseum", "stranger", "dark")}
    write_film(found["colosseum"], [("Colosseum", 20)])
    write_film(found["stranger"], [("stranger", 20)])
    write_film(found["dark"], [(None, 20)])
    return found


@pytest.fixture(scope="module")
def playwright() -> Iterator[Any]:
    """Of one module at a time: two cannot run in one thread."""
    with playwright_or_skip() as started:
        yield started


@pytest.fixture(scope="module")
def colosseum(playwright: Any, films: dict[str, Path]) -> Iterator[Any]:
    """Chromium whose camera always sees the Colosseum."""
    with chromium(playwright, films["colosseum"]) as browser:
        yield browser
