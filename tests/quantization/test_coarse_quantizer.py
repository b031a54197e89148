from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from delf_edge.arrays import l2_normalise
from delf_edge.errors import OptionError
from delf_edge.quantization.coarse_quantizer import CoarseIndex


def clustered(n: int, dim: int, seed: int) -> np.ndarray:
    """Unit vectors of low intrinsic dimension, as descriptors are."""
    basis = np.random.default_rng(99).normal(size=(8, dim))
    rng = np.random.default_rng(seed)
    return l2_normalise(np.tanh(rng.normal(size=(n, 8)) @ basis) + 0.3 * rng.normal(size=(n, dim)))


def brute_force(queries: np.ndarray, centroids: np.ndarray, n: int) -> np.ndarray:
    distance = ((queries[:, None] - centroids[None]) ** 2).sum(axis=2)
    return np.argsort(distance, axis=1, kind="stable")[:, :n]


@pytest.mark.parametrize("n_words", [1, 5, 300, 1500])
@pytest.mark.parametrize("n_probe", [1, 4])
def test_exact_is_brute_force_by_l2(n_words: int, n_probe: int) -> None:
    rng = np.random.default_rng(0)
    centroids = (clustered(n_words, 16, 1) * rng.uniform(0.5, 1, (n_words, 1))).astype(np.float32)
    queries = clustered(700, 16, 2)  # more than one chunk
    words, similarity = CoarseIndex(centroids, method="exact").assign(queries, n_probe)
    assert words.dtype == np.int32
    assert similarity.dtype == np.float32
    assert_array_equal(words, brute_force(queries, centroids, n_probe))
    assert_allclose(similarity, np.einsum("npd,nd->np", centroids[words], queries), atol=1e-5)


@pytest.mark.parametrize("dim", [32, 30])  # what hnswlib's fast loops take, and what has to be filled up for them
def test_graph_recall_has_a_floor_and_repeats(dim: int) -> None:
    centroids, queries = clustered(3000, dim, 3), clustered(200, dim, 4)
    expected, _ = CoarseIndex(centroids, method="exact").assign(queries, 8)
    graph = CoarseIndex(centroids, method="graph")
    words, _ = graph.assign(queries, 8)
    recall = np.mean([len({*a} & {*b}) / 8 for a, b in zip(words, expected, strict=True)])
    assert recall >= 0.95
    assert_array_equal(words, CoarseIndex(centroids, method="graph").assign(queries, 8)[0])
    assert_array_equal(graph.assign(queries, 8, exact=True)[0], expected)


def test_auto_is_exact_for_small_codebooks() -> None:
    assert CoarseIndex(clustered(50, 8, 5)).method == "exact"
    assert CoarseIndex(clustered(20_000, 2, 5), method="exact").method == "exact"


def test_cache_is_used_only_when_it_is_sound(tmp_path: Path) -> None:
    centroids, queries, path = clustered(800, 16, 6), clustered(60, 16, 7), tmp_path / "deep" / "words.hnsw"
    expected, _ = CoarseIndex(centroids, method="graph", cache_path=path).assign(queries, 3)
    good = path.read_bytes()
    assert_array_equal(CoarseIndex(centroids, method="graph", cache_path=path).assign(queries, 3)[0], expected)
    assert path.read_bytes() == good
    assert [p.name for p in path.parent.iterdir()] == ["words.hnsw"]
    for i in (3, 40, 70, len(good) // 2, len(good) - 1):  # magic, key, hash, body
        path.write_bytes(good[:i] + bytes([good[i] ^ 1]) + good[i + 1 :])
        assert_array_equal(CoarseIndex(centroids, method="graph", cache_path=path).assign(queries, 3)[0], expected)
        assert path.read_bytes() == good  # replaced by a sound one
    for broken in (b"", good[:100], good[:-10]):
        path.write_bytes(broken)
        assert_array_equal(CoarseIndex(centroids, method="graph", cache_path=path).assign(queries, 3)[0], expected)
    other = clustered(800, 16, 8)
    words, _ = CoarseIndex(other, method="graph", cache_path=path).assign(queries, 3)
    assert_array_equal(words, CoarseIndex(other, method="graph").assign(queries, 3)[0])


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    index = CoarseIndex(clustered(100, 8, 9), method="graph", cache_path=tmp_path / "file" / "cache")
    assert index.assign(clustered(3, 8, 10), 2)[0].shape == (3, 2)


def test_edges() -> None:
    index = CoarseIndex(clustered(4, 8, 11))
    assert index.assign(np.zeros((0, 8), np.float32), 3)[0].shape == (0, 3)
    assert index.assign(clustered(2, 8, 12), 99)[0].shape == (2, 4)
    with pytest.raises(OptionError, match="need \\(N, 8\\)"):
        index.assign(np.zeros((1, 9), np.float32))
    with pytest.raises(OptionError, match="n_probe"):
        index.assign(np.zeros((1, 8), np.float32), 0)
    for bad in (np.zeros((0, 8), np.float32), np.full((2, 8), np.nan, np.float32)):
        with pytest.raises(OptionError, match="finite"):
            CoarseIndex(bad)
