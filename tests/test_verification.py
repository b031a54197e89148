from __future__ import annotations

import ctypes

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from delf_edge import native
from delf_edge.arrays import l2_normalise
from delf_edge.errors import OptionError
from delf_edge.types import Features
from delf_edge.verification import VerifyOptions, estimate_affine, match, outside_hull, sample_triples, verify

TRUTH = np.array([[0.8, -0.3, 40.0], [0.25, 0.9, -15.0]])


def features_at(keypoints: np.ndarray, descriptors: np.ndarray) -> Features:
    n = len(keypoints)
    return Features(
        keypoints.astype(np.float32),
        np.ones(n, np.float32),
        np.ones(n, np.float32),
        descriptors.astype(np.float32),
        np.zeros(0, np.float32),
        (640, 480),
    )


def scene(n_true: int, n_false: int, noise: float = 1.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    source = (rng.random((n_true + n_false, 2)) * (640, 480)).astype(np.float32)
    target = source @ TRUTH[:, :2].T + TRUTH[:, 2] + rng.normal(size=source.shape) * noise
    target[n_true:] = rng.random((n_false, 2)) * (640, 480)
    return source, target.astype(np.float32)


@pytest.mark.parametrize(("n_true", "n_false"), [(200, 100), (60, 60), (15, 45), (3, 0), (12, 60)])
def test_the_true_map_is_found_among_wrong_matches(n_true: int, n_false: int) -> None:
    source, target = scene(n_true, n_false)
    transform, inliers = estimate_affine(source, target, 12.5)
    assert inliers[:n_true].mean() > 0.9
    assert inliers[n_true:].mean() < 0.3 if n_false else True
    corners = np.array([[100.0, 100], [500, 100], [300, 400]])
    moved, expected = (corners @ t[:, :2].T + t[:, 2] for t in (transform, TRUTH))
    assert np.abs(moved - expected).max() < (12.5 if n_true < 30 else 3)


def test_strangers_have_few_inliers() -> None:
    counts = [estimate_affine(*scene(0, 40, seed=s), 12.5)[1].sum() for s in range(20)]
    assert max(counts) <= 8


def test_same_input_same_inliers() -> None:
    source, target = scene(20, 60)
    first, again = (estimate_affine(source, target, 12.5) for _ in range(2))
    assert_array_equal(first[0], again[0])
    assert_array_equal(first[1], again[1])


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 80), st.integers(0, 10_000), st.sampled_from(["random", "line", "point", "pairs"]))
def test_inliers_always_agree_with_the_map(n: int, seed: int, kind: str) -> None:
    rng = np.random.default_rng(seed)
    source, target = (rng.random((2, n, 2)) * 640).astype(np.float32)
    if kind == "line":
        source[:, 1] = source[:, 0] * 0.5
    elif kind == "point":
        source[:] = 7
    elif kind == "pairs":
        source[n // 2 :] = source[: n - n // 2]
    transform, inliers = estimate_affine(source, target, 10)
    assert inliers.shape == (n,)
    if not inliers.any():
        assert np.isnan(transform).all()
        return
    assert inliers.sum() >= 3
    assert np.isfinite(transform).all()
    singular = np.linalg.svd(transform[:, :2], compute_uv=False)
    assert np.linalg.det(transform[:, :2]) > 0
    assert singular[0] / singular[1] <= 4 + 1e-6
    assert 1 / 8 - 1e-9 <= np.sqrt(singular.prod()) <= 8 + 1e-9
    residual = np.linalg.norm(source @ transform[:, :2].T + transform[:, 2] - target, axis=1)
    assert_array_equal(inliers, residual <= 10)


@pytest.mark.parametrize(
    "linear",
    [
        np.diag([-1.0, 1.0]),  # mirrored
        np.diag([9.0, 9.0]),  # too large
        np.diag([0.1, 0.1]),  # too small
        np.diag([3.0, 0.5]),  # squeezed by 6
    ],
)
def test_implausible_maps_are_refused(linear: np.ndarray) -> None:
    source = (np.random.default_rng(0).random((40, 2)) * 640).astype(np.float32)
    target = (source @ linear + 100).astype(np.float32)
    assert estimate_affine(source, target, 1.0)[1].sum() < 10


@pytest.mark.parametrize("n", [3, 4, 7, 300])
def test_samples_are_three_different_points(n: int) -> None:
    sample = np.sort(sample_triples(n, VerifyOptions()), axis=1)
    assert sample.min() >= 0
    assert sample.max() < n
    assert (np.diff(sample, axis=1) > 0).all()
    assert len(np.unique(sample)) == n


def test_match_is_mutual_as_the_plain_loop_says() -> None:
    rng = np.random.default_rng(1)
    a, b = l2_normalise(rng.normal(size=(40, 8))), l2_normalise(rng.normal(size=(55, 8)))
    similarity = a @ b.T
    expected = [
        (i, j)
        for i in range(40)
        for j in range(55)
        if similarity[i, j] == similarity[i].max() == similarity[:, j].max() and similarity[i, j] >= 0.5
    ]
    found = match(a, b, VerifyOptions(min_similarity=0.5))
    assert found.dtype == np.int32
    assert [tuple(m) for m in found.tolist()] == expected
    ratio = match(a, b, VerifyOptions(ratio=0.8))
    for i, j in ratio:
        first, second = np.sort(np.linalg.norm(b - a[i], axis=1))[:2]
        assert similarity[i].argmax() == j
        assert first <= 0.8 * second + 1e-5
    assert 0 < len(ratio) < len(match(a, b))


def test_equal_features_match_once() -> None:
    a = l2_normalise(np.random.default_rng(4).normal(size=(5, 8)))
    query, stored = a[[0, 1, 1, 2, 0, 3]], a[[1, 0, 2, 2, 4]]
    assert [tuple(m) for m in match(query, stored).tolist()] == [(0, 1), (1, 0), (3, 2)]


@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (0, 0)])
def test_match_of_nothing(shape: tuple[int, int]) -> None:
    assert match(np.zeros((shape[0], 8), np.float32), np.zeros((shape[1], 8), np.float32)).shape == (0, 2)


