"""A bundle is put where nothing is lost: at a free name, in an empty folder, or over another bundle."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from delf_edge.codebooks.bundle_writer import check_target, with_codebook
from delf_edge.errors import OptionError
from testing.paths import TINY_BUNDLE


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def photos(folder: Path) -> Path:
    for name in ("Colosseum/1.jpg", "Petra/2.jpg", "notes.txt"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"mine")
    return folder


def bundle(folder: Path) -> Path:
    return Path(shutil.copytree(TINY_BUNDLE, folder))


def mixed(folder: Path) -> Path:
    (bundle(folder) / "IMG_1.jpg").write_bytes(b"mine")
    return folder


def nested(folder: Path) -> Path:
    return photos(bundle(folder) / "photos").parent


def unlisted(folder: Path) -> Path:
    folder.mkdir()
    (folder / "manifest.json").write_text('{"name": "a web app"}')
    return folder


def a_file(folder: Path) -> Path:
    folder.write_bytes(b"mine")
    return folder


@pytest.mark.parametrize("make", [photos, mixed, nested, unlisted, a_file])
def test_what_is_no_bundle_is_never_replaced(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    out = make(tmp_path / "out")
    before = contents(tmp_path)
    with pytest.raises(OptionError, match="choose"):
        check_target(out)
    with pytest.raises(OptionError, match="choose"):
        with_codebook(TINY_BUNDLE, out, {}, name="n", data="d", card="c")
    assert contents(tmp_path) == before


def test_free_names_empty_folders_and_bundles_may_be_written(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    damaged = bundle(tmp_path / "damaged")
    (damaged / "codebook.npz").write_bytes(b"half of it")
    for out in (tmp_path / "new", tmp_path / "deep" / "new", tmp_path / "empty", bundle(tmp_path / "old"), damaged):
        check_target(out, [photos(tmp_path / "photos")])


@pytest.mark.parametrize("out", ["photos", "photos/new", "photos/../photos", ".", "link"])
def test_never_at_inside_or_around_what_is_read(tmp_path: Path, out: str) -> None:
    photos(tmp_path / "photos")
    (tmp_path / "link").symlink_to(tmp_path / "photos")
    with pytest.raises(OptionError, match="which is read from"):
        check_target(tmp_path / out, [tmp_path / "photos"])
