"""What `delf-edge index` reads: a folder of photos, one subfolder a landmark, or a table of photos (CSV)."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from delf_edge.errors import OptionError
from delf_edge.geo import parse_position

PHOTO_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})


@dataclass(frozen=True, slots=True)
class ListedPhoto:
    """A photo to index.

    Attributes:
        path: the file; whether it is there and readable is found out when it is read.
        name: what it is called in the database: its path below the folder, with forward slashes, or the table's name.
        landmark: the place it shows.
        metadata: further columns of the table.
        position: (latitude, longitude) of the landmark in degrees, None where the table has none.
    """

    path: Path
    name: str
    landmark: str
    metadata: Mapping[str, str] = field(default_factory=dict)
    position: tuple[float, float] | None = None


def list_folder(folder: Path, landmark: str | None = None) -> tuple[list[ListedPhoto], list[str]]:
    """The photos below a folder, sorted by name; hidden files and other kinds of files are passed over.

    Args:
        folder: each of its subfolders is a landmark of that name; photos may lie deeper inside.
        landmark: all photos below `folder` show this one instead.

    Returns:
        The photos, and the names of those that lie in no subfolder and so have no landmark.

    Raises:
        OptionError: `folder` is no folder, or there is no photo to index in it.
    """
    if not folder.is_dir():
        raise OptionError(f"{folder}: not a folder; name one that has a subfolder of photos for each landmark")
    listed: list[ListedPhoto] = []
    homeless: list[str] = []
    for path in _photos(folder):
        inside = path.relative_to(folder)
        if landmark is None and len(inside.parts) == 1:
            homeless.append(inside.as_posix())
        else:
            listed.append(ListedPhoto(path, inside.as_posix(), landmark or inside.parts[0]))
    if not listed:
        raise OptionError(
            f"{folder}: no photo ({', '.join(sorted(PHOTO_SUFFIXES))}) to index, {len(homeless)} outside a subfolder; "
            "put the photos of each landmark into a subfolder of its name, or use --manifest or --landmark"
        )
    return listed, homeless


def _photos(folder: Path, above: frozenset[tuple[int, int]] = frozenset()) -> Iterator[Path]:
    """Files with a photo's suffix below `folder`, hidden ones excepted, in a stable order.

    A link to one of the folders that it lies in (`above`, by device and inode) is passed over: it would never end.
    """
    status = folder.stat()
    here = (status.st_dev, status.st_ino)
    if here in above:
        return
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if path.is_dir():
            yield from _photos(path, above | {here})
        elif path.suffix.lower() in PHOTO_SUFFIXES:
            yield path


def read_manifest(table: Path, folder: Path) -> list[ListedPhoto]:
    """The photos of a CSV file with the columns `path` and `landmark`.

    Args:
        table: UTF-8 CSV with a header line. `path` is relative to `folder` or absolute; an optional column `name`
            names the image, `latitude` and `longitude` are the landmark's, in degrees; every other column with a
            value becomes metadata.
        folder: where relative paths start.

    Raises:
        OptionError: the file cannot be read, has no such columns, an empty cell in them, coordinates that are no
            place on Earth, or no row.
    """
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, strict=True)
            missing = {"path", "landmark"} - set(reader.fieldnames or ())
            if missing:
                raise OptionError(f"{table}: column {', '.join(sorted(missing))} missing; it has {reader.fieldnames}")
            listed = [_manifest_row(row, folder, f"{table}, line {reader.line_num}") for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as e:
        raise OptionError(f"{table}: cannot be read as a CSV table in UTF-8 ({e})") from e
    if not listed:
        raise OptionError(f"{table}: no row below the header; write one row for each photo")
    return listed


def _manifest_row(row: Mapping[str | None, object], folder: Path, where: str) -> ListedPhoto:
    """One row of the table; `where` names it in messages."""
    if None in row:
        raise OptionError(f"{where}: more cells than the header has columns; quote a cell that holds a comma")
    cells = {str(key): str(value or "").strip() for key, value in row.items()}
    path, landmark, name = cells.pop("path"), cells.pop("landmark"), cells.pop("name", "")
    if not path or not landmark:
        raise OptionError(f"{where}: path {path!r}, landmark {landmark!r}; neither may be empty")
    try:
        position = parse_position(cells.pop("latitude", ""), cells.pop("longitude", ""))
    except OptionError as e:
        raise OptionError(f"{where}: {e}") from None
    metadata = {key: value for key, value in cells.items() if value}
    return ListedPhoto(folder / path, name or Path(path).as_posix(), landmark, metadata, position)