def test_verify_scales_its_tolerance_to_the_stored_image() -> None:
    source, target = scene(50, 0, noise=2.5)
    descriptors = l2_normalise(np.random.default_rng(2).normal(size=(50, 32)))
    query = features_at(source, descriptors)
    small = verify(7, query, descriptors, target, (640, 480))
    large = verify(7, query, descriptors, target * 4, (2560, 1920))
    assert small.image_id == 7
    assert small.n_inliers > 45
    assert_array_equal(small.matches, np.stack([np.arange(50)] * 2, axis=1))
    assert_array_equal(small.inliers, large.inliers)
    assert_allclose(large.transform, small.transform * 4, rtol=1e-4, atol=1e-2)
    tight = verify(7, query, descriptors, target, (640, 480), VerifyOptions(tolerance=1 / 1024))
    assert tight.n_inliers < 20


@pytest.mark.parametrize("n", [0, 1, 2])
def test_too_few_features_verify_to_nothing(n: int) -> None:
    descriptors = l2_normalise(np.random.default_rng(3).normal(size=(n, 8)))
    result = verify(
        1, features_at(np.zeros((n, 2)), descriptors), descriptors, np.zeros((n, 2), np.float32), (640, 480)
    )
    assert result.matches.shape == (n, 2)
    assert result.n_inliers == 0
    assert result.transform.shape == (2, 3)
    assert np.isnan(result.transform).all()


def test_options_are_checked() -> None:
    for wrong in ({"tolerance": 0}, {"hypotheses": 0}, {"ratio": 1.5}, {"max_scale": 1}):
        with pytest.raises(OptionError):
            VerifyOptions(**wrong)


def test_outside_hull_tells_points_in_a_shape_from_the_others() -> None:
    square = np.array([[0, 0], [10, 0], [10, 10], [0, 10], [5, 5]], np.float32)
    points = np.array([[5, 5], [0, 0], [10, 5], [-0.1, 5], [11, 11]], np.float32)
    assert_array_equal(outside_hull(points, square), [False, False, False, True, True])
    assert_array_equal(outside_hull(points, square[::-1]), [False, False, False, True, True])
    assert outside_hull(points, square[:2]).all()
    assert outside_hull(points[:0], square).shape == (0,)


@pytest.mark.parametrize("kind", ["scene", "grid", "line", "strangers"])
def test_compiled_search_gives_the_same_map_and_inliers(
    kind: str, compiled: ctypes.CDLL | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if compiled is None:
        pytest.skip("no C++ compiler, and the package was installed without one")
    proven = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        n_true = 0 if kind == "strangers" else int(rng.integers(0, 40))
        source, target = scene(n_true, int(rng.integers(0, 100)), noise=3, seed=seed)
        if kind == "grid":
            source, target = np.round(source / 40) * 40, np.round(target / 10) * 10  # many equal points and residuals
        elif kind == "line":
            source[:, 1] = source[:, 0] / 2
        found = []
        for form in (None, compiled):
            monkeypatch.setattr(native, "library", lambda form=form: form)
            found.append(estimate_affine(source, target, 12.5, VerifyOptions(hypotheses=101 + seed, seed=seed)))
        (plain, inliers), (fast, fast_inliers) = found
        assert_array_equal(fast_inliers, inliers)
        assert fast_inliers.dtype == inliers.dtype
        assert_allclose(fast, plain, rtol=1e-9, atol=1e-8)
        proven += int(inliers.any())
    assert (proven == 0) if kind == "line" else proven > 20


@pytest.mark.parametrize("sizes", [(0, 300), (3, 0), (1, 1), (300, 2)])
def test_compiled_search_takes_any_number_of_pairs(
    sizes: tuple[int, int], compiled: ctypes.CDLL | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native, "library", lambda: compiled)
    n, same = sizes
    source = np.concatenate([scene(n, 0)[0], np.full((same, 2), 5, np.float32)])
    transform, inliers = estimate_affine(source, source, 1.0)
    if n >= 3:
        assert inliers.sum() >= n
        assert_allclose(transform, [[1, 0, 0], [0, 1, 0]], atol=1e-4)
    else:
        assert not inliers.any()
        assert np.isnan(transform).all()
