"""Images, landmarks and codes in one SQLite file (its tables: `schema.py`).

A `Store` may be shared between threads, and any number of processes may have the file open, one of them writing at a
time. What `add` has returned from survives a power cut. A damaged row raises `CorruptRowError` when it is asked for by
name, is skipped and noted in `Store.damaged` by everything that iterates, and the rest stays readable.

Beneath: threads, forks and transactions (`sqlite.py`), checked rows (`rows.py`), what a write transaction changes
(`write_transaction.py`), and what is done to the whole file (`maintenance.py`).
"""

from __future__ import annotations

import dataclasses
import json
import os
import sqlite3
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from delf_edge.errors import BundleMismatchError, CorruptRowError, NotADatabaseError, OptionError, ReadOnlyError
from delf_edge.geo import check_position, parse_position
from delf_edge.quantization.packed_codes import CodeBatch, CodeLayout
from delf_edge.storage import maintenance
from delf_edge.storage.catalogue_moves import Prefer
from delf_edge.storage.catalogue_rows import CatalogueRows, remove_damaged_rows
from delf_edge.storage.names import LOCATED, REMOVED, clean_name, same_names
from delf_edge.storage.records import Added, Landmark, NewImage, Problem, StoredImage, StoreInfo
from delf_edge.storage.rows import (
    CATALOGUE_TABLES,
    TABLES,
    CheckedRows,
    Row,
    chunks,
    delete_rows,
    find_name,
    put_row,
    put_rows,
    read_meta,
)
from delf_edge.storage.schema import Value
from delf_edge.storage.sqlite import SharedConnection, transaction
from delf_edge.storage.write_transaction import WriteTransaction, pack_image, pack_metadata, put_details
from delf_edge.types import Changes, Codes


