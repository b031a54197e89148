"""Changes of images and landmarks, inside one write transaction; what is to be stored is checked before it begins."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Literal

from delf_edge.errors import CorruptRowError, NameTakenError, NotFoundError, OptionError
from delf_edge.files import dump_metadata
from delf_edge.quantization.packed_codes import CodeLayout, pack_codes
from delf_edge.storage.catalogue_moves import Prefer, move_catalogue
from delf_edge.storage.names import INDEXED_AS, LOCATED, PATH, REMOVED, corrected_metadata
from delf_edge.storage.records import Added, NewImage
from delf_edge.storage.rows import CheckedRows, delete_rows, find_name, next_id, put_row
from delf_edge.storage.schema import Value
from delf_edge.storage.slugs import free_slug, slugify

MAX_TOMBSTONES = 20_000


def pack_image(image: NewImage, layout: CodeLayout) -> bytes:
    """An image's codes as they are stored; `OptionError` where the image cannot be."""
    if not image.content_hash:
        raise OptionError(f"{image.name}: its content hash is empty")
    codes = image.codes
    if codes.codes.shape[1:] != (layout.code_size,) or codes.global_code.shape != (layout.global_dim,):
        raise OptionError(
            f"{image.name}: codes {codes.codes.shape} and global code {codes.global_code.shape} do not fit {layout}"
        )
    if len(codes) and int(codes.words.max()) >= layout.n_words:
        raise OptionError(f"{image.name}: word {int(codes.words.max())}, but the codebook has {layout.n_words} words")
    return pack_codes(codes)


def pack_metadata(metadata: Mapping[str, Any], name: str) -> str:
    """The metadata of `name` as they are stored; `OptionError` where JSON cannot hold them."""
    try:
        _check_keys(metadata)
        text = dump_metadata(metadata)
        text.encode()
    except UnicodeEncodeError:
        raise OptionError(
            f"{name}: metadata hold a letter that is no Unicode, as in a file name of another encoding"
        ) from None
    except (TypeError, ValueError, RecursionError) as e:
        raise OptionError(f"{name}: metadata must be what JSON can hold: {e}") from e
    return text


