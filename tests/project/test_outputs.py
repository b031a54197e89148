"""What a command writes never takes the place of what somebody else made."""

from __future__ import annotations

from pathlib import Path

import pytest

from delf_edge import Bundle, Recognizer
from delf_edge.distributed.build import BuildOptions, build, check_folder
from delf_edge.errors import OptionError, PackError
from delf_edge.interchange.parquet import export_database
from delf_edge.packs.create import cut_pack
from testing.paths import TINY_BUNDLE
from testing.synthetic_database import add_images

MINE = b"mine"


@pytest.fixture
def database(tmp_path: Path) -> Path:
    bundle = Bundle.load(TINY_BUNDLE)
    with Recognizer.open(tmp_path / "places.db", bundle=bundle) as recognizer:
        add_images(recognizer.store, bundle, range(3))
    return tmp_path / "places.db"


@pytest.mark.parametrize("name", ["places.db", "other.db", "bad.csv", "build.json"])
def test_a_build_replaces_only_what_a_build_made(tmp_path: Path, name: str) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / name).write_bytes(MINE)
    table = tmp_path / "photos.csv"
    table.write_text("path,landmark\nx.jpg,here\n")
    with pytest.raises(OptionError, match="no build made it"):
        build(str(table), str(out), BuildOptions(bundle=str(TINY_BUNDLE), workers=1))
    assert [(p.name, p.read_bytes()) for p in out.iterdir()] == [(name, MINE)]
    (out / "shards").mkdir()
    check_folder(str(out), str(table))  # the folder of an earlier build
    with pytest.raises(OptionError, match="would be replaced"):
        check_folder(str(out), f"{out}/bad.csv")


@pytest.mark.parametrize("name", ["landmarks.geojson", "images.parquet"])
def test_an_export_replaces_only_an_export(tmp_path: Path, database: Path, name: str) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / name).write_bytes(MINE)
    with Recognizer.open(database, bundle=TINY_BUNDLE) as recognizer:
        with pytest.raises(OptionError, match="no export made it"):
            export_database(recognizer.store, out)
        assert [(p.name, p.read_bytes()) for p in out.iterdir()] == [(name, MINE)]
        (out / name).unlink()
        assert export_database(recognizer.store, out) == export_database(recognizer.store, out)


def test_a_pack_replaces_only_a_pack(tmp_path: Path, database: Path) -> None:
    other, photo = tmp_path / "other.db", tmp_path / "photo.jpg"
    with Recognizer.open(database, bundle=TINY_BUNDLE) as recognizer:
        recognizer.store.snapshot(other)
        photo.write_bytes(MINE)
        for target in (other, photo):
            before = target.read_bytes()
            with pytest.raises(PackError, match="no pack"):
                cut_pack(recognizer.store, target, name="a", version=1, overwrite=True)
            assert target.read_bytes() == before
        with pytest.raises(OptionError, match="which is read from"):
            cut_pack(recognizer.store, database, name="a", version=1, overwrite=True)
        for version in (1, 2):
            cut_pack(recognizer.store, tmp_path / "a.pack", name="a", version=version, overwrite=True)
