"""Training views: what the homography says is where the pixels go."""

import numpy as np
import pytest

from delf_edge.converters.training.augment import CropOptions, degrade, draw_crop, relight, warp


@pytest.mark.parametrize("seed", range(6))
def test_a_dot_lands_where_the_homography_says(seed: int) -> None:
    rng = np.random.default_rng(seed)
    homography, centre, side = draw_crop(rng, (640, 480), 160, CropOptions())
    assert 0.25 * 480 <= side <= 1.3 * 480
    photo = np.zeros((480, 640, 3), np.uint8)
    x, y = np.round(centre).astype(int)
    photo[max(0, y - 6) : y + 7, max(0, x - 6) : x + 7] = 255
    crop = warp(photo, homography, 160).astype(float)[..., 0]
    ys, xs = np.mgrid[:160, :160]
    seen = np.array([(xs * crop).sum(), (ys * crop).sum()]) / crop.sum()
    expected = homography @ [x, y, 1.0]
    assert np.abs(seen - expected[:2] / expected[2]).max() < 1.0


def test_degrade_keeps_form_and_repeats_with_its_seed() -> None:
    crop = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    first = degrade(np.random.default_rng(5), crop)
    assert first.shape == crop.shape
    assert first.dtype == np.uint8
    assert np.array_equal(first, degrade(np.random.default_rng(5), crop))
    assert not np.array_equal(first, degrade(np.random.default_rng(6), crop))


def test_relight_changes_the_light_and_keeps_the_place_of_edges() -> None:
    rng = np.random.default_rng(3)
    crop = np.full((64, 64, 3), 60, np.uint8)
    crop[:, 32:] = 180
    other = rng.integers(0, 256, (80, 80, 3)).astype(np.uint8)
    seen = [relight(rng, crop, other) for _ in range(30)]
    assert all(view.shape == crop.shape and view.dtype == np.uint8 for view in seen)
    assert len({view.tobytes() for view in seen}) == 30
    steps = [np.abs(np.diff(view.astype(float).mean(2), axis=1)).mean(0) for view in seen]
    assert sum(int(step.argmax()) == 31 for step in steps) >= 24  # where it is not too dark to be seen
