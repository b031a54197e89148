"""How far a TFLite network is from PyTorch: descriptors, selected keypoints, speed; on any runtime of `device`."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from delf_edge.converters.export.runtimes import Here, Runtime
from delf_edge.converters.export.tflite import LocalModule
from delf_edge.converters.networks.delf import DelfNetwork, gem
from delf_edge.types import Float32Array

HERE = Here()


@dataclass(frozen=True, slots=True)
class Parity:
    """How far a TFLite variant is from PyTorch, over a set of photos.

    Attributes:
        variant: name of the variant.
        bytes: size of the model.
        cosine_mean: mean cosine between the descriptors of the same cell.
        cosine_worst5: 5th percentile of that cosine: 5 % of the cells are worse.
        keypoint_agreement: share of the top cells (by score, a quarter of all, at most 300) that both select.
        milliseconds: median of one run at 480x640 (tail: of that photo's map) on one thread.
    """

    variant: str
    bytes: int
    cosine_mean: float
    cosine_worst5: float
    keypoint_agreement: float
    milliseconds: float

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def local_parity(
    network: DelfNetwork,
    variant: str,
    model: bytes,
    inputs: Sequence[Float32Array],
    *,
    selection: str = "attention",
    runtime: Runtime = HERE,
) -> Parity:
    """Compare a local TFLite variant with PyTorch on normalised photos, float32 (1, H, W, 3)."""
    cosines, agreement = [], []
    module = LocalModule(network).eval()
    for x, got in zip(inputs, runtime.outputs(model, inputs), strict=True):
        with torch.inference_mode():
            want = {k: v.numpy() for k, v in module(torch.from_numpy(np.array(x))).items()}
        c = want["features"].shape[-1]
        cosines.append(_cosines(want["features"].reshape(-1, c), got["features"].reshape(-1, c)))
        agreement.append(
            _agreement(
                _scores(want["features"], want["attention"], selection),
                _scores(got["features"], got["attention"], selection),
            )
        )
    return _parity(variant, model, cosines, agreement, (1, 480, 640, 3), runtime)


def tail_parity(
    network: DelfNetwork, variant: str, model: bytes, maps: Sequence[Float32Array], *, runtime: Runtime = HERE
) -> Parity:
    """Compare a tail variant with PyTorch on stride-16 maps (1, h, w, C): cosine of the GeM-pooled vectors."""
    cosines = []
    for x, got in zip(maps, runtime.outputs(model, maps), strict=True):
        with torch.inference_mode():
            want = gem(network.tail(torch.from_numpy(np.array(x)).permute(0, 3, 1, 2))).numpy()
            pooled = gem(torch.from_numpy(np.array(got["global_map"])).permute(0, 3, 1, 2)).numpy()
        cosines.append(_cosines(want, pooled))
    return _parity(variant, model, cosines, [1.0], (1, 30, 40, network.channels), runtime)


def _parity(
    variant: str,
    model: bytes,
    cosines: Sequence[Float32Array],
    agreement: Sequence[float],
    shape: Sequence[int],
    runtime: Runtime,
) -> Parity:
    every = np.concatenate(cosines)
    return Parity(
        variant=variant,
        bytes=len(model),
        cosine_mean=float(every.mean()),
        cosine_worst5=float(np.percentile(every, 5)),
        keypoint_agreement=statistics.fmean(agreement),
        milliseconds=runtime.milliseconds(model, shape),
    )


def _cosines(a: Float32Array, b: Float32Array) -> Float32Array:
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return np.asarray(np.einsum("nc,nc->n", a, b) / np.maximum(norms, 1e-12), np.float32)


def _scores(features: Float32Array, attention: Float32Array, selection: str) -> Float32Array:
    return np.linalg.norm(features, axis=-1).ravel() if selection == "l2norm" else attention.ravel()


def _agreement(a: Float32Array, b: Float32Array) -> float:
    n = max(1, min(300, len(a) // 4))
    return len(np.intersect1d(np.argsort(-a, kind="stable")[:n], np.argsort(-b, kind="stable")[:n])) / n
