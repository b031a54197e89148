"""Parts of the Earth: what a camera can see from where it stands, and what goes into a pack."""

from __future__ import annotations

import math
from dataclasses import dataclass

from delf_edge.errors import OptionError

EARTH_RADIUS = 6_371_008.8  # metres, mean of the three axes (IUGG)


@dataclass(frozen=True, slots=True)
class Near:
    """A circle on the Earth.

    Attributes:
        latitude, longitude: degrees (WGS 84).
        radius: metres. Make it the range of sight plus the error of the position.
    """

    latitude: float
    longitude: float
    radius: float

    def __post_init__(self) -> None:
        check_position(self.latitude, self.longitude)
        if not 0 < self.radius < math.inf:
            raise OptionError(f"the radius is {self.radius:g} metres; it must be more than 0 metres")

    def holds(self, latitude: float | None, longitude: float | None) -> bool:
        """Whether a place lies in the circle; a place without coordinates may be anywhere, so it does."""
        if latitude is None or longitude is None:
            return True
        return distance(self.latitude, self.longitude, latitude, longitude) <= self.radius


@dataclass(frozen=True, slots=True)
class Box:
    """A part of the Earth between two parallels and two meridians.

    Attributes:
        south, west, north, east: degrees (WGS 84). West may be larger than east: then it lies across 180 degrees.
    """

    south: float
    west: float
    north: float
    east: float

    def __post_init__(self) -> None:
        if not (-90 <= self.south <= self.north <= 90 and abs(self.west) <= 180 and abs(self.east) <= 180):
            raise OptionError(
                f"south {self.south:g}, west {self.west:g}, north {self.north:g}, east {self.east:g}: "
                "give south, west, north, east in degrees, south not above north"
            )

    def holds(self, latitude: float | None, longitude: float | None) -> bool:
        """Whether a place lies inside; one without coordinates does not."""
        if latitude is None or longitude is None or not self.south <= latitude <= self.north:
            return False
        if self.west <= self.east:
            return self.west <= longitude <= self.east
        return longitude >= self.west or longitude <= self.east


def check_position(latitude: float, longitude: float) -> tuple[float, float]:
    """Degrees (WGS 84), if they are a place on Earth.

    Raises:
        OptionError: they are not; NaN is not either.
    """
    if not (abs(latitude) <= 90 and abs(longitude) <= 180):
        raise OptionError(
            f"latitude {latitude} and longitude {longitude} are no place on Earth; both are degrees, -90..90 and "
            "-180..180"
        )
    return latitude, longitude


def parse_position(latitude: object, longitude: object) -> tuple[float, float] | None:
    """Degrees out of text or numbers; None where both are missing (None or empty). The decimal sign may be a comma.

    Raises:
        OptionError: one is missing, or they are no place on Earth.
    """
    if latitude in (None, "") and longitude in (None, ""):
        return None
    try:
        return check_position(*(float(str(given).replace(",", ".")) for given in (latitude, longitude)))
    except ValueError:
        shown = ", ".join(repr("" if given is None else str(given)[:40]) for given in (latitude, longitude))
        raise OptionError(
            f"latitude, longitude are {shown}, no place on Earth; both are degrees, -90..90 and -180..180"
        ) from None


def distance(latitude: float, longitude: float, latitude2: float, longitude2: float) -> float:
    """Metres between two places in degrees, along a great circle (haversine)."""
    a, b = math.radians(latitude), math.radians(latitude2)
    half = math.sin((b - a) / 2) ** 2
    half += math.cos(a) * math.cos(b) * math.sin(math.radians(longitude2 - longitude) / 2) ** 2
    return 2 * EARTH_RADIUS * math.asin(min(1.0, math.sqrt(half)))
