"""What the fits are fed with: raw features of many photos, extracted as a device extracts them, kept on disk.

The features come from `delf_edge`'s own extractor running the exported TFLite network with an identity projection,
so a codebook is fitted on what the device will see. They are stored in chunks, so that an interrupted run continues
where it stopped, and a fit can read more than fits in RAM.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from delf_edge.converters.export.recipes import provisional_bundle
from delf_edge.converters.training.photos import Photo
from delf_edge.errors import ImageError
from delf_edge.features.extractor import Extractor
from delf_edge.images.decode import load_image
from delf_edge.types import Float32Array

CHUNK = 64  # photos a file


@dataclass(frozen=True, slots=True)
class Collection:
    """Raw features on disk."""

    folder: Path
    chunks: tuple[Path, ...]

    def local(self) -> Iterator[Float32Array]:
        """Chunks of raw local descriptors, float32 (n, C); call again to start over."""
        for path in self.chunks:
            with np.load(path, allow_pickle=False) as stored:
                descriptors = stored["descriptors"].astype(np.float32)
            if len(descriptors):
                yield descriptors

    def pooled(self) -> Float32Array:
        """Pooled global vectors, float32 (images, Cg)."""
        parts = []
        for path in self.chunks:
            with np.load(path, allow_pickle=False) as stored:
                parts.append(stored["pooled"].astype(np.float32))
        return np.concatenate(parts)


def collect(
    photos: Sequence[Photo],
    local: bytes,
    tail: bytes | None,
    head: Mapping[str, Any],
    folder: Path,
    *,
    workers: int = 1,
    report: Callable[[int, int], None] = lambda done, total: None,
    say: Callable[[str], None] = lambda line: None,
) -> Collection:
    """Extract the raw features of `photos` into `folder`, or take them from there where they already are.

    Args:
        photos: what to read; a photo that cannot be decoded is left out.
        local: the local TFLite network.
        tail: the tail, or None.
        head: the bundle's manifest without its files; features are those of its default preset.
        folder: where chunks are kept. Its name must not be shared by different networks; see `key`.
        workers: threads.
        report: called with (photos done, photos in all).
        say: called with a line for each photo that cannot be read.
    """
    folder.mkdir(parents=True, exist_ok=True)
    extractor = Extractor(provisional_bundle(folder / "bundle", local, tail, head), num_threads=1)

    def one(photo: Photo) -> tuple[Float32Array, Float32Array] | None:
        try:
            features = extractor.extract(load_image(photo.path))
        except (ImageError, OSError) as e:
            say(f"passed over: {e}")
            return None
        if not len(features):  # a photo that shows nothing has no global descriptor either
            return None
        return features.descriptors, features.global_descriptor

    chunks: list[Path] = []
    with ThreadPoolExecutor(workers) as pool:
        for start in range(0, len(photos), CHUNK):
            path = folder / f"chunk-{start // CHUNK:05d}.npz"
            if not path.exists():
                rows = [r for r in pool.map(one, photos[start : start + CHUNK]) if r is not None]
                if not rows:
                    continue
                partial = path.with_suffix(".partial")
                with partial.open("wb") as f:
                    np.savez(
                        f,
                        descriptors=np.concatenate([r[0] for r in rows]).astype(np.float16),
                        pooled=np.stack([r[1] for r in rows]).astype(np.float32),
                    )
                partial.replace(path)
            chunks.append(path)
            report(min(start + CHUNK, len(photos)), len(photos))
    if not chunks:
        raise ValueError(
            f"none of {len(photos)} photos could be read; the first is {photos[0].path if photos else '-'}"
        )
    return Collection(folder, tuple(chunks))


def key(photos: Sequence[Photo], local: bytes, tail: bytes | None, head: Mapping[str, Any]) -> str:
    """Short name that changes with anything the raw features depend on."""
    digest = hashlib.sha256(local)
    digest.update(tail or b"")
    relevant = {name: head[name] for name in ("network", "selection", "global")}
    settings = {
        "head": relevant,
        "preset": head["presets"][head["default_preset"]],
        "photos": [str(p.path) for p in photos],
    }
    digest.update(json.dumps(settings, sort_keys=True, default=list).encode())
    return digest.hexdigest()[:16]
