"""Find pairs of training photos that show one surface: match with the current network, keep what RANSAC confirms."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from delf_edge.converters.networks.delf import STRIDE, DelfNetwork, gem, to_input
from delf_edge.converters.training.batches import Pairs, load_photo
from delf_edge.converters.training.photos import Photo, balanced

Float32Array = NDArray[np.float32]


@torch.inference_mode()  # type: ignore[untyped-decorator,unused-ignore]
def local_features(
    network: DelfNetwork, photo: NDArray[np.uint8], scales: Sequence[float] = (0.5, 0.707, 1.0), top: int = 400
) -> tuple[Float32Array, Float32Array]:
    """Strongest cells of a photo by attention.

    Args:
        network: in eval mode.
        photo: uint8 (H, W, 3), RGB.
        scales: level pixels per photo pixel.
        top: how many cells to keep.

    Returns:
        Keypoints float32 (N, 2) in photo pixels and unit descriptors float32 (N, C).
    """
    points, descriptors, scores = [], [], []
    h, w = photo.shape[:2]
    for scale in scales:
        level = cv2.resize(photo, (max(16, round(w * scale)), max(16, round(h * scale))), interpolation=cv2.INTER_AREA)
        features, logit = network(to_input(np.asarray(level, np.uint8)[None]))
        ys, xs = np.mgrid[: features.shape[2], : features.shape[3]]
        ratio = np.array([w / level.shape[1], h / level.shape[0]])
        points.append((np.stack([xs, ys], -1).reshape(-1, 2) * STRIDE + 0.5) * ratio - 0.5)
        descriptors.append(F.normalize(features[0].flatten(1), dim=0).T.numpy())
        scores.append(logit[0].flatten().numpy())
    best = np.argsort(-np.concatenate(scores), kind="stable")[:top]
    return np.concatenate(points)[best].astype(np.float32), np.concatenate(descriptors)[best]


def verify_pair(
    first: tuple[Float32Array, Float32Array], second: tuple[Float32Array, Float32Array], residual: float = 14.0
) -> tuple[NDArray[np.float64], NDArray[np.bool_], Float32Array] | None:
    """Mutual nearest neighbours and an affine RANSAC.

    Args:
        first, second: keypoints (N, 2) and unit descriptors (N, C) of two photos.
        residual: largest distance of an inlier in pixels of the second photo.

    Returns:
        Affine (2, 3) from first to second, inlier mask, matched keypoints (P, 4); None when nothing agrees.
    """
    similar = first[1] @ second[1].T
    forth, back = similar.argmax(1), similar.argmax(0)
    mutual = np.flatnonzero(back[forth] == np.arange(len(forth)))
    if len(mutual) < 6:
        return None
    matched = np.hstack([first[0][mutual], second[0][forth[mutual]]])
    cv2.setRNGSeed(0)
    affine, inliers = cv2.estimateAffine2D(
        matched[:, :2].copy(), matched[:, 2:].copy(), method=cv2.RANSAC, ransacReprojThreshold=residual, maxIters=1000
    )
    if affine is None:
        return None
    stretch = np.linalg.svd(affine[:, :2], compute_uv=False)
    if np.linalg.det(affine[:, :2]) <= 0 or stretch[0] > 5 or stretch[1] < 0.2 or stretch[0] > 3 * stretch[1]:
        return None
    return np.asarray(affine, np.float64), inliers[:, 0].astype(bool), matched


def mine_pairs(
    network: DelfNetwork,
    photos: Sequence[Photo],
    *,
    max_side: int = 640,
    scales: Sequence[float] = (0.5, 0.707, 1.0),
    top: int = 400,
    min_inliers: int = 20,
    per_place: int = 400,
    skip_small: int = 200,
    seed: int = 0,
    report: Callable[[str], None] = print,
) -> Pairs:
    """Verify pairs of photos of the same place.

    Args:
        network: the current model.
        photos: the training list; indices of the result refer to it.
        max_side: as in `TrainOptions`, so that coordinates agree.
        scales, top: as for `local_features`.
        min_inliers: a pair with fewer is dropped.
        per_place: at most so many pairs of a place are tried.
        skip_small: photos with a longer side below this many pixels are left out (no fine detail).
        seed: of the choice of pairs.
        report: called with one line a place.
    """
    groups: dict[str, list[int]] = defaultdict(list)
    for i, photo in enumerate(photos):
        groups[photo.place].append(i)
    rng = np.random.default_rng(seed)
    index, affines, centres, sides = [], [], [], []
    for place, members in sorted(groups.items()):
        features = {}
        for i in members:
            pixels = load_photo(photos[i].path, max_side)
            if max(pixels.shape) >= skip_small:
                features[i] = local_features(network, pixels, scales, top)
        usable = list(features)
        tries = [(a, b) for n, a in enumerate(usable) for b in usable[n + 1 :]]
        if len(tries) > per_place:
            tries = [tries[k] for k in np.sort(rng.choice(len(tries), per_place, replace=False))]
        found = 0
        for a, b in tries:
            result = verify_pair(features[a], features[b])
            if result is None or np.count_nonzero(result[1]) < min_inliers:
                continue
            affine, inliers, matched = result
            seen = matched[inliers, :2].astype(np.float64)
            index.append((a, b))
            affines.append(affine)
            centres.append(seen.mean(0))
            sides.append(max(64.0, 3.0 * float(seen.std(0).max())))
            found += 1
        if tries:
            report(f"{place}: {found} of {len(tries)} pairs verified")
    return Pairs(
        np.array(index, np.int32).reshape(-1, 2),
        np.array(affines).reshape(-1, 2, 3),
        np.array(centres).reshape(-1, 2),
        np.array(sides).reshape(-1),
        np.zeros((0, 4), np.float32),
        np.zeros(len(index) + 1, np.int64),
    )


@torch.inference_mode()  # type: ignore[untyped-decorator,unused-ignore]
def places_alike(
    network: DelfNetwork,
    photos: Sequence[Photo],
    *,
    neighbours: int = 6,
    per_place: int = 6,
    side: int = 224,
    skip: tuple[str, ...] = ("indoor", "stitching/"),
) -> dict[str, list[str]]:
    """Of each place, the others that look most like it: domes of domes, arches of arches.

    Args:
        network: whose pooled tail judges.
        photos: the training list.
        neighbours: how many a place.
        per_place: photos of a place that speak for it (their mean).
        side: longer side of what the network sees.
        skip: places that begin so are left out (clips of one building are each other's twins).
    """
    groups: dict[str, list[Photo]] = defaultdict(list)
    for photo in balanced(photos, per_place):
        if not photo.place.startswith(skip):
            groups[photo.place].append(photo)
    names = sorted(groups)
    means = []
    for name in names:
        pooled = [
            F.normalize(gem(network.tail(network.trunk(to_input(load_photo(p.path, side)[None])))), dim=1)
            for p in groups[name]
        ]
        means.append(torch.cat(pooled).mean(0))
    centred = torch.stack(means)
    centred = F.normalize(centred - centred.mean(0), dim=1)
    similar = (centred @ centred.T).fill_diagonal_(-1.0)
    nearest = similar.topk(min(neighbours, len(names) - 1), dim=1).indices.tolist()
    return {name: [names[j] for j in row] for name, row in zip(names, nearest, strict=True)}


def save_pairs(pairs: Pairs, path: str | Path) -> None:
    """Write pairs as .npz."""
    np.savez(path, **{f.name: getattr(pairs, f.name) for f in dataclasses.fields(pairs)})


def load_pairs(path: str | Path) -> Pairs:
    """Read what `save_pairs` wrote."""
    with np.load(path, allow_pickle=False) as z:
        return Pairs(**{f.name: z[f.name] for f in dataclasses.fields(Pairs)})
