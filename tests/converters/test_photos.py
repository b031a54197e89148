"""Lists of training photos."""

from pathlib import Path

import pytest

from delf_edge.converters.training.photos import Photo, balanced, from_csv, from_folder, read_photos


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
    with pytest.raises(ValueError, match=r"'file', 'label'.*expected path,place"):
        from_csv(tmp_path / "bad.csv")


def test_missing_and_empty_sources_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such folder"):
        read_photos([tmp_path / "absent"])
    with pytest.raises(ValueError, match="no photo"):
        read_photos([tmp_path])


def test_balanced_caps_a_place_and_spreads_over_it() -> None:
    photos = [Photo(Path(f"{i}"), "big") for i in range(10)] + [Photo(Path("only"), "small")]
    chosen = [p.path.name for p in balanced(photos, 5)]
    assert chosen == ["0", "2", "4", "6", "8", "only"]
