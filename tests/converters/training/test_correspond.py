"""Matched points of pairs of photos, from a teacher."""

from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("torch", reason="needs PyTorch: make test-converters")
pytestmark = pytest.mark.torch

from delf_edge.converters.training.correspond import (  # noqa: E402
    confirm,
    find_points,
    groups_of_places,
    listed_pairs,
    read_points,
    sift,
)
from delf_edge.converters.training.photos import Photo  # noqa: E402


@pytest.fixture
def photos(tmp_path: Path) -> list[Photo]:
    """Two places; the second photo of each is the first one shifted by (24, 10)."""
    out = []
    for place in range(2):
        rng = np.random.default_rng(place)
        scene = cv2.resize(rng.integers(0, 256, (60, 80, 3), np.uint8), (480, 360), interpolation=cv2.INTER_CUBIC)
        for view, (x, y) in enumerate([(0, 0), (24, 10)]):
            path = tmp_path / f"{place}-{view}.png"
            cv2.imwrite(str(path), scene[y : y + 300, x : x + 400])
            out.append(Photo(path, f"place{place}"))
    return out


def test_points_of_a_pair_are_found_kept_and_not_sought_again(photos: list[Photo], tmp_path: Path) -> None:
    tries = [(0, 1), (0, 2), (2, 3)]
    lines: list[str] = []
    found = find_points(photos, tries, sift(), tmp_path / "out", part=2, report=lines.append)
    assert found.index.tolist() == [[0, 1], [2, 3]]
    assert lines == ["part-000000.npz: 1 of 2 pairs verified", "part-000002.npz: 1 of 1 pairs verified"]
    shift = found.points[:, :2] - found.points[:, 2:]
    np.testing.assert_allclose(np.median(shift, axis=0), [24, 10], atol=0.5)
    np.testing.assert_allclose(found.affine[0], [[1, 0, -24], [0, 1, -10]], atol=1.0)

    def never(*_: object) -> np.ndarray:
        raise AssertionError("matched again")

    again = find_points(photos, tries, (never, never), tmp_path / "out", part=2, report=lines.append)
    assert len(lines) == 2
    np.testing.assert_array_equal(again.points, found.points)


def test_a_teacher_may_see_smaller_photos(photos: list[Photo], tmp_path: Path) -> None:
    found = find_points(photos, [(0, 1)], sift(), tmp_path / "out", shown=200, min_inliers=8, report=lambda _: None)
    np.testing.assert_allclose(np.median(found.points[:, :2] - found.points[:, 2:], axis=0), [24, 10], atol=1.5)


def test_pairs_of_photos_that_the_list_lacks_are_left_out(photos: list[Photo], tmp_path: Path) -> None:
    find_points(photos, [(0, 1), (2, 3)], sift(), tmp_path / "out", report=lambda _: None)
    left = read_points(photos[2:], [tmp_path / "out"])
    assert left.index.tolist() == [[0, 1]]
    assert len(left.points) == left.starts[-1] > 0


def test_points_at_random_confirm_nothing() -> None:
    points = np.random.default_rng(0).uniform(0, 400, (60, 4)).astype(np.float32)
    assert confirm(points, 20) is None
    assert confirm(points[:5], 20) is None
    assert confirm(np.zeros((40, 4), np.float32), 20) is None


def test_places_with_few_known_pairs_come_first(photos: list[Photo]) -> None:
    assert groups_of_places(photos, least=2, known=[(0, 1)]) == [(2, 3), (0, 1)]
    assert groups_of_places(photos, least=3) == []


def test_listed_pairs_are_found_in_the_training_list(photos: list[Photo], tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("path_a,path_b,n\n0-1.png,0-0.png,50\n0-0.png,elsewhere.png,50\n")
    assert listed_pairs(photos, tmp_path, tmp_path / "list.csv") == [(0, 1)]
