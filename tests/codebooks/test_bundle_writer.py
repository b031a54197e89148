"""A bundle is put where nothing is lost: at a free name, in an empty folder, or over another bundle."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from delf_edge.arrays import l2_normalise
from delf_edge.bundle.bundle import Bundle
from delf_edge.codebooks.bundle_writer import (
    GRAPH_FROM,
    check_target,
    with_codebook,
    with_extraction,
    with_graph,
    write_folder,
)
from delf_edge.diagnostics.doctor import self_test, words_check
from delf_edge.errors import BundleError, OptionError
from delf_edge.types import Codebook
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


def many_words(n: int) -> dict[str, np.ndarray]:
    codebook = Bundle.load(TINY_BUNDLE).codebook
    arrays = {name: getattr(codebook, name) for name in Codebook.__dataclass_fields__}
    rows = np.random.default_rng(1).normal(size=(n, codebook.dim)).astype(np.float32)
    return arrays | {"centroids": l2_normalise(rows)}


def test_many_words_get_a_graph_and_few_do_not(tmp_path: Path) -> None:
    few = with_codebook(TINY_BUNDLE, tmp_path / "few", many_words(GRAPH_FROM - 1), name="n", data="d", card="c")
    assert few.graph is None
    many = with_codebook(TINY_BUNDLE, tmp_path / "many", many_words(GRAPH_FROM), name="n", data="d", card="c")
    assert many.graph is not None
    assert many.graph.fits(many.codebook.centroids)
    assert Bundle.verify(tmp_path / "many").graph == "graph.npz"
    assert words_check(many).passed
    assert "HNSW in use" in words_check(many).detail
    # another codebook never keeps the graph of the one before
    other = with_codebook(tmp_path / "many", tmp_path / "other", many_words(500), name="n", data="d", card="c")
    assert other.graph is None
    assert not (tmp_path / "other" / "graph.npz").exists()


def test_a_bundle_of_before_gets_a_graph_and_nothing_else_changes(tmp_path: Path) -> None:
    with_codebook(TINY_BUNDLE, tmp_path / "new", many_words(GRAPH_FROM), name="n", data="d", card="c")
    head = json.loads((tmp_path / "new" / "manifest.json").read_text())
    files = {name: (tmp_path / "new" / name).read_bytes() for name in head.pop("files") if name != "graph.npz"}
    del head["graph"], head["id"]
    write_folder(tmp_path / "old", files, head)
    assert Bundle.load(tmp_path / "old").graph is None
    again = with_graph(tmp_path / "old", tmp_path / "again")
    assert again.id == Bundle.load(tmp_path / "new").id
    assert contents(tmp_path / "again") == contents(tmp_path / "new")


def test_doctor_finds_a_graph_of_other_words(tmp_path: Path) -> None:
    many = with_codebook(TINY_BUNDLE, tmp_path / "many", many_words(GRAPH_FROM), name="n", data="d", card="c")
    turned = replace(many.codebook, centroids=many.codebook.centroids[::-1].copy())
    check = words_check(replace(many, codebook=turned))
    assert not check.passed
    assert "of other words" in check.detail
    assert many.graph is not None
    links = np.broadcast_to(np.arange(GRAPH_FROM, dtype=np.uint16)[:, None], many.graph.links.shape).copy()
    links[:, 0] = np.roll(links[:, 0], 1)  # a ring: it can be searched, but leads nowhere near
    ring = words_check(replace(many, graph=replace(many.graph, links=links)))
    assert not ring.passed


def test_a_bundle_that_looks_at_other_sizes_differs_in_these_alone(tmp_path: Path) -> None:
    made = with_extraction(TINY_BUNDLE, tmp_path / "b", global_scale=0.354, scales={"fast": (0.3, 0.6)})
    assert made.manifest.global_spec.level_scale == 0.354
    assert made.presets["fast"]["scales"] == [0.3, 0.6]
    assert all(check.passed for check in self_test(made))  # golden vectors of its own
    old, new = (json.loads((folder / "manifest.json").read_text()) for folder in (TINY_BUNDLE, tmp_path / "b"))
    assert made.id != Bundle.load(TINY_BUNDLE).id
    changed = {"id", "files", "global", "presets"}
    assert {k: v for k, v in old.items() if k not in changed} == {k: v for k, v in new.items() if k not in changed}
    kept = set(old["files"]) - {"golden.npz"}
    assert {name: old["files"][name] for name in kept} == {name: new["files"][name] for name in kept}
    with pytest.raises(BundleError, match="no preset 'large'"):
        with_extraction(TINY_BUNDLE, tmp_path / "c", scales={"large": (1.0,)})
    assert not (tmp_path / "c").exists()
