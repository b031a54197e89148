"""Data of the search benchmark: real features of every photo at hand, and perturbed copies of them up to any number.

Real: every photo of a data folder (DEV's database, `train.csv`, `train_small.csv`), through the bundle's own network at
its default preset, kept in the feature cache as raw unit features, so that any codebook can be tried on them.

Enlarging (`Copies`): an image of n features is made of a real one with at least 20, drawn at random. Each feature is a
feature of that image, drawn with replacement; with probability a it gets one of the 8 words nearest to its word, and
each byte of its code with probability a one of the 8 codewords nearest to the one it names; a is drawn per image from
0.2 to 0.8. The global code gets noise in the same way, keypoints move with a random affine map. A copy's descriptor is
what its code decodes to. So words keep the skewed frequencies of real photos, which the lengths of the inverted lists,
and with them the speed, depend on; and no copy is so near to its original that it would be found in its place.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.data.datasets import read_json
from benchmarks.data.feature_cache import Arrays, FeatureCache, photo_hash
from benchmarks.lab.runner import Progress, silent
from delf_edge.bundle.bundle import Bundle
from delf_edge.features.extractor import Extractor, extract_options, project_descriptors
from delf_edge.images.decode import load_image
from delf_edge.types import Codebook, Codes, Features, Float32Array

LEAST_FEATURES = 20
CHANGED = (0.2, 0.8)
NEAR = 8


def all_photos(data: Path) -> list[Path]:
    """Every photo of a data folder but DEV's queries: DEV's database first, then all training photos."""
    dev = read_json(data / "dev.json")
    names = list(dev.database)
    for table in ("train.csv", "train_small.csv"):
        with (data / table).open(newline="", encoding="utf-8") as f:
            names += [row["path"] for row in csv.DictReader(f)]
    return [data / name for name in dict.fromkeys(names)]


def raw_codebook(codebook: Codebook) -> Codebook:
    """A codebook that leaves local features as they are, but for their length; the global part stays."""
    channels = codebook.pca_basis.shape[1]
    return replace(codebook, pca_mean=np.zeros(channels, np.float32), pca_basis=np.eye(channels, dtype=np.float32))


def raw_features(
    bundle: Bundle, photos: Sequence[Path], cache: FeatureCache, progress: Progress = silent
) -> list[Features]:
    """Features of photos at the bundle's default preset, descriptors float32 (N, C): unit, before PCA.

    Args:
        bundle: its network and its global part are used.
        photos: files.
        cache: where features are kept.
        progress: told how far it is.
    """
    extractor = Extractor(replace(bundle, codebook=raw_codebook(bundle.codebook)), num_threads=1)
    options = extract_options(bundle)
    key = f"raw 1 {bundle.id} {bundle.variant} {options}"

    def extract(path: Path) -> Arrays:
        f = extractor.extract(load_image(path), options)
        return {
            "keypoints": f.keypoints,
            "scales": f.scales,
            "scores": f.scores,
            "descriptors": f.descriptors.astype(np.float16),
            "global_descriptor": f.global_descriptor,
            "image_size": np.array(f.image_size),
        }

    found = []
    for i, path in enumerate(photos):
        a = cache.get(key, photo_hash(path), lambda p=path: extract(p))  # type: ignore[misc]
        width, height = a["image_size"].tolist()
        fields = (a["keypoints"], a["scales"], a["scores"], a["descriptors"].astype(np.float32), a["global_descriptor"])
        found.append(Features(*fields, (width, height)))
        progress("extract", i + 1, len(photos))
    return found


def projected(features: Features, codebook: Codebook) -> Features:
    """Raw features as a codebook wants them."""
    return replace(features, descriptors=project_descriptors(codebook, features.descriptors))


class Copies:
    """Perturbed copies of stored images (see the module); copy i depends on nothing but the seed, i and the originals.

    Args:
        real: codes of real photos.
        codebook: they were made with.
        n_features: features of every copy.
        seed: of everything random.
    """

    def __init__(self, real: Sequence[Codes], codebook: Codebook, n_features: int = 300, seed: int = 1) -> None:
        self._real = [c for c in real if len(c) >= LEAST_FEATURES]
        self._n, self._seed = n_features, seed
        self._words = _nearest_rows(codebook.centroids)
        self._codewords = np.stack([_nearest_rows(part) for part in codebook.pq])  # (M, 256, NEAR)

    def make(self, i: int) -> Codes:
        """Copy i."""
        rng, n = np.random.default_rng([self._seed, i]), self._n
        source = self._real[int(rng.integers(len(self._real)))]
        amount = rng.uniform(*CHANGED)
        pick = rng.integers(0, len(source), n)
        words, codes = source.words[pick].astype(np.int64), source.codes[pick]
        moved = rng.random(n) < amount
        words[moved] = self._words[words[moved], rng.integers(0, NEAR, int(moved.sum()))]
        M = codes.shape[1]
        other = self._codewords[np.arange(M), codes, rng.integers(0, NEAR, codes.shape)]
        codes = np.where(rng.random(codes.shape) < amount, other, codes).astype(np.uint8)
        width, height = source.image_size
        affine = np.eye(2) + rng.normal(0, 0.1, (2, 2))
        points = np.clip(source.keypoints[pick] @ affine, 0, [width - 1, height - 1]).astype(np.float32)
        noise = rng.normal(0, amount * 40, source.global_code.shape)
        pooled = np.clip(np.rint(source.global_code + noise), -127, 127).astype(np.int8)
        return Codes(points, words.astype(np.uint16), codes, pooled, source.image_size)


def _nearest_rows(rows: Float32Array) -> NDArray[np.int64]:
    """int64 (K, NEAR): the rows nearest to each row, itself left out."""
    out = np.empty((len(rows), NEAR), np.int64)
    half = 0.5 * np.einsum("kd,kd->k", rows, rows)
    for i in range(0, len(rows), 256):
        closeness = rows[i : i + 256] @ rows.T - half
        closeness[np.arange(len(closeness)), np.arange(i, i + len(closeness))] = -np.inf
        out[i : i + 256] = np.argpartition(-closeness, NEAR, axis=1)[:, :NEAR]
    return out
