"""The photos of a build: a CSV or Parquet table on any file system, read as a stream and cut into shards."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import fsspec

from delf_edge.errors import OptionError
from delf_edge.files import resolved
from delf_edge.interchange.csv_tables import read_csv
from delf_edge.interchange.photo_entry import PhotoEntry, column_names, entry_from

SHARD_FORMAT = 1
What = Literal["codes", "features"]


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
        max_pixels: most pixels of a photo; None for the default.
    """

    number: int
    rows: tuple[PhotoEntry, ...]
    bundle: str
    bundle_id: str
    preset: str
    out: str
    what: What = "codes"
    max_pixels: int | None = None

    @property
    def key(self) -> str:
        """SHA-256 of everything that the result depends on."""
        facts = [SHARD_FORMAT, self.number, self.bundle_id, self.preset, [asdict(row) for row in self.rows]]
        facts += [] if self.what == "codes" else [self.what]
        facts += [] if self.max_pixels is None else [self.max_pixels]
        return hashlib.sha256(json.dumps(facts, sort_keys=True, ensure_ascii=False).encode()).hexdigest()

    @property
    def name(self) -> str:
        """Name of its files, without suffix."""
        return f"{self.number:07d}-{self.key[:16]}"


def located(location: str) -> str:
    """A file or folder by its URL, or by its absolute path.

    Raises:
        OptionError: fsspec knows no such URL, or no file can have this name.
    """
    if "://" not in location:
        return str(resolved(location))
    try:
        fsspec.core.url_to_fs(location)
    except (ImportError, ValueError) as e:
        raise OptionError(f"{location}: {e}; pass a path, or a URL of a scheme that is installed") from e
    return location.rstrip("/")


def read_rows(source: str, base: str | None = None) -> Iterator[PhotoEntry]:
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

    def locate(path: str) -> str:
        if "\\" in path and "/" not in path:  # from Windows
            path = path.replace("\\", "/")
        return path if "://" in path or path.startswith("/") else f"{base}/{path}"

    try:
        for number, (where, cells) in enumerate(_parquet(source) if source.endswith(".parquet") else _csv(source)):
            yield entry_from(number, cells, f"{source}, {where}", locate)
    except (OSError, UnicodeError, csv.Error) as e:
        raise OptionError(f"{source}: cannot be read as a table ({e})") from e


def _csv(source: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    with fsspec.open(source, "rb") as file:
        for line, cells in read_csv(file, source):
            yield f"line {line}", cells


def _parquet(source: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    with fsspec.open(source, "rb") as file:
        try:
            table = ParquetFile(file)
            names = column_names(table.schema_arrow.names, source)
            rows = (row for batch in table.iter_batches(4096) for row in batch.to_pylist())
            for number, row in enumerate(rows, 1):
                yield f"row {number}", dict(zip(names, row.values(), strict=True))
        except ArrowException as e:
            raise OptionError(f"{source}: cannot be read as Parquet ({e})") from e


def cut(
    rows: Iterator[PhotoEntry],
    size: int,
    *,
    bundle: str,
    bundle_id: str,
    preset: str,
    out: str,
    what: What = "codes",
    max_pixels: int | None = None,
) -> Iterator[Shard]:
    """Shards of `size` photos each, the last one of what is left."""
    number = 0
    waiting: list[PhotoEntry] = []
    for row in rows:
        waiting.append(row)
        if len(waiting) == size:
            yield Shard(number, tuple(waiting), bundle, bundle_id, preset, out, what, max_pixels)
            number, waiting = number + 1, []
    if waiting:
        yield Shard(number, tuple(waiting), bundle, bundle_id, preset, out, what, max_pixels)
