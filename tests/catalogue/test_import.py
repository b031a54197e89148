"""Tables become a catalogue, wholly or not at all; what is wrong is named by row and column."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from delf_edge.catalogue.catalogue import Catalogue
from delf_edge.errors import OptionError
from delf_edge.storage.store import Store
from testing.stores import open_store

PNG = bytes(cv2.imencode(".png", np.zeros((4, 5, 3), np.uint8))[1].tobytes())
OGG = b"OggS" + bytes(60)


def write(tmp_path: Path, name: str, content: str | bytes) -> Path:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_columns_are_detected_and_what_is_not_understood_is_named(catalogue: Catalogue, tmp_path: Path) -> None:
    table = "Name;lat;lng;Type;wikidata;title.en;summary_pl;colour\nplace 0;50,1;19.9;castle;Q1;A;B;red\n"
    path = write(tmp_path, "a.csv", table.replace("50,1", "50.1"))
    report = catalogue.import_file(path)
    assert (report.updated, report.created, report.texts, report.not_understood) == (1, 0, 2, ("colour",))
    record = catalogue.get("place-0")
    assert (record.latitude, record.longitude, record.kind, record.n_images) == (50.1, 19.9, "castle", 4)
    assert record.external_ids == {"wikidata": "Q1"}
    assert (record.texts["en"].title, record.texts["pl"].summary) == ("A", "B")


def test_one_row_for_each_language_and_upsert(catalogue: Catalogue, tmp_path: Path) -> None:
    rows = "slug,name,language,title,body\nnew,New place,en,New,**bold** <script>alert(1)</script>\n"
    rows += "new,New place,pl,Nowe,\n"
    path = write(tmp_path, "a.csv", rows)
    assert catalogue.import_file(path, dry_run=True).created == 1
    assert "new" not in [record.slug for record in catalogue]
    assert catalogue.import_file(path).created == 1
    assert catalogue.import_file(path).unchanged == 1
    assert catalogue.get("new").texts["en"].body == "**bold** <script>alert(1)</script>"  # as it was given
    again = write(tmp_path, "b.jsonl", json.dumps({"slug": "new", "texts": {"pl": None, "en": {"title": None}}}))
    assert catalogue.import_file(again).updated == 1
    assert catalogue.get("new").texts["en"].as_json() == {"body": "**bold** <script>alert(1)</script>"}
    assert list(catalogue.get("new").texts) == ["en"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "name,title.xx\nA,b\n", "row 1, column title.xx: 'xx'"),
        ("a.csv", "name,language,title\nA,en_US,b\n", "row 1, column language: 'en_US'.*did you mean 'en-US'"),
        ("a.csv", "name,title\nA,b\n", "row 1, column title: in which language"),
        ("a.csv", "name,lat,lon\nA,1,1\nB,91,1\n", "row 2, column lat: '91'"),
        ("a.csv", "name,lat,lon\nA,x,1\n", "row 1, column lat: 'x'"),
        ("a.csv", "name,lat,lon\nA,1,\n", "row 1, column longitude: empty"),
        ("a.json", '[{"name": "A", "lat": NaN, "lon": 1}]', "row 1, column lat"),
        ("a.csv", "name,slug\nA,b\nC,b\n", "row 2: 'b' was in row 1 already"),
        ("a.csv", "name,language,title\nA,en,b\nA,en,c\n", "row 2: 'name A' in 'en' was in row 1 already"),
        ("a.csv", "slug,name\na,place 0\n", "row 1, column slug: 'place 0' has the slug 'place-0', not 'a'"),
        ("a.csv", "slug,name\nplace-0,place 1\n", "row 1, column name: 'place 1' is another landmark"),
        ("a.csv", "slug\nnowhere\n", "row 1, column slug: no landmark has the slug 'nowhere'"),
        ("a.csv", "slug,name\nA B,c\n", "row 1, column slug: 'A B' is no slug"),
        ("a.csv", "kind\ncastle\n", "row 1: neither slug nor name"),
        ("a.csv", "name,name\nA,B\n", "the column 'name' is there twice"),
        ("a.csv", "name,kind\nA,b,c\n", "row 1: .*extra values"),
        ("a.csv", 'name,kind\n"A,b\n', "row 1: unexpected end of data"),
        ("a.csv", b"name\n\xff\n", "line 2: no text in UTF-8"),
        ("a.csv", "", "names no column"),
        ("a.csv", "name,body.en\nA," + "x" * 50_000_000, "row 1, column body.en: 50,000,000 characters"),
        ("a.csv", "name,link.en\nA,javascript:alert(1)\n", "row 1, column link.en: 'javascript:alert"),
        ("a.csv", "name,audio.en\nA,none.mp3\n", "row 1, column audio.en: 'none.mp3' is neither"),
        ("a.csv", "name,picture\nA,../places.db\n", "row 1, column picture: '../places.db' is no path below"),
        ("a.csv", "name,picture\nA,a.csv\n", "row 1, column picture: a.csv: neither a picture nor a sound"),
        ("a.csv", "name,wikidata\nA,243\n", "row 1, column wikidata: '243' is no item of Wikidata"),
        ("a.csv", "name,metadata\nA,[1]\n", "row 1, column metadata: .*no JSON object"),
        ("a.jsonl", '{"name": "A"}\n{"name"\n', "row 2: no JSON"),
        ("a.json", "[" * 100_000, "no JSON"),
        ("a.json", "[1]", "row 1: '1' is no object"),
        ("a.geojson", '{"type": "Feature"}', "no GeoJSON FeatureCollection"),
        ("a.json", '[{"name": "A\\ud800"}]', "row 1, column name: .*(printed|surrogate)"),
        ("a.json", '[{"name": "A", "media": [{"name": "x.png", "data": "???"}]}]', "column media: x.png: .*base64"),
        ("a.txt", "x", "format '.txt' is none of csv, tsv, json, jsonl, geojson"),
    ],
)  # fmt: skip
def test_bad_input_is_named_by_row_and_column_and_nothing_is_stored(
    catalogue: Catalogue, store: Store, tmp_path: Path, name: str, content: str | bytes, message: str
) -> None:
    before, revision = [record.as_json() for record in catalogue], store.revision()
    with pytest.raises(OptionError, match=message):
        catalogue.import_file(write(tmp_path, name, content))
    assert [record.as_json() for record in catalogue] == before
    assert store.revision() == revision


def test_pictures_and_sounds_are_kept_with_their_type_and_hash(catalogue: Catalogue, tmp_path: Path) -> None:
    write(tmp_path, "tower.png", PNG)
    write(tmp_path, "tower.ogg", OGG)
    table = "name,picture,title.en,audio.en\nplace 0,tower.png,Tower,tower.ogg\n"
    report = catalogue.import_file(write(tmp_path, "a.csv", table))
    assert report.media == 2
    record = catalogue.get("place-0")
    assert [(item.name, item.type) for item in record.media] == [("tower.ogg", "audio/ogg"), ("tower.png", "image/png")]
    assert record.texts["en"].audio == "tower.ogg"
    assert catalogue.media("place-0", "tower.png").data == PNG


def test_a_file_beside_the_database_is_known_by_its_path_and_hash(catalogue: Catalogue, tmp_path: Path) -> None:
    (tmp_path / "audio").mkdir()
    write(tmp_path / "audio", "tower.ogg", OGG)
    catalogue.set("place-0", {"media": [{"path": "audio/tower.ogg"}]})
    item, data = catalogue.media("place-0", "tower.ogg")
    assert (item.path, data) == ("audio/tower.ogg", OGG)
    write(tmp_path / "audio", "tower.ogg", b"OggS changed")
    with pytest.raises(KeyError, match="its bytes are gone"):
        catalogue.media("place-0", "tower.ogg")


@pytest.mark.parametrize("kind", ["csv", "tsv", "json", "jsonl", "geojson"])
def test_what_is_exported_and_imported_again_is_equal(catalogue: Catalogue, tmp_path: Path, kind: str) -> None:
    media = [{"name": "a.png", "data": base64.b64encode(PNG).decode(), "credit": "Somebody"}]
    texts = {"en": {"title": 'A "b", c;', "body": "one\n\ntwo\ttabs"}, "zh-Hant": {"title": "城堡", "audio": "a.png"}}
    catalogue.set("place-0", {"texts": texts, "media": media, "metadata": {"a": [1, None, {"b": 2}]}, "ids.osm": "1"})
    catalogue.set("place-1", {"latitude": 1 / 3, "longitude": -0.1, "collection": "demo", "link.en": "https://a.b/c"})
    assert catalogue.export_file(tmp_path / f"out.{kind}") == 2
    with open_store(tmp_path / "other.db") as store:
        other = Catalogue([store])
        assert other.import_file(tmp_path / f"out.{kind}").not_understood == ()
        assert store.verify() == []
        assert [r.as_json() | {"images": 4} for r in other] == [r.as_json() for r in catalogue]


def test_renaming_and_merging_move_photos_texts_media_and_position(catalogue: Catalogue, store: Store) -> None:
    catalogue.set("place-0", {"title.en": "Zero", "title.pl": "Zero", "latitude": 1, "longitude": 2, "kind": "gate"})
    media = [{"name": "a.png", "data": base64.b64encode(PNG).decode()}]
    catalogue.set("place-0", {"media": media, "ids.osm": "7"})
    catalogue.set("place-1", {"title.en": "One"})
    assert catalogue.rename("place-0", "Nought", slug="nought").n_images == 4
    assert store.image_ids("Nought") == [1, 2, 3, 4]
    with pytest.raises(OptionError, match="both have a text in 'en'"):
        catalogue.merge("nought", "place-1")
    record = catalogue.merge("nought", "place-1", prefer="new")
    assert (record.slug, record.name, record.n_images) == ("place-1", "place 1", 8)
    assert (record.latitude, record.longitude, record.kind, record.external_ids["osm"]) == (1.0, 2.0, "gate", "7")
    assert {language: text.title for language, text in record.texts.items()} == {"en": "One", "pl": "Zero"}
    assert catalogue.media("place-1", "a.png").data == PNG
    assert [r.slug for r in catalogue.search("zero")] == ["place-1"]
    assert catalogue.search("nought") == []


def test_prune_removes_what_no_photo_shows(catalogue: Catalogue, store: Store, tmp_path: Path) -> None:
    catalogue.import_file(write(tmp_path, "a.csv", "name,title.en\nEmpty,Nothing\n"))
    assert catalogue.prune(dry_run=True) == ["empty"]
    assert len(list(catalogue)) == 3
    assert catalogue.prune() == ["empty"]
    assert [record.slug for record in catalogue] == ["place-0", "place-1"]
    store.remove("0.jpg", "1.jpg", "2.jpg", "3.jpg")
    assert [record.slug for record in catalogue] == ["place-1"]  # nothing was known of the other


def test_a_landmark_of_which_something_is_known_stays_without_photos(catalogue: Catalogue, store: Store) -> None:
    catalogue.set("place-0", {"title.en": "Zero"})
    store.remove("0.jpg", "1.jpg", "2.jpg", "3.jpg")
    assert catalogue.get("place-0").n_images == 0


def test_a_position_of_the_catalogue_is_a_person_s_word(catalogue: Catalogue, store: Store, tmp_path: Path) -> None:
    catalogue.import_file(write(tmp_path, "a.csv", "name,lat,lon\nplace 0,50.1,19.9\n"))
    assert store.located_by_hand() == {store.landmark("place 0").landmark_id}
    other = write(tmp_path, "export.csv", "name,lat,lon\nplace 0,1,2\nplace 1,3,4\n")
    catalogue.import_file(other, from_export=True)
    assert (catalogue.get("place-0").latitude, catalogue.get("place-1").latitude) == (50.1, 3.0)
    assert store.located_by_hand() == {store.landmark("place 0").landmark_id}
