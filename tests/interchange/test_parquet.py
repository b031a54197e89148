"""Parquet and GeoJSON: out and in again, and what is refused."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from delf_edge import Bundle, BundleMismatchError, OptionError
from delf_edge.catalogue.catalogue import Catalogue
from delf_edge.files import dump_metadata
from delf_edge.quantization.packed_codes import CodeLayout
from delf_edge.quantization.product_quantizer import decode
from delf_edge.storage.rows import put_row
from delf_edge.storage.store import Store
from testing.paths import TINY_BUNDLE
from testing.stores import new_image as catalogued_image
from testing.stores import open_store
from testing.synthetic_database import make_database

pytest.importorskip("pyarrow", reason="the extra 'interchange' is not installed")
import pyarrow as pa
import pyarrow.parquet as pq

from delf_edge.interchange.parquet import export_database, import_database


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return Bundle.load(TINY_BUNDLE)


@pytest.fixture(scope="module")
def exported(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("exported")
    database = make_database(folder / "a.db", bundle, n_images=30)
    with Store.open(database, mode="ro") as store:
        facts = export_database(store, folder / "out", decode_with=bundle)
    assert facts == {"images": 30, "features": 1200, "landmarks": 10, "located": 10, "damaged": 0}
    return database, folder / "out"


def test_folders_of_any_name(exported: tuple[Path, Path], bundle: Bundle, tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"caf\xe9")  # Latin-1
    with Store.open(exported[0], mode="ro") as store:
        export_database(store, folder)
    with Store.open(tmp_path / "b.db", bundle_id=bundle.id, layout=CodeLayout.of(bundle.codebook)) as new:
        assert import_database(new, folder)["added"] == 30


def test_what_comes_in_again_is_what_went_out(exported: tuple[Path, Path], bundle: Bundle, tmp_path: Path) -> None:
    database, out = exported
    with (
        Store.open(database, mode="ro") as old,
        Store.open(tmp_path / "b.db", bundle_id=bundle.id, layout=CodeLayout.of(bundle.codebook)) as new,
    ):
        assert import_database(new, out) == {"added": 30, "updated": 0, "replaced": 0, "located": 10}
        assert import_database(new, out)["updated"] == 30
        assert [(i.name, i.landmark, i.metadata, i.content_hash) for i in old.images()] == [
            (i.name, i.landmark, i.metadata, i.content_hash) for i in new.images()
        ]
        assert [(p.name, p.latitude, p.metadata) for p in old.landmarks()] == [
            (p.name, p.latitude, p.metadata) for p in new.landmarks()
        ]
        a, b = (store.codes([i.image_id for i in store.images()]) for store in (old, new))
        for one, other in zip(a.values(), b.values(), strict=True):
            np.testing.assert_array_equal(one.codes, other.codes)
            np.testing.assert_array_equal(one.words, other.words)
            np.testing.assert_array_equal(one.keypoints, other.keypoints)
            np.testing.assert_array_equal(one.global_code, other.global_code)


def test_names_that_went_round_come_back(bundle: Bundle, tmp_path: Path) -> None:
    """Found by the model of habits: the second import of the same export still gave other names."""
    database = make_database(tmp_path / "a.db", bundle, n_images=3)
    with Store.open(database) as store:
        export_database(store, tmp_path / "out")
        before = {image.content_hash: image.name for image in store.images()}
        first, second, _ = list(store.images())
        with store.edit() as edit:
            for image, name in ((first, "aside"), (second, first.name)):
                _, _, *facts, _ = edit.rows.one(edit.db, "images", image.image_id)
                put_row(edit.db, "images", (image.image_id, name, *facts, edit.revision))
        for _ in range(2):
            assert import_database(store, tmp_path / "out")["replaced"] == 0
            assert {image.content_hash: image.name for image in store.images()} == before
        store.remove(first.name)
        with store.edit() as edit:
            _, _, *facts, _ = edit.rows.one(edit.db, "images", second.image_id)
            put_row(edit.db, "images", (second.image_id, first.name, *facts, edit.revision))
        import_database(store, tmp_path / "out")
        assert {image.content_hash: image.name for image in store.images()} == before


def test_a_name_that_was_given_up_and_taken_again(bundle: Bundle, tmp_path: Path) -> None:
    """Found by the model of habits: the new bearer of the name took away the coordinates of the old one."""
    database = make_database(tmp_path / "a.db", bundle, n_images=4)
    with Store.open(database) as store:
        first, second = [landmark.name for landmark in store.landmarks()][:2]
        store.rename_landmark(first, second, merge=True)
        store.locate(second, 1.0, 2.0)
        image = next(image for image in store.images() if image.landmark == second)
        store.relabel(image.name, first)
        export_database(store, tmp_path / "out")
        before = [(place.name, place.latitude, place.n_images) for place in store.landmarks()]
        import_database(store, tmp_path / "out")
        assert [(place.name, place.latitude, place.n_images) for place in store.landmarks()] == before
    with Store.open(tmp_path / "b.db", bundle_id=bundle.id, layout=CodeLayout.of(bundle.codebook)) as new:
        for _ in range(2):
            import_database(new, tmp_path / "out")
            assert [(place.name, place.latitude, place.n_images) for place in new.landmarks()] == before


def test_an_export_of_before_undoes_nothing(bundle: Bundle, tmp_path: Path) -> None:
    """Renamed landmarks, other slugs and the paths of photos stay; what the export says of labels is a correction."""
    database = make_database(tmp_path / "a.db", bundle, n_images=4)
    with Store.open(database) as store:
        first, second = [landmark.name for landmark in store.landmarks()][:2]
        Catalogue([store]).set(first, {"title.en": "First"})
        export_database(store, tmp_path / "out")
        image = next(image for image in store.images() if image.landmark == first)
        with store.edit() as edit:
            _, *facts, _ = edit.rows.one(edit.db, "images", image.image_id)
            facts[2] = dump_metadata({**image.metadata, "path": "/photos/1.jpg"})
            put_row(edit.db, "images", (image.image_id, *facts, edit.revision))
        store.rename_landmark(first, "new name")
        store.relabel(image.name, second)
        for _ in range(2):
            import_database(store, tmp_path / "out")
            names = [landmark.name for landmark in store.landmarks()]
            assert first not in names
            assert "new name" in names
            again = store.image(image.name)
            assert again.landmark == "new name"
            assert again.metadata["path"] == "/photos/1.jpg"
            assert again.metadata["indexed_as"]
        record = Catalogue([store]).find("new name")
        assert record.texts["en"].title == "First"
        assert store.verify() == []
    with Store.open(tmp_path / "b.db", bundle_id=bundle.id, layout=CodeLayout.of(bundle.codebook)) as new:
        new.set_landmark("other", latitude=1.0, longitude=2.0)
        Catalogue([new]).rename("other", slug=record.slug)
        import_database(new, tmp_path / "out")
        assert len(set(Catalogue([new]).slugs().values())) == len(new.landmarks())


def test_a_landmark_that_has_an_old_name_of_another_is_no_other(bundle: Bundle, tmp_path: Path) -> None:
    """Found by `reliability habits`: a name that was given up before the export, and given to another landmark."""
    database = make_database(tmp_path / "a.db", bundle, n_images=4)
    with Store.open(database) as store:
        image = next(store.images())
        old, elsewhere = image.landmark, next(x.name for x in store.landmarks() if x.name != image.landmark)
        store.rename_landmark(old, "new name")
        store.relabel(image.name, old)
        export_database(store, tmp_path / "out")
        store.relabel(image.name, elsewhere)
        for _ in range(2):
            import_database(store, tmp_path / "out")
            assert store.image(image.name).landmark == old
        store.rename_landmark(old, "third name")
        store.rename_landmark("new name", "fourth name")
        for _ in range(2):
            import_database(store, tmp_path / "out")
            assert store.image(image.name).landmark == "third name"
            assert {"new name", old}.isdisjoint(landmark.name for landmark in store.landmarks())


def test_other_programs_can_read_it(exported: tuple[Path, Path], bundle: Bundle) -> None:
    database, out = exported
    rows = pq.read_table(out / "images.parquet").to_pylist()
    assert rows[7]["name"] == "7.jpg"
    assert (rows[7]["latitude"], rows[7]["width"]) == (7.0, 320)
    with Store.open(database, mode="ro") as store:
        codes = store.codes([8])[8]
    np.testing.assert_array_equal(rows[7]["descriptors"], decode(codes, bundle.codebook).ravel())
    assert rows[7]["codes"] == codes.codes.tobytes()
    places = json.loads((out / "landmarks.geojson").read_text())
    assert places["type"] == "FeatureCollection"
    point = places["features"][2]
    assert point["geometry"] == {"type": "Point", "coordinates": [2.0, 2.0]}
    assert point["properties"] == {"name": "place 2", "images": 3, "collection": "south"}


def test_what_is_no_export_is_refused(exported: tuple[Path, Path], bundle: Bundle, tmp_path: Path) -> None:
    _, out = exported
    with Store.open(tmp_path / "b.db", bundle_id=bundle.id, layout=CodeLayout.of(bundle.codebook)) as store:
        with pytest.raises(OptionError, match="cannot be read"):
            import_database(store, tmp_path)
        (tmp_path / "images.parquet").write_bytes((out / "images.parquet").read_bytes()[:-100])
        with pytest.raises(OptionError, match="cannot be read"):
            import_database(store, tmp_path)
        pq.write_table(pa.table({"name": ["a"]}), tmp_path / "images.parquet")
        with pytest.raises(OptionError, match="no export"):
            import_database(store, tmp_path)
        shutil.copytree(out, tmp_path / "o")
        (tmp_path / "o" / "landmarks.geojson").write_text("[1]")
        with pytest.raises(OptionError, match="GeoJSON"):
            import_database(store, tmp_path / "o")
    with (
        Store.open(tmp_path / "c.db", bundle_id="0" * 12, layout=CodeLayout.of(bundle.codebook)) as other,
        pytest.raises(BundleMismatchError),
    ):
        import_database(other, out)


def test_an_empty_database(bundle: Bundle, tmp_path: Path) -> None:
    layout = CodeLayout.of(bundle.codebook)
    with Store.open(tmp_path / "e.db", bundle_id=bundle.id, layout=layout) as store:
        assert export_database(store, tmp_path / "out")["images"] == 0
        assert import_database(store, tmp_path / "out") == {"added": 0, "updated": 0, "replaced": 0, "located": 0}


def test_an_export_carries_the_catalogue(tmp_path: Path) -> None:
    with open_store(tmp_path / "a.db") as store:
        store.add_many(catalogued_image(i) for i in range(4))
        Catalogue([store]).set("place-0", {"title.en": "Zero", "ids.osm": "1", "latitude": 1, "longitude": 2})
        export_database(store, tmp_path / "out")
        expected = [record.as_json() for record in Catalogue([store])]
    with open_store(tmp_path / "b.db") as store:
        import_database(store, tmp_path / "out")
        assert [record.as_json() for record in Catalogue([store])] == expected
        assert store.verify() == []
