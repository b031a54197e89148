"""The codebook fits against plain definitions, on data whose answer is known."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from delf_edge.arrays import unit
from delf_edge.codebooks import fit as cb
from delf_edge.codebooks import kmeans as cl
from delf_edge.codebooks import opq
from delf_edge.codebooks import projections as pj
from delf_edge.quantization.product_quantizer import encode
from delf_edge.types import Features, Float32Array


def clusters(n: int, dim: int = 24, centres: int = 40, noise: float = 0.3, seed: int = 0) -> Float32Array:
    rng = np.random.default_rng(seed)
    middle = rng.normal(size=(centres, dim))
    return (middle[rng.integers(centres, size=n)] + noise * rng.normal(size=(n, dim))).astype(np.float32)


DATA = clusters(6000)
POOLED = clusters(120, 20, seed=5)
OPTIONS = cb.CodebookOptions(
    dim=16, n_words=32, code_size=4, global_dim=8, sample=5000, iterations=4, pq_iterations=4, opq=True
)


def chunks(size: int) -> cb.Stream:
    def stream() -> Iterator[Float32Array]:
        for i in range(0, len(DATA), size):
            yield DATA[i : i + size]

    return stream


def test_pca_is_that_of_the_whole_stream() -> None:
    moments = pj.Moments(24)
    for chunk in chunks(700)():
        moments.add(chunk)
    mean, basis = pj.pca(moments, 5)
    np.testing.assert_allclose(mean, DATA.mean(axis=0), atol=1e-4)
    _, _, vt = np.linalg.svd(DATA.astype(np.float64) - DATA.mean(axis=0), full_matrices=False)
    np.testing.assert_allclose(np.abs(np.einsum("dc,dc->d", basis, vt[:5])), 1, atol=1e-4)
    np.testing.assert_allclose(basis @ basis.T, np.eye(5), atol=1e-5)


def test_whitening_makes_variances_equal() -> None:
    moments = pj.Moments(24)
    moments.add(DATA)
    mean, basis = pj.pca(moments, 8, whiten=1.0)
    np.testing.assert_allclose(((DATA - mean) @ basis.T).std(axis=0), 1, rtol=1e-3)
    _, half = pj.pca(moments, 8, whiten=0.5)
    spread = ((DATA - mean) @ half.T).std(axis=0)
    assert spread[0] / spread[-1] > 1.05


def test_pca_refuses_more_dimensions_than_channels() -> None:
    moments = pj.Moments(24)
    moments.add(DATA)
    with pytest.raises(ValueError, match=r"25 dimensions .* has 24"):
        pj.pca(moments, 25)


def test_a_projection_from_matches_drops_what_changes_between_two_photos() -> None:
    rng = np.random.default_rng(0)
    point = rng.normal(size=(4000, 12)) * ([1.0] * 4 + [0.1] * 8)  # what tells points apart: four directions
    light = [0.05] * 4 + [2.0] * 4 + [0.05] * 4  # what changes from photo to photo: four others, and stronger
    views = [(point + rng.normal(size=point.shape) * light + 3).astype(np.float32) for _ in range(2)]
    moments = pj.Moments(12)
    for view in views:
        moments.add(unit(view))

    def same_is_nearest(projection: pj.Projection) -> float:
        first, second = (pj.project(v[:400], *projection) for v in views)
        return float(((first @ second.T).argmax(axis=1) == np.arange(400)).mean())

    learnt = pj.matched_projection(moments, [(views[0][i::4], views[1][i::4]) for i in range(4)], 4)
    assert same_is_nearest(learnt) > 3 * same_is_nearest(pj.pca(moments, 4))
    # Without whitening it is PCA, up to the common factor that the normalisation takes away.
    plain = pj.project(views[0], *pj.matched_projection(moments, [(views[0], views[1])], 4, whiten=0.0))
    np.testing.assert_allclose(plain, pj.project(views[0], *pj.pca(moments, 4)), atol=1e-3)


def test_a_projection_from_matches_says_when_there_are_too_few() -> None:
    moments = pj.Moments(24)
    moments.add(DATA)
    with pytest.raises(ValueError, match="24 channels needs as many confirmed matches, there are 10"):
        pj.matched_projection(moments, [(DATA[:10], DATA[10:20])], 4)
    with pytest.raises(ValueError, match="several photos of each place"):
        cb.fit(chunks(700), POOLED, replace(OPTIONS, projection="matched"))


def test_a_stream_larger_than_memory_is_read_in_parts() -> None:
    rows, parts = 2000, 150

    def stream() -> Iterator[Float32Array]:
        for i in range(parts):
            yield np.random.default_rng(i).normal(size=(rows, 24)).astype(np.float32)

    whole = rows * parts * 24 * 4  # bytes
    tracemalloc.start()
    fit = cb.fit(stream, POOLED, replace(OPTIONS, sample=3000))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert fit.report["descriptors_seen"] == rows * parts
    assert fit.report["descriptors_sampled"] == 3000
    assert peak < whole / 3


@pytest.mark.parametrize(("dim", "size"), [(64, 4), (40, 5), (40, 10), (60, 12), (64, 16), (40, 20)])
def test_codes_of_four_to_twenty_bytes(dim: int, size: int) -> None:
    data = clusters(1500, dim=64, noise=0.6)
    options = cb.CodebookOptions(
        dim=dim, n_words=16, code_size=size, global_dim=8, iterations=2, pq_iterations=2, opq=size % 8 == 0
    )
    fit = cb.fit(lambda: [data], POOLED, options)
    assert fit.codebook.pq.shape == (size, 256, dim // size)
    assert fit.report["word_cosine"] < fit.report["code_cosine"] < 1


@pytest.mark.parametrize("words", [1024, 65536])
def test_a_thousand_to_sixty_five_thousand_words(words: int) -> None:
    data = np.random.default_rng(0).normal(size=(66_000, 8)).astype(np.float32)
    options = cb.CodebookOptions(
        dim=4, n_words=words, code_size=2, global_dim=4, iterations=1, refine=0, pq_iterations=1, opq=False
    )
    fit = cb.fit(lambda: [data], POOLED, options)
    assert fit.codebook.centroids.shape == (words, 4)
    assert np.isfinite(fit.codebook.centroids).all()


def test_the_number_of_words_follows_the_number_of_descriptors() -> None:
    sizes = [(0, 1), (15, 1), (16, 2), (8 * 1024 - 1, 512), (8 * 1024, 1024), (10**6, 16384)]
    assert [(n, cb.automatic_words(n)) for n, _ in sizes] == sizes
    fit = cb.fit(chunks(700), POOLED, replace(OPTIONS, n_words=0, sample=2100))
    assert fit.codebook.n_words == fit.report["words"] == 256


def test_a_reservoir_does_not_depend_on_the_chunks() -> None:
    samples = [cb.reservoir(chunks(size)(), 500, seed=3) for size in (64, 999, 6000)]
    assert samples[0].shape == (500, 24)
    for other in samples[1:]:
        np.testing.assert_array_equal(samples[0], other)
    np.testing.assert_array_equal(cb.reservoir(chunks(64)(), 10_000, seed=3), DATA)


def test_assign_is_the_nearest_centroid() -> None:
    centroids = DATA[:50] * 0.7
    words, _ = cl.assign(DATA[:300], centroids)
    distances = ((DATA[:300, None] - centroids[None]) ** 2).sum(axis=2)
    np.testing.assert_allclose(distances[np.arange(300), words], distances.min(axis=1), rtol=1e-4)


def test_kmeans_finds_separate_clusters_and_repeats_bit_for_bit() -> None:
    x = clusters(2000, dim=8, centres=5, noise=0.01)
    first = cl.kmeans(x, 5, iterations=12, seed=2, start=x[:5] + 0)
    np.testing.assert_array_equal(first, cl.kmeans(x, 5, iterations=12, seed=2, start=x[:5] + 0))
    error = ((x - first[cl.assign(x, first)[0]]) ** 2).sum(axis=1).mean()
    start = ((x - x[:5][cl.assign(x, x[:5])[0]]) ** 2).sum(axis=1).mean()
    assert error <= start


def test_lloyd_never_makes_the_error_larger() -> None:
    x = unit(DATA)

    def error(iterations: int) -> float:
        c = cl.kmeans(x, 32, iterations=iterations, seed=1)
        return float(((x - c[cl.assign(x, c)[0]]) ** 2).sum(axis=1).mean())

    assert error(8) < error(1) < error(0)


def test_spherical_centroids_have_unit_length_and_empty_clusters_are_filled() -> None:
    x = unit(clusters(600, dim=8, centres=6, noise=0.001))
    start = np.repeat(x[:1], 6, axis=0)  # five of six centroids get nothing in the first round
    centroids = cl.kmeans(x, 6, iterations=10, spherical=True, start=start)
    np.testing.assert_allclose(np.linalg.norm(centroids, axis=1), 1, atol=1e-5)
    assert len(np.unique(cl.assign(x, centroids)[0])) > 1


def test_kmeans_says_when_there_is_too_little_data() -> None:
    with pytest.raises(ValueError, match=r"500 centroids .* got 100"):
        cl.kmeans(DATA[:100], 500)


@pytest.mark.parametrize("k", [2, 7, 64])
def test_two_levels_are_nearly_as_good_as_one_and_repeat_bit_for_bit(k: int) -> None:
    x = unit(DATA)

    def error(centroids: Float32Array) -> float:
        assert centroids.shape == (k, 24)
        return float(((x - centroids[cl.assign(x, centroids)[0]]) ** 2).sum(axis=1).mean())

    tree = cl.tree_kmeans(x, k, iterations=8, refine=1)
    np.testing.assert_array_equal(tree, cl.tree_kmeans(x, k, iterations=8, refine=1))
    assert error(tree) < 1.25 * error(cl.kmeans(x, k, iterations=9))


def test_two_levels_share_out_exactly_k_centroids_when_there_are_hardly_more_rows() -> None:
    x = unit(clusters(70, dim=8, centres=3, noise=0.2))
    assert len(cl.tree_kmeans(x, 69)) == 69
    with pytest.raises(ValueError, match="71 centroids"):
        cl.tree_kmeans(x, 71)


def test_vectors_made_of_codewords_decode_exactly() -> None:
    rng = np.random.default_rng(0)
    pq = rng.normal(size=(4, 256, 3)).astype(np.float32)
    codes = rng.integers(0, 256, (100, 4)).astype(np.uint8)
    x = opq.pq_decode(codes, pq)
    np.testing.assert_array_equal(opq.pq_encode(x, pq), codes)
    # the plain loop that pq_decode stands for
    np.testing.assert_array_equal(x[7], np.concatenate([pq[m, codes[7, m]] for m in range(4)]))


def test_opq_rotation_is_orthogonal_and_beats_pq_on_correlated_data() -> None:
    rng = np.random.default_rng(1)
    mix = rng.normal(size=(12, 12)) * np.geomspace(3, 0.05, 12)
    x = (rng.normal(size=(3000, 12)) @ mix.T).astype(np.float32)
    rotation, pq = opq.fit_opq(x, 4, iterations=8)
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(12), atol=1e-5)
    y = x @ rotation.T
    plain = opq.fit_pq(x, 4, iterations=12)
    error = ((y - opq.pq_decode(opq.pq_encode(y, pq), pq)) ** 2).mean()
    plain_error = ((x - opq.pq_decode(opq.pq_encode(x, plain), plain)) ** 2).mean()
    assert error < 0.95 * plain_error


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 20), st.integers(1, 16), st.floats(1e-3, 1e3), st.integers(0, 99))
def test_compressed_rows_come_back_within_half_a_step(n: int, dim: int, size: float, seed: int) -> None:
    x = (np.random.default_rng(seed).normal(size=(n, dim)) * size).astype(np.float32)
    whole = cb.expand_rows(cb.compress_rows(x, "int8"))
    assert (np.abs(whole - x) <= 0.502 * np.abs(x).max(axis=1, keepdims=True) / 127).all()
    half = cb.expand_rows(cb.compress_rows(x, "float16"))
    np.testing.assert_allclose(half, x, rtol=1e-3, atol=1e-6)


def test_a_fit_repeats_bit_for_bit_and_its_codes_are_close() -> None:
    first, second = (cb.fit(chunks(700), POOLED, OPTIONS) for _ in range(2))
    assert first.arrays.keys() == second.arrays.keys()
    for name, array in first.arrays.items():
        np.testing.assert_array_equal(array, second.arrays[name], err_msg=name)
    book, report = first.codebook, first.report
    assert (book.dim, book.n_words, book.code_size, book.global_dim) == (16, 32, 4, 8)
    assert report["centroid_storage_cosine"] > 0.9999
    assert report["word_cosine"] < report["code_cosine"] <= 1
    assert report["code_cosine"] > 0.97
    assert 0.5 < report["pca_variance_kept"] <= 1


def test_the_runtime_reads_and_uses_the_fit_as_it_was_made() -> None:
    fit = cb.fit(chunks(700), POOLED, OPTIONS)
    book = fit.codebook
    x = pj.project(DATA[:50], book.pca_mean, book.pca_basis)
    words = cl.assign(x, book.centroids)[0]
    features = Features(
        keypoints=np.zeros((50, 2), np.float32),
        scales=np.ones(50, np.float32),
        scores=np.ones(50, np.float32),
        descriptors=x,
        global_descriptor=np.zeros(book.global_dim, np.float32),
        image_size=(10, 10),
    )
    codes = encode(features, words.astype(np.uint16), book)
    residual = np.asarray((x - book.centroids[words]) @ book.rotation.T, np.float32)
    np.testing.assert_array_equal(codes.codes, opq.pq_encode(residual, book.pq))


@pytest.mark.parametrize("opq", [False, True])
@pytest.mark.parametrize("storage", ["int8", "float16"])
def test_every_form_of_codebook_can_be_fitted(opq: bool, storage: str) -> None:
    options = cb.CodebookOptions(
        dim=8, n_words=16, code_size=4, global_dim=8, iterations=2, pq_iterations=2, opq=opq, centroid_storage=storage
    )
    fit = cb.fit(chunks(2000), POOLED, options)
    assert ("centroids_scale" in fit.arrays) == (storage == "int8")
    assert np.array_equal(fit.codebook.rotation, np.eye(8)) != opq


def test_options_out_of_range_are_refused_with_the_remedy() -> None:
    with pytest.raises(ValueError, match="64 dimensions into 12 parts"):
        cb.CodebookOptions(dim=64, code_size=12)
    with pytest.raises(ValueError, match="65536"):
        cb.CodebookOptions(n_words=70_000)
    with pytest.raises(ValueError, match="'float16'"):
        cb.CodebookOptions(centroid_storage="int4")


def test_no_features_at_all_is_said() -> None:
    with pytest.raises(ValueError, match="no photo gave a feature"):
        cb.fit(list, POOLED, OPTIONS)
