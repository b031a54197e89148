"""Query expansion and support among the candidates."""

from __future__ import annotations

import numpy as np
import pytest

from delf_edge.arrays import l2_normalise
from delf_edge.bundle.calibration import Calibration
from delf_edge.query.query_expansion import POOL, expand, proven


def unit(*rows: list[float]) -> np.ndarray:
    return l2_normalise(np.array(rows, np.float32))


def plain(
    calibration: Calibration, query: np.ndarray, known: np.ndarray, similarity: np.ndarray, inliers: np.ndarray
) -> np.ndarray:
    """The formulas of the module as loops, for at most POOL candidates."""
    n = len(known)
    asked = query / np.linalg.norm(query)
    joined = [i for i in range(n) if inliers[i] >= max(2 * calibration.floor, 12)][: calibration.expansion]
    total = asked.astype(np.float64)
    for i in joined:
        total = total + max(similarity[i], 0) ** calibration.alpha * known[i]
    asked = total / np.linalg.norm(total)
    out = np.empty(n)
    for c in range(n):
        cosines = [(float(known[c] @ known[j]) if j != c else 0.0, j) for j in range(n)]
        seen = known[c].astype(np.float64)
        for cosine, j in sorted(cosines, reverse=True)[: calibration.support]:
            seen = seen + max(cosine, 0) ** 2 * known[j]
        out[c] = max(similarity[c], asked @ (seen / np.linalg.norm(seen)))
    return out


def test_equals_the_plain_loops() -> None:
    rng = np.random.default_rng(5)
    known = l2_normalise(rng.normal(0.2, 1, (40, 16)).astype(np.float32))
    query = rng.normal(0.2, 1, 16).astype(np.float32)
    similarity = (known @ l2_normalise(query)).astype(np.float64)
    inliers = rng.integers(0, 30, 40)
    for calibration in (
        Calibration(expansion=3, support=5, alpha=1.0),
        Calibration(support=2),
        Calibration(expansion=4),
    ):
        found = expand(calibration, query, known, similarity, inliers)
        np.testing.assert_allclose(found, plain(calibration, query, known, similarity, inliers), atol=2e-5)


def test_a_view_without_common_surface_rises_through_one_that_has_it() -> None:
    known = unit([1, 0.1, 0, 0], [0.6, 0.8, 0, 0], [0.55, 0, 0.85, 0])  # seen, the other side of it, a stranger
    query = unit([1, 0, 0, 0])[0]
    similarity = (known @ query).astype(np.float64)
    similarity[2] = similarity[1] + 0.05  # before, the stranger stands above the other side
    calibration = Calibration(expansion=8, alpha=1.0, support=1)
    found = expand(calibration, query, known, similarity, np.array([40, 0, 0]))
    assert found[1] > found[2]


def test_zeros_change_nothing() -> None:
    known, similarity = unit([1, 0], [0, 1]), np.array([0.5, 0.4])
    assert expand(Calibration(), known[0], known, similarity, np.array([50, 0])) is similarity
    assert len(expand(Calibration(support=8), known[0], known[:0], similarity[:0], np.zeros(0, np.int64))) == 0


def test_candidates_beyond_the_pool_keep_their_similarity() -> None:
    rng = np.random.default_rng(1)
    known = l2_normalise(rng.normal(size=(POOL + 5, 8)).astype(np.float32))
    similarity = (known @ known[0]).astype(np.float64)
    found = expand(Calibration(support=4), known[0], known, similarity, np.zeros(POOL + 5, np.int64))
    np.testing.assert_array_equal(found[POOL:], similarity[POOL:])
    assert not np.allclose(found[:POOL], similarity[:POOL])


@pytest.mark.parametrize(("floor", "inliers", "joins"), [(8.0, [15, 16, 40], [1, 2]), (2.0, [11, 12, 3], [1])])
def test_only_images_with_twice_the_inliers_that_say_nothing_join(
    floor: float, inliers: list[int], joins: list[int]
) -> None:
    assert proven(Calibration(floor=floor, expansion=8), np.array(inliers)).tolist() == joins
