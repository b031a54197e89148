"""Estimates for boards: what is counted, and that they are called estimates."""

from __future__ import annotations

import json

import pytest

from benchmarks import boards
from delf_edge.bundle.bundle import Bundle, default_bundle_path
from testing.paths import TINY_BUNDLE

SPEED = json.loads(boards.SPEED.read_text(encoding="utf-8"))


def test_multiply_accumulates_grow_with_the_picture_and_fit_what_is_known() -> None:
    bundle = Bundle.load(default_bundle_path())
    small, large = (boards.multiply_accumulates(bundle.network, (1, side, side, 3)) for side in (160, 320))
    assert large / small == pytest.approx(4, abs=0.05)
    assert large / 320**2 == pytest.approx(4905, rel=0.05)  # benchmarks/speed.py


def test_estimates_order_boards_and_state_their_error() -> None:
    macs = boards.work(Bundle.load(TINY_BUNDLE))
    assert set(Bundle.load(TINY_BUNDLE).presets) < set(macs)
    rows = boards.estimate(macs, SPEED)
    for row in rows:
        for cell in [*row["identify ms"].values(), *row["network ms"].values()]:
            assert 0 < cell["least"] <= cell["middle"] <= cell["most"]
            assert cell["error, factor"] > 1
    middles = [row["identify ms"]["balanced"]["middle"] for row in rows]
    assert middles == sorted(middles, reverse=True)
    text = "\n".join(boards.as_text(rows))
    assert text.startswith("Estimated, not measured")
    for name, found in boards.contributed():
        assert f"| {name} | {found['machine']['processor']} |" in text


def test_the_share_of_the_peak_is_what_was_published() -> None:
    assert boards.published_share() == pytest.approx(2 * 300e6 / 44e-3 / (4 * 12e9), rel=1e-6)
