"""Lists of training photos: where a photo lies and which place it shows."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

PHOTO_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp"})


@dataclass(frozen=True, slots=True)
class Photo:
    """One training photo, the name of the place it shows, and how much more often than others it is drawn."""

    path: Path
    place: str
    weight: float = 1.0


def from_folder(folder: str | Path) -> list[Photo]:
    """One subfolder a place (nested folders are one place by their relative path)."""
    root = Path(folder)
    return [
        Photo(path, path.parent.relative_to(root).as_posix())
        for path in sorted(root.rglob("*"))
        if path.suffix.lower() in PHOTO_SUFFIXES and path.parent != root
    ]


def from_csv(manifest: str | Path, root: str | Path | None = None) -> list[Photo]:
    """Read our own CSV (`path,place`) or a Google Landmarks v1 / v2 one (`id,...,landmark_id`).

    Args:
        manifest: the CSV file, with a header row.
        root: folder that the paths are relative to; default: the folder of the manifest. Google Landmarks v2
            photos lie at `root/a/b/c/abc....jpg`, those of v1 at `root/<id>.jpg`; whichever exists is taken.

    Raises:
        ValueError: the header has neither `path` and `place` nor `id` and `landmark_id`.
    """
    manifest = Path(manifest)
    base = Path(root) if root is not None else manifest.parent
    with manifest.open(newline="", encoding="utf-8") as f:
        reader = csv.DictReader(f)
        columns = set(reader.fieldnames or ())
        if {"path", "place"} <= columns:
            return [Photo(base / row["path"], row["place"]) for row in reader]
        if {"id", "landmark_id"} <= columns:
            return [Photo(_landmarks_path(base, row["id"]), row["landmark_id"]) for row in reader]
    raise ValueError(
        f"{manifest}: columns are {sorted(columns)}; "
        "expected path,place (ours) or id,...,landmark_id (Google Landmarks)"
    )


def _landmarks_path(base: Path, photo_id: str) -> Path:
    nested = base / photo_id[0] / photo_id[1:2] / photo_id[2:3] / f"{photo_id}.jpg"
    return nested if nested.exists() else base / f"{photo_id}.jpg"


def read_photos(sources: Sequence[str | Path], root: str | Path | None = None) -> list[Photo]:
    """Read several folders and CSV manifests into one list.

    Raises:
        FileNotFoundError: a source does not exist.
        ValueError: a manifest has unknown columns, or there is no photo at all.
    """
    photos: list[Photo] = []
    for source in map(Path, sources):
        if source.is_dir():
            photos += from_folder(source)
        elif source.is_file():
            photos += from_csv(source, root)
        else:
            raise FileNotFoundError(f"{source}: no such folder or manifest")
    if not photos:
        raise ValueError(f"no photo in {', '.join(map(str, sources))}; expected a folder per place or a CSV")
    return photos


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
