"""The demo's texts: three languages for each of its monuments, each with its source."""

from __future__ import annotations

from pathlib import Path

from delf_edge.catalogue.catalogue import Catalogue
from testing.paths import DEMO
from testing.stores import open_store


def test_every_monument_has_a_text_in_three_languages(tmp_path: Path) -> None:
    with open_store(tmp_path / "places.db") as store:
        catalogue = Catalogue([store])
        assert catalogue.import_file(DEMO / "catalogue.csv").not_understood == ()
        records = list(catalogue)
        assert {record.name for record in records} == {path.name for path in (DEMO / "references").iterdir()}
        for record in records:
            assert set(record.texts) == {"de", "en", "es"}
            assert all(text.title and text.summary for text in record.texts.values())
            assert record.metadata["source"]
            assert record.latitude is not None
