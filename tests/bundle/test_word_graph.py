"""The graph over a bundle's words: what is written is found again, and no damaged link is ever followed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from numpy.typing import NDArray

from delf_edge.arrays import l2_normalise
from delf_edge.bundle.word_graph import WordGraph
from delf_edge.errors import BundleError
from delf_edge.quantization.coarse_quantizer import CoarseIndex
from delf_edge.quantization.hnsw import HnswGraph

K, D = 900, 12


def vectors(n: int, seed: int) -> NDArray[np.float32]:
    return l2_normalise(np.random.default_rng(seed).normal(size=(n, D)).astype(np.float32))


@pytest.fixture(scope="module")
def graph() -> WordGraph:
    return HnswGraph.build(vectors(K, 1)).links(vectors(K, 1))


def test_a_graph_that_was_kept_answers_like_the_one_that_was_built(graph: WordGraph) -> None:
    centroids, queries = vectors(K, 1), vectors(50, 2)
    kept = HnswGraph.restore(WordGraph.from_arrays(graph.arrays(), K), centroids)
    built = HnswGraph.build(centroids)
    assert kept is not None
    for n in (1, 5, 40):
        assert_array_equal(kept.nearest(queries, n), built.nearest(queries, n))
    for name, array in kept.links(centroids).arrays().items():
        assert_array_equal(array, graph.arrays()[name])


def test_one_asked_for_many_words_changes_nothing_for_the_next(graph: WordGraph) -> None:
    index, queries = CoarseIndex(vectors(K, 1), graph=graph), vectors(50, 2)
    before = index.assign(queries, 2)[0]
    index.assign(queries, 200)
    assert_array_equal(index.assign(queries, 2)[0], before)


def test_it_is_used_for_its_own_words_alone(graph: WordGraph) -> None:
    assert CoarseIndex(vectors(K, 1), graph=graph).method == "graph"
    assert CoarseIndex(vectors(K, 1), graph=graph, method="exact").method == "exact"
    assert CoarseIndex(vectors(K, 1)).method == "exact"
    assert CoarseIndex(vectors(K, 3), graph=graph).method == "exact"
    assert HnswGraph.restore(graph, vectors(K, 3)) is None


def test_its_words_are_those_of_exact_search_and_so_are_their_products(graph: WordGraph) -> None:
    index, queries = CoarseIndex(vectors(K, 1), graph=graph), vectors(200, 4)
    words, similarity = index.assign(queries, 8)
    exact, _ = index.assign(queries, 8, exact=True)
    assert (words[:, :, None] == exact[:, None, :]).any(axis=2).mean() > 0.95
    np.testing.assert_allclose(similarity, np.einsum("npd,nd->np", index.centroids[words], queries), atol=1e-5)


def linked(value: int) -> Callable[[dict[str, NDArray[Any]]], None]:
    def change(arrays: dict[str, NDArray[Any]]) -> None:
        arrays["links"][5, 0] = value

    return change


def up(arrays: dict[str, NDArray[Any]]) -> None:
    arrays["upper"][0, 0] = np.setdiff1d(np.arange(K), arrays["nodes"])[0]  # a word of level 0 alone


def down(arrays: dict[str, NDArray[Any]]) -> None:
    arrays["nodes"] = arrays["nodes"][::-1].copy()


def low(arrays: dict[str, NDArray[Any]]) -> None:
    arrays["entry"] = np.setdiff1d(np.arange(K), arrays["nodes"])[:1].astype(np.uint16)


def short(arrays: dict[str, NDArray[Any]]) -> None:
    arrays["upper"] = arrays["upper"][:-1]


def wide(arrays: dict[str, NDArray[Any]]) -> None:
    arrays["links"] = arrays["links"].astype(np.uint32)


def gone(arrays: dict[str, NDArray[Any]]) -> None:
    del arrays["made_for"]


def scalar(arrays: dict[str, NDArray[Any]]) -> None:
    arrays["nodes"] = arrays["nodes"][0]


def none(arrays: dict[str, NDArray[Any]]) -> None:
    arrays["entry"] = arrays["entry"][:0]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (linked(K), "word 900"),
        (linked(65535), "word 65535"),
        (up, "not on its level"),
        (down, "ascend"),
        (low, "highest level"),
        (short, "upper"),
        (wide, "links is uint32"),
        (gone, "made_for is missing"),
        (scalar, "nodes"),
        (none, "entry"),
    ],
)
def test_damage_is_refused(graph: WordGraph, damage: Callable[[dict[str, NDArray[Any]]], None], message: str) -> None:
    arrays = {name: array.copy() for name, array in graph.arrays().items()}
    damage(arrays)
    with pytest.raises(BundleError, match=message):
        WordGraph.from_arrays(arrays, K)


def test_whatever_passes_the_checks_can_be_searched(graph: WordGraph) -> None:
    """Links drawn at random within the rules: bad answers are allowed, a crash is not."""
    rng, centroids, queries = np.random.default_rng(0), vectors(K, 1), vectors(20, 2)
    for _ in range(20):
        arrays = {name: array.copy() for name, array in graph.arrays().items()}
        some = rng.random(arrays["links"].shape) < rng.uniform(0, 1)
        arrays["links"][some] = rng.integers(0, K, int(some.sum()))
        of_level = WordGraph.from_arrays(arrays, K).level_of_rows()
        levels = np.bincount(arrays["nodes"], minlength=K)
        for row, level in enumerate(of_level):
            arrays["upper"][row] = rng.choice(np.flatnonzero(levels >= level), arrays["upper"].shape[1])
        words = CoarseIndex(centroids, graph=WordGraph.from_arrays(arrays, K)).assign(queries, 4)[0]
        assert words.shape == (20, 4)
        assert (words < K).all()


def test_a_graph_that_hangs_in_pieces_gives_way_to_exact_search(graph: WordGraph) -> None:
    arrays = {name: array.copy() for name, array in graph.arrays().items()}
    arrays["links"][:] = np.arange(K)[:, None]  # no links at all
    pieces = WordGraph.from_arrays(arrays, K)
    index, queries = CoarseIndex(vectors(K, 1), graph=pieces), vectors(20, 2)
    assert index.method == "graph"
    assert_array_equal(index.assign(queries, 4)[0], CoarseIndex(vectors(K, 1)).assign(queries, 4)[0])
