"""What `delf-edge index` reads: a folder of photos, one subfolder a landmark, or a table of photos (CSV)."""

from __future__ import annotations

import csv
import os
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

from delf_edge.errors import OptionError
from delf_edge.images.headers import PHOTO_SUFFIXES
from delf_edge.interchange.csv_tables import read_csv
from delf_edge.interchange.photo_entry import PhotoEntry, entry_from

# Folders that systems and network drives make for themselves, in lower case; those that begin with a dot besides.
SYSTEM_FOLDERS = frozenset(
    {
        "#recycle",
        "#snapshot",
        "$recycle.bin",
        "@eadir",
        "@recently-snapshot",
        "@recycle",
        "@tmp",
        "__macosx",
        "found.000",
        "lost+found",
        "recycler",
        "system volume information",
    }
)


class _Above(NamedTuple):
    """The folders around a folder, by device and inode."""

    folder: tuple[int, int]
    above: _Above | None


@dataclass(frozen=True, slots=True)
class FolderListing:
    """What was found below a folder; all names are paths below it, with forward slashes.

    Attributes:
        photos: by name, each with its landmark.
        unlabelled: photos that lie in no folder that could name a landmark.
        unreadable: folders that could not be read -> why.
        passed_over: files that are no photos, by suffix -> how many.
        excluded: folders of systems, and what was asked to be left out.
        sources: landmark -> the folders that are called so.
    """

    photos: list[PhotoEntry]
    unlabelled: list[str]
    unreadable: dict[str, str]
    passed_over: dict[str, int]
    excluded: list[str]
    sources: dict[str, list[str]]


def list_folder(folder: Path, landmark: str | None = None) -> tuple[list[PhotoEntry], list[str]]:
    """The photos below a folder, and the names of those without a landmark; see `walk_folder`."""
    listing = walk_folder(folder, landmark)
    return listing.photos, listing.unlabelled


def walk_folder(
    folder: Path, landmark: str | None = None, *, level: int = 1, exclude: Sequence[str] = ()
) -> FolderListing:
    """The photos below a folder, sorted by name. Hidden files and folders are passed over.

    Args:
        folder: where to look; photos may lie as deep inside as they like.
        landmark: all photos show this one; None: the folders say it.
        level: which folder's name is the landmark: 1 for those in `folder`, 2 for those in these, and so on; -1 for
            the one that a photo lies in.
        exclude: patterns such as "*.tmp" or "2019/*": files and folders whose name, or path below `folder`, match one
            are left out.

    Raises:
        OptionError: `folder` is no folder or cannot be read, there is no photo to index in it, or the level is 0.
    """
    if level == 0:
        raise OptionError("level 0 is no folder; 1 is the first one below the folder that is indexed, -1 the last")
    if not folder.is_dir():
        what = "name one that has a subfolder of photos for each landmark"
        if folder.suffix.lower() in (".csv", ".tsv", ".txt") and folder.exists():
            what = f"a table of photos goes to `--manifest {folder.name}`, beside the folder that its paths are below"
        elif folder.exists():
            what = f"it is a file; {what}"
        raise OptionError(f"{folder}: not a folder; {what}")
    listing = FolderListing([], [], {}, {}, [], {})
    for path, inside in _files(folder, exclude, listing):
        suffix = path.suffix.lower()
        if suffix not in PHOTO_SUFFIXES:
            listing.passed_over[suffix] = listing.passed_over.get(suffix, 0) + 1
            continue
        folders = inside.split("/")[:-1]
        named = landmark
        if landmark is None and len(folders) >= abs(level):
            at = level - 1 if level > 0 else len(folders) + level
            named = folders[at]
            sources = listing.sources.setdefault(named, [])
            if (source := "/".join(folders[: at + 1])) not in sources:
                sources.append(source)
        if named is None:
            listing.unlabelled.append(inside)
        else:
            listing.photos.append(PhotoEntry(len(listing.photos), str(path), inside, named))
    if "." in listing.unreadable:
        raise OptionError(f"{folder}: cannot be read ({listing.unreadable['.']})")
    if not listing.photos:
        others = "".join(f", {n} {suffix or 'without suffix'}" for suffix, n in sorted(listing.passed_over.items()))
        what = f"{folder}: no photo ({', '.join(sorted(PHOTO_SUFFIXES))})"
        if landmark is not None:
            raise OptionError(f"{what} in this folder{others and f'; it has{others[1:]}'}")
        raise OptionError(
            f"{what} to index, {len(listing.unlabelled)} outside a subfolder{others}; put the photos of each landmark "
            "into a subfolder of its name, or use --manifest or --landmark"
        )
    return listing


def _files(folder: Path, exclude: Sequence[str], listing: FolderListing) -> Iterator[tuple[Path, str]]:
    """Files below a folder and their paths in it, in a stable order; what cannot be read is noted.

    A link to one of the folders that it lies in is passed over: it would never end.
    """
    waiting: list[tuple[str, str, bool, _Above | None]] = [(str(folder), "", True, None)]
    while waiting:
        path, inside, is_folder, above = waiting.pop()
        if not is_folder:
            yield Path(path), inside
            continue
        try:
            status = os.stat(path)
            here = (status.st_dev, status.st_ino)
            if _is_above(here, above):
                continue
            with os.scandir(path) as entries:
                found = sorted(((entry.name, entry.is_dir()) for entry in entries), reverse=True)
        except OSError as e:
            listing.unreadable[inside or "."] = e.strerror or str(e)
            continue
        for name, below in found:
            child = f"{inside}/{name}" if inside else name
            if name.startswith("."):
                continue
            if (below and name.lower() in SYSTEM_FOLDERS) or _matches(name, child, exclude):
                listing.excluded.append(child)
            else:
                waiting.append((os.path.join(path, name), child, below, _Above(here, above)))


def _is_above(folder: tuple[int, int], above: _Above | None) -> bool:
    while above is not None:
        if above.folder == folder:
            return True
        above = above.above
    return False


def _matches(name: str, inside: str, patterns: Sequence[str]) -> bool:
    wanted = [pattern.rstrip("/") for pattern in patterns]
    return any(fnmatchcase(name, pattern) or fnmatchcase(inside, pattern) for pattern in wanted)


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
                    known.setdefault(same_elsewhere(entry), []).append(entry)
        alike = self._names[folder].get(same_elsewhere(name), [])
        return alike[0] if len(alike) == 1 else name


def same_elsewhere(name: str) -> str:
    """The same for paths that another system takes for the same: capitals, Unicode forms, separators."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name.replace("\\", "/")).casefold())
