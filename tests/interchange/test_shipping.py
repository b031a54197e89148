"""What is shipped to others does not say where the photos lie on the machine that made it."""

from __future__ import annotations

from pathlib import Path

import pytest

from delf_edge.packs.create import cut_pack
from delf_edge.packs.manifest import open_pack
from delf_edge.storage.store import Store
from testing.stores import new_image, open_store

SECRET = "/home/anna/Pictures"


@pytest.fixture
def database(tmp_path: Path) -> Path:
    with open_store(tmp_path / "places.db") as store:
        store.add_many(new_image(i, metadata={"path": f"{SECRET}/{i}.jpg", "year": 2009}) for i in range(8))
    return tmp_path / "places.db"


def test_a_pack_has_no_paths(database: Path, tmp_path: Path) -> None:
    with Store.open(database, mode="ro") as store:
        cut_pack(store, tmp_path / "a.pack", name="a", version=1)
    assert SECRET.encode() not in (tmp_path / "a.pack").read_bytes()
    assert SECRET not in (tmp_path / "a.pack.json").read_text()
    with open_pack(tmp_path / "a.pack") as pack:
        assert pack.image("1.jpg").metadata == {"year": 2009}
        assert pack.verify() == []


def test_an_export_has_no_paths(database: Path, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    from pyarrow import parquet

    from delf_edge.interchange.parquet import export_database, import_database

    with Store.open(database, mode="ro") as store:
        export_database(store, tmp_path / "out")
    assert SECRET not in str(parquet.read_table(tmp_path / "out" / "images.parquet").to_pylist())
    with open_store(tmp_path / "new.db") as store:
        import_database(store, tmp_path / "out")
        assert store.image("1.jpg").metadata == {"year": 2009}


def test_an_import_takes_no_name_from_another_photo(database: Path, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    from delf_edge.interchange.parquet import export_database, import_database

    with Store.open(database, mode="ro") as store:
        export_database(store, tmp_path / "out")
    with open_store(tmp_path / "new.db") as store:
        store.add_many([new_image(100, name="1.jpg"), new_image(101, name="1 (2).jpg")])
        for done in ({"added": 8, "updated": 0}, {"added": 0, "updated": 8}):
            assert import_database(store, tmp_path / "out").items() >= (done | {"replaced": 0}).items()
            assert len(store) == 10
        assert store.image("1.jpg").content_hash == (100).to_bytes(32)
        assert store.image("1 (3).jpg").content_hash == (1).to_bytes(32)


def test_an_import_leaves_what_was_said_by_hand(database: Path, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    from delf_edge.interchange.parquet import export_database, import_database

    with open_store(database) as store:
        store.set_landmark("place 0", metadata={"a": 1}, latitude=1.0, longitude=2.0)
        export_database(store, tmp_path / "out")
    with open_store(tmp_path / "new.db") as store:
        store.set_landmark("place 0", metadata={"b": 2}, latitude=3.0, longitude=4.0)
        store.locate("place 0", 5.0, 6.0)
        import_database(store, tmp_path / "out")
        assert (store.landmark("place 0").latitude, store.landmark("place 0").metadata) == (5.0, {"a": 1, "b": 2})