class Store:
    """An open database. Use as a context manager.

    Attributes:
        path: the file.
        layout: sizes of its codes.
        bundle_id: the bundle its codes were made with.
        catalogue: lookups in what is known of its landmarks.
    """

    def __init__(
        self,
        path: Path,
        *,
        writable: bool,
        busy_timeout: float,
        create: bool,
        bundle_id: str | None = None,
        layout: CodeLayout | None = None,
        keep_version: bool = False,
    ) -> None:
        """Use `Store.open`."""
        self.path, self.writable = path, writable
        self._wanted = bundle_id, layout
        self._file = SharedConnection(
            path,
            writable=writable,
            create=create,
            busy_timeout=busy_timeout,
            check=self._check,
            keep_version=keep_version,
        )
        self._rows = CheckedRows(self._file)
        self.catalogue = CatalogueRows(self._rows)

    @property
    def damaged(self) -> dict[tuple[str, Value], str]:
        """What is wrong, by table and key, with every damaged row met so far."""
        return self._rows.damaged

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        bundle_id: str | None = None,
        layout: CodeLayout | None = None,
        mode: Literal["rw", "ro"] = "rw",
        busy_timeout: float = 5.0,
        keep_version: bool = False,
    ) -> Store:
        """Open a database, or create it (mode "rw", with `bundle_id` and `layout`).

        Args:
            path: the file.
            bundle_id: bundle the caller works with; None accepts any (for looking, verifying, sealing).
            layout: its `CodeLayout`; None takes the file's.
            mode: "ro" never writes, and is the only mode for a sealed file.
            busy_timeout: seconds to wait for another writer.
            keep_version: leave an older schema as it is, to write only what it knows (`updates.delta`).

        Raises:
            BundleMismatchError: the file was made with another bundle.
            NotADatabaseError, SchemaVersionError: the file is something else, cut off, or newer than this SDK.
            StoreBusyError, ReadOnlyError, StoreFullError, StoreError: as their names say.
        """
        if mode not in ("rw", "ro"):
            raise OptionError(f"mode {mode!r}: must be 'rw' or 'ro'")
        path = Path(path)
        create = mode == "rw" and bundle_id is not None and layout is not None
        store = cls(
            path,
            writable=mode == "rw",
            busy_timeout=busy_timeout,
            create=create,
            bundle_id=bundle_id,
            layout=layout,
            keep_version=keep_version,
        )
        try:
            store._read_meta()
        except BaseException:
            store.close()
            raise
        return store

    def _check(self, db: sqlite3.Connection) -> None:
        """Refuse a database that this store may not be of, before anything in its file is changed."""
        if meta := read_meta(db, self.path):
            self._take(meta)

    def _read_meta(self) -> None:
        bundle_id, layout = self._wanted
        if bundle_id is not None and layout is not None and self.writable and not self._rows.meta():
            with self._file.write() as db:  # another process may have been faster: look again inside the transaction
                if not self._rows.meta():
                    facts = {"bundle_id": bundle_id, "uuid": str(uuid.uuid4()), "created_at": f"{time.time():.3f}"}
                    sizes = {n: str(getattr(layout, n)) for n in CodeLayout.__dataclass_fields__}
                    for key, value in (facts | sizes | {"revision": "0", "pruned": "0", "sealed": "0"}).items():
                        put_row(db, "meta", (key, value))
        self._take(self._rows.meta())

    def _take(self, meta: Mapping[str, str]) -> None:
        """Read what the table meta says.

        Raises:
            NotADatabaseError: it is incomplete or damaged.
            BundleMismatchError: the database was made with another bundle.
            ReadOnlyError: it is sealed, and was to be written.
        """
        bundle_id, layout = self._wanted
        try:
            self.layout = CodeLayout(*(int(meta[n]) for n in CodeLayout.__dataclass_fields__))
            self.bundle_id, self.uuid, self.sealed = meta["bundle_id"], meta["uuid"], meta["sealed"] == "1"
            int(meta["revision"])  # must be a number, too
        except (KeyError, ValueError, OptionError) as e:
            raise NotADatabaseError(f"{self.path}: its table meta is incomplete or damaged at {e}") from e
        if (bundle_id is not None and bundle_id != self.bundle_id) or (layout is not None and layout != self.layout):
            raise BundleMismatchError(
                f"{self.path}: made with bundle {self.bundle_id} ({self.layout}), the loaded bundle is {bundle_id} "
                f"({layout}); open it with --bundle, or rebuild it with `delf-edge index`"
            )
        if self.sealed and self.writable:
            raise ReadOnlyError(
                f"{self.path}: sealed; open it read-only, or make a writable copy with `delf-edge snapshot`"
            )

    # ------------------------------------------------------------------ connection

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; closing twice is fine."""
        self._file.close()

    # ------------------------------------------------------------------ writing

    def add(self, image: NewImage, *, replace: bool = True) -> Added:
        """Store one image in one transaction; see `add_many`."""
        return self.add_many([image], replace=replace)[0]

    def add_many(self, images: Iterable[NewImage], *, replace: bool = True) -> list[Added]:
        """Store images in one transaction: all of them, or, after an error, none.

        The same photo again (equal `content_hash`) updates that image's name, landmark, metadata and codes and keeps
        its id. A name that another photo has is taken over, and that photo is removed.

        Args:
            images: what to store; consumed before the transaction begins.
            replace: False refuses to take over a name.

        Raises:
            OptionError: codes of another layout, an empty name or one that is no text, or metadata that is not JSON.
            NameTakenError: another photo has the name, and `replace` is False.
            StoreBusyError, StoreFullError, ReadOnlyError: nothing was stored.
        """
        named = (
            dataclasses.replace(i, name=clean_name(i.name, "name"), landmark=clean_name(i.landmark, "landmark"))
            for i in images
        )
        prepared = [(i, pack_image(i, self.layout), pack_metadata(i.metadata, i.name)) for i in named]
        if not prepared:
            return []
        with self.edit() as edit:
            return [edit.add(*one, replace=replace) for one in prepared]

    def remove(self, *names: str, remember: bool = True) -> list[int]:
        """Remove images by name, in one transaction.

        Args:
            names: which ones.
            remember: note of those that were indexed from a file that a person has removed them: `index` tells, or
                leaves them out, when it finds the file again.

        Returns:
            Their ids.

        Raises:
            NotFoundError: one of them does not exist; nothing was removed.
        """
        with self.edit() as edit:
            ids = [self._rows.image_id(edit.db, name) for name in names]
            for image_id in dict.fromkeys(ids):
                if remember:
                    edit.remember_removed(image_id)
                edit.delete(image_id)
            return ids

    def remove_damaged(self) -> list[int]:
        """Remove every image whose row or codes fail their CRC-32, so that they can be indexed again.

        A damaged thumbnail is removed by itself; its image stays. What is damaged of the catalogue is removed too, and
        the full-text search made anew.
        """
        known = (self.rows(table) for table in CATALOGUE_TABLES)
        deque(chain(self.images(), self.code_batches(), self.rows("thumbnails"), *known), maxlen=0)  # meet all damage
        spoilt = [(key,) for table, key in self.damaged if table == "thumbnails"]
        ids = sorted({int(k) for (table, k) in self.damaged if table in ("images", "codes") and isinstance(k, int)})
        with self.edit() as edit:
            for image_id in ids:
                edit.delete(image_id)
            edit.db.executemany("DELETE FROM thumbnails WHERE image_id = ?", spoilt)
            remove_damaged_rows(edit.db, self.damaged)
        self.complete_details()
        mended = ("images", "codes", "thumbnails", *CATALOGUE_TABLES)
        self._rows.damaged = {key: what for key, what in self.damaged.items() if key[0] not in mended}
        return ids

    def relabel(self, name: str, landmark: str) -> int:
        """Say that an image shows another landmark. `index` leaves it so, whatever folder the photo lies in.

        Returns:
            The image's id.

        Raises:
            NotFoundError: there is no image of this name.
            CorruptRowError: its row is damaged.
        """
        landmark = clean_name(landmark, "landmark")
        with self.edit() as edit:
            return edit.relabel(name, landmark)

    def remove_landmark(self, name: str) -> list[int]:
        """Remove a landmark, its coordinates and all its images, in one transaction.

        Returns:
            Ids of the images; empty where none showed it.

        Raises:
            NotFoundError: there is no such landmark.
        """
        with self.edit() as edit:
            return edit.remove_landmark(name)

    def rename_landmark(
        self,
        old: str,
        new: str,
        *,
        merge: bool = False,
        remember: bool = True,
        prefer: Prefer | None = None,
        slug: str | None = None,
    ) -> int:
        """Give a landmark another name, in one transaction.

        Args:
            old: its name.
            new: the other name.
            merge: allow that another landmark is called so: it gets the images, and what it does not know of
                coordinates, metadata, texts, pictures and sounds.
            remember: keep the old name as one by which `index` knows the landmark's folder.
            prefer: whose text stays where both have one in a language, "old" or "new"; None: that is an error.
            slug: another slug for the landmark; None: it keeps its own.

        Returns:
            Id of the landmark.

        Raises:
            NotFoundError: there is no landmark of the old name.
            OptionError: another landmark has the new name, or it is empty.
            CorruptRowError: a row that would be moved is damaged.
        """
        new = clean_name(new, "landmark")
        with self.edit() as edit:
            landmark_id = edit.rename_landmark(old, new, merge=merge, remember=remember, prefer=prefer)
            if slug is not None:
                edit.set_slug(landmark_id, new, slug)
            return landmark_id

    def locate(self, name: str, latitude: float | None = None, longitude: float | None = None) -> int:
        """Say where a landmark is, in degrees; neither: nowhere known. Indexed tables leave it so.

        Returns:
            Its id.

        Raises:
            NotFoundError: there is no such landmark.
            OptionError: the coordinates are no place on Earth.
        """
        position = parse_position(latitude, longitude)
        with self.edit() as edit:
            return edit.locate(name, position)

    def set_landmark(
        self,
        name: str,
        *,
        metadata: Mapping[str, Any] | None = None,
        latitude: float | None = None,
        longitude: float | None = None,
    ) -> int:
        """Create a landmark, or replace its metadata and coordinates (degrees, None for none); returns its id."""
        name = clean_name(name, "landmark")
        try:
            check_position(latitude or 0.0, longitude or 0.0)
        except OptionError as e:
            raise OptionError(f"{name}: {e}") from None
        text = pack_metadata(metadata or {}, name)
        with self.edit() as edit:
            return edit.set_landmark(name, text, latitude, longitude)

    @contextmanager
    def edit(self) -> Iterator[WriteTransaction]:
        """One durable transaction: all that the block does, or, after an error, nothing of it."""
        with self._file.write() as db:
            yield WriteTransaction(db, self._rows)

    # ------------------------------------------------------------------ reading

    def __len__(self) -> int:
        with self._file.read() as db:
            return int(db.execute("SELECT count(*) FROM images").fetchone()[0])

    def image(self, key: int | str) -> StoredImage:
        """One image by id or name.

        Raises:
            NotFoundError: there is none.
            CorruptRowError: its row, or its landmark's, is damaged.
        """
        with self._file.read() as db, transaction(db, "BEGIN"):
            image = self._rows.one(db, "images", self._rows.image_id(db, key) if isinstance(key, str) else key)
            if isinstance(key, str) and image[1] not in same_names(key):
                raise CorruptRowError(
                    f"{self.path}: the index of names leads {key!r} to {image[1]!r}; restore it from a copy"
                )
            return _stored_image(image, self._rows.one(db, "landmarks", image[2]))

    def images(self) -> Iterator[StoredImage]:
        """All images by ascending id; damaged ones are skipped and noted in `damaged`."""
        yield from self._images(self._rows.keys("images"))

    def images_by_id(self, image_ids: Sequence[int]) -> list[StoredImage]:
        """Images by id, in no particular order; absent ones are left out, damaged ones too, and noted."""
        return list(self._images(image_ids))

    def _images(self, image_ids: Sequence[Value]) -> Iterator[StoredImage]:
        for chunk in chunks(image_ids):
            # one state of the file, else a landmark may go between its image and itself
            with self._file.read() as db, transaction(db, "BEGIN"):
                images = list(self._rows.many("images", chunk))
                places = {row[0]: row for row in self._rows.many("landmarks", sorted({image[2] for image in images}))}
            for image in images:
                if image[2] in places:
                    yield _stored_image(image, places[image[2]])
                else:
                    self.damaged["images", image[0]] = f"image {image[1]!r}: its landmark {image[2]} cannot be read"

    def find_content(self, content_hash: bytes) -> int | None:
        """Id of the image with this content hash, or None."""
        with self._file.read() as db:
            row = db.execute("SELECT id FROM images WHERE content_hash = ?", (content_hash,)).fetchone()
            return None if row is None else int(row[0])

    def has_name(self, name: str) -> bool:
        """Whether an image has this name."""
        with self._file.read() as db:
            return find_name(db, "images", name) is not None

    def thumbnail(self, image_id: int) -> bytes | None:
        """The small JPEG of an image; None where it has none, or a damaged one (noted in `damaged`)."""
        return next((bytes(row[1]) for row in self._rows.many("thumbnails", [image_id])), None)

    def image_ids(self, landmark: str) -> list[int]:
        """Ids of the images that show a landmark, ascending; none where there is no such landmark."""
        with self._file.read() as db, transaction(db, "BEGIN"):
            landmark_id = find_name(db, "landmarks", landmark)
            rows = db.execute("SELECT id FROM images WHERE landmark_id = ? ORDER BY id", (landmark_id,))
            return [image_id for (image_id,) in rows]

    def n_images(self, landmark: str) -> int:
        """How many images show a landmark; 0 where there is no such landmark."""
        with self._file.read() as db, transaction(db, "BEGIN"):
            landmark_id = find_name(db, "landmarks", landmark)
            (count,) = db.execute("SELECT count(*) FROM images WHERE landmark_id = ?", (landmark_id,)).fetchone()
            return int(count)

    def landmark(self, name: str) -> Landmark:
        """One landmark by its name.

        Raises:
            NotFoundError: there is none.
            CorruptRowError: its row is damaged.
        """
        with self._file.read() as db, transaction(db, "BEGIN"):
            row = self._rows.one(db, "landmarks", self._rows.landmark_id(db, name))
            (n_images,) = db.execute("SELECT count(*) FROM images WHERE landmark_id = ?", (row[0],)).fetchone()
            return Landmark(row[0], row[1], json.loads(row[2]), row[3], row[4], n_images)

    def landmarks(self) -> list[Landmark]:
        """All landmarks by name; damaged ones are skipped and noted in `damaged`."""
        with self._file.read() as db:
            counts = dict(db.execute("SELECT landmark_id, count(*) FROM images GROUP BY landmark_id").fetchall())
        found = [
            Landmark(row[0], row[1], json.loads(row[2]), row[3], row[4], counts.get(row[0], 0))
            for row in self.rows("landmarks")
        ]
        return sorted(found, key=lambda landmark: landmark.name)

    def removed_by_hand(self) -> set[bytes]:
        """Content hashes of indexed photos that a person has removed, and that were not added again."""
        sql = f"SELECT key FROM meta WHERE key >= '{REMOVED}' AND key < '{REMOVED}~'"
        with self._file.read() as db:
            return {bytes.fromhex(key.removeprefix(REMOVED)) for (key,) in db.execute(sql)}

    def located_by_hand(self) -> set[int]:
        """Ids of the landmarks whose coordinates `locate` has set or taken away."""
        keys = (key.removeprefix(LOCATED) for key in self._rows.meta() if key.startswith(LOCATED))
        return {int(key) for key in keys if key.isdecimal()}

    def codes(self, image_ids: Sequence[int]) -> dict[int, Codes]:
        """Codes by image id; ids that are absent or damaged are left out (the latter noted in `damaged`)."""
        unpacked = ((row[0], self._rows.unpack(row, self.layout)) for row in self._rows.codes(image_ids, self.layout))
        return {image_id: codes for image_id, codes in unpacked if codes is not None}

    def code_batches(self, image_ids: Sequence[int] | None = None, *, size: int = 512) -> Iterator[CodeBatch]:
        """Codes of many images (None: all), `size` images at a time; damaged ones are skipped and noted."""
        for chunk in chunks(self._rows.keys("codes") if image_ids is None else image_ids, size):
            with self._file.read() as db, transaction(db, "BEGIN"):  # codes and checksums of one state of the file
                rows = list(self._rows.codes(chunk, self.layout))
                checksums = dict(self._rows.row_checksums(db, [r[0] for r in rows]))
            batch = CodeBatch.unpack([r[0] for r in rows], [r[2] for r in rows], self.layout)
            if len(batch.words) and int(batch.words.max()) >= self.layout.n_words:  # somebody wrote this on purpose
                sound = self.codes([r[0] for r in rows])
                batch = CodeBatch.of(list(sound.items()), self.layout)
            found = [checksums.get(k, 0) for k in batch.image_ids.tolist()]
            # a damaged checksum may be of 64 bits
            yield replace(batch, row_checksums=np.array(found, np.int64).astype(np.uint32))

    def fingerprints(self) -> tuple[int, NDArray[np.int64], NDArray[np.uint32]]:
        """All images as they are now: the revision, ids int64 (I,) ascending, and the CRC-32 of their rows (I,).

        A checksum changes with everything about an image, its codes included (the row carries the revision that wrote
        it). CheckedRows that cannot be read are left out.
        """
        with self._file.read() as db, transaction(db, "BEGIN"):
            revision, pairs = self._rows.revision(db), self._rows.all_row_checksums(db)
        return revision, pairs[:, 0].copy(), pairs[:, 1].astype(np.uint32)

    def revision(self) -> int:
        """Number of the last write transaction of the file, whoever made it."""
        with self._file.read() as db:
            return self._rows.revision(db)

    def changes(self, since: int) -> Changes:
        """What happened after revision `since`, as one consistent state."""
        with self._file.read() as db, transaction(db, "BEGIN"):
            revision = self._rows.revision(db)
            if revision == since:
                return Changes(revision, True, (), ())
            pruned = int(self._rows.one(db, "meta", "pruned")[1])
            # The "+" keeps SQLite from walking through all ids in order instead of looking revisions up.
            updated = db.execute("SELECT id FROM images WHERE revision > ? ORDER BY +id", (since,)).fetchall()
            removed = db.execute(
                "SELECT image_id FROM tombstones WHERE revision > ? ORDER BY +image_id", (since,)
            ).fetchall()
        complete = pruned <= since <= revision
        return Changes(revision, complete, tuple(r[0] for r in updated), tuple(r[0] for r in removed))

    # ------------------------------------------------------------------ whole rows: packs, deltas, shards

    def keys(self, table: str) -> list[Value]:
        """All keys of a table of `TABLES`, ascending."""
        return self._rows.keys(table)

    def rows(self, table: str, keys: Sequence[Value] | None = None) -> Iterator[Row]:
        """CheckedRows as they are stored, without checksum, columns as in `TABLES`; damaged ones are skipped and noted.

        Args:
            table: a table of `TABLES`.
            keys: which rows, None for all; ascending within each 500 keys.
        """
        yield from self._rows.many(table, self._rows.keys(table) if keys is None else keys)

    def contents(self) -> dict[int, bytes]:
        """The content hash of every image by id, without looking at checksums."""
        with self._file.read() as db:
            return dict(db.execute("SELECT id, content_hash FROM images ORDER BY id").fetchall())

    def write_rows(self, put: Mapping[str, Iterable[Row]], delete: Mapping[str, Iterable[Value]] | None = None) -> None:
        """Delete rows by key and put whole rows, ids and revisions included, in one transaction.

        What belongs together (an image, its codes, its landmark) must be together when it ends.

        Args:
            put: table -> rows in the columns of `TABLES`; they replace those of the same key.
            delete: table -> keys that go first; absent ones are ignored.

        Raises:
            StoreError: the rows contradict each other or what is stored; nothing was changed.
        """
        with self._file.write() as db:
            db.execute("PRAGMA defer_foreign_keys=1")
            for table in reversed(TABLES):
                delete_rows(db, table, list((delete or {}).get(table, ())))
            for table in TABLES:
                put_rows(db, table, put.get(table, ()))

    def complete_details(self) -> None:
        """Give a slug to every landmark that has none; whoever writes whole rows may leave them out."""
        with self._file.write() as db:
            sql = (
                "SELECT l.id, l.name, l.revision FROM landmarks l LEFT JOIN landmark_details d ON d.landmark_id = l.id "
                "WHERE d.landmark_id IS NULL ORDER BY l.id"
            )
            for landmark_id, name, revision in db.execute(sql).fetchall():
                put_details(db, landmark_id, str(name), revision)

    # ------------------------------------------------------------------ whole file

    def info(self) -> StoreInfo:
        """Facts about the database."""
        return maintenance.info(self._rows, self.bundle_id, self.layout)

    def verify(self, progress: Callable[[int, int], None] | None = None) -> list[Problem]:
        """Check every page, every row's CRC-32, and that images, codes and landmarks belong together.

        Args:
            progress: called with (images checked, images in all).

        Returns:
            What is wrong; empty for a sound file.
        """
        return maintenance.verify_database(self._rows, self.layout, progress)

    def seal(self) -> None:
        """Make this one compact file without a log, readable from read-only media; the Store is closed by it.

        Raises:
            StoreBusyError: another connection has the file open; nothing was changed.
        """
        maintenance.seal(self._rows)

    def compact(self) -> None:
        """Give the space of removed images back to the disk."""
        maintenance.compact(self._file)

    def snapshot(self, target: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
        """A consistent, writable copy as one file, while this one stays in use; put in place atomically.

        Raises:
            StoreError: `target` exists and `overwrite` is False, or it is open elsewhere.
            StoreFullError: the disk is full; what was at `target` is untouched.
        """
        return maintenance.snapshot(self._file, Path(target), overwrite=overwrite, unseal=self.sealed)


def _stored_image(image: Row, landmark: Row) -> StoredImage:
    image_id, name, _, metadata, *size, content_hash, added_at, revision = image
    metadata = json.loads(metadata)
    return StoredImage(image_id, name, landmark[1], metadata, tuple(size), content_hash, added_at, revision)
