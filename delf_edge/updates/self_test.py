"""Whether a pack answers: some of its images are asked for with their own features, and must come first."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from delf_edge.bundle.bundle import Bundle
from delf_edge.errors import PackError
from delf_edge.packs.manifest import open_pack
from delf_edge.quantization.packed_codes import CodeLayout
from delf_edge.quantization.restored import restored_features
from delf_edge.query.options import IdentifyOptions
from delf_edge.recognizer import Recognizer

PROBES = 8
_TOP = 5


def prove_pack(path: Path, bundle: Bundle, probes: int = PROBES) -> int:
    """Open a pack as a device does and ask for images of it.

    Args:
        path: the pack's file.
        bundle: the device's bundle.
        probes: images asked for, evenly spread over the pack.

    Returns:
        Images that were asked for.

    Raises:
        PackError: one of them is not found.
        BundleMismatchError, StoreError: the pack cannot be opened with this bundle.
    """
    with open_pack(path, bundle_id=bundle.id, layout=CodeLayout.of(bundle.codebook)) as pack:
        ids = list(pack.contents())
        spread = np.unique(np.linspace(0, len(ids) - 1, min(probes, len(ids))).astype(int))
        recognizer = Recognizer(pack, bundle)
        asked = 0
        for image in pack.images_by_id([ids[i] for i in spread]):
            query = restored_features(pack.codes([image.image_id])[image.image_id], bundle.codebook)
            if len(query) < IdentifyOptions().min_inliers:
                continue  # nothing to prove it by
            asked += 1
            best = next(iter(recognizer.rank(query, _TOP)), None)
            if best is None or best.landmark != image.landmark or best.n_inliers < IdentifyOptions().min_inliers:
                found = "nothing" if best is None else best.name
                raise PackError(f"{path}: failed its self-test: asked for {image.name}, it answered {found}")
    return asked
