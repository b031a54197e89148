"""Tables of landmarks as files: CSV, TSV, JSON, JSON Lines and GeoJSON, read row by row by sqlite-utils."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from delf_edge.errors import OptionError
from delf_edge.files import parse_json

FORMATS = ("csv", "tsv", "json", "jsonl", "geojson")
_SUFFIXES = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".json": "json",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".geojson": "geojson",
}
MAX_TABLE = 1 << 30  # bytes of a file that is read


class _Strict(csv.excel):
    strict = True  # a quote that is never closed is an error, not the rest of the file


class _Tabs(_Strict):
    delimiter = "\t"


class _Semicolons(_Strict):
    delimiter = ";"  # what spreadsheets write where the comma is for decimals


@dataclass(frozen=True, slots=True)
class TableRow:
    """A row as it was found: where it is, for messages, and its values by column."""

    where: str
    values: Mapping[str, Any]


def format_of(path: Path, given: str | None = None) -> str:
    """The format of a table, one of `FORMATS`, by what is said or by the file's suffix.

    Raises:
        OptionError: neither says one.
    """
    found = given or _SUFFIXES.get(path.suffix.lower())
    if found not in FORMATS:
        raise OptionError(f"{path}: format {given or path.suffix or 'unknown'!r} is none of {', '.join(FORMATS)}")
    return found


def read_table(path: Path, given: str | None = None) -> Iterator[TableRow]:
    """The rows of a table, counted from 1 without its header.

    Args:
        path: the file, in UTF-8.
        given: its format, if the suffix does not say it.

    Raises:
        OptionError: it cannot be read, or a row of it cannot; the message names the row.
    """
    kind = format_of(path, given)
    try:
        with path.open("rb") as file:
            data = file.read(MAX_TABLE + 1)
    except OSError as e:
        raise OptionError(f"{path}: cannot be read ({e.strerror})") from e
    if len(data) > MAX_TABLE:
        raise OptionError(f"{path}: more than {MAX_TABLE:,} bytes; split it")
    try:
        data.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        row = data.count(b"\n", 0, e.start) + 1
        raise OptionError(f"{path}, line {row}: no text in UTF-8 ({e.reason}); save it as UTF-8") from e
    rows = {"csv": _delimited, "tsv": _delimited, "jsonl": _json_lines}.get(kind, _json)(data, kind, path)
    for number, values in enumerate(rows, 1):
        where = f"{path}, row {number}"
        if not isinstance(values, Mapping):
            raise OptionError(f"{where}: {str(values)[:40]!r} is no object with a landmark's columns")
        yield TableRow(where, values)


def _delimited(data: bytes, kind: str, path: Path) -> Iterator[Any]:
    from sqlite_utils.utils import Format, RowError, rows_from_file

    first = data.removeprefix(b"\xef\xbb\xbf").partition(b"\n")[0].decode()
    dialect: type[csv.Dialect] = _Tabs if kind == "tsv" or "\t" in first else _Strict
    if kind == "csv" and first.count(";") > first.count(","):
        dialect = _Semicolons
    done = 0
    with _any_cell():
        try:
            header = next(csv.reader(io.StringIO(data.decode("utf-8-sig")), dialect), [])
            _check_header(header, path)
            rows, _ = rows_from_file(io.BytesIO(data), format=Format.CSV, dialect=dialect)
            for done, values in enumerate(rows, 1):  # noqa: B007  (the number of the row before a bad one)
                yield {k: v for k, v in values.items() if v is not None and v != ""}
        except (csv.Error, RowError) as e:
            raise OptionError(f"{path}, row {done + 1}: {e}; check its quotes and the number of its cells") from e


@contextmanager
def _any_cell() -> Iterator[None]:
    """Cells of any size while a table is read: what is too long is said with its column, later."""
    usual = csv.field_size_limit(MAX_TABLE)
    try:
        yield
    finally:
        csv.field_size_limit(usual)


def _check_header(header: list[str], path: Path) -> None:
    names = [name.strip().lower() for name in header]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise OptionError(f"{path}: the column {twice[0]!r} is there twice; name each column once")
    if not any(names):
        raise OptionError(f"{path}: its first line names no column; begin with slug or name")


def _json_lines(data: bytes, kind: str, path: Path) -> Iterator[Any]:
    from sqlite_utils.utils import Format, rows_from_file

    done = 0
    try:
        rows, _ = rows_from_file(io.BytesIO(data.removeprefix(b"\xef\xbb\xbf")), format=Format.NL)
        for done, values in enumerate(rows, 1):  # noqa: B007
            yield values
    except (ValueError, RecursionError) as e:
        raise OptionError(f"{path}, row {done + 1}: no JSON ({e}); JSON Lines have one object a line") from e


def _json(data: bytes, kind: str, path: Path) -> Iterator[Any]:
    try:
        found = parse_json(data.removeprefix(b"\xef\xbb\xbf"))
    except json.JSONDecodeError as e:
        raise OptionError(f"{path}, line {e.lineno}: no JSON ({e.msg})") from e
    except ValueError as e:
        raise OptionError(f"{path}: no JSON ({e})") from e
    if isinstance(found, dict) and found.get("type") == "FeatureCollection":
        yield from _features(found.get("features"), path)
    elif kind == "geojson":
        raise OptionError(f"{path}: no GeoJSON FeatureCollection (RFC 7946)")
    elif isinstance(found, list):
        yield from found
    elif isinstance(found, dict):
        landmarks = found.get("landmarks")
        yield from landmarks if isinstance(landmarks, list) else [found]
    else:
        raise OptionError(f"{path}: neither a list of landmarks nor one landmark")


def _features(features: Any, path: Path) -> Iterator[Any]:
    """Features as rows: their properties, and the position of a point."""
    if not isinstance(features, list):
        raise OptionError(f"{path}: a FeatureCollection without a list of features")
    for number, feature in enumerate(features, 1):
        where = f"{path}, row {number}"
        properties = feature.get("properties") if isinstance(feature, dict) else None
        geometry = feature.get("geometry") if isinstance(feature, dict) else None
        if not isinstance(properties, dict):
            raise OptionError(f"{where}: no GeoJSON feature with properties")
        row = dict(properties)
        if isinstance(geometry, dict):
            point = geometry.get("coordinates")
            if geometry.get("type") != "Point":
                row[f"geometry of type {str(geometry.get('type'))[:40]}"] = geometry
            elif not isinstance(point, list) or len(point) not in (2, 3):
                raise OptionError(f"{where}, column geometry: {str(point)[:40]} is no [longitude, latitude]")
            else:
                row["longitude"], row["latitude"] = point[0], point[1]
        yield row
