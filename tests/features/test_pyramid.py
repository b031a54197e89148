"""Level sizes, where level pixels lie in the image, and images too small for any level."""

from __future__ import annotations

import numpy as np
import pytest

from delf_edge.features.pyramid import build_pyramid, working_size
from delf_edge.types import Image


def blank(width: int, height: int) -> Image:
    return Image(np.full((height, width, 3), 128, np.uint8), (width, height))


def disc(width: int, height: int, cx: float, cy: float, radius: float) -> Image:
    y, x = np.mgrid[:height, :width]
    inside = np.clip(radius + 0.5 - np.hypot(x - cx, y - cy), 0, 1)
    return Image(np.repeat((255 * inside).astype(np.uint8)[..., None], 3, axis=2), (width, height))


def test_sizes_are_counted_from_the_working_size_not_from_the_photo() -> None:
    for width, height in ((640, 480), (1280, 960), (4000, 3000)):
        levels = build_pyramid(blank(width, height), [0.5, 1.0, 0.25])
        assert [level.pixels.shape for level in levels] == [(480, 640, 3), (240, 320, 3), (120, 160, 3)]
        np.testing.assert_allclose(levels[1].scale_xy, [320 / width, 240 / height])


def test_small_photos_are_enlarged_up_to_a_cap() -> None:
    assert [level.pixels.shape for level in build_pyramid(blank(400, 300), [1.0])] == [(480, 640, 3)]
    assert working_size(blank(200, 150)) == 400
    assert [level.pixels.shape for level in build_pyramid(blank(200, 150), [1.0, 0.5])] == [
        (300, 400, 3),
        (150, 200, 3),
    ]
    assert build_pyramid(blank(200, 150), [1.0], max_upscale=1.0)[0].pixels.shape == (150, 200, 3)


def test_equal_levels_appear_once() -> None:
    assert len(build_pyramid(blank(640, 480), [0.5, 0.5, 0.5001, 1.0])) == 2


@pytest.mark.parametrize(("width", "height"), [(1, 1), (1, 5000), (5000, 1), (15, 15), (640, 31), (3, 70000)])
def test_tiny_photos_and_strips_have_no_levels(width: int, height: int) -> None:
    assert build_pyramid(blank(width, height), [0.25, 0.5, 1.0]) == []


def test_levels_narrower_than_two_cells_are_left_out() -> None:
    assert [level.pixels.shape[0] for level in build_pyramid(blank(640, 64), [0.25, 0.5, 1.0])] == [64, 32]


def test_the_photo_itself_is_the_level_of_its_own_size() -> None:
    image = blank(640, 480)
    assert np.shares_memory(build_pyramid(image, [1.0])[0].pixels, image.pixels)


@pytest.mark.parametrize("size", [(640, 480), (641, 427), (632, 412), (1280, 961), (300, 225)])
@pytest.mark.parametrize("scale", [0.25, 0.354, 0.45, 0.5, 0.62, 0.707, 1.0, 1.414])
def test_a_disc_lies_where_scale_xy_says(size: tuple[int, int], scale: float) -> None:
    cx, cy = 0.4 * size[0], 0.6 * size[1]
    (level,) = build_pyramid(disc(*size, cx, cy, size[0] / 8), [scale])
    weight = level.pixels[..., 0].astype(np.float64)
    y, x = np.mgrid[: weight.shape[0], : weight.shape[1]]
    found = np.array([(x * weight).sum(), (y * weight).sum()]) / weight.sum()
    expected = (np.array([cx, cy]) + 0.5) * level.scale_xy - 0.5
    np.testing.assert_allclose(found, expected, atol=0.1)  # level pixels


@pytest.mark.parametrize("scale", [0.3, 0.354, 0.5, 0.6, 0.707])
def test_shrinking_averages_instead_of_aliasing(scale: float) -> None:
    y, x = np.mgrid[:960, :1280]
    stripes = np.repeat((255 * ((x + y) % 2)).astype(np.uint8)[..., None], 3, axis=2)
    (level,) = build_pyramid(Image(stripes, (1280, 960)), [scale])
    assert level.pixels.mean() == pytest.approx(127.5, abs=2)
    assert level.pixels.std() < 10
