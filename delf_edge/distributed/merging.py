"""Finished shards become one database, or one for each value of a column; in the order of the manifest.

Images of the shards keep their ids (the row of the manifest plus 1) where they go into one database. Of a photo that is
in several rows the first counts, of a name likewise; the others are reported like bad rows. Rows of a catalogue go to
the databases that have their landmarks.
"""

from __future__ import annotations

import json
import re
import tempfile
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import fsspec

from delf_edge.catalogue.editor import apply_patches
from delf_edge.catalogue.reader import CatalogueReader
from delf_edge.catalogue.records import LandmarkPatch
from delf_edge.distributed.remote_files import put_path
from delf_edge.distributed.shards import BadRow, ShardManifest, read_manifests
from delf_edge.errors import BuildError, OptionError
from delf_edge.files import file_sha256
from delf_edge.storage.rows import Row
from delf_edge.storage.store import Store

_WHOLE = "places"


@dataclass(frozen=True, slots=True)
class Merged:
    """A database that was made: its file's URL, counts, and hash."""

    url: str
    images: int
    landmarks: int
    features: int
    bytes: int
    sha256: str


class Merge(NamedTuple):
    """Databases that were made together.

    Attributes:
        databases: by name.
        bad: all rows of the manifest that gave no image.
        unused: rows of the catalogue whose landmark is in no database.
    """

    databases: list[Merged]
    bad: list[BadRow]
    unused: list[str]


class _Target:
    """A database that is being filled."""

    def __init__(self, path: Path, first: Store) -> None:
        self.path = path
        self.store = Store.open(path, bundle_id=first.bundle_id, layout=first.layout)
        self.landmarks: dict[str, int] = {}
        self.located: set[str] = set()
        self.features = 0
        facts = {"uuid": str(uuid.UUID(int=0)), "created_at": "0.000", "revision": "1"}
        self.store.write_rows({"meta": list(facts.items())})

    def add(self, shard: Store, images: Sequence[Row]) -> None:
        """Copy images of a shard with their landmarks and codes."""
        places = {row[0]: row for row in shard.rows("landmarks")}
        put: dict[str, list[Row]] = {"landmarks": [], "images": [], "codes": []}
        for image in images:
            place = places[image[2]]
            name, located = str(place[1]), place[3] is not None
            if name not in self.landmarks or (located and name not in self.located):
                number = self.landmarks.setdefault(name, len(self.landmarks) + 1)
                put["landmarks"].append((number, *place[1:]))
                self.located |= {name} if located else set()
            put["images"].append((*image[:2], self.landmarks[name], *image[3:]))
        put["codes"] = list(shard.rows("codes", [image[0] for image in images]))
        self.features += sum(int(row[1]) for row in put["codes"])
        self.store.write_rows(put)


def merge_shards(
    out: str,
    names: Sequence[str],
    *,
    split: str | None = None,
    catalogue: Sequence[LandmarkPatch] = (),
    on_shard: Callable[[int, int], None] | None = None,
) -> Merge:
    """Put shards together.

    Args:
        out: URL of the build's folder; shards are in its folder `shards`.
        names: shards in the order of the manifest.
        split: a column of the manifest; each of its values gets a database of its own. None: one database.
        catalogue: what is known of landmarks; each database takes what is said of those that its photos show.
        on_shard: called with (shards merged, shards in all).

    Returns:
        What was made, and what was left over.

    Raises:
        BuildError: a shard is damaged.
        OptionError: a value of the column cannot be a file's name, or two are too alike; or a row of the catalogue
            contradicts another.
    """
    targets: dict[str, _Target] = {}
    bad: list[BadRow] = []
    with tempfile.TemporaryDirectory(prefix="delf-edge-merge-") as scratch:
        folder = Path(scratch)
        try:
            for i, manifest in enumerate(read_manifests(f"{out}/shards", iter(names))):
                bad += manifest.bad
                with _opened(out, names[i], manifest, folder) as shard:
                    for key, rows in _grouped(shard, split).items():
                        if key not in targets:
                            targets[key] = _Target(folder / f"{key}.db", shard)
                        bad += _add_new(targets[key], shard, rows)
                if on_shard is not None:
                    on_shard(i + 1, len(names))
            bad.sort(key=lambda row: row.row)
            told = {where for key in targets for where in _describe(targets[key].store, catalogue)}
            unused = [patch.where for patch in catalogue if patch.where not in told]
            return Merge([_put(target, out, key) for key, target in sorted(targets.items())], bad, unused)
        finally:
            for target in targets.values():
                target.store.close()


def _opened(out: str, name: str, manifest: ShardManifest, folder: Path) -> Store:
    path = folder / "shard"
    url = f"{out}/shards/{name}.shard"
    try:
        with fsspec.open(url, "rb") as source, path.open("wb") as target:
            for block in iter(lambda: source.read(1 << 20), b""):
                target.write(block)
    except FileNotFoundError as e:
        raise BuildError(f"{url}: gone, though its manifest is there; remove {name}.json and build again") from e
    if file_sha256(path) != manifest.sha256:
        raise BuildError(f"{url}: damaged, its SHA-256 differs; remove {name}.json and build again")
    return Store.open(path, bundle_id=manifest.bundle_id, mode="ro")


def _grouped(shard: Store, split: str | None) -> dict[str, list[Row]]:
    if split is None:
        return {_WHOLE: list(shard.rows("images"))}
    groups: dict[str, list[Row]] = {}
    for row in shard.rows("images"):
        groups.setdefault(_slug(json.loads(row[3]).get(split), split), []).append(row)
    return groups


def _slug(value: Any, split: str) -> str:
    """A value as the name of a file."""
    text = "none" if value in (None, "") else str(value).lower()
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,63}", text):
        raise OptionError(f"column {split}: {value!r} cannot be a database's name; use letters, digits, '-' and '_'")
    return text


def _add_new(target: _Target, shard: Store, rows: Sequence[Row]) -> Iterator[BadRow]:
    """Add what the database does not have yet; the rest comes back."""
    fresh = []
    for row in rows:
        known = target.store.find_content(row[6])
        if known is not None or target.store.has_name(row[1]):
            yield BadRow(int(row[0]) - 1, str(row[1]), "Duplicate", "the same photo, or its name, came before")
        else:
            fresh.append(row)
    target.add(shard, fresh)


def _put(target: _Target, out: str, key: str) -> Merged:
    """Finish a database and put it into the build's folder."""
    target.store.compact()
    n_images, n_landmarks = len(target.store), len(target.landmarks)
    target.store.close()
    facts = target.path.stat().st_size, file_sha256(target.path)
    url = f"{out}/{key}.db"
    put_path(target.path, url)
    return Merged(url, n_images, n_landmarks, target.features, *facts)


def _describe(store: Store, catalogue: Sequence[LandmarkPatch]) -> list[str]:
    """Give the landmarks their slugs, and what a catalogue says of them; its slugs come before those made of names.

    Returns:
        The rows of the catalogue that were used.
    """
    if catalogue:
        with store.edit() as edit:
            for patch in catalogue:
                found = None if patch.name is None or patch.slug is None else edit.find_landmark(patch.name)
                if found is not None and patch.slug is not None:
                    edit.set_slug(found, str(patch.name), patch.slug)
    store.complete_details()
    by_name = CatalogueReader([store]).slugs()
    slugs = set(by_name.values())
    told = [patch for patch in catalogue if patch.name in by_name or patch.slug in slugs]
    if told:
        apply_patches(store, told)
    return [patch.where for patch in told]
