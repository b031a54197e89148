"""The search benchmark's data, its peer, and how runs add up."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from benchmarks.lab.search_data import Copies
from benchmarks.search import Lab, recorded, write
from delf_edge.arrays import l2_normalise
from delf_edge.index.inverted_lists import IndexSnapshot
from delf_edge.index.scoring import neighbours
from delf_edge.quantization.coarse_quantizer import CoarseIndex
from delf_edge.quantization.packed_codes import CodeBatch, CodeLayout
from delf_edge.quantization.product_quantizer import inner_product_tables
from delf_edge.types import Codebook, Codes

K, D, M, G = 60, 16, 4, 8


@pytest.fixture
def codebook() -> Codebook:
    rng = np.random.default_rng(0)
    return Codebook(
        np.zeros(3, np.float32),
        np.zeros((D, 3), np.float32),
        l2_normalise(rng.normal(size=(K, D))),
        (rng.normal(size=(M, 256, D // M)) * 0.2).astype(np.float32),
        np.linalg.qr(rng.normal(size=(D, D)))[0].astype(np.float32),
        np.zeros(1, np.float32),
        np.zeros((G, 1), np.float32),
    )


@pytest.fixture
def copies(codebook: Codebook) -> Copies:
    rng = np.random.default_rng(1)
    real = [
        Codes(
            (rng.random((n, 2)) * 480).astype(np.float32),
            rng.integers(0, K, n).astype(np.uint16),
            rng.integers(0, 256, (n, M)).astype(np.uint8),
            rng.integers(-127, 128, G).astype(np.int8),
            (640, 480),
        )
        for n in (5, 40, 90)
    ]
    return Copies(real, codebook, n_features=70)


def test_a_copy_depends_on_its_number_alone(copies: Copies) -> None:
    first, other = copies.make(7), copies.make(8)
    again = copies.make(7)
    assert len(first) == 70
    for name in ("keypoints", "words", "codes", "global_code"):
        assert_array_equal(getattr(first, name), getattr(again, name))
    assert (first.codes != other.codes).any()
    assert first.words.max() < K
    assert first.keypoints.min() >= 0
    assert (first.keypoints.max(axis=0) <= (639, 479)).all()


def test_faiss_scores_the_very_same_features(copies: Copies, codebook: Codebook) -> None:
    pytest.importorskip("faiss")
    from benchmarks.systems.faiss_search import Peer

    layout = CodeLayout.of(codebook)
    batch = CodeBatch.of([(i, copies.make(i)) for i in range(30)], layout)
    snapshot = IndexSnapshot.empty(layout).extended(batch, K)
    queries = l2_normalise(np.random.default_rng(2).normal(size=(20, D)))
    scores, ids = Peer(snapshot, codebook, 8).search(queries, 10)
    words, base = CoarseIndex(codebook.centroids).assign(queries, 8)
    query, _, feature, score = neighbours(snapshot, words, base, inner_product_tables(queries, codebook), 10, -1.0)
    for q in range(20):
        assert set(ids[q].tolist()) <= set(feature[query == q].tolist())
        assert np.abs(np.sort(scores[q]) - np.sort(score[query == q])[-10:]).max() < 1e-5


def test_runs_add_up_to_one_record(tmp_path: Path, codebook: Codebook) -> None:
    file = tmp_path / "new" / "search.json"
    lab = cast("Lab", SimpleNamespace(bundle=SimpleNamespace(id="a"), codebook=codebook))
    result: dict[str, Any] = recorded(file, lab)
    assert result["sizes"] == []
    result["sizes"].append({"images": 10})
    write(file, result)
    assert recorded(file, lab) == json.loads(file.read_text(encoding="utf-8")) == result
    another = cast("Lab", SimpleNamespace(bundle=SimpleNamespace(id="b"), codebook=codebook))
    assert recorded(file, another)["sizes"] == []
