"""Packing: what is written can be loaded, repeats bit for bit, and appears all at once. Needs no PyTorch."""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from delf_edge.bundle.bundle import Bundle
from delf_edge.codebooks import bundle_writer
from delf_edge.codebooks import fit as codebook_fit
from delf_edge.converters.export import raw_features, recipes
from delf_edge.converters.export.model_card import model_card
from delf_edge.converters.training.photos import Photo
from delf_edge.diagnostics.doctor import self_test
from delf_edge.errors import BundleError, OptionError
from testing.paths import TINY_BUNDLE

LOCAL = (TINY_BUNDLE / "local_float16.tflite").read_bytes()
TAIL = (TINY_BUNDLE / "tail_float16.tflite").read_bytes()
FIT = codebook_fit.CodebookOptions(dim=8, n_words=8, code_size=4, global_dim=4, iterations=2, pq_iterations=2)


@pytest.fixture(scope="module")
def recipe() -> recipes.Recipe:
    manifest = Bundle.load(TINY_BUNDLE).manifest
    assert manifest.tail is not None
    return recipes.Recipe(
        name="test",
        version="1",
        licence="Apache-2.0",
        training_data=["noise"],
        receptive_field=31,
        channels=manifest.network.channels,
        tail_channels=manifest.tail.channels,
        default_variant="float16",
        default_tail="float16",
    )


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Photo]:
    """Ten photos of smooth noise, and one file that is no photo."""
    folder, made = tmp_path_factory.mktemp("photos"), []
    for i in range(10):
        noise = np.random.default_rng(i).integers(0, 256, (24, 32, 3)).astype(np.uint8)
        path = folder / f"{i}.png"
        cv2.imwrite(str(path), cv2.resize(noise, (320, 240), interpolation=cv2.INTER_CUBIC))
        made.append(Photo(path, f"place {i % 3}"))
    (folder / "broken.jpg").write_bytes(b"no photo")
    return [*made[:4], Photo(folder / "broken.jpg", "place 0"), *made[4:]]


@pytest.fixture(scope="module")
def fit(photos: list[Photo], recipe: recipes.Recipe, tmp_path_factory: pytest.TempPathFactory) -> codebook_fit.Fit:
    head = recipes.manifest(recipe, ["float16"], ["float16"])
    raw = raw_features.collect(photos, LOCAL, TAIL, head, tmp_path_factory.mktemp("features"))
    return codebook_fit.fit(raw.local, raw.pooled(), FIT)


def pack(out: Path, recipe: recipes.Recipe, fit: codebook_fit.Fit) -> Bundle:
    return recipes.pack(out, recipe, {"float16": LOCAL, "int8": LOCAL}, {"float16": TAIL}, fit.arrays, "# card\n")


def test_a_packed_bundle_loads_and_passes_its_own_self_test(
    tmp_path: Path, recipe: recipes.Recipe, fit: codebook_fit.Fit
) -> None:
    bundle = pack(tmp_path / "b", recipe, fit)
    Bundle.verify(tmp_path / "b")
    np.testing.assert_array_equal(bundle.codebook.centroids, fit.codebook.centroids)
    np.testing.assert_array_equal(bundle.codebook.pq, fit.codebook.pq)
    np.testing.assert_array_equal(bundle.codebook.global_basis, fit.codebook.global_basis)
    checks = self_test(bundle)
    assert len(checks) == 3
    assert all(c.passed for c in checks), checks


def test_the_self_test_notices_a_network_that_gives_something_else(
    tmp_path: Path, recipe: recipes.Recipe, fit: codebook_fit.Fit
) -> None:
    bundle = pack(tmp_path / "b", recipe, fit)
    turned = replace(fit.codebook, pca_basis=np.roll(fit.codebook.pca_basis, 1, axis=1))
    failed = [c.name for c in self_test(replace(bundle, codebook=turned)) if not c.passed]
    assert "local descriptors" in failed


def test_the_same_input_gives_the_same_bundle_id(tmp_path: Path, recipe: recipes.Recipe, fit: codebook_fit.Fit) -> None:
    assert pack(tmp_path / "a", recipe, fit).id == pack(tmp_path / "b", recipe, fit).id


def test_a_new_bundle_replaces_the_old_one_and_leaves_nothing_behind(
    tmp_path: Path, recipe: recipes.Recipe, fit: codebook_fit.Fit
) -> None:
    out = tmp_path / "b"
    pack(out, recipe, fit)
    assert (out / "local_int8.tflite").exists()
    new = recipes.pack(out, replace(recipe, version="2"), {"float16": LOCAL}, {"float16": TAIL}, fit.arrays, "# card\n")
    assert new.manifest.version == "2"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b"]
    assert not (out / "local_int8.tflite").exists()
    (out / "mine.jpg").write_text("no file of a bundle")
    with pytest.raises(OptionError, match=r"mine\.jpg"):
        pack(out, recipe, fit)
    assert (out / "mine.jpg").exists()