def stored_metadata(metadata: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The metadata of `name` as they are read again: tuples are lists. `OptionError` as `pack_metadata`."""
    result: dict[str, Any] = json.loads(pack_metadata(metadata, name))
    return result


def _check_keys(value: object) -> None:
    """Refuse keys that are no text: JSON would make text of them, and 1 and "1" would be one."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if not isinstance(key, str):
                raise TypeError(f"the key {key!r} is of type {type(key).__name__}, not str")
            _check_keys(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            _check_keys(inner)


def next_revision(db: sqlite3.Connection, rows: CheckedRows) -> int:
    """Number this write transaction."""
    revision = rows.revision(db) + 1
    put_row(db, "meta", ("revision", str(revision)))
    (n,) = db.execute("SELECT count(*) FROM tombstones").fetchone()
    if n > MAX_TOMBSTONES:  # forget the older half of them: years of daily churn stay small
        half = "SELECT revision FROM tombstones ORDER BY revision LIMIT 1 OFFSET ?"
        (upto,) = db.execute(half, (n // 2,)).fetchone()
        db.execute("DELETE FROM tombstones WHERE revision <= ?", (upto,))
        put_row(db, "meta", ("pruned", str(upto)))
    return revision


class WriteTransaction:
    """A numbered write transaction that changes images and landmarks.

    Attributes:
        db: the connection, inside the transaction.
        revision: the number.
        rows: reading of checked rows, of the same file.
    """

    def __init__(self, db: sqlite3.Connection, rows: CheckedRows) -> None:
        self.db, self.rows = db, rows
        self.revision = next_revision(db, rows)

    def add(self, image: NewImage, blob: bytes, metadata: str, *, replace: bool) -> Added:
        """See `Store.add_many`."""
        status: Literal["added", "updated", "replaced"] = "added"
        by_content = "SELECT id, landmark_id, added_at FROM images WHERE content_hash = ?"
        known = self.db.execute(by_content, (image.content_hash,)).fetchone()
        holder = find_name(self.db, "images", image.name)
        if holder is not None and (not known or holder != known[0]):
            if not replace:
                raise NameTakenError(
                    f"{image.name}: another photo has this name; give this one another, or replace that with "
                    "replace=True"
                )
            self.delete(holder)
            status = "replaced"
        landmark_id = self.landmark_id(image.landmark)
        facts = (image.name, landmark_id, metadata, *image.codes.image_size, image.content_hash)
        if known:
            image_id, old_landmark, added_at = known
            put_row(self.db, "images", (image_id, *facts, added_at, self.revision))
            self._drop_if_bare(old_landmark)
            status = "updated" if status == "added" else status
        else:
            image_id = next_id(self.db, "images")
            put_row(self.db, "images", (image_id, *facts, time.time(), self.revision))
            delete_rows(self.db, "meta", [REMOVED + image.content_hash.hex()])
        put_row(self.db, "codes", (image_id, len(image.codes), blob))
        if image.thumbnail is not None:
            put_row(self.db, "thumbnails", (image_id, image.thumbnail))
        return Added(image_id, status)

    def delete(self, image_id: int) -> None:
        """Delete an image with all that belongs to it; its id is never used again."""
        row = self.db.execute("SELECT landmark_id, content_hash FROM images WHERE id = ?", (image_id,)).fetchone()
        landmark_id, content_hash = row or (None, b"")
        self.db.execute("DELETE FROM codes WHERE image_id = ?", (image_id,))
        self.db.execute("DELETE FROM thumbnails WHERE image_id = ?", (image_id,))
        self.db.execute("DELETE FROM images WHERE id = ?", (image_id,))
        put_row(self.db, "tombstones", (image_id, content_hash, self.revision))
        self._drop_if_bare(landmark_id)

    def remember_removed(self, image_id: int) -> None:
        """Note that a person removes an image that was indexed from a file: `index` will find that file again."""
        with suppress(CorruptRowError, NotFoundError):
            row = self.rows.one(self.db, "images", image_id)
            if PATH in json.loads(row[3]):
                put_row(self.db, "meta", (REMOVED + row[6].hex(), "by hand"))

    def relabel(self, name: str, landmark: str) -> int:
        """Let an image show another landmark; returns the image's id. `index` is told to leave it so."""
        image_id, own_name, old, text, *facts, _ = self.rows.one(self.db, "images", self.rows.image_id(self.db, name))
        landmark_id = self.landmark_id(landmark)
        if landmark_id != old:
            with suppress(CorruptRowError, NotFoundError):  # nothing to be told from a damaged row
                old_name = self.rows.one(self.db, "landmarks", old)[1]
                text = dump_metadata(corrected_metadata(json.loads(text), old_name, landmark))
        put_row(self.db, "images", (image_id, own_name, landmark_id, text, *facts, self.revision))
        self._drop_if_bare(old)
        return int(image_id)

    def remove_landmark(self, name: str) -> list[int]:
        """Remove a landmark with all its images, or none; returns their ids."""
        landmark_id = self.rows.landmark_id(self.db, name)
        sql = "SELECT id FROM images WHERE landmark_id = ? ORDER BY id"
        ids = [int(image_id) for (image_id,) in self.db.execute(sql, (landmark_id,)).fetchall()]
        for image_id in ids:
            self.remember_removed(image_id)
            self.delete(image_id)
        self.drop_landmark(landmark_id)
        return ids

    def rename_landmark(self, old: str, new: str, *, merge: bool, remember: bool, prefer: Prefer | None = None) -> int:
        """Give a landmark another name, or its images to the one that has it; returns the id of the result."""
        landmark_id = self.rows.landmark_id(self.db, old)
        _, old_name, text, *position, _ = self.rows.one(self.db, "landmarks", landmark_id)
        metadata, known = json.loads(text), find_name(self.db, "landmarks", new)
        aliases = {old_name, *_aliases(metadata)} if remember else set(_aliases(metadata))
        if known is not None and known != landmark_id:
            if not merge:
                raise OptionError(f"{new!r} is a landmark already; to give it the images of {old!r} too, merge them")
            _, new, text, *place, _ = self.rows.one(self.db, "landmarks", known)
            aliases |= set(_aliases(json.loads(text)))
            metadata |= json.loads(text)
            if None in place and self._is_by_hand(landmark_id):
                put_row(self.db, "meta", (f"{LOCATED}{known}", "by hand"))
            position = position if None in place else place
            self._move_images(landmark_id, known)
            move_catalogue(self.db, self.rows, landmark_id, known, self.revision, prefer)
            self.drop_landmark(landmark_id)
            landmark_id = known
        if aliases - {new}:
            metadata[INDEXED_AS] = sorted(aliases - {new})
        put_row(self.db, "landmarks", (landmark_id, new, dump_metadata(metadata), *position, self.revision))
        return landmark_id

    def _is_by_hand(self, landmark_id: int) -> bool:
        key = f"{LOCATED}{landmark_id}"
        return self.db.execute("SELECT 1 FROM meta WHERE key = ?", (key,)).fetchone() is not None

    def _move_images(self, old: int, new: int) -> None:
        ids = self.db.execute("SELECT id FROM images WHERE landmark_id = ?", (old,)).fetchall()
        for (image_id,) in ids:
            _, name, _, *facts, _ = self.rows.one(self.db, "images", image_id)
            put_row(self.db, "images", (image_id, name, new, *facts, self.revision))

    def locate(self, name: str, position: tuple[float, float] | None) -> int:
        """Set or take away the coordinates of a landmark, by a person's hand; returns its id."""
        landmark_id = self.rows.landmark_id(self.db, name)
        _, own_name, text, *_ = self.rows.one(self.db, "landmarks", landmark_id)
        place = position or (None, None)
        put_row(self.db, "landmarks", (landmark_id, own_name, text, *place, self.revision))
        self.note_located(landmark_id)
        return landmark_id

    def note_located(self, landmark_id: int) -> None:
        """Note that a person has set or taken away the coordinates of a landmark: they stay as they are."""
        put_row(self.db, "meta", (f"{LOCATED}{landmark_id}", "by hand"))

    def set_landmark(self, name: str, metadata: str, latitude: float | None, longitude: float | None) -> int:
        """Create a landmark or replace its facts; returns its id."""
        landmark_id = self.landmark_id(name)
        place = (None if latitude is None else float(latitude), None if longitude is None else float(longitude))
        put_row(self.db, "landmarks", (landmark_id, name, metadata, *place, self.revision))
        return landmark_id

    def landmark_id(self, name: str, slug: str | None = None) -> int:
        """Id of a landmark, which is created where there is none, with this slug or one from its name."""
        landmark_id = find_name(self.db, "landmarks", name)
        if landmark_id is None:
            landmark_id = next_id(self.db, "landmarks")
            put_row(self.db, "landmarks", (landmark_id, name, "{}", None, None, self.revision))
            put_details(self.db, landmark_id, name, self.revision, slug)
        return landmark_id

    def find_landmark(self, name: str) -> int | None:
        """Id of a landmark, None where there is none of this name."""
        return find_name(self.db, "landmarks", name)

    def set_slug(self, landmark_id: int, name: str, slug: str) -> None:
        """Give a landmark another slug, which no other landmark has."""
        if self.db.execute("SELECT 1 FROM landmark_details WHERE landmark_id = ?", (landmark_id,)).fetchone() is None:
            put_details(self.db, landmark_id, name, self.revision, slug)
            return
        _, _, *facts, _ = self.rows.one(self.db, "landmark_details", landmark_id)
        put_row(self.db, "landmark_details", (landmark_id, slug, *facts, self.revision))

    def drop_landmark(self, landmark_id: int) -> None:
        """Delete a landmark that no image shows, with everything that is known of it."""
        for table in ("landmark_texts", "media"):
            keys = [k for (k,) in self.db.execute(f"SELECT id FROM {table} WHERE landmark_id = ?", (landmark_id,))]
            if table == "media":
                delete_rows(self.db, "media_data", keys)
            delete_rows(self.db, table, keys)
        delete_rows(self.db, "landmark_details", [landmark_id])
        delete_rows(self.db, "landmarks", [landmark_id])
        delete_rows(self.db, "meta", [f"{LOCATED}{landmark_id}"])

    def _drop_if_bare(self, landmark_id: Value) -> None:
        """A landmark that only existed through its images goes with the last of them."""
        bare = self.db.execute(
            "SELECT id FROM landmarks l WHERE id = ? AND metadata = '{}' AND latitude IS NULL AND longitude IS NULL "
            "AND NOT EXISTS (SELECT 1 FROM images WHERE landmark_id = l.id) "
            "AND NOT EXISTS (SELECT 1 FROM landmark_texts WHERE landmark_id = l.id) "
            "AND NOT EXISTS (SELECT 1 FROM media WHERE landmark_id = l.id) "
            "AND NOT EXISTS (SELECT 1 FROM landmark_details WHERE landmark_id = l.id "
            "AND (kind IS NOT NULL OR collection IS NOT NULL OR external_ids <> '{}'))",
            (landmark_id,),
        ).fetchone()
        if bare is not None:
            self.drop_landmark(bare[0])


def _aliases(metadata: Mapping[str, Any]) -> list[str]:
    """What a landmark was called before, as far as its metadata say so."""
    known = metadata.get(INDEXED_AS)
    return [name for name in known if isinstance(name, str)] if isinstance(known, list) else []


def put_details(db: sqlite3.Connection, landmark_id: int, name: str, revision: int, slug: str | None = None) -> None:
    """Give a new landmark its slug: `slug`, or the first free one that is like its name."""
    row = (landmark_id, slug or free_slug(slugify(name), _TakenSlugs(db)), None, None, "{}", revision)
    put_row(db, "landmark_details", row)


class _TakenSlugs:
    """The slugs of a database, one lookup each."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def __contains__(self, slug: object) -> bool:
        row = self._db.execute("SELECT 1 FROM landmark_details WHERE slug = ?", (slug,)).fetchone()
        return row is not None
