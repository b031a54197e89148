from __future__ import annotations

import math

import pytest

from delf_edge.errors import OptionError
from delf_edge.geo import EARTH_RADIUS, Near, distance


def test_distance_along_great_circles() -> None:
    assert distance(48.8584, 2.2945, 48.8738, 2.2950) == pytest.approx(1713, abs=2)  # Eiffel Tower, Arc de Triomphe
    assert distance(0, 179.999, 0, -179.999) == pytest.approx(2 * math.radians(0.001) * EARTH_RADIUS, rel=1e-6)
    assert distance(90, 0, -90, 0) == pytest.approx(math.pi * EARTH_RADIUS)


def test_a_place_without_coordinates_may_be_anywhere() -> None:
    here = Near(48.8584, 2.2945, 1000)
    assert here.holds(48.8584, 2.2945)
    assert not here.holds(48.8738, 2.2950)
    assert here.holds(None, 2.0)


@pytest.mark.parametrize("wrong", [(91, 0, 1), (0, 181, 1), (0, 0, 0), (0, 0, math.inf), (math.nan, 0, 1)])
def test_no_place_on_earth_is_refused(wrong: tuple[float, float, float]) -> None:
    with pytest.raises(OptionError):
        Near(*wrong)
