"""Features made from stored codes: what an image of the database would ask for."""

from __future__ import annotations

import numpy as np

from delf_edge.quantization.product_quantizer import decode, decode_global
from delf_edge.types import Codebook, Codes, Features


def restored_features(codes: Codes, codebook: Codebook) -> Features:
    """Stored codes as the features of a query.

    Args:
        codes: of one image.
        codebook: that they were made with.

    Returns:
        N features: descriptors float32 (N, D) as the codes give them back, all scales and scores 1.
    """
    ones = np.ones(len(codes), np.float32)
    return Features(
        keypoints=codes.keypoints,
        scales=ones,
        scores=ones,
        descriptors=decode(codes, codebook),
        global_descriptor=decode_global(codes.global_code[None])[0],
        image_size=codes.image_size,
    )
