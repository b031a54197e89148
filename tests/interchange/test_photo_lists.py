"""Photos below a folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from delf_edge import OptionError
from delf_edge.interchange.photo_lists import list_folder, read_manifest


def test_a_folder_that_links_to_itself_is_walked_once(tmp_path: Path) -> None:
    """Found by the fuzz campaign: followed without end, forty deep, with every link on the way."""
    for place in ("a", "b"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "photo.png").write_bytes(b"")
        (tmp_path / place / "up").symlink_to(tmp_path)
        (tmp_path / place / "here").symlink_to(tmp_path / place)
    (tmp_path / "c").symlink_to(tmp_path / "a")  # a link to elsewhere is followed
    photos, unlabelled = list_folder(tmp_path)
    assert [photo.name for photo in photos] == ["a/photo.png", "b/photo.png", "c/photo.png"]
    assert unlabelled == []


def written(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.write_bytes(text.encode(encoding))
    return path


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("path;landmark;year\nKöln/dom.jpg;Kölner Dom;1880\n", "utf-8"),
        ("path\tlandmark\tyear\nKöln/dom.jpg\tKölner Dom\t1880\n", "utf-16"),
        ("path\tlandmark\tyear\nKöln/dom.jpg\tKölner Dom\t1880\n", "utf-16-le"),
        ("path,landmark,year\nKöln/dom.jpg,Kölner Dom,1880\n", "utf-8-sig"),
        ("path;landmark;year\r\nKöln\\dom.jpg;Kölner Dom;1880\r\n;;\r\n", "cp1252"),
        ("sep=;\r\nPath;Landmark;year\r\nKöln\\dom.jpg;Kölner Dom;1880\r\n", "cp1252"),
        ("Path , Landmark , year\n Köln/dom.jpg , Kölner Dom , 1880 \n,,\n\n", "utf-8"),
        ('PATH, LANDMARK, year\n"Köln/dom.jpg", "Kölner Dom", 1880,,\n', "utf-8"),
        ("landmark|year|path\rKölner Dom|1880|Köln/dom.jpg\r", "utf-8"),
        ("path,landmark,year\nKo\u0308ln/DOM.JPG,Kölner Dom,1880\n", "utf-8"),
    ],
)
def test_manifests_as_other_programs_write_them(tmp_path: Path, text: str, encoding: str) -> None:
    folder = tmp_path / "photos"
    (folder / "Köln").mkdir(parents=True)
    (folder / "Köln" / "dom.jpg").write_bytes(b"")
    (entry,) = read_manifest(written(tmp_path / "list.csv", text, encoding), folder)
    assert entry.path == folder / "Köln" / "dom.jpg"
    assert (entry.landmark, entry.metadata) == ("Kölner Dom", {"year": "1880"})
    assert "\\" not in entry.name


def test_a_code_page_is_said_to_be_guessed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    read_manifest(written(tmp_path / "list.csv", "path,landmark\na.jpg,Café\n", "cp1252"), tmp_path)
    assert "Windows-1252" in caplog.text


def test_coordinates_by_any_of_their_names(tmp_path: Path) -> None:
    for latitude, longitude in (("lat", "lon"), ("Latitude", "LONGITUDE"), ("LAT", "lng"), ("lat", "long")):
        table = written(tmp_path / "list.csv", f"path,landmark,{latitude},{longitude}\na.jpg,A,48.1,11.5\n")
        (entry,) = read_manifest(table, tmp_path)
        assert entry.position == (48.1, 11.5)
        assert entry.metadata == {}
    table = written(tmp_path / "list.csv", "path;landmark;lat;lon\na.jpg;A;48,1;-11,5\n")
    assert read_manifest(table, tmp_path)[0].position == (48.1, -11.5)


def test_a_column_that_comes_twice_is_refused(tmp_path: Path) -> None:
    table = written(tmp_path / "list.csv", "path,landmark,lat,latitude,lon\na.jpg,A,1,2,3\n")
    with pytest.raises(OptionError, match="latitude twice"):
        read_manifest(table, tmp_path)


def test_a_backslash_that_belongs_to_a_name_stays(tmp_path: Path) -> None:
    (tmp_path / "a\\b.jpg").write_bytes(b"")
    (entry,) = read_manifest(written(tmp_path / "list.csv", "path,landmark\na\\b.jpg,A\n"), tmp_path)
    assert entry.path == tmp_path / "a\\b.jpg"


def test_two_files_that_differ_in_case_are_not_mixed_up(tmp_path: Path) -> None:
    for name in ("a.jpg", "A.JPG"):
        (tmp_path / name).write_bytes(b"")
    table = written(tmp_path / "list.csv", "path,landmark\na.jpg,A\nA.JPG,B\nA.jpg,C\n")
    assert [entry.path.name for entry in read_manifest(table, tmp_path)] == ["a.jpg", "A.JPG", "A.jpg"]


@pytest.mark.parametrize("data", [b"\xff\xfe", b"", b"\x00\x01\x02\x03", b"path,landmark\n\x81\x8d,\xff\n"])
def test_what_is_no_table_is_an_option_error(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "list.csv").write_bytes(data)
    with pytest.raises(OptionError, match=r"list\.csv"):
        read_manifest(tmp_path / "list.csv", tmp_path)
