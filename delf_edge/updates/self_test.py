"""Whether a pack answers: some of its images are asked for with their own features, and must come first."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from delf_edge.bundle.bundle import Bundle
from delf_edge.errors import PackError
from delf_edge.packs.manifest import open_pack
from delf_edge.quantization.packed_codes import CodeLayout
from delf_edge.quantization.product_quantizer import decode, decode_global
from delf_edge.query.options import IdentifyOptions
from delf_edge.recognizer import Recognizer
from delf_edge.types import Codebook, Codes, Features

PROBES = 8
_TOP = 5


def self_test(path: Path, bundle: Bundle, probes: int = PROBES) -> int:
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
        chosen = (
            [ids[i] for i in np.unique(np.linspace(0, len(ids) - 1, min(probes, len(ids))).astype(int))] if ids else []
        )
        places = Recognizer(pack, bundle)
        asked = 0
        for image in pack.images_by_id(chosen):
            codes = pack.codes([image.image_id])[image.image_id]
            query = restored(codes, bundle.codebook)
            if len(query) < IdentifyOptions().min_inliers:
                continue  # nothing to prove it by
            asked += 1
            best = places.rank(query, _TOP)
            twins = [m for m in best if m.landmark == image.landmark]
            if not twins or best[0].landmark != image.landmark or twins[0].n_inliers < IdentifyOptions().min_inliers:
                found = best[0].name if best else "nothing"
                raise PackError(f"{path}: failed its self-test: asked for {image.name}, it answered {found}")
    return asked


def restored(codes: Codes, codebook: Codebook) -> Features:
    """Stored features as a query."""
    ones = np.ones(len(codes), np.float32)
    return Features(
        codes.keypoints,
        ones,
        ones,
        decode(codes, codebook),
        decode_global(codes.global_code[None])[0],
        codes.image_size,
    )
