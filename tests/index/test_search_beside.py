"""Strangers that are searched beside a database: they take votes, and the database's images stay who they are."""

from __future__ import annotations

import numpy as np
import pytest

from delf_edge.arrays import l2_normalise
from delf_edge.bundle.bundle import Bundle
from delf_edge.index.inverted_lists import IndexSnapshot
from delf_edge.index.search import SearchOptions, search, search_beside
from delf_edge.quantization.coarse_quantizer import CoarseIndex
from delf_edge.quantization.packed_codes import CodeBatch, CodeLayout
from delf_edge.quantization.product_quantizer import encode
from delf_edge.types import Candidate, Codes, Features
from testing.paths import TINY_BUNDLE

BOOK = Bundle.load(TINY_BUNDLE).codebook
LAYOUT, COARSE = CodeLayout.of(BOOK), CoarseIndex(BOOK.centroids)


def features(seed: int, n: int = 30) -> Features:
    rng = np.random.default_rng(seed)
    return Features(
        keypoints=rng.uniform(0, 100, (n, 2)).astype(np.float32),
        scales=np.ones(n, np.float32),
        scores=np.ones(n, np.float32),
        descriptors=l2_normalise(rng.normal(size=(n, BOOK.dim)).astype(np.float32)),
        global_descriptor=l2_normalise(rng.normal(size=BOOK.global_dim).astype(np.float32)),
        image_size=(100, 100),
    )


def coded(seed: int) -> Codes:
    found = features(seed)
    return encode(found, COARSE.assign(found.descriptors, exact=True)[0][:, 0], BOOK)


def snapshot(ids: dict[int, int]) -> IndexSnapshot:
    """Images by id, each of the features of a seed."""
    batch = CodeBatch.of([(i, coded(seed)) for i, seed in ids.items()], LAYOUT)
    return IndexSnapshot.empty(LAYOUT).extended(batch, LAYOUT.n_words)


def plain(candidates: list[Candidate]) -> list[tuple[int, float, float, float]]:
    return [(c.image_id, c.score, c.votes, c.similarity) for c in candidates]


OPTIONS = SearchOptions(min_similarity=0.0, k_neighbours=10)


def test_without_strangers_it_is_search() -> None:
    stored = snapshot({7: 1, 9: 2})
    found, others = search_beside(stored, None, features(3), BOOK, COARSE, OPTIONS)
    assert plain(found) == plain(search(stored, features(3), BOOK, COARSE, OPTIONS))
    assert others == []


@pytest.mark.parametrize("without", [(), (9,)])
def test_both_are_found_as_if_they_were_one_database(without: tuple[int, ...]) -> None:
    stored, strangers = snapshot({7: 1, 9: 2}), snapshot({0: 4, 1: 5, 2: 6})
    together = snapshot({7: 1, 9: 2, 100: 4, 101: 5, 102: 6})
    found, others = search_beside(stored, strangers, features(3), BOOK, COARSE, OPTIONS, without=without)
    expected = {c.image_id: c.votes for c in search(together, features(3), BOOK, COARSE, OPTIONS, without=without)}
    assert {c.image_id: c.votes for c in found} | {100 + c.image_id: c.votes for c in others} == expected
    assert [c.score for c in others] == sorted((c.score for c in others), reverse=True)
    assert found[0].votes < search(stored, features(3), BOOK, COARSE, OPTIONS, without=without)[0].votes


def test_the_same_with_asmk_and_with_nothing() -> None:
    stored, strangers = snapshot({7: 1}), snapshot({0: 4})
    asmk = SearchOptions(scoring="asmk")
    found, others = search_beside(stored, strangers, features(1), BOOK, COARSE, asmk)
    assert plain(found) == plain(search(stored, features(1), BOOK, COARSE, asmk))
    assert found[0].votes > others[0].votes
    empty = IndexSnapshot.empty(LAYOUT)
    assert search_beside(empty, strangers, features(1), BOOK, COARSE, OPTIONS)[0] == []
    assert search_beside(stored, empty, features(1), BOOK, COARSE, OPTIONS)[1] == []
    none = Features.empty(BOOK.dim, BOOK.global_dim)
    assert search_beside(stored, strangers, none, BOOK, COARSE, OPTIONS) == ([], [])
