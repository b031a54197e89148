"""Lists of training photos: where a photo lies and which place it shows."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from delf_edge.errors import ImageError, OptionError
from delf_edge.images.decode import load_image
from delf_edge.interchange.csv_tables import read_csv

PHOTO_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp"})
FORMS = ({"path", "place"}, {"id", "landmark_id"}, {"landmark_id", "images"})  # columns of the CSV files we know
Report = Callable[[str], None]


def silent(line: str) -> None:
    """Says nothing."""


@dataclass(frozen=True, slots=True)
class Photo:
    """One training photo, the name of the place it shows, and how much more often than others it is drawn."""

    path: Path
    place: str
    weight: float = 1.0


def from_folder(folder: str | Path) -> list[Photo]:
    """One subfolder a place (nested folders are one place by their relative path); hidden files are passed over."""
    root = Path(folder)
    return [
        Photo(path, path.parent.relative_to(root).as_posix())
        for path in sorted(root.rglob("*"))
        if path.suffix.lower() in PHOTO_SUFFIXES and path.parent != root and not _hidden(path.relative_to(root))
    ]


def _hidden(path: Path) -> bool:
    """Files that programs keep for themselves: `.thumbnails/1.jpg`, macOS' `._1.jpg`, a NAS' `@eaDir/1.jpg`."""
    return any(part.startswith((".", "@")) for part in path.parts)


def from_csv(manifest: str | Path, root: str | Path | None = None, report: Report = silent) -> list[Photo]:
    """Read our own CSV (`path,place`) or one of Google Landmarks v1 and v2.

    Those are train.csv (`id,...,landmark_id`) and train_clean.csv (`landmark_id,images`, where `images` holds ids
    with a blank between them).

    Args:
        manifest: the CSV file, with a header row; also as Excel and Windows write it (`csv_tables`).
        root: folder that the paths are relative to; default: the folder of the manifest. Google Landmarks v2
            photos lie at `root/a/b/c/abc....jpg`, those of v1 at `root/<id>.jpg`; whichever exists is taken.
        report: called with a line for every row that names no photo or no place.

    Raises:
        OptionError: the header has other columns, or the file is no such table.
    """
    manifest = Path(manifest)
    base = Path(root) if root is not None else manifest.parent
    photos: list[Photo] = []
    try:
        with manifest.open("rb") as file:
            for line, cells in read_csv(file, str(manifest), columns_of=_columns, wanted=frozenset()):
                found = list(_row(base, {name: value.strip() for name, value in cells.items()}))
                if not found:
                    report(f"{manifest}, line {line}: no photo or no place; passed over")
                photos += found
    except (UnicodeError, csv.Error) as e:
        raise OptionError(f"{manifest}: cannot be read as a CSV table ({e})") from e
    return photos


def _columns(names: Sequence[str], where: str) -> list[str]:
    columns = [name.strip().casefold() for name in names]
    if not any(form <= set(columns) for form in FORMS):
        raise OptionError(
            f"{where}: columns are {sorted(columns)}; expected path,place (ours), id,...,landmark_id or "
            "landmark_id,images (Google Landmarks)"
        )
    return columns


def _row(base: Path, cells: Mapping[str, str]) -> Iterator[Photo]:
    """The photos of a row; none where the photo or the place is blank."""
    place = cells.get("place") if "path" in cells and "place" in cells else cells.get("landmark_id")
    if not place:
        return
    if "path" in cells and "place" in cells:
        if cells["path"]:
            yield Photo(base / cells["path"], place)
        return
    for photo_id in cells.get("id", cells.get("images", "")).split():
        yield Photo(_landmarks_path(base, photo_id), place)


def _landmarks_path(base: Path, photo_id: str) -> Path:
    nested = base / photo_id[0] / photo_id[1:2] / photo_id[2:3] / f"{photo_id}.jpg"
    return nested if nested.exists() else base / f"{photo_id}.jpg"


def read_photos(sources: Sequence[str | Path], root: str | Path | None = None, report: Report = silent) -> list[Photo]:
    """Read several folders and CSV manifests into one list.

    Raises:
        FileNotFoundError: a source does not exist.
        OptionError: a manifest has unknown columns, or there is no photo at all.
    """
    photos: list[Photo] = []
    for source in map(Path, sources):
        if source.is_dir():
            photos += from_folder(source)
        elif source.is_file():
            photos += from_csv(source, root, report)
        else:
            raise FileNotFoundError(f"{source}: no such folder or manifest")
    if not photos:
        raise OptionError(f"no photo in {', '.join(map(str, sources))}; expected a folder per place or a CSV")
    return photos


def readable(photos: Sequence[Photo], report: Report) -> tuple[list[Photo], list[Path]]:
    """The photos that the SDK can read, and the files that it cannot: absent, empty, cut off, no picture.

    Args:
        photos: what is to be read.
        report: called with a line for each that cannot be.

    Raises:
        OptionError: not one can be read.
    """
    good: list[Photo] = []
    bad: list[Path] = []
    for photo in photos:
        try:
            load_image(photo.path)
            good.append(photo)
        except (ImageError, OSError) as e:
            bad.append(photo.path)
            report(f"passed over: {e}")
    if not good:
        raise OptionError(f"none of {len(photos)} photos can be read; the first is {photos[0].path if photos else '-'}")
    return good, bad


def balanced(photos: Sequence[Photo], per_place: int) -> list[Photo]:
    """At most `per_place` photos of each place, evenly spread over its list."""
    total = Counter(p.place for p in photos)
    seen: Counter[str] = Counter()
    chosen = []
    for photo in photos:
        i, n = seen[photo.place], total[photo.place]
        seen[photo.place] += 1
        if n <= per_place or (i * per_place) // n != ((i - 1) * per_place) // n:
            chosen.append(photo)
    return chosen
