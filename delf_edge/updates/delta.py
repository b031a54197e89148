"""What changed between two versions of a pack, as a small database of its own.

A delta is a sealed database (`storage.schema`) with the rows of every image that was added or changed and their
landmarks, and a tombstone for every image that is gone; its `meta` holds besides::

    delta_from, delta_to     `content_sha256` of the versions it leads from and to
    delta_landmarks          ids of the landmarks that are gone, JSON
    delta_catalogue          table of the catalogue -> keys of its rows that are gone, JSON
    delta_revision           revision of the new version

It travels compressed by zlib. Whether the result is right is decided by the digest of its content, not by the delta.
"""

from __future__ import annotations

import dataclasses
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from delf_edge.errors import PackError, PackIntegrityError, StoreError
from delf_edge.files import parse_json, partial_path, remove_database, sync_path
from delf_edge.packs.create import content_digest, copy_images, describe_pack
from delf_edge.packs.manifest import PackManifest, manifest_path
from delf_edge.storage.rows import CATALOGUE_TABLES, Row
from delf_edge.storage.schema import Value
from delf_edge.storage.store import Store

_IMAGE_TABLES = ("images", "codes", "thumbnails")
_CHUNK = 500
_READ = 1 << 20


def make_delta(old: Path, new: Path, target: Path) -> int:
    """Write the delta from one version of a pack to another.

    Args:
        old, new: the files of the two versions; the same bundle.
        target: where to put it.

    Returns:
        Bytes of the database inside.

    Raises:
        PackError: the versions are of different bundles.
        CorruptRowError, StoreError: one of them is damaged, or the delta cannot be written.
    """
    inside = partial_path(target, "rows.")
    try:
        with Store.open(old, mode="ro") as a, Store.open(new, mode="ro") as b:
            if (a.bundle_id, a.layout) != (b.bundle_id, b.layout):
                raise PackError(f"{old} and {new} are of bundles {a.bundle_id} and {b.bundle_id}: no delta leads there")
            difference = _compare(a, b)
            known, forgotten = _compare_catalogue(a, b)
            facts = {
                "delta_from": content_digest(a),
                "delta_to": content_digest(b),
                "delta_landmarks": json.dumps(difference.removed_landmarks),
                "delta_catalogue": json.dumps(forgotten),
                "delta_revision": str(b.revision()),
                "uuid": b.uuid,
                "created_at": "0.000",
            }
            with Store.open(inside, bundle_id=b.bundle_id, layout=b.layout) as delta:
                copy_images(b, delta, difference.changed_images, catalogue=False)
                removed = [(i, b"", b.revision()) for i in difference.removed_images]
                delta.write_rows(
                    {"landmarks": difference.landmark_rows, "tombstones": removed, "meta": list(facts.items())}
                )
                delta.write_rows(known)
                delta.seal()
        data = inside.read_bytes()
        target.write_bytes(zlib.compress(data, 9))
        return len(data)
    finally:
        remove_database(inside)


class _Difference(NamedTuple):
    """What leads from one version to another: ids, and whole rows of the landmarks that are new or changed."""

    changed_images: list[int]
    removed_images: list[int]
    removed_landmarks: list[int]
    landmark_rows: list[Row]


def _compare(a: Store, b: Store) -> _Difference:
    """What is different in `b`."""
    changed: set[int] = set()
    keys = {table: (set(a.keys(table)), set(b.keys(table))) for table in (*_IMAGE_TABLES, "landmarks")}
    for table in _IMAGE_TABLES:
        before, after = keys[table]
        changed |= {int(k) for k in before ^ after if k in keys["images"][1] and isinstance(k, int)}
        changed |= {int(row[0]) for row in _different(a, b, table, sorted(before & after, key=_number))}
    before, after = keys["landmarks"]
    landmark_rows = list(_different(a, b, "landmarks", sorted(before & after, key=_number)))
    landmark_rows += b.rows("landmarks", sorted(after - before, key=_number))
    removed_landmarks = sorted(map(_number, before - after))
    removed_images = sorted(map(_number, keys["images"][0] - keys["images"][1]))
    return _Difference(sorted(changed), removed_images, removed_landmarks, landmark_rows)


def _compare_catalogue(a: Store, b: Store) -> tuple[dict[str, list[Row]], dict[str, list[int]]]:
    """New and changed rows of the catalogue with what they belong to, and keys of those that are gone."""
    put: dict[str, list[Row]] = {}
    gone: dict[str, list[int]] = {}
    for table in CATALOGUE_TABLES:
        before, after = set(a.keys(table)), set(b.keys(table))
        put[table] = list(_different(a, b, table, sorted(before & after, key=_number)))
        put[table] += b.rows(table, sorted(after - before, key=_number))
        gone[table] = sorted(map(_number, before - after))
    own = {row[0] for row in put["media"]}
    put["media"] += b.rows("media", sorted({row[0] for row in put["media_data"]} - own))
    landmarks = {row[0] for row in put["landmark_details"]} | {
        row[1] for table in ("landmark_texts", "media") for row in put[table]
    }
    put["landmarks"] = list(b.rows("landmarks", sorted(landmarks)))
    return put, gone