def test_a_failed_pack_leaves_the_old_bundle_as_it_was(
    tmp_path: Path, recipe: recipes.Recipe, fit: codebook_fit.Fit
) -> None:
    out = tmp_path / "b"
    old = pack(out, recipe, fit)
    with pytest.raises(BundleError):
        recipes.pack(out, replace(recipe, channels=3), {"float16": LOCAL}, {"float16": TAIL}, fit.arrays, "")
    assert Bundle.load(out).id == old.id
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b"]


def test_a_default_that_does_not_exist_is_refused(recipe: recipes.Recipe) -> None:
    with pytest.raises(ValueError, match="default variant is 'int4', but there is only float16"):
        recipes.manifest(replace(recipe, default_variant="int4"), ["float16"], [])
    with pytest.raises(ValueError, match="default preset is 'huge'"):
        recipes.manifest(replace(recipe, default_preset="huge"), ["float16"], [])


def test_weights_of_the_probability_are_read_with_and_without_the_report(tmp_path: Path) -> None:
    weights = {"votes": 4.0, "floor": 7.0, "support": 8}
    for name, content in (("bare", weights), ("printed", {"calibration": weights, "report": {"queries": 73}})):
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(content))
        assert bundle_writer.read_calibration(path) == weights


@pytest.mark.parametrize("content", ["not json", "[1, 2]", '{"calibrations": {"votes": 4}}', '{"votes": "four"}'])
def test_a_file_that_holds_no_weights_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "weights.json"
    path.write_text(content)
    with pytest.raises(BundleError):
        bundle_writer.read_calibration(path)


def test_collecting_skips_what_is_no_photo_and_continues_where_it_stopped(
    photos: list[Photo], recipe: recipes.Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(raw_features, "CHUNK", 4)
    head = recipes.manifest(recipe, ["float16"], ["float16"])
    raw = raw_features.collect(photos, LOCAL, TAIL, head, tmp_path, workers=2)
    assert raw.pooled().shape == (10, recipe.tail_channels)
    whole = np.concatenate(list(raw.local()))
    np.testing.assert_allclose(np.linalg.norm(whole, axis=1), 1, atol=2e-3)
    untouched = raw.chunks[0].stat().st_mtime_ns
    raw.chunks[1].unlink()
    again = raw_features.collect(photos, LOCAL, TAIL, head, tmp_path)
    assert again.chunks[0].stat().st_mtime_ns == untouched
    np.testing.assert_array_equal(np.concatenate(list(again.local())), whole)


def test_the_name_of_kept_features_depends_on_network_and_preset(photos: list[Photo], recipe: recipes.Recipe) -> None:
    head = recipes.manifest(recipe, ["float16"], ["float16"])
    fast = recipes.manifest(replace(recipe, default_preset="fast"), ["float16"], ["float16"])
    keys = {
        raw_features.key(photos, LOCAL, TAIL, head),
        raw_features.key(photos, LOCAL + b"x", TAIL, head),
        raw_features.key(photos, LOCAL, None, head),
        raw_features.key(photos[1:], LOCAL, TAIL, head),
        raw_features.key(photos, LOCAL, TAIL, fast),
    }
    assert len(keys) == 5


def test_npz_has_no_time_stamp_and_no_pickle() -> None:
    arrays: dict[str, np.ndarray] = {"b": np.arange(6, dtype=np.int8).reshape(2, 3), "a": np.array([1.5], np.float32)}
    data = bundle_writer.npz(arrays)
    assert data == bundle_writer.npz(dict(reversed(arrays.items())))
    with np.load(io.BytesIO(data), allow_pickle=False) as archive:
        for name, array in arrays.items():
            np.testing.assert_array_equal(archive[name], array)


def test_the_golden_image_is_the_same_everywhere() -> None:
    pixels = bundle_writer.make_golden_image().pixels
    assert pixels.shape == (240, 320, 3)
    assert hashlib.sha256(pixels.tobytes()).hexdigest()[:16] == "23a13d602fb5382a"


def test_the_card_says_data_recipe_figures_and_limits(recipe: recipes.Recipe) -> None:
    row = {
        "variant": "int8", "bytes": 1000, "cosine_mean": 0.98, "cosine_worst5": 0.94,
        "keypoint_agreement": 0.9, "milliseconds": 12.3,
    }  # fmt: skip
    figures = {"parity": [row], "tail_parity": [], "codebook": {"code_cosine": 0.9}, "photos": 10, "places": 3}
    card = model_card(recipe, figures, "delf-edge-convert bundle out --photos photos")
    for part in ("noise", "10 photos of 3 places", "delf-edge-convert bundle", "| int8 | 1000 | 0.9800", "## Limits"):
        assert part in card


def test_the_networks_of_a_bundle_can_be_read_back() -> None:
    head, local, tail = recipes.read_networks(TINY_BUNDLE)
    assert (local, tail) == (LOCAL, TAIL)
    assert "files" not in head
    assert head["network"] == json.loads((TINY_BUNDLE / "manifest.json").read_text())["network"]
