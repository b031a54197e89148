"""What `benchmarks.words` counts: a search among all words finds everything, and more words looked up find more."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks import words
from benchmarks.words import Size, Words, cut, lists_stage, words_stage
from delf_edge.arrays import l2_normalise
from delf_edge.bundle.bundle import Bundle
from delf_edge.index.inverted_lists import IndexSnapshot
from delf_edge.quantization.coarse_quantizer import CoarseIndex
from delf_edge.quantization.packed_codes import CodeBatch, CodeLayout
from delf_edge.quantization.product_quantizer import encode
from delf_edge.types import Features
from testing.paths import DEMO, TINY_BUNDLE
from testing.synthetic_database import made_up

COLOSSEUM = DEMO / "queries" / "colosseum.webp"


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return Bundle.load(TINY_BUNDLE)


@pytest.fixture(scope="module")
def queries(bundle: Bundle) -> list[Features]:
    return [made_up(bundle, seed, 30) for seed in range(1, 11)]


def test_more_words_find_more_until_all_find_everything(bundle: Bundle, queries: list[Features]) -> None:
    codebook, coarse = bundle.codebook, CoarseIndex(bundle.codebook.centroids)
    stored = [made_up(bundle, seed, 60) for seed in range(100, 140)]
    codes = [encode(f, coarse.assign(f.descriptors)[0][:, 0], codebook) for f in stored]
    layout = CodeLayout.of(codebook)
    snapshot = IndexSnapshot.empty(layout).extended(CodeBatch.of(list(enumerate(codes)), layout), layout.n_words)
    K = codebook.n_words
    found = lists_stage(snapshot, codebook, queries, (1, K), 1)
    assert found["P=1"]["recall_exact_words"] < 1
    assert found[f"P={K}"]["recall_exact_words"] == found[f"P={K}"]["recall_hnsw"] == 1
    assert found["P=1"]["looked_at"] < found[f"P={K}"]["looked_at"] == snapshot.n_features


def test_words_by_either_way_are_timed_and_compared(bundle: Bundle, queries: list[Features]) -> None:
    found = words_stage(bundle.codebook, queries, (2,), 1)
    assert 0.5 < found["P=2"]["recall"] <= 1
    assert min(found["P=2"]["hnsw_ms"], found["P=2"]["exact_ms"]) > 0
    assert found["graph_bytes"] > 0


def test_a_cut_descriptor_is_a_unit_vector_of_its_first_dimensions(queries: list[Features]) -> None:
    (first, *_), whole = queries, queries[0].descriptors
    assert cut(first, whole.shape[1]) is first
    short = cut(first, 3).descriptors
    np.testing.assert_allclose(short, l2_normalise(whole[:, :3]))
    assert str(Size(8192, 60, 12, seed=2)) == "K=8192 D=60 M=12 seed 2"


def test_another_variant_is_asked_with_codebooks_of_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bundle: Bundle
) -> None:
    monkeypatch.setattr(words, "default_bundle_path", lambda: TINY_BUNDLE)
    for table in ("train.csv", "train_more.csv"):
        (tmp_path / table).write_text(f"path,place,split\n{COLOSSEUM},colosseum,train\n", encoding="utf-8")
    plain, other = (Words(tmp_path, tmp_path / "out", 1000, 1, variant) for variant in (None, "int8"))
    assert (plain.bundle.variant, other.bundle.variant) == (bundle.variant, "int8")
    asked = [w.lab.features(str(COLOSSEUM)).descriptors for w in (plain, other)]
    assert asked[0].shape != asked[1].shape or not np.allclose(asked[0], asked[1])
    np.testing.assert_array_equal(plain.rows(), other.rows())
