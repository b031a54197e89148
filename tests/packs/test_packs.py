"""Packs: cutting, manifests, and several opened together against one merged database."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from delf_edge import Bundle, BundleMismatchError, NotFoundError, OptionError, Recognizer, StoreError
from delf_edge.errors import CorruptRowError, PackError, PackIntegrityError
from delf_edge.files import file_sha256
from delf_edge.geo import Box
from delf_edge.packs.create import Selection, content_digest, cut_pack
from delf_edge.packs.installed import go_back, open_installed, switch, versions
from delf_edge.packs.manifest import PackManifest, check_pack, manifest_path, open_pack
from delf_edge.storage.store import Store
from delf_edge.types import Features
from testing.paths import TINY_BUNDLE
from testing.synthetic_database import PLACES, add_images, features_of, make_database


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return Bundle.load(TINY_BUNDLE)


@pytest.fixture(scope="module")
def merged(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_database(tmp_path_factory.mktemp("merged") / "all.db", bundle, n_images=60)


def cut_all(database: Path, folder: Path) -> list[Path]:
    """One pack for each landmark."""
    packs = []
    with Store.open(database, mode="ro") as store:
        for i, place in enumerate(store.landmarks()):
            path = folder / f"p{i}.pack"
            cut_pack(store, path, name=f"p{i}", version=1, selection=Selection(landmarks=frozenset([place.name])))
            packs.append(path)
    return packs


def test_packs_together_answer_as_the_merged_database(merged: Path, bundle: Bundle, tmp_path: Path) -> None:
    packs = cut_all(merged, tmp_path)
    assert len(packs) == PLACES
    with (
        Recognizer.open(merged, bundle=bundle, read_only=True) as whole,
        Recognizer.open(tmp_path / "own.db", bundle=bundle, packs=packs) as split,
    ):
        assert len(split.combined) == len(whole.store) == 60
        assert [(p.name, p.n_images, p.latitude) for p in split.combined.landmarks()] == [
            (p.name, p.n_images, p.latitude) for p in whole.store.landmarks()
        ]
        for seed in range(0, 60, 7):
            query = features_of(whole, seed)
            one, many = whole.rank(query, 10), split.rank(query, 10)
            assert [(m.name, m.score, m.probability, m.n_inliers) for m in one] == [
                (m.name, m.score, m.probability, m.n_inliers) for m in many
            ]
            assert many[0].name == f"{seed}.jpg"
            assert split.combined.image(many[0].image_id).name == f"{seed}.jpg"


def test_own_images_and_packs_are_searched_together(merged: Path, bundle: Bundle, tmp_path: Path) -> None:
    packs = cut_all(merged, tmp_path)[:2]
    with Recognizer.open(tmp_path / "own.db", bundle=bundle, packs=packs) as recognizer:
        n = len(recognizer.combined)
        add_images(recognizer.store, bundle, range(100, 103))
        assert len(recognizer.combined) == n + 3
        assert recognizer.rank(features_of(recognizer, 101), 1)[0].name == "101.jpg"
        packed = next(image for image in recognizer.combined.images() if image.image_id >> 40 == 2)
        assert recognizer.combined.codes([packed.image_id, 1]).keys() == {packed.image_id, 1}
        with pytest.raises(NotFoundError):
            recognizer.remove(packed.name)
        recognizer.store.remove("101.jpg")
        assert recognizer.rank(features_of(recognizer, 101), 1)[0].name != "101.jpg"


def test_the_same_photo_in_two_packs_counts_once(merged: Path, bundle: Bundle, tmp_path: Path) -> None:
    first = cut_all(merged, tmp_path)[0]
    twin = tmp_path / "twin.pack"
    shutil.copy(first, twin)
    shutil.copy(manifest_path(first), manifest_path(twin))
    with Recognizer.open(tmp_path / "own.db", bundle=bundle, packs=[first, twin]) as recognizer:
        assert len(recognizer.combined) == check_pack(first).images
        assert len(recognizer.combined) == len(list(recognizer.combined.images())) == recognizer.pipeline.index.n_images


def test_cutting_by_region_collection_and_list(merged: Path, tmp_path: Path) -> None:
    with Store.open(merged, mode="ro") as store:
        chosen = {
            "region": Selection(region=Box(-1, -1, 2.5, 2.5)),
            "collection": Selection(collection="south"),
            "list": Selection(landmarks=frozenset(["place 0", "place 4"])),
            "both": Selection(region=Box(-1, -1, 2.5, 2.5), landmarks=frozenset(["place 0", "place 4"])),
        }
        found = {name: sorted({image.landmark for image in s.chosen(store)}) for name, s in chosen.items()}
        assert found == {
            "region": ["place 0", "place 1", "place 2"],
            "collection": ["place 0", "place 2", "place 4", "place 6", "place 8"],
            "list": ["place 0", "place 4"],
            "both": ["place 0"],
        }
        with pytest.raises(OptionError, match="nowhere"):
            Selection(landmarks=frozenset(["nowhere"])).chosen(store)
        with pytest.raises(OptionError, match="no image fits"):
            Selection(region=Box(50, 50, 60, 60)).chosen(store)
        manifest = cut_pack(store, tmp_path / "a.pack", name="a", version=2, selection=chosen["both"])
        assert manifest.selection == chosen["both"].as_json()
        with pytest.raises(PackError, match="exists already"):
            cut_pack(store, tmp_path / "a.pack", name="a", version=2)
        with pytest.raises(OptionError, match="pack name"):
            cut_pack(store, tmp_path / "b.pack", name="../b", version=2)
        with pytest.raises(OptionError, match="names no file"):
            cut_pack(store, Path("."), name="b", version=2, overwrite=True)
    with pytest.raises(PackError):
        check_pack(Path("."))


def test_the_same_content_gives_the_same_bytes(merged: Path, tmp_path: Path) -> None:
    with Store.open(merged, mode="ro") as store:
        a = cut_pack(store, tmp_path / "a.pack", name="a", version=1)
        b = cut_pack(store, tmp_path / "b.pack", name="a", version=1)
        assert a == b
        assert file_sha256(tmp_path / "a.pack") == file_sha256(tmp_path / "b.pack") == a.sha256
        assert content_digest(store) == a.content_sha256
    assert PackManifest.read(manifest_path(tmp_path / "a.pack")) == a


def test_every_changed_byte_of_pack_and_manifest_is_refused(merged: Path, tmp_path: Path) -> None:
    (pack, *_) = cut_all(merged, tmp_path)
    rng = np.random.default_rng(0)
    for path in (pack, manifest_path(pack)):
        sound = path.read_bytes()
        for at in rng.integers(0, len(sound), 60):
            spoilt = bytearray(sound)
            spoilt[at] ^= 1 << int(rng.integers(0, 8))
            path.write_bytes(spoilt)
            with pytest.raises(PackError, match=r"fetch|install"):
                open_pack(pack)
        path.write_bytes(sound[:-1])
        with pytest.raises(PackIntegrityError, match=pack.name):
            open_pack(pack)
        path.write_bytes(sound)
    open_pack(pack).close()


def test_a_pack_that_does_not_fit_is_refused_by_name(merged: Path, bundle: Bundle, tmp_path: Path) -> None:
    (pack, *_) = cut_all(merged, tmp_path)
    with pytest.raises(BundleMismatchError, match=r"p0\.pack"):
        open_pack(pack, bundle_id="0" * 12)
    with pytest.raises(PackError, match=r"gone\.pack"):
        Recognizer.open(tmp_path / "own.db", bundle=bundle, packs=[tmp_path / "gone.pack"])
    facts = json.loads(manifest_path(pack).read_text())
    manifest_path(pack).write_text(json.dumps(facts | {"format": 2}))
    with pytest.raises(PackError, match="install a newer one"):
        open_pack(pack)
    with pytest.raises(StoreError):
        Recognizer.open(pack, bundle=bundle)  # sealed


def test_a_damaged_row_is_not_packed(merged: Path, tmp_path: Path) -> None:
    spoilt = tmp_path / "spoilt.db"
    data = bytearray(merged.read_bytes())
    at = data.rfind(b"31.jpg")
    data[at] ^= 1
    spoilt.write_bytes(data)
    with Store.open(spoilt, mode="ro") as store, pytest.raises(CorruptRowError):
        cut_pack(store, tmp_path / "a.pack", name="a", version=1)
    assert list(tmp_path.glob("*a.pack*")) == []


def test_the_version_in_use_gives_way_to_the_one_before(merged: Path, tmp_path: Path) -> None:
    home = tmp_path / "packs" / "poland"
    home.mkdir(parents=True)
    with Store.open(merged, mode="ro") as store:
        for version in (1, 2, 3):
            path = home / f"{version}-x.pack"
            cut_pack(store, path, name="poland", version=version)
            switch(tmp_path / "packs", "poland", path)
    assert [p.name for p in versions(tmp_path / "packs", "poland")] == ["3-x.pack", "2-x.pack"]
    assert not (home / "1-x.pack").exists()
    (home / "3-x.pack").write_bytes(b"")
    with open_installed(tmp_path / "packs", "poland") as store:
        assert store.path.name == "2-x.pack"
    assert go_back(tmp_path / "packs", "poland") == home / "2-x.pack"
    assert sorted(p.name for p in home.iterdir()) == ["2-x.pack", "2-x.pack.json", "current.json"]
    (home / "current.json").write_text("{")
    with open_installed(tmp_path / "packs", "poland") as store:
        assert store.path.name == "2-x.pack"
    (home / "2-x.pack").write_bytes(b"")
    with pytest.raises(PackIntegrityError, match=r"2-x\.pack"):
        open_installed(tmp_path / "packs", "poland")


def test_boxes() -> None:
    assert Box(0, 170, 10, -170).holds(5, 175)
    assert Box(0, 170, 10, -170).holds(5, -175)
    assert not Box(0, 170, 10, -170).holds(5, 0)
    assert not Box(0, 0, 1, 1).holds(None, 0.5)
    with pytest.raises(OptionError):
        Box(2, 0, 1, 1)


def test_no_features_find_nothing(merged: Path, bundle: Bundle, tmp_path: Path) -> None:
    packs = cut_all(merged, tmp_path)[:2]
    with Recognizer.open(tmp_path / "own.db", bundle=bundle, packs=packs) as recognizer:
        assert recognizer.rank(Features.empty(bundle.codebook.dim, bundle.codebook.global_dim)) == []
