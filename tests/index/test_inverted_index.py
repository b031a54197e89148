from __future__ import annotations

import ctypes
import threading
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose

from delf_edge import native
from delf_edge.arrays import l2_normalise
from delf_edge.errors import OptionError
from delf_edge.index import inverted_lists, scoring
from delf_edge.index.inverted_index import InvertedIndex
from delf_edge.index.search import SearchOptions
from delf_edge.quantization.coarse_quantizer import CoarseIndex
from delf_edge.quantization.packed_codes import CodeBatch, CodeLayout
from delf_edge.quantization.product_quantizer import decode, decode_global, encode
from delf_edge.storage.records import NewImage
from delf_edge.storage.store import Store
from delf_edge.types import Codebook, Codes, Features

D, M, K, G = 12, 4, 32, 6
OPTIONS = SearchOptions(n_probe=4, k_neighbours=5, top=10, min_similarity=0.2)


@pytest.fixture(autouse=True, params=["NumPy", "compiled"])
def form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, compiled: ctypes.CDLL | None) -> str:
    """Every test here holds for both forms of the hot loops."""
    if request.param == "compiled" and compiled is None:
        pytest.skip("no C++ compiler, and the package was installed without one")
    monkeypatch.setattr(native, "library", lambda: compiled if request.param == "compiled" else None)
    return str(request.param)


