"""What `delf-edge index` reads: a folder of photos, one subfolder a landmark, or a table of photos (CSV)."""

from __future__ import annotations

import csv
import os
import unicodedata
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from delf_edge.errors import OptionError
from delf_edge.images.headers import PHOTO_SUFFIXES
from delf_edge.interchange.csv_tables import read_csv
from delf_edge.interchange.photo_entry import PhotoEntry, entry_from


def list_folder(folder: Path, landmark: str | None = None) -> tuple[list[PhotoEntry], list[str]]:
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
    listed: list[PhotoEntry] = []
    unlabelled: list[str] = []
    for path in _photos(folder):
        inside = path.relative_to(folder)
        if landmark is None and len(inside.parts) == 1:
            unlabelled.append(inside.as_posix())
        else:
            listed.append(PhotoEntry(len(listed), str(path), inside.as_posix(), landmark or inside.parts[0]))
    if not listed:
        raise OptionError(
            f"{folder}: no photo ({', '.join(sorted(PHOTO_SUFFIXES))}) to index, {len(unlabelled)} outside a "
            "subfolder; put the photos of each landmark into a subfolder of its name, or use --manifest or --landmark"
        )
    return listed, unlabelled


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


def read_manifest(table: Path, folder: Path) -> list[PhotoEntry]:
    """The photos of a CSV file with the columns `path` and `landmark`.

    Args:
        table: CSV with a header line (`csv_tables`). `path` is relative to `folder` or absolute; an optional column
            `name` names the image, `latitude` and `longitude` are the landmark's, in degrees; every other column with a
            value becomes metadata.
        folder: where relative paths start.

    Raises:
        OptionError: the file cannot be read, has no such columns, an empty cell in them, coordinates that are no
            place on Earth, or no row.
    """
    files = _Files(folder)
    listed: list[PhotoEntry] = []
    try:
        with table.open("rb") as file:
            for line, cells in read_csv(file, str(table)):
                entry = entry_from(len(listed), cells, f"{table}, line {line}", files.find)
                unnamed = not cells.get("name", "").strip()
                listed.append(replace(entry, name=files.name(entry.name)) if unnamed else entry)
    except (OSError, UnicodeError, csv.Error) as e:
        raise OptionError(f"{table}: cannot be read as a CSV table ({e})") from e
    if not listed:
        raise OptionError(f"{table}: no row below the header; write one row for each photo")
    return listed


class _Files:
    """Files by the paths of a manifest, which may have been written on another system.

    There "\\" separates folders, accents have another Unicode form, and upper and lower case are the same.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._names: dict[Path, dict[str, list[str]]] = {}

    def name(self, path: str) -> str:
        """A path of the manifest as the name of an image."""
        return Path(self._parts(path)).as_posix()

    def find(self, path: str) -> str:
        """The file of a path; where there is none, the path as it would be here."""
        found = Path(self._folder, self._parts(path))
        if not found.exists():
            here = Path(found.anchor)
            for part in found.parts[bool(found.anchor) :]:
                here /= self._entry(here, part)
            found = here if here.exists() else found
        return str(found)

    def _parts(self, path: str) -> str:
        if "\\" in path and "/" not in path and not Path(self._folder, path).exists():
            return path.replace("\\", "/")
        return path

    def _entry(self, folder: Path, name: str) -> str:
        """The entry of a folder that is called so on another system, if there is exactly one."""
        if (folder / name).exists():
            return name
        if folder not in self._names:
            known = self._names[folder] = {}
            with suppress(OSError):
                for entry in os.listdir(folder):
                    known.setdefault(_alike(entry), []).append(entry)
        alike = self._names[folder].get(_alike(name), [])
        return alike[0] if len(alike) == 1 else name


def _alike(name: str) -> str:
    """The same for names that another system takes for the same."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
