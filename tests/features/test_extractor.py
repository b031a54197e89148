"""From photo to features: places, selection, projection, the global descriptor, and photos that show nothing."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace

import numpy as np
import pytest

from delf_edge.arrays import l2_normalise
from delf_edge.bundle.bundle import Bundle
from delf_edge.errors import BundleError, OptionError
from delf_edge.features.extractor import (
    ExtractOptions,
    Extractor,
    extract_options,
    local_maxima,
    pool_global,
    project_descriptors,
    softplus,
)
from delf_edge.features.network import Engine
from delf_edge.types import Features, Image
from testing.paths import TINY_BUNDLE


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return Bundle.load(TINY_BUNDLE)


@pytest.fixture(scope="module")
def extractor(bundle: Bundle) -> Extractor:
    return Extractor(bundle)


def photo(width: int = 320, height: int = 240, seed: int = 0) -> Image:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 255, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
    pixels = np.repeat(np.repeat(coarse, 8, axis=0), 8, axis=1)[:height, :width]
    return Image(np.ascontiguousarray(pixels), (width, height))


def normalised(image: Image) -> np.ndarray:
    return (image.pixels[None].astype(np.float32) - 127) / 128


def with_manifest(bundle: Bundle, **changes: object) -> Bundle:
    return replace(bundle, manifest=replace(bundle.manifest, **changes))  # type: ignore[arg-type]


def test_features_have_the_promised_form(bundle: Bundle, extractor: Extractor) -> None:
    times: dict[str, float] = {}
    features = extractor.extract(photo(), None, times)
    n = len(features)
    assert 50 < n <= 300
    assert features.keypoints.shape == (n, 2)
    assert features.scales.shape == features.scores.shape == (n,)
    assert features.descriptors.shape == (n, bundle.codebook.dim)
    assert features.image_size == (320, 240)
    for array in (features.keypoints, features.scales, features.scores, features.descriptors):
        assert array.dtype == np.float32
        assert np.isfinite(array).all()
    np.testing.assert_allclose(np.linalg.norm(features.descriptors, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(features.global_descriptor), 1, atol=1e-5)
    assert (np.diff(features.scores) <= 0).all()
    assert (features.keypoints >= -0.5).all()
    assert (features.keypoints <= np.array(features.image_size) - 0.5).all()
    assert set(times) == {"pyramid", "network", "selection", "projection", "global"}
    assert all(t >= 0 for t in times.values())


def test_one_level_equals_the_plain_loop(bundle: Bundle, extractor: Extractor) -> None:
    image = photo(192, 128)
    options = ExtractOptions(scales=(1.0,), base_size=192, max_features=20)
    features = extractor.extract(image, options)
    out = Engine(bundle.network).run(normalised(image))
    cells = []
    for i in range(8):
        for j in range(12):
            score = np.log1p(np.exp(np.float64(out["attention"][0, i, j, 0])))
            cells.append((score, 16 * j, 16 * i, out["features"][0, i, j]))
    cells.sort(key=lambda c: -c[0])
    for k in range(20):
        score, x, y, raw = cells[k]
        assert features.scores[k] == pytest.approx(score, rel=1e-4)
        assert tuple(features.keypoints[k]) == (x, y)  # scale 1: cell i is centred on pixel 16 i
        d = bundle.codebook.pca_basis @ (raw / np.linalg.norm(raw) - bundle.codebook.pca_mean)
        np.testing.assert_allclose(features.descriptors[k], d / np.linalg.norm(d), atol=1e-4)


@pytest.mark.parametrize("scale", [1.0, 0.5, 0.75])
@pytest.mark.parametrize("target", [(160, 96), (320, 224), (480, 384)])
def test_a_synthetic_dot_is_found_where_it_is(bundle: Bundle, scale: float, target: tuple[int, int]) -> None:
    """A dot moves only the cells that see it, and most the one centred on it."""
    # Where the centre of that cell lies, derived by hand: level pixel 16 i, its centre at (16 i + 0.5) / scale.
    cell = np.rint(np.array(target) * scale / 16)
    cx, cy = (16 * cell + 0.5) / scale - 0.5
    flat = np.full((512, 640, 3), 127, np.uint8)
    y, x = np.mgrid[:512, :640]
    dotted = flat.copy()
    dotted[np.hypot(x - cx, y - cy) <= 2.5 / scale] = 255
    extractor = Extractor(with_manifest(bundle, selection="l2norm"))
    options = ExtractOptions(scales=(scale,), max_features=5000, min_contrast=0)
    before, after = (extractor.extract(Image(p, (640, 512)), options) for p in (flat, dotted))
    place = {tuple(k): d for k, d in zip(before.keypoints.tolist(), before.descriptors, strict=True)}
    assert len(place) == len(after)
    moved = np.array(
        [np.linalg.norm(d - place[tuple(k)]) for k, d in zip(after.keypoints.tolist(), after.descriptors, strict=True)]
    )
    best = after.keypoints[moved.argmax()]
    np.testing.assert_allclose(best, [cx, cy], atol=1e-3)
    weights = moved**2 * (moved > 0.05)
    centroid = (after.keypoints * weights[:, None]).sum(axis=0) / weights.sum()
    np.testing.assert_allclose(centroid, [cx, cy], atol=6 / scale)  # well below half a cell (8 / scale)


def test_the_offset_moves_keypoints_and_cells_outside_are_dropped(bundle: Bundle) -> None:
    image, options = photo(160, 128), ExtractOptions(scales=(1.0,), base_size=160)
    plain = Extractor(bundle).extract(image, options)
    network = bundle.manifest.network
    moved = Extractor(with_manifest(bundle, network=replace(network, offset=4.0))).extract(image, options)
    np.testing.assert_allclose(moved.keypoints, plain.keypoints + 4)
    outside = Extractor(with_manifest(bundle, network=replace(network, offset=-4.0))).extract(image, options)
    assert len(plain) == 80
    assert len(outside) == 9 * 7  # first row and column are centred on pixel -4
    assert (outside.keypoints >= -0.5).all()


def test_levels_are_merged_by_score(extractor: Extractor) -> None:
    image = photo()
    together = extractor.extract(image, ExtractOptions(scales=(0.25, 0.5), max_features=40))
    apart = [extractor.extract(image, ExtractOptions(scales=(s,), max_features=40)) for s in (0.5, 0.25)]
    scores = np.sort(np.concatenate([f.scores for f in apart]))[::-1][:40]
    np.testing.assert_array_equal(together.scores, scores)
    assert set(together.scales.tolist()) == {1.0, 0.5}  # level pixels per pixel of this photo of 320 px


def test_threshold_and_top_n(extractor: Extractor) -> None:
    image = photo()
    everything = extractor.extract(image, ExtractOptions(max_features=60000))
    middle = float(np.median(everything.scores))
    some = extractor.extract(image, ExtractOptions(max_features=60000, score_threshold=middle))
    assert len(some) == int((everything.scores >= middle).sum())
    assert len(extractor.extract(image, ExtractOptions(max_features=7))) == 7
    none = extractor.extract(image, ExtractOptions(score_threshold=1e9))
    assert len(none) == 0
    assert none.descriptors.shape == (0, 16)
    assert np.linalg.norm(none.global_descriptor) == pytest.approx(1, abs=1e-5)  # the photo still shows something


def test_nms_keeps_the_best_of_each_neighbourhood(extractor: Extractor) -> None:
    scores = np.random.default_rng(0).random((13, 17)).astype(np.float32)
    for radius in (1.0, 1.5, 2.0, 3.7):
        expected = np.zeros_like(scores, bool)
        for i in range(13):
            for j in range(17):
                near = [
                    scores[k, m] for k in range(13) for m in range(17) if (k - i) ** 2 + (m - j) ** 2 <= radius * radius
                ]
                expected[i, j] = scores[i, j] >= max(near)
        np.testing.assert_array_equal(local_maxima(scores, radius), expected)
    image = photo()
    features = extractor.extract(image, ExtractOptions(scales=(0.5,), nms_radius=1.5))
    full = extractor.extract(image, ExtractOptions(scales=(0.5,)))
    assert 0 < len(features) < len(full) / 3
    distance = np.linalg.norm(features.keypoints[:, None] - features.keypoints[None], axis=2)
    np.fill_diagonal(distance, np.inf)
    assert distance.min() > 1.5 * 16  # this level has the photo's own size


def test_selection_by_l2norm(bundle: Bundle) -> None:
    image = photo(160, 128)
    options = ExtractOptions(scales=(1.0,), base_size=160)
    features = Extractor(with_manifest(bundle, selection="l2norm")).extract(image, options)
    norms = np.linalg.norm(Engine(bundle.network).run(normalised(image))["features"][0], axis=-1)
    np.testing.assert_allclose(features.scores, np.sort(norms.ravel())[::-1], rtol=1e-5)


def test_the_global_descriptor_is_that_of_the_level_nearest_to_level_scale(
    bundle: Bundle, extractor: Extractor
) -> None:
    image = photo(640, 480)
    assert bundle.manifest.global_spec.level_scale == 0.5
    alone = extractor.extract(image, ExtractOptions(scales=(0.5,)))
    among = extractor.extract(image, ExtractOptions(scales=(1.0, 0.5, 0.25)))
    np.testing.assert_array_equal(among.global_descriptor, alone.global_descriptor)
    assert not np.allclose(
        extractor.extract(image, ExtractOptions(scales=(1.0,))).global_descriptor, alone.global_descriptor
    )
    level = Image(
        np.ascontiguousarray(image.pixels.reshape(240, 2, 320, 2, 3).mean((1, 3)).round().astype(np.uint8)), (320, 240)
    )
    assert bundle.tail is not None
    cells = Engine(bundle.network).run(normalised(level))["features"]
    top = Engine(bundle.tail).run(cells)["global_map"][0].reshape(-1, 32).astype(np.float64)
    pooled = np.cbrt((np.maximum(top, 1e-6) ** 3).mean(axis=0))
    centred = pooled / np.linalg.norm(pooled) - bundle.codebook.global_mean
    expected = bundle.codebook.global_basis @ centred
    np.testing.assert_allclose(alone.global_descriptor, expected / np.linalg.norm(expected), atol=0.02)


def test_without_tail_the_local_map_is_pooled(bundle: Bundle) -> None:
    codebook = replace(
        bundle.codebook, global_mean=np.zeros(16, np.float32), global_basis=np.eye(8, 16, dtype=np.float32)
    )
    bare = replace(with_manifest(bundle, tail=None), tail=None, codebook=codebook)
    features = Extractor(bare).extract(photo(160, 128), ExtractOptions(scales=(1.0,), base_size=160))
    cells = Engine(bundle.network).run(normalised(photo(160, 128)))["features"][0]
    np.testing.assert_allclose(features.global_descriptor, pool_global(codebook, cells, 3.0), atol=1e-5)


def test_pool_global_for_any_exponent(bundle: Bundle) -> None:
    cells = np.random.default_rng(0).random((4, 5, 32)).astype(np.float32)
    np.testing.assert_allclose(
        pool_global(bundle.codebook, cells, 3.0), pool_global(bundle.codebook, cells, 3.0000001), atol=1e-4
    )
    codebook = replace(bundle.codebook, global_mean=np.zeros(32, np.float32), global_basis=np.eye(32, dtype=np.float32))
    mean = cells.mean(axis=(0, 1))
    np.testing.assert_allclose(pool_global(codebook, cells, 1.0), mean / np.linalg.norm(mean), atol=1e-5)


@pytest.mark.parametrize(
    "image",
    [
        Image(np.zeros((480, 640, 3), np.uint8), (640, 480)),
        Image(np.full((480, 640, 3), 200, np.uint8), (640, 480)),
        Image(np.full((480, 640, 3), (0, 40, 255), np.uint8), (640, 480)),
        Image(np.random.default_rng(0).integers(0, 9, (480, 640, 3), dtype=np.uint8), (640, 480)),  # sensor noise
        Image(np.full((1, 1, 3), 90, np.uint8), (1, 1)),
        Image(np.random.default_rng(0).integers(0, 255, (1, 5000, 3), dtype=np.uint8), (5000, 1)),
    ],
    ids=["black", "flat", "blue", "noise", "1x1", "1x5000"],
)
def test_a_photo_that_shows_nothing_has_empty_features(extractor: Extractor, image: Image) -> None:
    features = extractor.extract(image)
    assert isinstance(features, Features)
    assert len(features) == 0
    assert features.descriptors.shape == (0, 16)
    np.testing.assert_array_equal(features.global_descriptor, np.zeros(8, np.float32))
    assert features.image_size == image.size


def test_a_dark_photo_is_not_an_empty_one(extractor: Extractor) -> None:
    dark = Image((photo().pixels // 12).astype(np.uint8), (320, 240))  # values 0..21
    assert len(extractor.extract(dark)) > 0


def test_threads_share_an_extractor(extractor: Extractor) -> None:
    photos = [photo(320, 160 + 32 * (i % 3), i) for i in range(9)]
    alone = [extractor.extract(p) for p in photos]
    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(extractor.extract, photos))
    for a, b in zip(alone, together, strict=True):
        np.testing.assert_array_equal(a.keypoints, b.keypoints)
        np.testing.assert_array_equal(a.descriptors, b.descriptors)


def test_golden_vectors(bundle: Bundle, extractor: Extractor) -> None:
    with np.load(io.BytesIO(bundle.golden)) as golden:
        features = extractor.extract(Image(golden["image"], golden["image"].shape[1::-1]))
        tolerance = golden["tolerance"].item()
        assert features.global_descriptor @ golden["global_descriptor"] > 1 - tolerance
        wanted, found = ({tuple(k) for k in np.rint(a).tolist()} for a in (golden["keypoints"], features.keypoints))
        assert len(wanted & found) >= (1 - tolerance) * len(wanted)


def test_int8_agrees_with_float16(extractor: Extractor) -> None:
    options = ExtractOptions(scales=(0.5,), max_features=60000)
    a, b = (e.extract(photo(), options) for e in (extractor, Extractor(Bundle.load(TINY_BUNDLE, variant="int8"))))
    places = {tuple(k): d for k, d in zip(a.keypoints.tolist(), a.descriptors, strict=True)}
    cosines = [places[tuple(k)] @ d for k, d in zip(b.keypoints.tolist(), b.descriptors, strict=True)]
    assert np.mean(cosines) > 0.95


def test_project_and_its_parts(bundle: Bundle) -> None:
    raw = np.random.default_rng(0).normal(size=(5, 16)).astype(np.float32)
    np.testing.assert_allclose(
        project_descriptors(bundle.codebook, raw), project_descriptors(bundle.codebook, 7 * raw), atol=1e-6
    )
    assert project_descriptors(bundle.codebook, np.zeros((0, 16), np.float32)).shape == (0, 16)
    np.testing.assert_array_equal(l2_normalise(np.zeros((2, 3), np.float32)), np.zeros((2, 3), np.float32))
    x = np.array([-1000, -1, 0, 1, 1000], np.float32)
    np.testing.assert_allclose(softplus(x), [0, 0.313262, 0.693147, 1.313262, 1000], rtol=1e-5)


def test_presets(bundle: Bundle) -> None:
    default = extract_options(bundle)
    assert default == extract_options(bundle, bundle.manifest.default_preset)
    assert extract_options(bundle, "fast").max_features == 100
    assert extract_options(bundle, "fast", max_features=5).scales == (0.5, 0.707)
    assert ExtractOptions(**asdict(default)) == default
    with pytest.raises(OptionError, match="no preset 'slow'; it has accurate, balanced, fast"):
        extract_options(bundle, "slow")
    with pytest.raises(TypeError):
        extract_options(bundle, max_feature=5)
    newer = with_manifest(bundle, presets={"balanced": {"scales": [1.0], "dreams": 3}})
    with pytest.raises(BundleError, match="dreams"):
        extract_options(newer)


@pytest.mark.parametrize(
    "wrong",
    [
        {"scales": ()},
        {"scales": (0.0,)},
        {"scales": (0.5,) * 17},
        {"scales": (float("nan"),)},
        {"max_features": 0},
        {"nms_radius": -1},
        {"base_size": 0},
        {"max_upscale": 0.5},
        {"min_contrast": float("nan")},
        {"score_threshold": float("nan")},
    ],
)
def test_options_are_checked(wrong: dict[str, object]) -> None:
    (name,) = wrong
    with pytest.raises(OptionError, match=name):
        ExtractOptions(**wrong)  # type: ignore[arg-type]


def test_networks_that_do_not_fit_their_manifest(bundle: Bundle) -> None:
    network = bundle.manifest.network
    with pytest.raises(BundleError, match="stride 8"):
        Extractor(with_manifest(bundle, network=replace(network, stride=8))).extract(photo())
    assert bundle.tail is not None
    with pytest.raises(BundleError, match="not attention, features"):
        Extractor(replace(bundle, network=bundle.tail))
    with pytest.raises(BundleError, match="not global_map"):
        Extractor(replace(bundle, tail=bundle.network))
