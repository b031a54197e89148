"""Does the geometry agree? Mutual nearest neighbours, then an affine RANSAC with a fixed seed.

The paper's code (Noh et al., ICCV 2017, section 4.1) matches by nearest neighbour and runs 1,000 affine hypotheses with
a residual of 20 px on photos of 1,024 px. Here a match must be mutual, the tolerance grows with the image, all
hypotheses are scored together, and the same input gives the same inliers each time. The search for the map is compiled
(`native.py`); what stands here is the same in NumPy, operation by operation, for where it is not.

Half of the hypotheses come from three pairs (affine), half from two (rotation, one scale, shift): with a tenth of the
matches right, two right ones are drawn ten times as often as three. The best few are refined to affine maps by least
squares.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from delf_edge import native
from delf_edge.errors import OptionError
from delf_edge.types import BoolArray, Features, Float32Array, Float64Array, Int32Array, Verification

F = TypeVar("F", np.float32, np.float64)


@dataclass(frozen=True, slots=True)
class VerifyOptions:
    """How a candidate is verified.

    Attributes:
        tolerance: largest residual of an inlier, in the stored image, as a share of its longer side (the paper's
            20 px of 1,024).
        hypotheses: maps tried.
        refined: so many of the best ones are refined.
        min_similarity: inner product below which two descriptors are no match.
        ratio: largest allowed ratio of the descriptor distances to the best and to the second best stored feature; 1
            switches the test off.
        max_scale: a map may enlarge or shrink by this factor at most.
        max_anisotropy: largest ratio of the map's two singular values.
        refinements: least-squares rounds on the inliers of a hypothesis.
        seed: of the samples drawn.
    """

    tolerance: float = 20 / 1024
    hypotheses: int = 1000
    refined: int = 8
    min_similarity: float = 0.0
    ratio: float = 1.0
    max_scale: float = 8.0
    max_anisotropy: float = 4.0
    refinements: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.tolerance < 1 or min(self.hypotheses, self.refined, self.refinements) < 1:
            raise OptionError(f"tolerance must be in (0, 1), hypotheses, refined and refinements at least 1: {self}")
        if not (0 < self.ratio <= 1 and self.max_scale > 1 and self.max_anisotropy > 1 and self.min_similarity <= 1):
            raise OptionError(f"ratio must be in (0, 1], max_scale and max_anisotropy above 1: {self}")


def match(query: Float32Array, stored: Float32Array, options: VerifyOptions | None = None) -> Int32Array:
    """Mutual nearest neighbours by inner product.

    Args:
        query: float32 (N, D), unit L2.
        stored: float32 (L, D), unit L2 (`product_quantizer.decode`).
        options: `min_similarity` and `ratio` apply.

    Returns:
        int32 (P, 2), (query feature, stored feature), ascending by query feature. No feature occurs twice.
    """
    options = options or VerifyOptions()
    if not len(query) or not len(stored):
        return np.zeros((0, 2), np.int32)
    similarity = np.matmul(query, stored.T, out=_scratch(len(query), len(stored)))
    forth, rows = similarity.argmax(axis=1), np.arange(len(query))
    best = similarity[rows, forth]
    # The best of its column, too; argmax along columns takes longer than max. Of equal rows the first one counts.
    mutual = np.flatnonzero(best == similarity.max(axis=0)[forth])
    owner = np.full(len(stored), -1)
    owner[forth[mutual[::-1]]] = mutual[::-1]
    keep = (owner[forth] == rows) & (best >= options.min_similarity)
    if options.ratio < 1 and len(stored) > 1:
        second = np.partition(similarity, -2, axis=1)[:, -2]
        keep &= 2 - 2 * best <= options.ratio**2 * (2 - 2 * second)  # squared distances of unit vectors
    return np.stack([rows[keep], forth[keep]], axis=1).astype(np.int32)


_memory = threading.local()


def _scratch(n: int, m: int) -> Float32Array:
    """float32 (n, m) of any content, this thread's until the next call: new memory for each candidate is slow."""
    buffer: Float32Array | None = getattr(_memory, "buffer", None)
    if buffer is None or len(buffer) < n * m:
        buffer = _memory.buffer = np.empty(n * m, np.float32)
    return buffer[: n * m].reshape(n, m)


def verify(
    image_id: int,
    query: Features,
    stored: Float32Array,
    keypoints: Float32Array,
    image_size: tuple[int, int],
    options: VerifyOptions | None = None,
) -> Verification:
    """Match a query with one candidate and check the geometry.

    Args:
        image_id: the candidate's id, passed on.
        query: features of the query.
        stored: float32 (L, D), decoded descriptors of the candidate, unit L2.
        keypoints: float32 (L, 2), its keypoints.
        image_size: (width, height) the keypoints refer to.
        options: see `VerifyOptions`.

    Returns:
        Matches, inliers and the map from query to stored pixels; a NaN map and no inliers where there is none.
    """
    options = options or VerifyOptions()
    matches = match(query.descriptors, stored, options)
    tolerance = options.tolerance * max(*image_size, 1)
    source, target = query.keypoints[matches[:, 0]], keypoints[matches[:, 1]]
    transform, inliers = estimate_affine(source, target, tolerance, options)
    return Verification(image_id, matches, inliers, transform)


