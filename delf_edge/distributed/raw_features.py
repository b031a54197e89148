"""Raw features of a shard of photos: what a codebook is fitted on (`partitioned_fit.py`).

The file is an npz: `descriptors` float16 (N, C), unit length, photo by photo, and `pooled` float32 (images, Cg), the
vectors that the global descriptor is projected from. Photos that show nothing are not in it; where all do, no array is.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
from numpy.typing import NDArray

from delf_edge.bundle.bundle import Bundle
from delf_edge.codebooks.bundle_writer import identity_codebook, npz
from delf_edge.errors import BundleMismatchError
from delf_edge.features.extractor import Extractor, extract_options
from delf_edge.images.decode import load_image
from delf_edge.images.limits import ImageLimits
from delf_edge.types import Features, Float32Array


def load_bundle(folder: str, bundle_id: str) -> Bundle:
    """The bundle at a path, if it is the one that the build uses.

    Raises:
        BundleMismatchError: another one lies there.
    """
    bundle = Bundle.load(folder)
    if bundle.id != bundle_id:
        raise BundleMismatchError(
            f"{folder}: bundle {bundle.id} on this worker, the build uses {bundle_id}; install that one"
        )
    return bundle


@lru_cache(maxsize=1)
def raw_describer(folder: str, bundle_id: str, preset: str, limits: ImageLimits) -> Callable[[bytes], Features]:
    """Encoded photo -> features as the networks give them, of unit length; loaded once in every worker."""
    bundle = load_bundle(folder, bundle_id)
    tail = bundle.manifest.network if bundle.manifest.tail is None else bundle.manifest.tail
    identity = identity_codebook(bundle.manifest.network.channels, tail.channels)
    extractor = Extractor(replace(bundle, codebook=identity), num_threads=1)
    options = extract_options(bundle, preset)
    return lambda data: extractor.extract(load_image(data, limits=limits), options)


def write_features(path: Path, photos: Iterable[Features]) -> tuple[int, int]:
    """Write the file; returns the numbers of images and features."""
    descriptors, pooled = [], []
    for features in photos:
        if len(features):
            descriptors.append(features.descriptors.astype(np.float16))
            pooled.append(features.global_descriptor)
    arrays: dict[str, NDArray[Any]] = {}
    if pooled:
        arrays = {"descriptors": np.concatenate(descriptors), "pooled": np.stack(pooled)}
    path.write_bytes(npz(arrays))
    return len(pooled), sum(map(len, descriptors))


def read_features(url: str) -> tuple[Float32Array, Float32Array] | None:
    """Descriptors (N, C) and pooled vectors (images, Cg) of a file, float32; None where it has no photo."""
    with fsspec.open(url, "rb") as file:
        data = io.BytesIO(file.read())
    with np.load(data, allow_pickle=False) as arrays:
        if not arrays.files:
            return None
        return arrays["descriptors"].astype(np.float32), arrays["pooled"].astype(np.float32)
