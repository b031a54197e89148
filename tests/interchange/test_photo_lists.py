"""Photos below a folder."""

from __future__ import annotations

from pathlib import Path

from delf_edge.interchange.photo_lists import list_folder


def test_a_folder_that_links_to_itself_is_walked_once(tmp_path: Path) -> None:
    """Found by the fuzz campaign: followed without end, forty deep, with every link on the way."""
    for place in ("a", "b"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "photo.png").write_bytes(b"")
        (tmp_path / place / "up").symlink_to(tmp_path)
        (tmp_path / place / "here").symlink_to(tmp_path / place)
    (tmp_path / "c").symlink_to(tmp_path / "a")  # a link to elsewhere is followed
    photos, homeless = list_folder(tmp_path)
    assert [photo.name for photo in photos] == ["a/photo.png", "b/photo.png", "c/photo.png"]
    assert homeless == []
