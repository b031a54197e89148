from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from delf_edge.catalogue.catalogue import Catalogue
from delf_edge.storage.store import Store
from testing.stores import new_image, open_store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """Eight photos: 0 to 3 show "place 0", 4 to 7 "place 1"."""
    with open_store(tmp_path / "places.db") as store:
        store.add_many(new_image(i) for i in range(8))
        yield store
        assert store.verify() == []


@pytest.fixture
def catalogue(store: Store) -> Catalogue:
    return Catalogue([store])
