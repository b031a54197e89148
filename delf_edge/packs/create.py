"""Cut packs out of a database: which images, their rows, the manifest. The form of a pack: `packs.manifest`."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from delf_edge.errors import CorruptRowError, DelfEdgeError, OptionError, PackError
from delf_edge.files import dump_metadata, file_sha256, replacing, require_apart
from delf_edge.geo import Box
from delf_edge.packs.manifest import PackManifest, check_name, manifest_path
from delf_edge.storage.names import without_path
from delf_edge.storage.records import StoredImage
from delf_edge.storage.rows import CATALOGUE_TABLES, Row, chunks
from delf_edge.storage.schema import Value, row_bytes
from delf_edge.storage.store import Store

CONTENT = (
    "landmarks",
    "images",
    "codes",
    "thumbnails",
    *CATALOGUE_TABLES,
)  # the tables of a pack's content


@dataclass(frozen=True, slots=True)
class Selection:
    """Which images go into a pack: those for which all that is given holds; nothing given is everything.

    Attributes:
        region: only landmarks with coordinates inside.
        collection: only images whose landmark is in this collection, or whose metadata, or their landmark's, say
            `"collection": NAME`.
        landmarks: only these.
    """

    region: Box | None = None
    collection: str | None = None
    landmarks: frozenset[str] | None = None

    def as_json(self) -> dict[str, Any]:
        """What was asked for; a long list of landmarks as its count and hash."""
        shown: dict[str, Any] = {}
        if self.region is not None:
            shown["region"] = list(dataclasses.astuple(self.region))
        if self.collection is not None:
            shown["collection"] = self.collection
        if self.landmarks is not None:
            listed = "\n".join(sorted(self.landmarks)).encode()
            shown["landmarks"] = {"count": len(self.landmarks), "sha256": hashlib.sha256(listed).hexdigest()}
        return shown

    def chosen(self, store: Store) -> list[StoredImage]:
        """The images of `store` that this selects, by ascending id.

        Raises:
            OptionError: a listed landmark does not exist, or nothing is selected.
            CorruptRowError: a row is damaged, so that it is not known whether it belongs to the selection.
        """
        places = {place.name: place for place in store.landmarks()}
        unknown = sorted((self.landmarks or frozenset()) - places.keys())
        if unknown:
            raise OptionError(f"{store.path}: no landmark is called {', '.join(map(repr, unknown[:5]))}")
        collection_of = {row[0]: row[3] for row in store.rows("landmark_details")}
        chosen = []
        for image in store.images():
            place = places[image.landmark]
            said = (image.metadata.get("collection"), place.metadata.get("collection"))
            collections = (*said, collection_of.get(place.landmark_id))
            if (
                (self.landmarks is None or image.landmark in self.landmarks)
                and (self.region is None or self.region.holds(place.latitude, place.longitude))
                and (self.collection is None or self.collection in collections)
            ):
                chosen.append(image)
        if store.damaged:
            raise CorruptRowError(f"{store.path}: {next(iter(store.damaged.values()))}; mend it before cutting packs")
        if not chosen:
            raise OptionError(f"{store.path}: no image fits {self.as_json()}; see `delf-edge info`")
        return chosen


def cut_pack(
    source: Store,
    target: str | os.PathLike[str],
    *,
    name: str,
    version: int,
    selection: Selection | None = None,
    overwrite: bool = False,
) -> PackManifest:
    """Cut a pack out of a database: `target` and its manifest. The same content gives the same bytes.

    Args:
        source: the open database; others may use it meanwhile.
        target: the pack's file; put in place atomically.
        name: what devices call it.
        version: larger than that of the pack it follows.
        selection: which images; None for all.
        overwrite: replace a pack of the same file name.

    Raises:
        OptionError: a bad name or version, or nothing is selected.
        PackError: `target` exists.
        CorruptRowError: a row to be copied is damaged.
        StoreError: the file cannot be written.
    """
    target, selection = Path(target), selection or Selection()
    check_name(name)
    if version < 1:
        raise OptionError(f"version {version}: the first version of a pack is 1")
    if target.exists() and not overwrite:
        raise PackError(f"{target}: exists already; choose another name, or overwrite it (--overwrite)")
    require_apart(target, [source.path])
    if target.is_file() and not _is_pack(target):
        raise PackError(f"{target}: is no pack, and would be lost; choose another name, or remove it first")
    images = selection.chosen(source)
    with replacing(target) as partial:
        with Store.open(partial, bundle_id=source.bundle_id, layout=source.layout) as pack:
            copy_images(source, pack, [image.image_id for image in images], paths=False)
            pack.complete_details()  # where the source has no catalogue yet
            _set_meta(pack, name, source.revision())
            pack.seal()
        manifest = describe_pack(partial, name=name, version=version, selection=selection.as_json())
        manifest_path(target).unlink(missing_ok=True)  # a pack without a manifest is none: nothing false in between
    manifest.write(manifest_path(target))
    return manifest


def _is_pack(path: Path) -> bool:
    """Whether a file is a sealed database, or a manifest of a pack lies beside it: also where it is damaged."""
    if manifest_path(path).exists():
        return True
    try:
        with Store.open(path, mode="ro") as store:
            return store.sealed
    except DelfEdgeError:
        return False


def copy_images(
    source: Store, target: Store, image_ids: Sequence[int], *, catalogue: bool = True, paths: bool = True
) -> None:
    """Copy images with their landmarks, codes and thumbnails, and what is known of the landmarks.

    Rows are copied as they are; without `paths`, where the files of the images lie on this machine is left out.

    Raises:
        CorruptRowError: one of their rows is damaged, or gone.
    """
    landmarks: set[Value] = set()
    for ids in chunks(image_ids):
        rows: dict[str, list[Row]] = {
            table: list(source.rows(table, ids)) for table in ("images", "codes", "thumbnails")
        }
        if len(rows["images"]) != len(ids) or len(rows["codes"]) != len(ids) or source.damaged:
            what = next(iter(source.damaged.values()), "an image was removed meanwhile")
            raise CorruptRowError(f"{source.path}: {what}; mend it and try again")
        if not paths:
            rows["images"] = [_without_path(row) for row in rows["images"]]
        fresh = sorted({row[2] for row in rows["images"]} - landmarks)
        rows["landmarks"] = list(source.rows("landmarks", fresh))
        landmarks.update(fresh)
        if catalogue:
            rows |= catalogue_rows(source, fresh)
        target.write_rows(rows)


def _without_path(image: Row) -> Row:
    """A row of `images` without the path of its file, which is nobody else's business and of no use to them."""
    image_id, name, landmark_id, metadata, *rest = image
    return (image_id, name, landmark_id, dump_metadata(without_path(json.loads(metadata))), *rest)