def estimate_affine(
    source: Float32Array, target: Float32Array, tolerance: float, options: VerifyOptions | None = None
) -> tuple[Float64Array, BoolArray]:
    """The affine map that most pairs of points agree with.

    Args:
        source, target: float32 (P, 2), pairs of points in pixels.
        tolerance: pixels of `target`.
        options: see `VerifyOptions`.

    Returns:
        float64 (2, 3) and bool (P,). NaN and no inliers where fewer than 3 pairs agree, or every map is implausible.
    """
    options = options or VerifyOptions()
    P = len(source)
    nothing = np.full((2, 3), np.nan), np.zeros(P, np.bool_)
    if P < 3:
        return nothing
    lib = native.library()
    if lib is not None:
        return native.affine(
            lib,
            source,
            target,
            _uniform(options.hypotheses, options.seed),
            tolerance=tolerance,
            refined=options.refined,
            refinements=options.refinements,
            max_scale=options.max_scale,
            max_anisotropy=options.max_anisotropy,
        )
    centre = source.mean(axis=0, dtype=np.float64)
    x = np.column_stack([source - centre, np.ones(P)])  # (P, 3); centred for the condition of the least squares
    y = target.astype(np.float64)
    maps = np.concatenate([_affine_hypotheses(x, y, options), _similarity_hypotheses(x, y, options)])
    maps = maps[_plausible(maps, options)]
    inliers, fitted = _refine(_most_promising(maps, x, y, tolerance, options.refined), x, y, tolerance, options)
    if not inliers.any():
        return nothing
    best = inliers.sum(axis=1).argmax()
    transform = fitted[best].T.copy()  # (2, 3), of centred points
    transform[:, 2] -= transform[:, :2] @ centre
    return transform, inliers[best]


def outside_hull(points: Float32Array, corners: Float32Array) -> BoolArray:
    """bool (N,): which of `points` (N, 2) lie outside the convex hull of `corners` (P, 2); all where it is flat."""
    import cv2

    if len(corners) < 3:
        return np.ones(len(points), np.bool_)
    hull = cv2.convexHull(np.asarray(corners, np.float32))[:, 0]
    edges = np.roll(hull, -1, axis=0) - hull
    apart = points[:, None] - hull  # (N, H, 2)
    side = edges[:, 0] * apart[..., 1] - edges[:, 1] * apart[..., 0]  # of one sign within, whatever the hull's sense
    return np.asarray(~((side >= 0).all(axis=1) | (side <= 0).all(axis=1)))


@lru_cache(maxsize=64)
def _uniform(hypotheses: int, seed: int) -> Float64Array:
    """float64 (hypotheses, 3) in [0, 1): the same draws for every candidate."""
    draws = np.random.default_rng(seed).random((hypotheses, 3))
    draws.setflags(write=False)
    return draws


def sample_triples(P: int, options: VerifyOptions) -> Int32Array:
    """int32 (H, 3), three different indices below P each."""
    draws = _uniform(options.hypotheses, options.seed)
    a = (draws[:, 0] * P).astype(np.int32)
    b = (a + 1 + (draws[:, 1] * (P - 1)).astype(np.int32)) % P
    c = (draws[:, 2] * (P - 2)).astype(np.int32)  # the c-th of the indices that are neither a nor b
    low, high = np.minimum(a, b), np.maximum(a, b)
    c += c >= low
    c += c >= high
    return np.stack([a, b, c], axis=1)


def _affine_hypotheses(x: Float64Array, target: Float64Array, options: VerifyOptions) -> Float64Array:
    """float64 (H, 3, 2): exact maps of samples of three pairs."""
    sample = sample_triples(len(x), options)[: (options.hypotheses + 1) // 2]
    corners, goals = x[sample, :2], target[sample]  # (H, 3, 2)
    u, v = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    det = u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0]  # twice the triangle's area
    extent = np.abs(x[:, :2]).max()
    good = np.abs(det) > 1e-4 * (extent * extent) + 1e-9  # three points nearly on a line define nothing
    corners, goals, u, v, det = corners[good], goals[good], u[good, :, None], v[good, :, None], det[good, None]
    p, q = goals[:, 1] - goals[:, 0], goals[:, 2] - goals[:, 0]
    a, b = (v[:, 1] * p - u[:, 1] * q) / det, (u[:, 0] * q - v[:, 0] * p) / det  # acts on row vectors
    offset = goals[:, 0] - (corners[:, 0, :1] * a + corners[:, 0, 1:] * b)
    return np.stack([a, b, offset], axis=1)


