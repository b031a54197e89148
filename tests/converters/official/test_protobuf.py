"""Official DELF files: round trips under hypothesis, damage, and the release's own files where they are there."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from delf_edge.converters.official.feature_files import convert_file
from delf_edge.converters.official.protobuf import (
    OfficialFormatError,
    parse_datum,
    parse_features,
    read_datum,
    read_features,
    serialise_datum,
    serialise_features,
    write_datum,
    write_features,
)
from delf_edge.types import Features
from testing.paths import SHARED

RELEASE = SHARED / "official_delf"
needs_release = pytest.mark.skipif(not RELEASE.is_dir(), reason="the official files (../shared) are not here")
FLOATS = st.floats(width=32, allow_nan=False)


@settings(max_examples=60, deadline=None)
@given(hnp.arrays(np.float32, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=10), elements=FLOATS))
def test_datum_round_trip(array: np.ndarray) -> None:
    back = parse_datum(serialise_datum(array))
    assert back.shape == array.shape
    np.testing.assert_array_equal(back, array)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 20), st.integers(0, 50), st.integers(0, 99))
def test_features_round_trip(n: int, dim: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    features = Features(
        keypoints=rng.uniform(0, 5000, (n, 2)).astype(np.float32),
        scales=rng.uniform(0.25, 2, n).astype(np.float32),
        scores=rng.uniform(0, 500, n).astype(np.float32),
        descriptors=rng.normal(size=(n, dim)).astype(np.float32),
        global_descriptor=np.zeros(0, np.float32),
        image_size=(0, 0),
    )
    back = parse_features(serialise_features(features))
    np.testing.assert_allclose(back.scales, features.scales, rtol=1e-6)
    for name in ("keypoints", "scores", "descriptors"):
        np.testing.assert_array_equal(getattr(back, name), getattr(features, name), err_msg=name)


def test_bytes_written_by_hand_are_read() -> None:
    # shape { dim: [2, 300] packed } needs a two-byte varint; values 0, 1, 2, ...
    values = np.arange(600, dtype="<f4")
    data = b"\x0a\x05\x0a\x03\x02\xac\x02" + b"\x12\xe3\x12\x0a\xe0\x12" + values.tobytes()
    np.testing.assert_array_equal(parse_datum(data), values.reshape(2, 300))
    # the same unpacked: each number with its own tag
    unpacked = b"\x0a\x04\x08\x01\x08\x02" + b"\x12\x0a" + b"\x0d\x00\x00\x80\x3f" + b"\x0d\x00\x00\x00\x40"
    np.testing.assert_array_equal(parse_datum(unpacked), [[1.0, 2.0]])


def test_x_and_y_are_not_swapped() -> None:
    feature = b"\x15\x00\x00\x80\x3f" + b"\x1d\x00\x00\x00\x40"  # field 2, x: 1.0; field 3, y: 2.0
    np.testing.assert_array_equal(parse_features(b"\x0a\x0a" + feature).keypoints, [[1.0, 2.0]])


def test_no_features_is_an_empty_file() -> None:
    assert len(parse_features(b"")) == 0
    assert serialise_features(Features.empty(40)) == b""


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    for parse in (parse_datum, parse_features):
        with suppress(OfficialFormatError):  # anything else, IndexError or MemoryError, fails the test
            parse(data)


def test_a_file_cut_off_anywhere_is_refused_by_name(tmp_path: Path) -> None:
    data = serialise_datum(np.arange(40, dtype=np.float32).reshape(1, 40))
    path = tmp_path / "mean.datum"
    for size in range(1, len(data)):
        path.write_bytes(data[:size])
        with pytest.raises(OfficialFormatError, match=r"mean\.datum: "):
            read_datum(path)


@needs_release
def test_the_release_s_pca_files() -> None:
    for name in ("mean.datum", "pca_variances.datum"):
        array = read_datum(RELEASE / name)
        assert array.shape == (1, 1024)
        assert serialise_datum(array) == (RELEASE / name).read_bytes()
    assert (np.diff(read_datum(RELEASE / "pca_variances.datum")[0]) <= 0).all()


@needs_release
def test_the_release_s_features_are_read_and_written() -> None:
    files = sorted((RELEASE / "golden_delf").glob("*.delf"))
    assert len(files) == 27
    for path in files:
        assert serialise_features(parse_features(path.read_bytes())) == path.read_bytes(), path.name
        features = read_features(path)
        assert features.descriptors.shape == (len(features), 40)
        np.testing.assert_allclose(np.linalg.norm(features.descriptors, axis=1), 1, atol=1e-4)
        assert (np.diff(features.scores) <= 0).all()
        # Of seven scales from 0.25 to 2, and keypoints on the grid of stride 32 of their level.
        octaves = 2 * np.log2(np.unique(features.scales).astype(np.float64))
        np.testing.assert_allclose(octaves, np.rint(octaves), atol=3e-3)
        assert octaves[0] > -4.1
        assert octaves[-1] < 2.1
        cells = features.keypoints * features.scales[:, None] / 32
        np.testing.assert_allclose(cells, np.rint(cells), atol=2e-2)


def test_files_travel_both_ways(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    features = Features(
        keypoints=rng.uniform(0, 640, (5, 2)).astype(np.float32),
        scales=np.array([0.25, 0.5, 1, 1, 2], np.float32),
        scores=rng.uniform(0, 500, 5).astype(np.float32),
        descriptors=rng.normal(size=(5, 40)).astype(np.float32),
        global_descriptor=np.zeros(0, np.float32),
        image_size=(0, 0),
    )
    write_features(features, tmp_path / "a.delf")
    write_datum(np.arange(6, dtype=np.float32).reshape(2, 3), tmp_path / "a.datum")
    assert convert_file(tmp_path / "a.delf", tmp_path / "a.npz")["features"] == 5
    convert_file(tmp_path / "a.npz", tmp_path / "b.delf")
    assert convert_file(tmp_path / "a.datum", tmp_path / "a.npy")["shape"] == [2, 3]
    convert_file(tmp_path / "a.npy", tmp_path / "b.datum")
    for name in ("delf", "datum"):
        assert (tmp_path / f"b.{name}").read_bytes() == (tmp_path / f"a.{name}").read_bytes()
    np.savez(tmp_path / "c.npz", keypoints=features.keypoints)
    with pytest.raises(OfficialFormatError, match=r"has no descriptors, scales, scores; expected keypoints"):
        convert_file(tmp_path / "c.npz", tmp_path / "c.delf")