def catalogue_rows(source: Store, landmark_ids: Sequence[Value]) -> dict[str, list[Row]]:
    """All rows of the catalogue that belong to these landmarks, by table.

    Raises:
        CorruptRowError: one of them is damaged.
    """
    ids = [key for key in landmark_ids if isinstance(key, int)]
    rows = {"landmark_details": list(source.rows("landmark_details", ids))}
    rows |= {table: source.catalogue.of(table, ids) for table in ("landmark_texts", "media")}
    rows["media_data"] = list(source.rows("media_data", [row[0] for row in rows["media"]]))
    if source.damaged:
        raise CorruptRowError(f"{source.path}: {next(iter(source.damaged.values()))}; mend it and try again")
    return rows


def _set_meta(pack: Store, name: str, revision: int) -> None:
    """What would differ from one run to the next is derived from the name instead."""
    facts = {
        "uuid": str(uuid.uuid5(uuid.NAMESPACE_URL, f"delf-edge:pack:{name}")),
        "created_at": "0.000",
        "revision": str(revision),
    }
    pack.write_rows({"meta": list(facts.items())})


def describe_pack(path: Path, *, name: str, version: int, selection: dict[str, Any]) -> PackManifest:
    """The manifest of a pack's file, from its bytes and rows.

    Raises:
        StoreError, CorruptRowError: it is not a sound database.
    """
    with Store.open(path, mode="ro") as store:
        info, content = store.info(), content_digest(store)
    return PackManifest(
        name=name,
        version=version,
        bundle_id=info.bundle_id,
        layout=info.layout,
        schema_version=info.schema_version,
        images=info.n_images,
        landmarks=info.n_landmarks,
        features=info.n_features,
        bytes=path.stat().st_size,
        sha256=file_sha256(path),
        content_sha256=content,
        selection=selection,
    )


def content_digest(store: Store) -> str:
    """SHA-256 over all rows (`row_bytes`) of the tables of `CONTENT`, in this order, by ascending key.

    Raises:
        CorruptRowError: a row is damaged.
    """
    digest = hashlib.sha256()
    for table in CONTENT:
        for row in store.rows(table):
            digest.update(row_bytes(table, row))
    if store.damaged:
        raise CorruptRowError(f"{store.path}: {next(iter(store.damaged.values()))}")
    return digest.hexdigest()
