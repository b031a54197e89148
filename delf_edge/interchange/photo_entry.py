"""One photo of a list, and how a row of any table becomes one."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from delf_edge.errors import OptionError
from delf_edge.geo import parse_position

COLUMNS = ("path", "landmark", "name", "latitude", "longitude")
_ALIASES = {"lat": "latitude", "lon": "longitude", "lng": "longitude", "long": "longitude"}


@dataclass(frozen=True, slots=True)
class PhotoEntry:
    """A photo to index or build from.

    Attributes:
        row: its number in the list, from 0.
        url: the file, a path or URL; whether it is there and readable is found out when it is read.
        name: what it is called in the database.
        landmark: the place it shows.
        latitude, longitude: of the landmark, degrees (WGS 84), None where unknown.
        metadata: the other columns of the table.
    """

    row: int
    url: str
    name: str
    landmark: str
    latitude: float | None = None
    longitude: float | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def path(self) -> Path:
        """`url`, where it is a local file."""
        return Path(self.url)

    @property
    def position(self) -> tuple[float, float] | None:
        """(latitude, longitude), None where unknown."""
        return None if self.latitude is None or self.longitude is None else (self.latitude, self.longitude)


def column_names(names: Sequence[str], where: str) -> list[str]:
    """The columns of a table: the known ones by the names of `COLUMNS`, however they are written; others as they are.

    Raises:
        OptionError: there is no path or landmark, or a known column comes twice.
    """
    found = []
    for name in map(str.strip, names):
        known = _ALIASES.get(name.casefold(), name.casefold())
        found.append(known if known in COLUMNS else name)
    missing = {"path", "landmark"} - set(found)
    if missing:
        raise OptionError(f"{where}: column {', '.join(sorted(missing))} missing; it has {list(names)}")
    twice = [name for name in COLUMNS if found.count(name) > 1]
    if twice:
        raise OptionError(f"{where}: column {', '.join(twice)} twice, in {list(names)}; keep one")
    return found


def entry_from(row: int, cells: Mapping[str, Any], where: str, locate: Callable[[str], str]) -> PhotoEntry:
    """A row of a table as an entry.

    Args:
        row: its number, from 0.
        cells: column -> value.
        where: what to call it in messages.
        locate: the path of a row -> path or URL of the file.

    Raises:
        OptionError: path or landmark are empty, coordinates are no place on Earth, or JSON cannot hold a value.
    """
    values = {key: value.strip() if isinstance(value, str) else value for key, value in cells.items()}
    path, landmark, name = ("" if values.get(key) is None else str(values[key]) for key in ("path", "landmark", "name"))
    landmark = " ".join(landmark.splitlines())  # a cell of a spreadsheet may have several lines
    if not path or not landmark:
        raise OptionError(f"{where}: path {path!r}, landmark {landmark!r}; neither may be empty")
    rest = {key: value for key, value in values.items() if key not in COLUMNS and value not in (None, "")}
    try:
        position = parse_position(values.get("latitude"), values.get("longitude"))
        json.dumps(rest, allow_nan=False)
    except OptionError as e:
        raise OptionError(f"{where}: {e}") from None
    except (TypeError, ValueError) as e:
        raise OptionError(f"{where}: {e}; other columns must be what JSON can hold") from e
    latitude, longitude = position or (None, None)
    return PhotoEntry(row, locate(path), name or path, landmark, latitude, longitude, rest)
