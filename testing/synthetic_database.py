"""Databases of made-up features for the tests of packs, updates and interchange: no network runs for them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from delf_edge import Bundle, Recognizer
from delf_edge.arrays import l2_normalise
from delf_edge.quantization.coarse_quantizer import CoarseIndex
from delf_edge.quantization.packed_codes import CodeLayout
from delf_edge.quantization.product_quantizer import encode
from delf_edge.storage.records import NewImage
from delf_edge.storage.store import Store
from delf_edge.types import Features

PLACES = 10


def made_up(bundle: Bundle, seed: int, n: int = 40) -> Features:
    """Features that are the same for the same seed."""
    rng = np.random.default_rng(seed)
    return Features(
        keypoints=(rng.random((n, 2)) * [320, 240]).astype(np.float32),
        scales=np.ones(n, np.float32),
        scores=np.ones(n, np.float32),
        descriptors=l2_normalise(rng.normal(size=(n, bundle.codebook.dim))),
        global_descriptor=l2_normalise(rng.normal(size=bundle.codebook.global_dim)),
        image_size=(320, 240),
    )


def features_of(recognizer: Recognizer, seed: int) -> Features:
    """The query that image `SEED.jpg` answers."""
    return made_up(recognizer.bundle, seed)


def add_images(store: Store, bundle: Bundle, seeds: Iterable[int], *, n: int = 40) -> None:
    """Images `SEED.jpg` of place SEED mod 10, in one transaction."""
    coarse = CoarseIndex(bundle.codebook.centroids)
    images = []
    for seed in seeds:
        features = made_up(bundle, seed, n)
        words = coarse.assign(features.descriptors, exact=True)[0][:, 0]
        codes = encode(features, words, bundle.codebook)
        digest = hashlib.sha256(str(seed).encode()).digest()
        images.append(NewImage(f"{seed}.jpg", f"place {seed % PLACES}", digest, codes, {"seed": seed}))
    store.add_many(images)


def make_database(path: Path, bundle: Bundle, *, n_images: int, n: int = 40) -> Path:
    """A database of ten places on a diagonal; the even ones are the collection "south"."""
    with Store.open(path, bundle_id=bundle.id, layout=CodeLayout.of(bundle.codebook)) as store:
        add_images(store, bundle, range(n_images), n=n)
        for i in range(PLACES):
            collection = {"collection": "south"} if i % 2 == 0 else {}
            store.set_landmark(f"place {i}", latitude=i, longitude=i, metadata=collection)
    return path