def _similarity_hypotheses(x: Float64Array, target: Float64Array, options: VerifyOptions) -> Float64Array:
    """float64 (H, 3, 2): rotation, scale and shift of samples of two pairs, w = m z + t of complex numbers."""
    sample = sample_triples(len(x), options)[(options.hypotheses + 1) // 2 :, :2]
    square = x[:, 0] * x[:, 0] + x[:, 1] * x[:, 1]
    a, b = sample.T
    z, w = x[b, :2] - x[a, :2], target[b] - target[a]
    length = z[:, 0] * z[:, 0] + z[:, 1] * z[:, 1]
    good = length > 1e-4 * square.max() + 1e-18
    a, (z0, z1), (w0, w1), length = a[good], z[good].T, w[good].T, length[good]
    c, s = (z0 * w0 + z1 * w1) / length, (z0 * w1 - z1 * w0) / length  # m = c + s i
    (x0, x1), (y0, y1) = x[a, :2].T, target[a].T
    rows = [[c, s], [-s, c], [y0 - (c * x0 - s * x1), y1 - (s * x0 + c * x1)]]
    return np.asarray(np.array(rows, np.float64).transpose(2, 0, 1))


def _plausible(maps: Float64Array, options: VerifyOptions) -> BoolArray:
    """bool (H,): no mirror image, no extreme scale, no extreme squeeze."""
    a, b, c, d = maps[:, 0, 0], maps[:, 0, 1], maps[:, 1, 0], maps[:, 1, 1]
    det = a * d - b * c
    norm = a * a + b * b + c * c + d * d  # sum of squared singular values; det is their product
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        scale = np.sqrt(det)
        squeeze = norm / det  # = r + 1 / r for r = ratio of the singular values
        limit = options.max_anisotropy + 1 / options.max_anisotropy
        return np.asarray(
            (det > 0) & (scale <= options.max_scale) & (scale >= 1 / options.max_scale) & (squeeze <= limit)
        )


def _residuals(maps: NDArray[F], x: NDArray[F], target: NDArray[F]) -> NDArray[F]:
    """(H, P), squared distances in target pixels; maps (H, 3, 2), x (P, 2 or 3), target (P, 2)."""
    u, v = (
        x[:, 0] * m[:, :1] + x[:, 1] * m[:, 1:2] + m[:, 2:] - t
        for m, t in zip(maps.T.swapaxes(1, 2), target.T, strict=True)
    )
    return np.asarray(u * u + v * v)


def _most_promising(maps: Float64Array, x: Float64Array, target: Float64Array, tolerance: float, n: int) -> BoolArray:
    """bool (n, P), inliers of the n maps of least truncated cost (MSAC; Torr and Zisserman, 2000), the best first."""
    squared = _residuals(maps.astype(np.float32), x.astype(np.float32), target.astype(np.float32))
    limit = np.float32(tolerance * tolerance)
    cost = np.cumsum(np.minimum(squared, limit), axis=1)[:, -1]  # in order, as the compiled form adds
    best = np.argsort(cost, kind="stable")[:n]
    return np.asarray(squared[best] <= limit)


def _refine(
    inliers: BoolArray, x: Float64Array, target: Float64Array, tolerance: float, options: VerifyOptions
) -> tuple[BoolArray, Float64Array]:
    """Least squares on the inliers, inliers of the result, and again (Chum et al., DAGM 2003), for n sets at once.

    Returns:
        bool (n, P) and the maps they belong to, float64 (n, 3, 2); no inliers where no plausible map fits.
    """
    best, maps = np.zeros_like(inliers), np.full((len(inliers), 3, 2), np.nan)
    for _ in range(options.refinements):
        fitted = _least_squares(inliers, x, target)
        agree = (_residuals(fitted, x, target) <= tolerance * tolerance) & _plausible(fitted, options)[:, None]
        better = agree.sum(axis=1) > np.maximum(best.sum(axis=1), 2)
        if not better.any():
            break
        best[better], maps[better] = agree[better], fitted[better]
        inliers = best
    return best, maps


def _least_squares(chosen: BoolArray, x: Float64Array, target: Float64Array) -> Float64Array:
    """float64 (n, 3, 2), the affine map of each set of chosen pairs; NaN where they lie on a line.

    Closed form: with means removed, linear = (X^T X)^-1 X^T Y.
    """
    xy = x[:, :2]
    products = np.concatenate(
        [xy, target, xy[:, :1] * xy, xy[:, 1:] * xy, xy[:, :1] * target, xy[:, 1:] * target], axis=1
    )
    count = chosen.sum(axis=1)[:, None]
    moments = np.cumsum(chosen[:, :, None] * products, axis=1)[:, -1] / np.maximum(count, 1)
    mean, goal = moments[:, :2], moments[:, 2:4]
    within = moments[:, 4:8].reshape(-1, 2, 2) - mean[:, :, None] * mean[:, None]
    across = moments[:, 8:].reshape(-1, 2, 2) - mean[:, :, None] * goal[:, None]
    a, b, d = within[:, 0, 0], within[:, 0, 1], within[:, 1, 1]
    det = a * d - b * b
    det[det <= 1e-9 * ((a + d) * (a + d))] = np.nan
    a, b, d, det = a[:, None], b[:, None], d[:, None], det[:, None]
    linear = np.stack([d * across[:, 0] - b * across[:, 1], a * across[:, 1] - b * across[:, 0]], axis=1) / det[:, None]
    offset = goal - (mean[:, :1] * linear[:, 0] + mean[:, 1:] * linear[:, 1])
    return np.concatenate([linear, offset[:, None]], axis=1)
