"""A bundle with coded photos of strangers: what is read, what is refused, and what they do to an answer."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from delf_edge.bundle.bundle import Bundle
from delf_edge.bundle.cohort import Cohort
from delf_edge.bundle.manifest import MANIFEST
from delf_edge.codebooks.bundle_writer import npz, write_folder
from delf_edge.errors import BundleError, BundleIntegrityError
from testing.paths import TINY_BUNDLE


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return Bundle.load(TINY_BUNDLE)


def made(bundle: Bundle, n: int = 3, each: int = 5, seed: int = 1) -> dict[str, NDArray[Any]]:
    rng, book = np.random.default_rng(seed), bundle.codebook
    return {
        "counts": np.full(n, each, np.uint16),
        "words": rng.integers(0, book.n_words, n * each).astype(np.uint16),
        "codes": rng.integers(0, 256, (n * each, book.code_size)).astype(np.uint8),
        "global_codes": rng.integers(-127, 128, (n, book.global_dim)).astype(np.int8),
    }


def with_cohort(folder: Path, arrays: dict[str, NDArray[Any]]) -> Path:
    shutil.copytree(TINY_BUNDLE, folder)
    head = json.loads((folder / MANIFEST).read_text())
    files = {name: (folder / name).read_bytes() for name in head.pop("files")} | {"cohort.npz": npz(arrays)}
    head.pop("id", None)
    write_folder(folder, files, {**head, "cohort": "cohort.npz"})
    return folder


def test_what_was_written_is_read(bundle: Bundle, tmp_path: Path) -> None:
    arrays = made(bundle)
    loaded = Bundle.load(with_cohort(tmp_path / "b", arrays))
    assert loaded.cohort is not None
    assert len(loaded.cohort) == 3
    for name, array in loaded.cohort.arrays().items():
        np.testing.assert_array_equal(array, arrays[name])
    assert loaded.id != bundle.id
    assert Bundle.verify(tmp_path / "b").cohort == "cohort.npz"


def test_a_bundle_without_one_has_none(bundle: Bundle) -> None:
    assert bundle.cohort is None
    assert bundle.manifest.cohort is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.pop("words"), "words is missing"),
        (lambda a: a.update(words=a["words"][:-1]), "words is uint16"),
        (lambda a: a.update(words=a["words"].astype(np.int32)), "words is int32"),
        (lambda a: a.update(words=np.full(15, 65535, np.uint16)), "word 65535"),
        (lambda a: a.update(codes=a["codes"][:, :-1]), "codes is uint8"),
        (lambda a: a.update(counts=a["counts"].astype(np.int64)), "counts is int64"),
        (lambda a: a.update(global_codes=a["global_codes"][:2]), "global_codes is int8"),
    ],
)
def test_arrays_that_do_not_fit_are_refused_by_name(
    bundle: Bundle, tmp_path: Path, change: Callable[[dict[str, NDArray[Any]]], object], message: str
) -> None:
    arrays = made(bundle)
    change(arrays)
    with pytest.raises(BundleError, match=message):
        Bundle.load(with_cohort(tmp_path / "b", arrays))


def test_a_flipped_bit_is_found(bundle: Bundle, tmp_path: Path) -> None:
    folder = with_cohort(tmp_path / "b", made(bundle))
    data = bytearray((folder / "cohort.npz").read_bytes())
    data[len(data) // 2] ^= 1
    (folder / "cohort.npz").write_bytes(bytes(data))
    with pytest.raises(BundleIntegrityError, match=r"cohort\.npz"):
        Bundle.load(folder)


def test_an_empty_cohort_is_a_cohort(bundle: Bundle) -> None:
    assert len(Cohort.from_arrays(made(bundle, n=0), bundle.codebook)) == 0
    assert replace(bundle, cohort=Cohort.from_arrays(made(bundle, n=0), bundle.codebook)).cohort is not None
