"""Lists of training photos."""

import re
from pathlib import Path

import cv2
import numpy as np
import pytest

from delf_edge.converters.training.photos import Photo, balanced, from_csv, from_folder, read_photos, readable
from delf_edge.errors import OptionError


def test_a_folder_per_place_is_read_in_a_fixed_order(tmp_path: Path) -> None:
    for name in ("b/2.jpg", "a/x/1.png", "b/1.JPG", "loose.jpg", "a/notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = [(p.path.relative_to(tmp_path).as_posix(), p.place) for p in from_folder(tmp_path)]
    assert found == [("a/x/1.png", "a/x"), ("b/1.JPG", "b"), ("b/2.jpg", "b")]


def test_our_csv_is_relative_to_its_own_folder(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("path,place\nx/1.jpg,here\n")
    assert from_csv(tmp_path / "list.csv") == [Photo(tmp_path / "x/1.jpg", "here")]


def test_google_landmarks_csv_finds_nested_and_flat_photos(tmp_path: Path) -> None:
    (tmp_path / "a/b/c").mkdir(parents=True)
    (tmp_path / "a/b/c/abcd.jpg").touch()
    (tmp_path / "train.csv").write_text("id,url,landmark_id\nabcd,u,7\nffff,u,8\n")
    assert from_csv(tmp_path / "train.csv") == [
        Photo(tmp_path / "a/b/c/abcd.jpg", "7"),
        Photo(tmp_path / "ffff.jpg", "8"),
    ]


def test_unknown_columns_name_both_sides(tmp_path: Path) -> None:
    (tmp_path / "bad.csv").write_text("file,label\n1.jpg,x\n")
    with pytest.raises(OptionError, match=r"'file', 'label'.*expected path,place"):
        from_csv(tmp_path / "bad.csv")


def test_missing_and_empty_sources_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such folder"):
        read_photos([tmp_path / "absent"])
    with pytest.raises(OptionError, match="no photo"):
        read_photos([tmp_path])


def test_balanced_caps_a_place_and_spreads_over_it() -> None:
    photos = [Photo(Path(f"{i}"), "big") for i in range(10)] + [Photo(Path("only"), "small")]
    chosen = [p.path.name for p in balanced(photos, 5)]
    assert chosen == ["0", "2", "4", "6", "8", "only"]


def test_train_clean_of_google_landmarks_is_read(tmp_path: Path) -> None:
    (tmp_path / "a/b/c").mkdir(parents=True)
    (tmp_path / "a/b/c/abcd.jpg").touch()
    (tmp_path / "train_clean.csv").write_text("landmark_id,images\n1,abcd ffff\n7,abce\n")
    assert from_csv(tmp_path / "train_clean.csv") == [
        Photo(tmp_path / "a/b/c/abcd.jpg", "1"),
        Photo(tmp_path / "ffff.jpg", "1"),
        Photo(tmp_path / "abce.jpg", "7"),
    ]


@pytest.mark.parametrize(
    "text", ["path,place\nx.jpg,here\n", "Path;Place\r\nx.jpg;here\r\n;\r\n", "path\tplace\nx.jpg\there\n"]
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_tables_of_excel_and_windows_are_read(tmp_path: Path, text: str, encoding: str) -> None:
    (tmp_path / "list.csv").write_bytes(text.encode(encoding))
    assert from_csv(tmp_path / "list.csv") == [Photo(tmp_path / "x.jpg", "here")]


@pytest.mark.parametrize(
    ("head", "bad"),
    [("path,place", [",here", "x.jpg,"]), ("id,landmark_id", [",7", "ab, "]), ("landmark_id,images", ["7,", ",ab"])],
)
def test_rows_without_a_photo_or_a_place_are_named_and_passed_over(tmp_path: Path, head: str, bad: list[str]) -> None:
    (tmp_path / "list.csv").write_text("\n".join([head, *bad, "a,b", ""]))
    lines: list[str] = []
    assert len(from_csv(tmp_path / "list.csv", report=lines.append)) == 1
    assert [re.findall(r"line (\d)", line) for line in lines] == [["2"], ["3"]]


def test_what_programs_keep_for_themselves_is_no_place(tmp_path: Path) -> None:
    for name in ("a/1.jpg", "a/._1.jpg", "a/.thumbnails/1.jpg", "@eaDir/a/1.jpg", ".trash/1.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert from_folder(tmp_path) == [Photo(tmp_path / "a/1.jpg", "a")]


def test_files_that_cannot_be_read_are_named_and_passed_over(tmp_path: Path) -> None:
    whole = cv2.imencode(".jpg", np.random.default_rng(0).integers(0, 255, (90, 120, 3), np.uint8))[1].tobytes()
    files = {"whole.jpg": whole, "half.jpg": whole[: len(whole) // 2], "empty.jpg": b"", "text.jpg": b"no photo"}
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    photos = [Photo(tmp_path / name, "a") for name in (*files, "absent.jpg")]
    lines: list[str] = []
    good, bad = readable(photos, lines.append)
    assert good == photos[:1]
    assert [path.name for path in bad] == ["half.jpg", "empty.jpg", "text.jpg", "absent.jpg"]
    assert len(lines) == 4
    assert all("passed over" in line for line in lines)
    with pytest.raises(OptionError, match="none of 1 photos can be read"):
        readable(photos[1:2], lines.append)