def _number(key: object) -> int:
    if not isinstance(key, int):
        raise ValueError(f"{key!r} is no id")
    return key


def _different(a: Store, b: Store, table: str, keys: list[object]) -> Iterator[Row]:
    """The rows of `b` that are not the same in `a`."""
    for i in range(0, len(keys), _CHUNK):
        chunk = [_number(key) for key in keys[i : i + _CHUNK]]
        before = {row[0]: row for row in a.rows(table, chunk)}
        yield from (row for row in b.rows(table, chunk) if row != before.get(row[0]))


def apply_delta(base: Path, delta: Path, target: Path, wanted: PackManifest, limit: int) -> PackManifest:
    """Make the new version of a pack out of the old one and a delta.

    Args:
        base: file of the old version; it stays as it is.
        delta: the compressed delta.
        target: file of the new version, with a manifest of its own: its content is what `wanted` says, its bytes
            depend on this machine's SQLite.
        wanted: manifest of the new version, from the signed channel.
        limit: bytes that the delta may have when it is decompressed.

    Returns:
        The manifest of `target`.

    Raises:
        PackIntegrityError: the delta is damaged, is for another version, or does not lead to what is wanted.
        StoreError: something cannot be read or written.
    """
    inside = partial_path(target, "rows.")
    try:
        _decompress(delta, inside, limit)
        with Store.open(base, mode="ro") as old, Store.open(inside, mode="ro") as changes:
            if (changes.bundle_id, changes.layout) != (old.bundle_id, old.layout):
                raise PackIntegrityError(f"{delta}: of bundle {changes.bundle_id}, the pack is of {old.bundle_id}")
            facts = {str(row[0]): str(row[1]) for row in changes.rows("meta")}
            if facts.get("delta_to") != wanted.content_sha256:
                raise PackIntegrityError(f"{delta}: leads to another version than {wanted.name} {wanted.version}")
            old.snapshot(target, overwrite=True)
            with Store.open(target, keep_version=wanted.schema_version == 1) as new:
                _merge(changes, new, facts)
                new.seal()
        made = describe_pack(target, name=wanted.name, version=wanted.version, selection=wanted.selection)
        same = dataclasses.replace(made, bytes=wanted.bytes, sha256=wanted.sha256, schema_version=wanted.schema_version)
        if same != wanted:
            raise PackIntegrityError(f"{delta}: does not lead to {wanted.name} version {wanted.version}")
        sync_path(target)
        made.write(manifest_path(target))
        return made
    except (ValueError, KeyError, TypeError, zlib.error) as e:
        remove_database(target)
        raise PackIntegrityError(f"{delta}: damaged ({e}); the whole pack is needed") from e
    except (PackError, StoreError):
        remove_database(target)
        raise
    finally:
        remove_database(inside)


def _merge(changes: Store, new: Store, facts: dict[str, str]) -> None:
    images = [_number(key) for key in changes.keys("images")]
    removed = [_number(key) for key in changes.keys("tombstones")]
    landmarks = [_number(key) for key in parse_json(facts["delta_landmarks"])]
    forgotten = parse_json(facts.get("delta_catalogue", "{}"))
    tables = ("landmarks", *_IMAGE_TABLES, *CATALOGUE_TABLES)
    put: dict[str, list[Row]] = {table: list(changes.rows(table)) for table in tables}
    put["meta"] = [("revision", str(int(facts["delta_revision"]) - 1))]  # sealing is one more
    if changes.damaged:
        raise PackIntegrityError(f"{changes.path}: {next(iter(changes.damaged.values()))}")
    # What changed goes first: another image may have taken its name or its photo, another landmark its name or slug.
    gone = [*images, *removed]
    old: dict[str, list[Value]] = {
        table: [_number(key) for key in forgotten.get(table, [])] for table in CATALOGUE_TABLES
    }
    for table in ("landmarks", *CATALOGUE_TABLES):
        old[table] = [*old.get(table, []), *(row[0] for row in put[table])]
    old["landmarks"] += landmarks
    old["landmark_details"] += landmarks  # of those that a migration has given one
    new.write_rows(put, {**dict.fromkeys(_IMAGE_TABLES, gone), **old})


def _decompress(source: Path, target: Path, limit: int) -> None:
    """Unpack a delta without trusting it to be small."""
    stream = zlib.decompressobj()
    total = 0
    with source.open("rb") as file, target.open("wb") as out:
        for block in iter(lambda: file.read(_READ), b""):
            total += _write(out, stream.decompress(block, limit - total + 1))
            if total > limit:
                raise ValueError(f"more than the {limit} bytes it should have")
    if not stream.eof or stream.unused_data or total != limit:
        raise ValueError(f"{total} bytes, it should have {limit}")


def _write(out: BinaryIO, data: bytes) -> int:
    out.write(data)
    return len(data)
