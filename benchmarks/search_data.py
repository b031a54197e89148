"""Data of the search benchmark: real features of every photo at hand, and perturbed copies of them up to any number.

Real: every photo of a data folder (`train.csv`, `train_small.csv`, DEV's database and queries), through the bundle's
own network at its default preset, kept in the feature cache as raw unit features, so that any codebook can be tried.

Enlarging (`Enlarged`): an image of exactly n features is made of a real photo, drawn with replacement from those with
at least 20 features; the first images are the real photos themselves. Each feature of it is a feature of that photo,
drawn with replacement and turned by a random direction: d' = unit(d + a * g / |g|), g Gaussian in the D dimensions, a
drawn per image from 0.3 to 0.9 (cosine to the original 0.96 to 0.74: from the same spot in another photo to another
spot of the same kind). Keypoints move with a random affine map, global descriptors are turned the same way. So words
keep the skewed frequencies of real photos, which the length of inverted lists, and with it the speed, depends on.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from benchmarks.cache import Arrays, FeatureCache, photo_hash
from benchmarks.datasets import read_json
from benchmarks.runner import Progress, silent
from delf_edge.bundle import Bundle
from delf_edge.features import Extractor, extract_options, l2_normalise, project
from delf_edge.images import load_image
from delf_edge.types import Codebook, Features, Float32Array

LEAST_FEATURES = 20
SPREAD = (0.3, 0.9)


def all_photos(data: Path) -> list[Path]:
    """Every photo of a data folder: DEV's database first, then its queries, then all training photos."""
    dev = read_json(data / "dev.json")
    names = [*dev.database, *(q.name for q in dev.queries)]
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
    return replace(features, descriptors=project(codebook, features.descriptors))


@dataclass(frozen=True, slots=True, eq=False)
class Enlarged:
    """Images made of real ones (see the module).

    Attributes:
        real: features of real photos, projected.
        n_features: features of every made image.
        seed: image i depends on nothing but this, i, and the real photos.
    """

    real: Sequence[Features]
    n_features: int = 300
    seed: int = 1

    def images(self, first: int, last: int) -> Iterator[Features]:
        """Images first .. last - 1; below the number of real photos these are the photos themselves, filled up."""
        usable = [i for i, f in enumerate(self.real) if len(f) >= LEAST_FEATURES]
        for i in range(first, last):
            rng = np.random.default_rng([self.seed, i])
            source = self.real[i if i < len(self.real) else usable[int(rng.integers(len(usable)))]]
            yield self._copy(source, rng, exact=i < len(self.real))

    def _copy(self, source: Features, rng: np.random.Generator, *, exact: bool) -> Features:
        N, n = len(source), self.n_features
        if exact and N in (0, n):
            return source
        amount = 0.0 if exact else float(rng.uniform(*SPREAD))
        pick = np.concatenate([np.arange(N)[:n], rng.integers(0, N, max(0, n - N))]) if exact else rng.integers(0, N, n)
        turn = np.full(n, amount, np.float32)
        turn[N if exact else n :] = SPREAD[0]  # what fills up a real photo is no exact double
        width, height = source.image_size
        affine = np.eye(2) + rng.normal(0, 0.1, (2, 2)) * (0 if exact else 1)
        points = source.keypoints[pick] @ affine.astype(np.float32).T
        return Features(
            keypoints=np.clip(points, 0, [width - 1, height - 1]).astype(np.float32),
            scales=source.scales[pick],
            scores=source.scores[pick],
            descriptors=turned(source.descriptors[pick], turn, rng),
            global_descriptor=turned(source.global_descriptor[None], np.array([amount], np.float32), rng)[0],
            image_size=source.image_size,
        )


def turned(rows: Float32Array, amount: Float32Array, rng: np.random.Generator) -> Float32Array:
    """unit(row + amount * a random direction), float32 (N, D)."""
    return l2_normalise(rows + amount[:, None] * l2_normalise(rng.standard_normal(rows.shape, np.float32)))


def main() -> int:
    """Extract everything: `python -m benchmarks.search_data DATA`."""
    import sys

    from benchmarks.runner import to_stderr
    from delf_edge.bundle import default_bundle_path

    data = Path(sys.argv[1] if len(sys.argv) > 1 else "../shared/data")
    raw_features(Bundle.load(default_bundle_path()), all_photos(data), FeatureCache(Path("out/features")), to_stderr)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
