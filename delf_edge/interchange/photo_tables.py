"""The photos of a build: a CSV or Parquet table on any file system, read as a stream and cut into shards."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import fsspec

from delf_edge.errors import OptionError
from delf_edge.files import resolved

SHARD_FORMAT = 1
What = Literal["codes", "features"]
_COLUMNS = ("path", "landmark", "name", "latitude", "longitude")


@dataclass(frozen=True, slots=True)
class ListedRow:
    """A row of the manifest.

    Attributes:
        row: its number, from 0.
        url: where the photo is.
        name: what it is called in the database.
        landmark: the place it shows.
        latitude, longitude: of the place, degrees (WGS 84), None where unknown.
        metadata: the other columns.
    """

    row: int
    url: str
    name: str
    landmark: str
    latitude: float | None = None
    longitude: float | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Shard:
    """What one task has to do; all that its result depends on.

    Attributes:
        number: position in the manifest, from 0.
        rows: its photos.
        bundle: folder of the bundle, the same path on every worker.
        bundle_id: of the bundle that must be found there.
        preset: extraction preset.
        out: URL of the folder for shards.
        what: "codes", a database; or "features", raw features that a codebook is fitted on.
    """

    number: int
    rows: tuple[ListedRow, ...]
    bundle: str
    bundle_id: str
    preset: str
    out: str
    what: What = "codes"

    @property
    def key(self) -> str:
        """SHA-256 of everything that the result depends on."""
        facts = [SHARD_FORMAT, self.number, self.bundle_id, self.preset, [asdict(row) for row in self.rows]]
        facts += [] if self.what == "codes" else [self.what]
        return hashlib.sha256(json.dumps(facts, sort_keys=True, ensure_ascii=False).encode()).hexdigest()

    @property
    def name(self) -> str:
        """Name of its files, without suffix."""
        return f"{self.number:07d}-{self.key[:16]}"


def located(place: str) -> str:
    """A file or folder by its URL, or by its absolute path.

    Raises:
        OptionError: fsspec knows no such URL, or no file can have this name.
    """
    if "://" not in place:
        return str(resolved(place))
    try:
        fsspec.core.url_to_fs(place)
    except (ImportError, ValueError) as e:
        raise OptionError(f"{place}: {e}; pass a path, or a URL of a scheme that is installed") from e
    return place.rstrip("/")


def read_rows(source: str, base: str | None = None) -> Iterator[ListedRow]:
    """The rows of a manifest, as a stream.

    Args:
        source: path or fsspec URL of a `.csv` (UTF-8, with a header line) or `.parquet` file. Columns `path` and
            `landmark`; optionally `name`, `latitude`, `longitude`; every other one becomes metadata.
        base: where relative paths start; default: the folder of `source`.

    Raises:
        OptionError: the table cannot be read, or a row of it makes no sense; the message says which.
    """
    located(source)  # complains of what can be neither
    base = (base if base is not None else source.rpartition("/")[0] or ".").rstrip("/")
    try:
        for number, cells in enumerate(_parquet(source) if source.endswith(".parquet") else _csv(source)):
            yield _row(number, cells, base, f"{source}, row {number + 1}")
    except (OSError, UnicodeDecodeError, csv.Error) as e:
        raise OptionError(f"{source}: cannot be read as a table ({e})") from e


def _csv(source: str) -> Iterator[Mapping[str, Any]]:
    with fsspec.open(source, "rb") as file, io.TextIOWrapper(file, "utf-8-sig", newline="") as text:
        reader = csv.DictReader(text, strict=True)
        _check_columns(source, list(reader.fieldnames or ()))
        yield from reader


def _parquet(source: str) -> Iterator[Mapping[str, Any]]:
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    with fsspec.open(source, "rb") as file:
        try:
            table = ParquetFile(file)
            _check_columns(source, table.schema_arrow.names)
            for batch in table.iter_batches(4096):
                yield from batch.to_pylist()
        except ArrowException as e:
            raise OptionError(f"{source}: cannot be read as Parquet ({e})") from e


def _check_columns(source: str, names: list[str]) -> None:
    missing = {"path", "landmark"} - set(names)
    if missing:
        raise OptionError(f"{source}: column {', '.join(sorted(missing))} missing; it has {names}")


def _row(number: int, cells: Mapping[str, Any], base: str, where: str) -> ListedRow:
    if None in cells:
        raise OptionError(f"{where}: more cells than the header has columns; quote a cell that holds a comma")
    path, landmark, name = (str(cells.get(key) or "").strip() for key in ("path", "landmark", "name"))
    if not path or not landmark:
        raise OptionError(f"{where}: path {path!r}, landmark {landmark!r}; neither may be empty")
    rest = {key: value for key, value in cells.items() if key not in _COLUMNS and value not in (None, "")}
    try:
        at = [None if cells.get(k) in (None, "") else float(cells[k]) for k in ("latitude", "longitude")]
        json.dumps(rest, allow_nan=False)
    except (TypeError, ValueError) as e:
        raise OptionError(f"{where}: {e}; coordinates are degrees, other columns must be what JSON can hold") from e
    if None in at:
        at = [None, None]
    if abs(at[0] or 0.0) > 90 or abs(at[1] or 0.0) > 180:
        raise OptionError(f"{where}: latitude {at[0]} and longitude {at[1]} are no place on Earth")
    url = path if "://" in path or path.startswith("/") else f"{base}/{path}"
    return ListedRow(number, url, name or path, landmark, at[0], at[1], rest)


def cut(
    rows: Iterator[ListedRow],
    size: int,
    *,
    bundle: str,
    bundle_id: str,
    preset: str,
    out: str,
    what: What = "codes",
) -> Iterator[Shard]:
    """Shards of `size` photos each, the last one of what is left."""
    number = 0
    waiting: list[ListedRow] = []
    for row in rows:
        waiting.append(row)
        if len(waiting) == size:
            yield Shard(number, tuple(waiting), bundle, bundle_id, preset, out, what)
            number, waiting = number + 1, []
    if waiting:
        yield Shard(number, tuple(waiting), bundle, bundle_id, preset, out, what)
