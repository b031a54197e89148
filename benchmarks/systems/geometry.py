"""Other geometric models for the ablations: OpenCV's estimators, and matching without the mutual check."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from benchmarks.systems.local import Verifier
from delf_edge.types import BoolArray, Features, Float32Array, Float64Array, Int32Array, Verification
from delf_edge.verification import VerifyOptions, estimate_affine, match, verify

_OPENCV: Any = cv2
NOWHERE = np.full((2, 3), np.nan)


def one_way(query: Float32Array, stored: Float32Array) -> Int32Array:
    """Nearest stored feature of every query feature, as the paper's code has it: int32 (N, 2)."""
    if not len(query) or not len(stored):
        return np.zeros((0, 2), np.int32)
    nearest = (query @ stored.T).argmax(axis=1)
    return np.stack([np.arange(len(query)), nearest], axis=1).astype(np.int32)


def opencv_model(
    model: str, method: str, source: Float32Array, target: Float32Array, tolerance: float, hypotheses: int
) -> tuple[Float64Array, BoolArray]:
    """A map by one of OpenCV's estimators: float64 (2, 3) (of a homography its affine part) and bool (P,) inliers."""
    least = 4 if model == "homography" else 3
    if len(source) < least:
        return NOWHERE, np.zeros(len(source), np.bool_)
    flag = getattr(cv2, method)
    cv2.setRNGSeed(0)
    common = {"method": flag, "ransacReprojThreshold": tolerance, "maxIters": hypotheses, "confidence": 0.9999}
    if model == "homography":
        found, mask = _OPENCV.findHomography(source, target, flag, tolerance, None, hypotheses, 0.9999)
    elif model == "similarity":
        found, mask = _OPENCV.estimateAffinePartial2D(source, target, None, **common)
    else:
        found, mask = _OPENCV.estimateAffine2D(source, target, None, **common)
    if found is None or mask is None:
        return NOWHERE, np.zeros(len(source), np.bool_)
    return np.asarray(found[:2, :3], np.float64), mask.ravel().astype(np.bool_)


def opencv_verifier(model: str, method: str) -> Verifier:
    """A verifier with mutual matches and an OpenCV estimator.

    Args:
        model: "similarity", "affine" or "homography".
        method: name of OpenCV's constant, such as "RANSAC" or "USAC_MAGSAC".
    """

    def check(
        image_id: int,
        query: Features,
        stored: Float32Array,
        keypoints: Float32Array,
        image_size: tuple[int, int],
        options: VerifyOptions,
    ) -> Verification:
        matches = match(query.descriptors, stored, options)
        tolerance = options.tolerance * max(*image_size, 1)
        source, target = query.keypoints[matches[:, 0]], keypoints[matches[:, 1]]
        transform, inliers = opencv_model(model, method, source, target, tolerance, options.hypotheses)
        return Verification(image_id, matches, inliers, transform)

    check.__name__ = f"{model}, {method}"  # what a system's settings say
    return check


def one_way_verifier(
    image_id: int,
    query: Features,
    stored: Float32Array,
    keypoints: Float32Array,
    image_size: tuple[int, int],
    options: VerifyOptions,
) -> Verification:
    """Our affine RANSAC without the mutual check."""
    matches = one_way(query.descriptors, stored)
    tolerance = options.tolerance * max(*image_size, 1)
    transform, inliers = estimate_affine(query.keypoints[matches[:, 0]], keypoints[matches[:, 1]], tolerance, options)
    return Verification(image_id, matches, inliers, transform)


MODELS: dict[str, Verifier] = {
    "affine, ours": verify,
    "affine, no mutual check": one_way_verifier,
    "similarity, RANSAC": opencv_verifier("similarity", "RANSAC"),
    "affine, RANSAC": opencv_verifier("affine", "RANSAC"),
    "affine, USAC_MAGSAC": opencv_verifier("affine", "USAC_MAGSAC"),
    "homography, RANSAC": opencv_verifier("homography", "RANSAC"),
    "homography, USAC_MAGSAC": opencv_verifier("homography", "USAC_MAGSAC"),
}