@pytest.fixture(scope="module")
def codebook() -> Codebook:
    rng = np.random.default_rng(0)
    return Codebook(
        pca_mean=np.zeros(D, np.float32),
        pca_basis=np.eye(D, dtype=np.float32),
        centroids=(l2_normalise(rng.normal(size=(K, D))) * 0.8).astype(np.float32),
        pq=(rng.normal(size=(M, 256, D // M)) * 0.25).astype(np.float32),
        rotation=np.linalg.qr(rng.normal(size=(D, D)))[0].astype(np.float32),
        global_mean=np.zeros(G, np.float32),
        global_basis=np.eye(G, dtype=np.float32),
    )


@pytest.fixture(scope="module")
def coarse(codebook: Codebook) -> CoarseIndex:
    return CoarseIndex(codebook.centroids)


def make_features(seed: int, n: int = 20, dim: int = D) -> Features:
    rng = np.random.default_rng(seed)
    return Features(
        keypoints=(rng.random((n, 2)) * 300).astype(np.float32),
        scales=np.ones(n, np.float32),
        scores=np.ones(n, np.float32),
        descriptors=l2_normalise(rng.normal(size=(n, dim))),
        global_descriptor=l2_normalise(rng.normal(size=G)),
        image_size=(320, 240),
    )


def noisy(features: Features, amount: float, seed: int) -> Features:
    """The same image once more: descriptors and global descriptor moved a little."""
    rng = np.random.default_rng(seed)
    return Features(
        features.keypoints,
        features.scales,
        features.scores,
        l2_normalise(features.descriptors + amount * rng.normal(size=features.descriptors.shape)),
        l2_normalise(features.global_descriptor + amount * rng.normal(size=G)),
        features.image_size,
    )


def make_codes(features: Features, codebook: Codebook, coarse: CoarseIndex) -> Codes:
    return encode(features, coarse.assign(features.descriptors)[0][:, 0], codebook)


def fill(index: InvertedIndex, images: dict[int, Codes]) -> None:
    index.apply(CodeBatch.of(list(images.items()), index.layout))


@pytest.fixture(scope="module")
def images(codebook: Codebook, coarse: CoarseIndex) -> dict[int, Codes]:
    return {i * 7 + 3: make_codes(make_features(i, n=5 + i % 20), codebook, coarse) for i in range(60)}


@pytest.fixture
def index(images: dict[int, Codes], codebook: Codebook) -> InvertedIndex:
    index = InvertedIndex(CodeLayout.of(codebook))
    fill(index, images)
    return index


def oracle(
    images: dict[int, Codes], query: Features, codebook: Codebook, coarse: CoarseIndex, o: SearchOptions
) -> list[tuple[int, float, float, float]]:
    """The formulas at the heads of search.py and scoring.py, as loops over decoded descriptors."""
    assert o.n_probe is not None
    words, _ = coarse.assign(query.descriptors, o.n_probe)
    decoded = {i: decode(c, codebook, unit=False) for i, c in images.items()}
    chosen: list[tuple[int, int, float]] = []  # image, its feature, weight
    attention = query.scores.astype(np.float64) ** o.attention
    attention /= attention.mean()
    for q in range(len(query)):
        near = []
        for i, codes in images.items():
            for f in range(len(codes)):
                s = float(decoded[i][f] @ query.descriptors[q])
                if codes.words[f] in words[q] and s > o.min_similarity:
                    near.append((s, i, f))
        near.sort(reverse=True)
        best: dict[int, tuple[float, int]] = {}
        kth = near[min(o.k_neighbours, len(near)) - 1][0] if near else 0
        zero = o.min_similarity
        if len([s for s, _, _ in near if s >= kth]) >= o.k_neighbours:
            zero += o.reference * (kth - o.min_similarity)
        for s, i, f in near:
            if s >= kth and s > zero:
                best.setdefault(i, (s, f))
        chosen += [(i, f, attention[q] * (s - zero) ** o.power) for i, (s, f) in best.items()]
    share: dict[tuple[int, int], int] = defaultdict(int)
    for i, f, _ in chosen:
        share[i, f] += 1
    votes: dict[int, float] = defaultdict(float)
    for i, f, weight in chosen:
        votes[i] += weight / (np.sqrt(share[i, f]) if o.burst else 1)
    ranked = []
    for i, codes in images.items():
        v = votes[i] / (np.sqrt(len(codes)) if o.length_norm else 1)
        similarity = float(decode_global(codes.global_code) @ query.global_descriptor)
        if v > 0 or similarity > 0:
            ranked.append((i, (v / max(len(query), 1)) ** 0.5 + o.global_weight * similarity, v, similarity))
    return sorted(ranked, key=lambda r: (-r[1], r[0]))[: o.top]


@pytest.mark.parametrize(
    "options",
    [
        OPTIONS,
        SearchOptions(n_probe=K, k_neighbours=1000, top=100, min_similarity=0, burst=False, global_weight=0),
        SearchOptions(n_probe=1, k_neighbours=1, top=3, min_similarity=0.4, power=0, length_norm=True),
        SearchOptions(n_probe=4, k_neighbours=5, top=10, reference=0, attention=0, power=2),
        SearchOptions(n_probe=4, k_neighbours=5, top=10, reference=0.9, attention=2),
    ],
)
def test_search_is_the_formula(
    options: SearchOptions,
    index: InvertedIndex,
    images: dict[int, Codes],
    codebook: Codebook,
    coarse: CoarseIndex,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for chunk in (1 << 15, 16):  # the second one cuts lists into many parts
        monkeypatch.setattr(scoring, "CHUNK", chunk)
        for seed in (1000, 1001):
            query = make_features(seed)
            found = index.search(query, codebook, coarse, options)
            expected = oracle(images, query, codebook, coarse, options)
            assert [c.image_id for c in found] == [r[0] for r in expected]
            assert_allclose([[c.score, c.votes, c.similarity] for c in found], [r[1:] for r in expected], atol=1e-4)


def asmk_oracle(
    images: dict[int, Codes], query: Features, codebook: Codebook, coarse: CoarseIndex, o: SearchOptions
) -> dict[int, float]:
    """The formula at the head of asmk.py, word by word."""
    assert o.n_probe is not None
    words, _ = coarse.assign(query.descriptors, o.n_probe)
    votes: dict[int, float] = {}
    for i, codes in images.items():
        stored = decode(codes, codebook, unit=False) - codebook.centroids[codes.words]
        total = 0.0
        for w in np.unique(words):
            asked = (query.descriptors[(words == w).any(axis=1)] - codebook.centroids[w]).sum(axis=0)
            mine = stored[codes.words == w]
            product = mine @ (asked / np.linalg.norm(asked))
            mine, product = mine[product > 0], product[product > 0]  # a feature that points away is left out
            if len(mine):
                u = min(1.0, product.sum() / np.sqrt((mine**2).sum()))
                total += u**o.alpha if u > o.tau else 0.0
        votes[i] = total / np.sqrt(max(1, len(codes)))
    return votes


@pytest.mark.parametrize("tau", [0.0, 0.3])
def test_asmk_is_the_formula(
    tau: float, index: InvertedIndex, images: dict[int, Codes], codebook: Codebook, coarse: CoarseIndex
) -> None:
    options = SearchOptions(n_probe=3, top=60, global_weight=0, scoring="asmk", tau=tau)
    for seed in (1000, 1001):
        query = make_features(seed)
        expected = asmk_oracle(images, query, codebook, coarse, options)
        found = {c.image_id: c.votes for c in index.search(query, codebook, coarse, options)}
        assert len(found) > 20
        assert_allclose([found.get(i, 0.0) for i in expected], list(expected.values()), atol=1e-4)


def test_asmk_finds_the_right_image(index: InvertedIndex, codebook: Codebook, coarse: CoarseIndex) -> None:
    options = SearchOptions(n_probe=4, global_weight=0, scoring="asmk")
    right = 0
    for i in range(5, 60):
        query = noisy(make_features(i, n=5 + i % 20), 0.1, i)
        right += index.search(query, codebook, coarse, options)[0].image_id == i * 7 + 3
    assert right >= 52


def test_local_features_alone_find_the_right_image(
    index: InvertedIndex, codebook: Codebook, coarse: CoarseIndex
) -> None:
    options = SearchOptions(n_probe=4, min_similarity=0.2, global_weight=0)
    right = 0
    for i in range(5, 60):
        query = noisy(make_features(i, n=5 + i % 20), 0.1, i)
        right += index.search(query, codebook, coarse, options)[0].image_id == i * 7 + 3
    assert right >= 52


def test_probing_has_a_recall_floor(
    index: InvertedIndex, codebook: Codebook, coarse: CoarseIndex, images: dict[int, Codes]
) -> None:
    """Of the neighbours an exhaustive search finds, how many vote."""
    options = SearchOptions(
        n_probe=8, k_neighbours=10, min_similarity=0.5, power=0, burst=False, global_weight=0, top=99
    )
    everything = SearchOptions(**{**{f: getattr(options, f) for f in options.__dataclass_fields__}, "n_probe": K})
    some = all_ = 0.0
    for i in range(10):
        query = noisy(make_features(i), 0.1, i)
        some += sum(c.votes for c in index.search(query, codebook, coarse, options))
        all_ += sum(c.votes for c in index.search(query, codebook, coarse, everything))
    assert all_ > 0
    assert some / all_ >= 0.9


def test_any_history_of_changes_gives_the_same_answers(
    images: dict[int, Codes], codebook: Codebook, coarse: CoarseIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inverted_lists, "MAX_SEGMENT", 300)
    rng = np.random.default_rng(3)
    index = InvertedIndex(CodeLayout.of(codebook))
    present: dict[int, Codes] = {}
    pool = list(images.items())
    for step in range(400):
        image_id, codes = pool[rng.integers(len(pool))]
        if rng.random() < 0.4:
            index.apply(removed=[image_id, 999_999])
            present.pop(image_id, None)
        else:  # new, or a replacement with another image's features
            codes = pool[rng.integers(len(pool))][1]
            fill(index, {image_id: codes})
            present[image_id] = codes
        if step % 40 == 39:
            query = make_features(2000 + step)
            expected = oracle(present, query, codebook, coarse, OPTIONS)
            found = index.search(query, codebook, coarse, OPTIONS)
            assert index.n_images == len(present)
            assert [c.image_id for c in found] == [r[0] for r in expected]
            assert_allclose([c.score for c in found], [r[1] for r in expected], atol=1e-4)


def test_removed_features_are_given_back(codebook: Codebook, coarse: CoarseIndex) -> None:
    index = InvertedIndex(CodeLayout.of(codebook))
    codes = [make_codes(make_features(i), codebook, coarse) for i in range(4)]
    for i in range(6000):  # a rolling window of 50 images
        fill(index, {i: codes[i % 4]})
        index.apply(removed=[i - 50])
    assert index.n_images == 50
    assert index.n_features < 2 * 50 * 20
    assert len(index.snapshot.image_ids) < 3000
    assert len(index.snapshot.segments) < 10


def test_memory_is_code_size_plus_two_bytes_a_feature(codebook: Codebook) -> None:
    rng = np.random.default_rng(4)
    index, n = InvertedIndex(CodeLayout.of(codebook)), 50_000
    for start in range(0, n, 10_000):
        index.apply(
            CodeBatch(
                np.arange(start, start + 10_000, 100),
                np.full(100, 100),
                rng.integers(0, K, 10_000).astype(np.uint16),
                rng.integers(0, 256, (10_000, M)).astype(np.uint8),
                np.zeros((100, G), np.int8),
                np.zeros(100, np.uint32),
            )
        )
    assert index.n_features == n
    assert index.nbytes < (M + 2) * n + 100 * 500 + 4 * (K + 1) * len(index.snapshot.segments)


def test_ties_go_to_the_lower_id(codebook: Codebook, coarse: CoarseIndex) -> None:
    features = make_features(1)
    codes = make_codes(features, codebook, coarse)
    index = InvertedIndex(CodeLayout.of(codebook))
    fill(index, {9: codes, 4: codes})
    fill(index, {6: codes})
    found = index.search(features, codebook, coarse, SearchOptions(top=2, k_neighbours=1))
    assert [c.image_id for c in found] == [4, 6]


def test_empty_is_ordinary(index: InvertedIndex, codebook: Codebook, coarse: CoarseIndex) -> None:
    assert InvertedIndex(index.layout).search(make_features(0), codebook, coarse) == []
    black = Features.empty(D, G, (640, 480))
    assert index.search(black, codebook, coarse) == []
    only_global = replace(black, global_descriptor=make_features(5, n=10).global_descriptor, image_size=(1, 1))
    found = index.search(only_global, codebook, coarse)
    assert found[0].image_id == 5 * 7 + 3
    assert found[0].votes == 0
    fresh = InvertedIndex(index.layout)
    fill(fresh, {1: encode(black, np.zeros(0, int), codebook)})
    assert fresh.search(make_features(0), codebook, coarse) == []


def test_wrong_shapes_and_options_are_refused(
    index: InvertedIndex, codebook: Codebook, coarse: CoarseIndex, images: dict[int, Codes]
) -> None:
    with pytest.raises(OptionError, match="dimension 12"):
        index.search(make_features(0, dim=D + 1), codebook, coarse)
    codes = images[3]
    with pytest.raises(OptionError, match="twice"):
        index.apply(CodeBatch.of([(1, codes), (1, codes)], index.layout))
    with pytest.raises(OptionError, match="do not fit"):
        index.apply(CodeBatch.of([], CodeLayout(M + 1, G, K)))
    bad = Codes(codes.keypoints, np.full(len(codes), K, np.uint16), codes.codes, codes.global_code, (1, 1))
    with pytest.raises(OptionError, match="out of range"):
        fill(index, {1: bad})
    wrongs = ({"n_probe": 0}, {"min_similarity": 1.0}, {"power": -1}, {"top": 0}, {"scoring": "x"}, {"alpha": 0.5})
    for wrong in wrongs:
        with pytest.raises(OptionError):
            SearchOptions(**wrong)


def test_searching_while_images_come_and_go(images: dict[int, Codes], codebook: Codebook, coarse: CoarseIndex) -> None:
    """Image 1 always has one of two contents, whole: any other score would be half an image."""
    index = InvertedIndex(CodeLayout.of(codebook))
    fill(index, images)
    query = make_features(1)
    versions = [make_codes(noisy(query, a, 1), codebook, coarse) for a in (0.05, 0.2)]
    allowed = set()
    for codes in versions:
        fill(index, {1: codes})
        allowed.add(round(index.search(query, codebook, coarse, OPTIONS)[0].votes, 6))
    assert len(allowed) == 2
    seen: set[float] = set()
    wrong: list[object] = []
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            first = index.search(query, codebook, coarse, OPTIONS)[0]
            seen.add(round(first.votes, 6))
            if first.image_id != 1:
                wrong.append(first)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for i in range(600):
        fill(index, {1: versions[i % 2], 5000 + i: images[3]})
        index.apply(removed=[5000 + i])
    stop.set()
    for reader in readers:
        reader.join()
    assert not wrong
    assert seen <= allowed


def test_refresh_follows_the_store(
    tmp_path: Path, images: dict[int, Codes], codebook: Codebook, coarse: CoarseIndex
) -> None:
    layout, path = CodeLayout.of(codebook), tmp_path / "places.db"
    with Store.open(path, bundle_id="b", layout=layout) as writer, Store.open(path, mode="ro") as reader:
        pool = list(images.values())
        writer.add_many(NewImage(f"{i}.jpg", "place", bytes([i]), pool[i]) for i in range(20))
        index = InvertedIndex.from_store(reader)
        assert index.n_images == 20
        assert not index.refresh(reader)
        writer.remove("3.jpg")
        writer.add(NewImage("5.jpg", "place", bytes([5]), pool[30]))
        writer.add(NewImage("new.jpg", "other", b"new", pool[31]))
        assert index.refresh(reader)
        query = make_features(77)
        fresh = InvertedIndex.from_store(reader).search(query, codebook, coarse, OPTIONS)
        found = index.search(query, codebook, coarse, OPTIONS)
        assert [c.image_id for c in found] == [c.image_id for c in fresh]
        assert_allclose([c.score for c in found], [c.score for c in fresh], atol=1e-9)
        assert index.n_images == len(writer) == 20


@pytest.mark.parametrize(
    ("n_features", "probes"), [(0, 32), (14_700, 32), (310_000, 31), (1_000_000, 9), (3_000_000, 8)]
)
def test_small_databases_look_at_more_words(n_features: int, probes: int) -> None:
    assert SearchOptions().probes(n_features, 8192) == probes
    assert SearchOptions(n_probe=5).probes(n_features, 8192) == 5
