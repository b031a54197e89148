"""Databases of every released version open for ever, and can be written to."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from delf_edge import Bundle, Recognizer
from testing.paths import TINY_BUNDLE
from tests.fixtures.make_old_database import photo

FIXTURES = Path(__file__).parents[1] / "fixtures"


@pytest.fixture(params=["places-0.1.db"])
def old(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return Path(shutil.copy(FIXTURES / request.param, tmp_path / "places.db"))


def test_it_is_read(old: Path) -> None:
    before = old.read_bytes()
    with Recognizer.open(old, bundle=Bundle.load(TINY_BUNDLE), read_only=True) as recognizer:
        store = recognizer.store
        assert recognizer.verify() == []
        assert {image.name: image.landmark for image in store.images()} == {
            "Plätze/0.png": "Platz 0",
            "Plätze/1.png": "Platz 0",
            "Plätze/2.png": "Platz 9",
        }
        assert store.image("Plätze/1.png").metadata == {"path": "/home/anna/photos/Plätze/1.png", "year": 2009}
        assert store.thumbnail(1) is not None
        assert store.landmark("Platz 0").metadata == {"wiki": "x"}
        assert (store.landmark("empty").latitude, store.landmark("empty").n_images) == (1.0, 0)
        assert recognizer.search(photo(2))[0].name == "Plätze/2.png"
    assert old.read_bytes() == before


def test_it_is_written_to(old: Path) -> None:
    with Recognizer.open(old, bundle=Bundle.load(TINY_BUNDLE)) as recognizer:
        assert recognizer.add(photo(9), landmark="new", name="9.png").status == "added"
        assert recognizer.add(photo(1), landmark="Platz 0", name="Plätze/1.png").status == "unchanged"
        recognizer.store.rename_landmark("Platz 9", "Platz 2")
        recognizer.store.remove_landmark("empty")
        assert recognizer.search(photo(9))[0].landmark == "new"
        assert recognizer.verify() == []
