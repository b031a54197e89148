from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from delf_edge.arrays import l2_normalise
from delf_edge.errors import OptionError
from delf_edge.features.extractor import project_descriptors
from delf_edge.quantization.coarse_quantizer import CoarseIndex
from delf_edge.quantization.packed_codes import CodeBatch, CodeLayout, pack_codes, packed_size, tiny, unpack_codes
from delf_edge.quantization.product_quantizer import (
    decode,
    decode_global,
    encode,
    inner_product_tables,
    quantise_global,
)
from delf_edge.types import Codebook, Codes, Features

D, M, K, C, G = 12, 3, 40, 20, 8


def make_codebook(seed: int = 0) -> Codebook:
    rng = np.random.default_rng(seed)
    return Codebook(
        pca_mean=rng.normal(size=C).astype(np.float32) * 0.01,
        pca_basis=rng.normal(size=(D, C)).astype(np.float32),
        centroids=l2_normalise(rng.normal(size=(K, D))),
        pq=(rng.normal(size=(M, 256, D // M)) * 0.1).astype(np.float32),
        rotation=np.linalg.qr(rng.normal(size=(D, D)))[0].astype(np.float32),
        global_mean=np.zeros(G, np.float32),
        global_basis=np.eye(G, dtype=np.float32),
    )


def make_features(descriptors: np.ndarray, seed: int = 0, size: tuple[int, int] = (640, 480)) -> Features:
    rng = np.random.default_rng(seed)
    N = len(descriptors)
    return Features(
        keypoints=(rng.random((N, 2)) * size).astype(np.float32),
        scales=np.ones(N, np.float32),
        scores=np.ones(N, np.float32),
        descriptors=np.asarray(descriptors, np.float32),
        global_descriptor=l2_normalise(rng.normal(size=G)),
        image_size=size,
    )


def test_descriptors_built_from_codewords_decode_exactly() -> None:
    codebook, rng = make_codebook(), np.random.default_rng(1)
    words, codes = rng.integers(0, K, 200), rng.integers(0, 256, (200, M))
    residual = np.concatenate([codebook.pq[m, codes[:, m]] for m in range(M)], axis=1)
    descriptors = codebook.centroids[words] + residual @ codebook.rotation
    encoded = encode(make_features(descriptors), words, codebook)
    assert_array_equal(encoded.codes, codes)
    assert_array_equal(encoded.words, words)
    assert_allclose(decode(encoded, codebook, unit=False), descriptors, atol=2e-6)
    assert_allclose(np.linalg.norm(decode(encoded, codebook), axis=1), 1, atol=1e-6)


def test_encode_picks_the_nearest_codeword_as_the_plain_loop_does() -> None:
    codebook = make_codebook()
    d = l2_normalise(np.random.default_rng(2).normal(size=(50, D)))
    words, _ = CoarseIndex(codebook.centroids).assign(d)
    encoded = encode(make_features(d), words[:, 0], codebook)
    for n in range(50):
        residual = codebook.rotation @ (d[n] - codebook.centroids[words[n, 0]])
        for m in range(M):
            distance = ((codebook.pq[m] - residual[m * 4 : m * 4 + 4]) ** 2).sum(axis=1)
            assert distance[encoded.codes[n, m]] <= distance.min() + 1e-6


def test_tables_and_centroids_add_up_to_the_inner_product() -> None:
    codebook = make_codebook()
    rng = np.random.default_rng(3)
    stored, queries = l2_normalise(rng.normal(size=(30, D))), l2_normalise(rng.normal(size=(7, D)))
    words, _ = CoarseIndex(codebook.centroids).assign(stored)
    codes = encode(make_features(stored), words[:, 0], codebook)
    tables = inner_product_tables(queries, codebook)
    assert tables.shape == (7, M, 256)
    assert tables.dtype == np.float32
    assert tables.flags.c_contiguous
    assert inner_product_tables(queries.astype(np.float64), codebook).dtype == np.float32
    expected = queries @ decode(codes, codebook, unit=False).T
    for q in range(7):
        for f in range(30):
            score = queries[q] @ codebook.centroids[codes.words[f]]
            score += sum(tables[q, m, codes.codes[f, m]] for m in range(M))
            assert score == pytest.approx(expected[q, f], abs=1e-5)


def test_project_is_l2_pca_l2() -> None:
    codebook = make_codebook()
    raw = np.random.default_rng(4).normal(size=(5, C)).astype(np.float32) * 30
    expected = codebook.pca_basis @ (raw[2] / np.linalg.norm(raw[2]) - codebook.pca_mean)
    assert_allclose(project_descriptors(codebook, raw)[2], expected / np.linalg.norm(expected), atol=1e-6)
    assert project_descriptors(codebook, np.zeros((0, C), np.float32)).shape == (0, D)
    assert np.isfinite(project_descriptors(codebook, np.zeros((1, C), np.float32))).all()


def test_global_code_keeps_the_direction() -> None:
    g = l2_normalise(np.random.default_rng(5).normal(size=256))
    code = quantise_global(g)
    assert code.dtype == np.int8
    assert np.abs(code.astype(int)).max() == 127
    assert decode_global(code) @ g > 0.9999
    assert_array_equal(decode_global(quantise_global(np.zeros(4, np.float32))), np.zeros(4))


def test_wrong_dimension_is_refused() -> None:
    with pytest.raises(OptionError, match="dimension 12"):
        encode(make_features(np.zeros((3, D + 1))), np.zeros(3, int), make_codebook())


@st.composite
def any_codes(draw: st.DrawFn) -> Codes:
    n, m, g = draw(st.integers(0, 40)), draw(st.integers(1, 20)), draw(st.integers(0, 20))
    size = draw(st.tuples(st.integers(0, 70000), st.integers(0, 70000)))
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    return Codes(
        keypoints=(rng.random((n, 2)) * size).astype(np.float32),
        words=rng.integers(0, 65536, n).astype(np.uint16),
        codes=rng.integers(0, 256, (n, m)).astype(np.uint8),
        global_code=rng.integers(-128, 128, g).astype(np.int8),
        image_size=size,
    )


@settings(max_examples=60, deadline=None)
@given(any_codes())
def test_packed_codes_round_trip(codes: Codes) -> None:
    layout = CodeLayout(codes.codes.shape[1], len(codes.global_code), 65536)
    blob = pack_codes(codes)
    back = unpack_codes(blob, layout)
    assert_array_equal(back.words, codes.words)
    assert_array_equal(back.codes, codes.codes)
    assert_array_equal(back.global_code, codes.global_code)
    assert back.image_size == codes.image_size
    side = max(codes.image_size)
    assert_allclose(back.keypoints, codes.keypoints, atol=side / 4095 / 2 + side * 1e-6)
    assert pack_codes(back) == blob
    for broken in (blob[:-1], blob + b"\0", b"", b"\2" + blob[1:]):
        with pytest.raises(ValueError, match="packed"):
            unpack_codes(broken, layout)


def test_the_layout_is_the_documented_one() -> None:
    codes = Codes(
        keypoints=np.array([[4095, 0], [0x123, 0x456]], np.float32),
        words=np.array([0x0102, 7], np.uint16),
        codes=np.array([[9, 8], [7, 6]], np.uint8),
        global_code=np.array([-1, 127, 0], np.int8),
        image_size=(4095, 2000),
    )
    head = "01 02 0300 02000000 ff0f0000 d0070000 ff7f00"
    body = "ff0f00 0201 0908 236145 0700 0706"
    assert pack_codes(codes).hex() == (head + body).replace(" ", "")


def test_a_word_beyond_the_codebook_is_refused() -> None:
    codes = Codes(
        np.zeros((1, 2), np.float32), np.array([5], np.uint16), np.zeros((1, 2), np.uint8), np.zeros(0, np.int8), (9, 9)
    )
    assert packed_size(pack_codes(codes), CodeLayout(2, 0, 5)) == 1
    with pytest.raises(ValueError, match="word 5"):
        unpack_codes(pack_codes(codes), CodeLayout(2, 0, 5))


def test_batches_unpack_like_single_blobs() -> None:
    rng = np.random.default_rng(6)
    layout = CodeLayout(M, G, K)
    images = []
    for i, n in enumerate((5, 0, 17)):
        images.append((i + 3, Codes(
            np.zeros((n, 2), np.float32), rng.integers(0, K, n).astype(np.uint16),
            rng.integers(0, 256, (n, M)).astype(np.uint8), rng.integers(-128, 128, G).astype(np.int8), (640, 480),
        )))  # fmt: skip
    expected = CodeBatch.of(images, layout)
    batch = CodeBatch.unpack([i for i, _ in images], [pack_codes(c) for _, c in images], layout)
    for name in ("image_ids", "counts", "words", "codes", "global_codes"):
        assert_array_equal(getattr(batch, name), getattr(expected, name))
    joined = CodeBatch.join([CodeBatch.of(images[:1], layout), CodeBatch.of(images[1:], layout)], layout)
    assert_array_equal(joined.codes, expected.codes)
    assert_array_equal(CodeBatch.unpack([], [], layout).codes, np.zeros((0, M)))


def test_empty_image_passes_through() -> None:
    codebook = make_codebook()
    codes = encode(Features.empty(D, G), np.zeros(0, np.int32), codebook)
    assert len(codes) == 0
    assert decode(codes, codebook).shape == (0, D)
    assert len(unpack_codes(pack_codes(codes), CodeLayout.of(codebook))) == 0
    assert inner_product_tables(np.zeros((0, D), np.float32), codebook).shape == (0, M, 256)


@pytest.mark.parametrize(("M", "G", "n"), [(16, 256, 35), (12, 256, 44), (8, 0, 77), (1, 1020, 0)])
def test_the_tiny_form_is_the_best_features_in_a_kilobyte(M: int, G: int, n: int) -> None:
    rng = np.random.default_rng(0)
    codes = Codes(
        (rng.random((300, 2)) * 640).astype(np.float32),
        rng.integers(0, 8192, 300).astype(np.uint16),
        rng.integers(0, 256, (300, M)).astype(np.uint8),
        rng.integers(-127, 128, G).astype(np.int8),
        (640, 480),
    )
    short = tiny(codes)
    assert len(short) == n
    assert_array_equal(short.codes, codes.codes[:n])
    assert_array_equal(short.keypoints, codes.keypoints[:n])
    assert len(pack_codes(short)) <= max(1024, 16 + G)
    assert len(tiny(tiny(codes))) == n
    few = tiny(Codes(codes.keypoints[:3], codes.words[:3], codes.codes[:3], codes.global_code, (1, 1)))
    assert len(few) == min(3, n)
