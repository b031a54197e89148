"""Files of schema version 1 (tests/fixtures/schema_1) are read as they are, and migrate when opened to write."""

from __future__ import annotations

import json
import shutil
import sqlite3
import threading
from pathlib import Path

import pytest

from delf_edge.errors import NotADatabaseError, ReadOnlyError
from delf_edge.files import file_sha256
from delf_edge.packs.manifest import check_pack, open_pack
from delf_edge.storage.rows import CATALOGUE_TABLES
from delf_edge.storage.store import Store
from delf_edge.updates.delta import apply_delta, make_delta
from testing.paths import FIXTURES

OLD = FIXTURES / "schema_1"
SLUGS = {"Cafe": "cafe", "Café": "cafe-2", "Łódź Cathedral": "lodz-cathedral", "Eiffel Tower": "eiffel-tower"}


@pytest.fixture
def old(tmp_path: Path) -> Path:
    return Path(shutil.copy(OLD / "places.sqlite", tmp_path / "places.db"))


def slugs(store: Store) -> dict[str, str]:
    found = {place.name: place.landmark_id for place in store.landmarks()}
    known = store.catalogue.slugs(list(found.values()))
    return {name: known[key] for name, key in found.items() if name in SLUGS}


def test_an_old_file_is_read_as_it_is(old: Path) -> None:
    before = file_sha256(old)
    with Store.open(old, mode="ro") as store:
        assert store.info().schema_version == 1
        assert store.verify() == []
        assert slugs(store) == SLUGS
        assert store.catalogue.landmark_id(slug="eiffel-tower") == store.catalogue.landmark_id(name="Eiffel Tower")
        assert store.catalogue.search("tower", 5) == []
        assert [list(store.rows(table)) for table in CATALOGUE_TABLES] == [[]] * 4
    assert file_sha256(old) == before


def test_an_old_file_migrates_when_it_is_opened_to_write(old: Path) -> None:
    with Store.open(old, mode="ro") as store:
        rows = {table: list(store.rows(table)) for table in ("landmarks", "images", "codes", "thumbnails")}
        expected = slugs(store)
    with Store.open(old) as store:
        assert store.info().schema_version == 2
        assert store.verify() == []
        assert slugs(store) == expected
        assert {table: list(store.rows(table)) for table in rows} == rows


def test_somebody_who_reads_meanwhile_sees_the_catalogue_at_once(old: Path) -> None:
    with Store.open(old, mode="ro") as reader:
        assert list(reader.rows("landmark_details")) == []
        with Store.open(old):
            pass
        assert len(list(reader.rows("landmark_details"))) == len(reader.landmarks())


def test_two_that_open_it_at_once_migrate_it_once(old: Path) -> None:
    stores: list[Store] = []
    threads = [threading.Thread(target=lambda: stores.append(Store.open(old))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [store.verify() for store in stores] == [[]] * 4
    for store in stores:
        store.close()


def test_a_migration_does_not_vouch_for_a_damaged_row(old: Path) -> None:
    with sqlite3.connect(old) as db:
        db.execute("UPDATE landmarks SET name = 'forged' WHERE name = 'Eiffel Tower'")
    db.close()
    with Store.open(old) as store:
        assert [problem.table for problem in store.verify()] == ["landmarks"]


def test_a_sealed_file_is_not_migrated_by_mistake(tmp_path: Path) -> None:
    pack = Path(shutil.copy(OLD / "1.pack", tmp_path / "1.pack"))
    with pytest.raises(ReadOnlyError, match="sealed"):
        Store.open(pack)
    with Store.open(pack, mode="ro") as store:
        assert store.info().schema_version == 1
        assert store.verify() == []


def test_old_packs_open(tmp_path: Path) -> None:
    with open_pack(OLD / "2.pack") as pack:
        assert pack.catalogue.landmark_id(slug="cafe") is not None
        assert pack.verify() == []


def test_an_old_delta_leads_from_an_old_pack_to_the_next(tmp_path: Path) -> None:
    size = json.loads((OLD / "delta.json").read_text())["unpacked"]
    made = apply_delta(OLD / "1.pack", OLD / "delta", tmp_path / "new.pack", check_pack(OLD / "2.pack"), size)
    assert (made.schema_version, made.content_sha256) == (1, check_pack(OLD / "2.pack").content_sha256)


def test_a_delta_leads_from_an_old_pack_to_one_with_a_catalogue(tmp_path: Path, old: Path) -> None:
    from delf_edge.packs.create import cut_pack

    with Store.open(old) as store:
        store.set_landmark("Eiffel Tower", metadata={"city": "Paris"}, latitude=48.9, longitude=2.3)
        wanted = cut_pack(store, tmp_path / "3.pack", name="old", version=3)
    size = make_delta(OLD / "2.pack", tmp_path / "3.pack", tmp_path / "delta")
    made = apply_delta(OLD / "2.pack", tmp_path / "delta", tmp_path / "new.pack", wanted, size)
    assert made.content_sha256 == wanted.content_sha256
    with Store.open(tmp_path / "new.pack", mode="ro") as store:
        assert store.verify() == []


@pytest.mark.parametrize(
    "change",
    [
        "CREATE VIEW more AS SELECT 1",
        "DROP VIEW places",
        "CREATE TRIGGER t AFTER INSERT ON landmark_texts BEGIN SELECT 1; END",
        "DROP TABLE media_data",
    ],
)
def test_the_schema_must_be_ours_to_the_letter(old: Path, change: str) -> None:
    Store.open(old).close()
    with sqlite3.connect(old) as db:
        db.execute(change)
    db.close()
    for mode in ("ro", "rw"):
        with pytest.raises(NotADatabaseError, match="its schema differs"):
            Store.open(old, mode=mode)


def test_a_stranger_s_table_behind_the_search_is_refused(old: Path) -> None:
    Store.open(old).close()
    with sqlite3.connect(old) as db:
        db.execute("PRAGMA writable_schema=1")
        wrong = "CREATE TABLE 'landmark_texts_fts_docsize'(id INTEGER PRIMARY KEY, sz BLOB, more TEXT)"
        db.execute("UPDATE sqlite_master SET sql = ? WHERE name = 'landmark_texts_fts_docsize'", (wrong,))
    db.close()
    with pytest.raises(NotADatabaseError, match="landmark_texts_fts_docsize"):
        Store.open(old, mode="ro")
