"""The compiled loops give what the NumPy forms give, to the bit where they say so."""

from __future__ import annotations

import ctypes
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from delf_edge import native
from delf_edge.arrays import l2_normalise
from delf_edge.errors import OptionError
from delf_edge.index.inverted_lists import IndexSnapshot
from delf_edge.index.scoring import global_similarity, neighbours, voters
from delf_edge.quantization.coarse_quantizer import CoarseIndex
from delf_edge.quantization.packed_codes import CodeBatch, CodeLayout, pack_codes, quantise_keypoints, unpack_codes
from delf_edge.quantization.product_quantizer import TurnedDecoder, decode
from delf_edge.types import Codebook, Codes

K, G = 40, 21


@pytest.fixture
def lib(compiled: ctypes.CDLL | None) -> ctypes.CDLL:
    if compiled is None:
        pytest.skip("no C++ compiler, and the package was installed without one")
    return compiled


def make_state(rng: np.random.Generator, M: int, images: int, n: int, levels: int = 256) -> IndexSnapshot:
    """Two segments, the second one small; `levels` below 256 makes equal scores common."""
    snapshot = IndexSnapshot.empty(CodeLayout(M, G, K))
    for first, count in ((0, images), (images, 1)):
        batch = CodeBatch(
            np.arange(first, first + count) * 3 + 1,
            np.full(count, n),
            rng.integers(0, K, count * n).astype(np.uint16),
            rng.integers(0, levels, (count * n, M)).astype(np.uint8),
            rng.integers(-127, 128, (count, G)).astype(np.int8),
            np.zeros(count, np.uint32),
        )
        snapshot = snapshot.extended(batch, K)
    return snapshot


def both(monkeypatch: pytest.MonkeyPatch, lib: ctypes.CDLL, *arguments: object) -> list[set[tuple[float, ...]]]:
    found = []
    for form in (None, lib):
        monkeypatch.setattr(native, "library", lambda form=form: form)
        hits = neighbours(*arguments)  # type: ignore[arg-type]
        rows = list(zip(*(column.tolist() for column in hits), strict=True))
        assert len(set(rows)) == len(rows)
        found.append(set(rows))
    return found


