"""Quantile regression against numbers whose quantiles are known."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.metrics import quantile


@pytest.mark.parametrize("share", [0.5, 0.9, 0.98])
def test_the_share_lies_below_everywhere(share: float) -> None:
    rng = np.random.default_rng(0)
    x = rng.uniform(0, 4, (3000, 1))
    y = 1 + 2 * x[:, 0] + rng.exponential(1.0, 3000)
    constant, (slope,) = quantile.fit(x, y, share)
    assert slope == pytest.approx(2, abs=0.15)
    assert constant == pytest.approx(1 - np.log(1 - share), abs=0.5)
    below = y <= constant + slope * x[:, 0]
    for part in (x[:, 0] < 2, x[:, 0] >= 2):
        assert below[part].mean() == pytest.approx(share, abs=0.02)


def test_a_row_counts_as_often_as_its_weight_says() -> None:
    y = np.arange(10.0)
    constant, _ = quantile.fit(np.zeros((10, 1)), y, 0.5, np.where(y == 7, 100.0, 1.0))
    assert constant == pytest.approx(7)


def test_no_weight_is_negative() -> None:
    x = np.arange(20.0)[:, None]
    assert quantile.fit(x, -x[:, 0], 0.5)[1] == pytest.approx([0.0])
