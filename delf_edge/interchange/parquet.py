"""Databases as Parquet and GeoJSON (extra `interchange`: pyarrow), for programs that are not delf-edge.

`images.parquet`, one row an image; the bundle, the layout of the codes and this format's number are in the schema's
metadata under the key `delf-edge`, as JSON::

    name, landmark       string
    metadata             string, JSON
    width, height        int32, pixels; keypoints refer to them
    content_hash         binary
    added_at             double, seconds since 1970
    latitude, longitude  double, of the landmark, degrees (WGS 84), may be null
    keypoints            list<float>, x and y of each feature in turn, best feature first
    words                list<uint16>
    codes                binary, M bytes a feature
    global_code          binary, int8
    descriptors          list<float>, D of each feature in turn; only where asked for

`catalogue.jsonl`: what is known of the landmarks (`catalogue.exporter`), texts, pictures and sounds included; an export
without it is imported all the same.

`landmarks.geojson`: a FeatureCollection (RFC 7946) with a Point for every landmark that has coordinates.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from delf_edge.bundle.bundle import Bundle
from delf_edge.catalogue.catalogue import Catalogue
from delf_edge.catalogue.columns import read_patches
from delf_edge.catalogue.editor import apply_patches, names_of
from delf_edge.catalogue.records import LandmarkPatch
from delf_edge.errors import BundleMismatchError, OptionError
from delf_edge.files import dump_metadata, parse_json, replacing, write_atomically
from delf_edge.quantization.packed_codes import CodeLayout
from delf_edge.quantization.product_quantizer import decode
from delf_edge.storage.names import (
    ALSO_FROM,
    INDEXED_AS,
    PATH,
    corrected_metadata,
    merged_metadata,
    numbered,
    renamed_since,
    without_path,
)
from delf_edge.storage.records import Landmark, NewImage, StoredImage
from delf_edge.storage.store import Store
from delf_edge.types import Codes

EXPORT_FORMAT = 1
IMAGES, LANDMARKS, CATALOGUE_LINES = "images.parquet", "landmarks.geojson", "catalogue.jsonl"
_KEY = b"delf-edge"
_BATCH = 500
_FIELDS = [
    ("name", pa.string()),
    ("landmark", pa.string()),
    ("metadata", pa.string()),
    ("width", pa.int32()),
    ("height", pa.int32()),
    ("content_hash", pa.binary()),
    ("added_at", pa.float64()),
    ("latitude", pa.float64()),
    ("longitude", pa.float64()),
    ("keypoints", pa.list_(pa.float32())),
    ("words", pa.list_(pa.uint16())),
    ("codes", pa.binary()),
    ("global_code", pa.binary()),
]


def _check_folder(folder: Path) -> None:
    """Only an earlier export is replaced: `images.parquet` says of itself that it is one."""
    there = [name for name in (IMAGES, LANDMARKS, CATALOGUE_LINES) if (folder / name).exists()]
    if not there:
        return
    try:
        ours = _KEY in (pq.read_schema(folder / IMAGES).metadata or {})
    except (OSError, pa.ArrowException):
        ours = False
    if not ours:
        raise OptionError(f"{folder}: {there[0]} is there and no export made it; choose another folder")


def export_database(store: Store, folder: Path, *, decode_with: Bundle | None = None) -> dict[str, Any]:
    """Write `images.parquet` and `landmarks.geojson`.

    Args:
        store: the database; damaged images are left out, and counted.
        folder: made if need be; files of these names are replaced.
        decode_with: the database's bundle, to write descriptors too; None writes codes only.

    Returns:
        Counts.

    Raises:
        BundleMismatchError: `decode_with` is another bundle.
        OptionError: files of these names are there, and no export made them.
        StoreError, OSError: something cannot be read or written.
    """
    if decode_with is not None and decode_with.id != store.bundle_id:
        raise BundleMismatchError(
            f"{store.path}: made with bundle {store.bundle_id}, the loaded one is {decode_with.id}; see --bundle"
        )
    _check_folder(folder)
    folder.mkdir(parents=True, exist_ok=True)
    landmarks = {landmark.name: landmark for landmark in store.landmarks()}
    fields = [*_FIELDS, *([("descriptors", pa.list_(pa.float32()))] if decode_with else [])]
    facts = {"format": EXPORT_FORMAT, "bundle_id": store.bundle_id, "layout": dataclasses.asdict(store.layout)}
    schema = pa.schema(fields, metadata={_KEY: json.dumps(facts).encode()})
    n_images = n_features = 0
    # Opened here: of a path pyarrow makes a URI, which no name that is not UTF-8 can be.
    with (
        replacing(folder / IMAGES) as partial,
        partial.open("wb") as file,
        pq.ParquetWriter(file, schema, compression="zstd") as writer,
    ):
        for batch in _batches(store):
            codes = store.codes([image.image_id for image in batch])
            rows = [
                _row(i, landmarks[i.landmark], codes[i.image_id], decode_with) for i in batch if i.image_id in codes
            ]
            writer.write_table(pa.Table.from_pylist(rows, schema=schema))
            n_images += len(rows)
            n_features += sum(len(c) for c in codes.values())
    collection = geojson(landmarks)
    text = json.dumps(collection, ensure_ascii=False, indent=1) + "\n"
    write_atomically(folder / LANDMARKS, text.encode())
    Catalogue([store]).export_file(folder / CATALOGUE_LINES)
    located = len(collection["features"])
    return {
        "images": n_images,
        "features": n_features,
        "landmarks": len(landmarks),
        "located": located,
        "damaged": len(store.damaged),
    }


def _batches(store: Store) -> Iterator[list[StoredImage]]:
    waiting: list[StoredImage] = []
    for image in store.images():
        waiting.append(image)
        if len(waiting) == _BATCH:
            yield waiting
            waiting = []
    if waiting:
        yield waiting


def _row(image: StoredImage, landmark: Landmark, codes: Codes, bundle: Bundle | None) -> dict[str, Any]:
    row = {
        "name": image.name,
        "landmark": image.landmark,
        "metadata": dump_metadata(without_path(image.metadata)),
        "width": codes.image_size[0],
        "height": codes.image_size[1],
        "content_hash": image.content_hash,
        "added_at": image.added_at,
        "latitude": landmark.latitude,
        "longitude": landmark.longitude,
        "keypoints": codes.keypoints.ravel(),
        "words": codes.words,
        "codes": codes.codes.tobytes(),
        "global_code": codes.global_code.tobytes(),
    }
    if bundle is not None:
        row["descriptors"] = decode(codes, bundle.codebook).ravel()
    return row


def geojson(landmarks: Mapping[str, Landmark]) -> dict[str, Any]:
    """Landmarks with coordinates as a FeatureCollection (RFC 7946: longitude first)."""
    features = [
        {
            "type": "Feature",
            "geometry": {"type": "Point", "coordinates": [landmark.longitude, landmark.latitude]},
            "properties": {**landmark.metadata, "name": landmark.name, "images": landmark.n_images},
        }
        for landmark in landmarks.values()
        if landmark.latitude is not None and landmark.longitude is not None
    ]
    return {"type": "FeatureCollection", "features": features}


def import_database(store: Store, folder: Path) -> dict[str, Any]:
    """Add the images of an export, with their landmarks' coordinates and metadata.

    Args:
        store: a writable database of the same bundle.
        folder: where `export_database` wrote.

    Returns:
        How many images were added or updated; the landmarks that were placed. No image takes over the name of another
        photo: it gets a number ("a (2).jpg"). Landmarks that were renamed here since keep their new names.

    Raises:
        OptionError: the files are not an export, or hold what cannot be stored; images of earlier batches stay.
        BundleMismatchError: they are of another bundle.
    """
    path = folder / IMAGES
    counts = {"added": 0, "updated": 0, "replaced": 0}
    places: dict[str, tuple[float | None, float | None]] = {}
    lines, catalogue = folder / CATALOGUE_LINES, list[LandmarkPatch]()
    if lines.exists():
        catalogue, _ = read_patches(lines, database=Path(store.path).resolve().parent)
    try:
        located_there = _properties(folder / LANDMARKS)
        there = chain(names_of(catalogue), located_there.items())
        now = renamed_since([(landmark.name, landmark.metadata) for landmark in store.landmarks()], there)
        with path.open("rb") as file, pq.ParquetFile(file) as table:
            _check(path, table.schema_arrow, store)
            for batch in table.iter_batches(_BATCH, columns=[name for name, _ in _FIELDS]):
                rows = [row | {"landmark": now.get(row["landmark"], row["landmark"])} for row in batch.to_pylist()]
                images = [_new_image(row, store.layout, path) for row in rows]
                for added in store.add_many(_with_free_names(store, images)):
                    counts[added.status] += 1
                places |= {row["landmark"]: (row["latitude"], row["longitude"]) for row in rows}
        known = {now.get(name, name): said for name, said in located_there.items()}
    except (OSError, pa.ArrowException) as e:
        raise OptionError(f"{path}: cannot be read as an export of delf-edge ({e})") from e
    located = {name: at for name, at in places.items() if None not in at}
    by_hand = store.located_by_hand()
    for name, (latitude, longitude) in located.items():
        landmark = store.landmark(name)
        if landmark.landmark_id in by_hand:
            latitude, longitude = landmark.latitude, landmark.longitude
        metadata = merged_metadata(landmark.metadata, known.get(name, {}))
        store.set_landmark(name, metadata=metadata, latitude=latitude, longitude=longitude)
    if lines.exists():
        apply_patches(store, catalogue, from_export=True)
    return {**counts, "located": len(located)}


def _with_free_names(store: Store, images: Sequence[NewImage]) -> list[NewImage]:
    """The images in an order in which each finds its name free, those with numbers in their names that do not.

    Names may have gone round since the export: an image that is to give its name up goes first.
    """
    named: list[NewImage] = []
    taken: set[str] = set()
    given_up: set[str] = set()
    own: dict[bytes, str] = {}

    def take(image: NewImage, name: str) -> bool:
        holder = store.image(name).content_hash if name not in given_up and store.has_name(name) else None
        if holder != image.content_hash and (holder is not None or name in taken):
            return False
        if own.get(image.content_hash, name) != name:
            given_up.add(own[image.content_hash])
        taken.add(name)
        named.append(dataclasses.replace(image, name=name))
        return True

    waiting: list[NewImage] = []
    for image in images:
        known = store.find_content(image.content_hash)
        if known is not None:
            stored = store.image(known)
            own[image.content_hash] = stored.name
            image = dataclasses.replace(image, metadata=_with_origin(image, stored))
        if not take(image, image.name):
            waiting.append(image)
    progress = True
    while waiting and progress:
        left = [image for image in waiting if not take(image, image.name)]
        progress, waiting = len(left) < len(waiting), left
    for image in waiting:
        stays = [own[image.content_hash]] if image.content_hash in own else []
        next(name for name in chain(stays, numbered(image.name)) if take(image, name))
    return named


def _with_origin(image: NewImage, stored: StoredImage) -> dict[str, Any]:
    """Metadata of an image that is stored already: its file here stays known, and `index` leaves the new landmark."""
    if PATH not in stored.metadata:
        return dict(image.metadata)
    here = (PATH, ALSO_FROM, INDEXED_AS)
    known = {key: stored.metadata[key] for key in here if key in stored.metadata} | dict(image.metadata)
    return corrected_metadata(known, stored.landmark, image.landmark)


def _check(path: Path, schema: pa.Schema, store: Store) -> None:
    missing = {name for name, _ in _FIELDS} - set(schema.names)
    try:
        facts = parse_json((schema.metadata or {})[_KEY])
        layout = CodeLayout(**facts["layout"])
    except (KeyError, ValueError, TypeError) as e:
        raise OptionError(f"{path}: no export of delf-edge: its schema does not say how it was made ({e})") from e
    if facts["format"] != EXPORT_FORMAT or missing:
        raise OptionError(
            f"{path}: format {facts['format']}, missing columns {sorted(missing)}; this reads format {EXPORT_FORMAT}"
        )
    if (facts["bundle_id"], layout) != (store.bundle_id, store.layout):
        raise BundleMismatchError(
            f"{path}: made with bundle {facts['bundle_id']} ({layout}), {store.path} with {store.bundle_id} "
            f"({store.layout}); codes mean nothing in another bundle, index the photos again"
        )


def _new_image(row: Mapping[str, Any], layout: CodeLayout, path: Path) -> NewImage:
    try:
        n = len(row["words"])
        codes = Codes(
            keypoints=np.array(row["keypoints"], np.float32).reshape(n, 2),
            words=np.array(row["words"], np.uint16),
            codes=np.frombuffer(row["codes"], np.uint8).reshape(n, layout.code_size).copy(),
            global_code=np.frombuffer(row["global_code"], np.int8).copy(),
            image_size=(row["width"], row["height"]),
        )
        return NewImage(row["name"], row["landmark"], row["content_hash"], codes, parse_json(row["metadata"]))
    except (TypeError, ValueError) as e:
        raise OptionError(f"{path}: image {row['name']!r}: {e}") from e


def _properties(path: Path) -> dict[str, dict[str, Any]]:
    """Metadata of landmarks by name; none where there is no such file."""
    if not path.exists():
        return {}
    try:
        features = parse_json(path.read_bytes())["features"]
        properties = [dict(feature["properties"]) for feature in features]
        return {p["name"]: {k: v for k, v in p.items() if k not in ("name", "images")} for p in properties}
    except (ValueError, KeyError, TypeError) as e:
        raise OptionError(f"{path}: not the GeoJSON that an export writes ({e})") from e