@pytest.mark.parametrize("M", [1, 4, 8, 12, 14, 16, 17])
@pytest.mark.parametrize("levels", [256, 2])
@pytest.mark.parametrize("k", [1, 7, 60, 2**31 - 1])
def test_scan_finds_the_same_to_the_bit(
    M: int, levels: int, k: int, lib: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng([M, levels, k])
    snapshot = make_state(rng, M, images=80, n=11, levels=levels).without([3, 70])
    words = np.array([rng.permutation(K)[:5] for _ in range(9)], np.int32)
    base = rng.normal(0.5, 0.2, words.shape).astype(np.float32)
    tables = rng.normal(0, 0.3, (9, M, 256)).astype(np.float32)
    plain, compiled = both(monkeypatch, lib, snapshot, words, base, tables, k, 0.3)
    assert plain == compiled
    assert len(plain) >= 9
    slots = {row[1] for row in plain}
    assert not slots & {3, 70}


def test_scan_knows_the_image_after_a_long_step(lib: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch) -> None:
    """Features of rare words lie hundreds of images apart."""
    rng = np.random.default_rng(5)
    n = 5000
    words = np.minimum(rng.geometric(0.2, n) - 1, K - 1).astype(np.uint16)
    codes = rng.integers(0, 256, (n, 4)).astype(np.uint8)
    many = np.where(rng.random(n) < 0.1, 3, 0)  # few images have features at all
    batch = CodeBatch(
        np.arange(n),
        many,
        words[: many.sum()],
        codes[: many.sum()],
        np.zeros((n, G), np.int8),
        np.zeros(n, np.uint32),
    )
    snapshot = IndexSnapshot.empty(CodeLayout(4, G, K)).extended(batch, K)
    (segment,) = snapshot.segments
    assert segment.jump_by is not None
    assert len(segment.jump_by) > 50
    slots = np.repeat(np.arange(n), many)
    assert_array_equal(segment.all_slots(), slots[np.argsort(words[: many.sum()], kind="stable")])
    asked = np.tile(np.arange(K, dtype=np.int32), (3, 1))
    base, tables = rng.normal(0.5, 0.2, (3, K)).astype(np.float32), rng.normal(0, 0.3, (3, 4, 256)).astype(np.float32)
    for k in (1, 20, 10_000):
        plain, compiled = both(monkeypatch, lib, snapshot, asked, base, tables, k, 0.3)
        assert plain == compiled
    assert len(plain) > 1000


def test_many_equal_scores_are_all_kept(lib: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch) -> None:
    """The K-th and all that equal it: here 3,000 of them."""
    rng = np.random.default_rng(1)
    snapshot = make_state(rng, 4, images=300, n=10, levels=1)
    words = np.arange(K, dtype=np.int32)[None]
    base, tables = np.full((1, K), 0.5, np.float32), np.zeros((1, 4, 256), np.float32)
    plain, compiled = both(monkeypatch, lib, snapshot, words, base, tables, 5, 0.3)
    assert plain == compiled
    assert len(plain) == 3010


def test_nothing_is_found_where_nothing_is(lib: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot = make_state(np.random.default_rng(2), 4, images=3, n=2)
    words, base = np.zeros((2, 1), np.int32), np.zeros((2, 1), np.float32)
    assert both(monkeypatch, lib, snapshot, words, base, np.zeros((2, 4, 256), np.float32), 5, 0.3) == [set(), set()]


@pytest.mark.parametrize(("n_words", "P"), [(5, 5), (64, 8), (1000, 8), (1000, 1), (9000, 16)])
def test_nearest_words_are_the_same(n_words: int, P: int, lib: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(n_words)
    coarse = CoarseIndex((l2_normalise(rng.normal(size=(n_words, 16))) * 0.8).astype(np.float32), method="exact")
    queries = l2_normalise(rng.normal(size=(300, 16)))
    found = []
    for form in (None, lib):
        monkeypatch.setattr(native, "library", lambda form=form: form)
        found.append(coarse.assign(queries, P))
    assert (found[0][0] != found[1][0]).mean() < 1e-3  # two centroids may be equally near, but for rounding
    same = found[0][0] == found[1][0]
    assert_allclose(found[0][1][same], found[1][1][same], atol=1e-6)


def test_equal_words_come_in_order(lib: ctypes.CDLL) -> None:
    product = np.array([[1, 3, 2, 3, 3, 0]], np.float32)
    words, similarity = native.nearest(lib, product, np.zeros(6, np.float32), 4)
    assert_array_equal(words, [[1, 3, 4, 2]])
    assert_array_equal(similarity, [[3, 3, 3, 2]])


def test_global_similarity_is_the_same(lib: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    snapshot = make_state(rng, 4, images=50, n=2)
    query = rng.normal(size=G).astype(np.float32)
    monkeypatch.setattr(native, "library", lambda: None)
    plain = global_similarity(snapshot, query)
    monkeypatch.setattr(native, "library", lambda: lib)
    assert_allclose(global_similarity(snapshot, query), plain, atol=1e-6)
    assert np.abs(plain).max() > 0.1


def test_another_library_is_not_taken_for_ours(
    compiled: ctypes.CDLL | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "_native.so").write_bytes(b"no library")
    monkeypatch.setattr(native, "__file__", str(tmp_path / "native.py"))
    assert native.library.__wrapped__() is None
    if compiled is not None:
        (tmp_path / "_native.so").write_bytes(Path(compiled._name).read_bytes())
        assert native.library.__wrapped__() is not None
        monkeypatch.setattr(native, "VERSION", 99)
        assert native.library.__wrapped__() is None


@pytest.mark.parametrize("n", [0, 1, 50, 3000])
@pytest.mark.parametrize("ordered", [False, True])
def test_the_same_hits_vote(n: int, ordered: bool, lib: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(n)
    rows = np.unique(rng.integers(0, [30, 20, 200, 4], (n, 4)), axis=0)  # few values: many pairs and scores are equal
    rows = rows if ordered else rng.permutation(rows)
    rows = rows[np.sort(np.unique(rows[:, [0, 2]], axis=0, return_index=True)[1])]  # a query meets a feature once
    query, slot, feature, score = rows.T.copy()
    hits = native.Hits(query, slot, feature | 3 << 40, score.astype(np.float32))
    monkeypatch.setattr(native, "library", lambda: None)
    chosen, times = voters(hits)
    monkeypatch.setattr(native, "library", lambda: lib)
    fast, fast_times = voters(hits)
    assert_array_equal(fast, chosen)
    assert_array_equal(fast_times, times)
    assert len(set(zip(query[chosen].tolist(), slot[chosen].tolist(), strict=True))) == len(chosen)


@pytest.mark.parametrize("n", [0, 1, 300])
@pytest.mark.parametrize(("M", "d"), [(16, 4), (5, 3), (1, 1)])
def test_packed_codes_come_apart_the_same(
    n: int, M: int, d: int, lib: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng([n, M])
    codes = Codes(
        quantise_keypoints(rng.random((n, 2)) * (640, 480), (640, 480)),
        rng.integers(0, 65536, n).astype(np.uint16),
        rng.integers(0, 256, (n, M)).astype(np.uint8),
        rng.integers(-127, 128, 7).astype(np.int8),
        (640, 480),
    )
    blob, layout = pack_codes(codes), CodeLayout(M, 7, 65536)
    for form in (None, lib):
        monkeypatch.setattr(native, "library", lambda form=form: form)
        found = unpack_codes(blob, layout)
        for name in ("keypoints", "words", "codes", "global_code"):
            assert_array_equal(getattr(found, name), getattr(codes, name))
            assert getattr(found, name).dtype == getattr(codes, name).dtype
        if n and int(codes.words.max()) > 5:
            with pytest.raises(ValueError, match="the codebook has 5 words"):
                unpack_codes(blob, CodeLayout(M, 7, 5))


def test_turned_descriptors_are_decoded_ones_turned(lib: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(2)
    rotation = np.linalg.qr(rng.normal(size=(12, 12)))[0].astype(np.float32)
    book = Codebook(
        np.zeros(3, np.float32),
        np.zeros((12, 3), np.float32),
        rng.normal(size=(K, 12)).astype(np.float32),
        rng.normal(size=(4, 256, 3)).astype(np.float32),
        rotation,
        np.zeros(1, np.float32),
        np.zeros((0, 1), np.float32),
    )
    codes = Codes(
        np.zeros((50, 2), np.float32),
        rng.integers(0, K, 50).astype(np.uint16),
        rng.integers(0, 256, (50, 4)).astype(np.uint8),
        np.zeros(0, np.int8),
        (1, 1),
    )
    decoder = TurnedDecoder(book)
    expected = decoder.turn(decode(codes, book))
    for form in (None, lib):
        monkeypatch.setattr(native, "library", lambda form=form: form)
        assert_allclose(decoder.decode(codes), expected, atol=1e-6)
        assert decoder.decode(codes).dtype == np.float32
    with pytest.raises(OptionError, match="the codebook has 40 words"):
        decoder.decode(replace(codes, words=codes.words + np.uint16(K)))
