"""Images, landmarks and codes in one SQLite file (its tables: `schema.py`).

A `Store` may be shared between threads, and any number of processes may have the file open, one of them writing at a
time. What `add` has returned from survives a power cut. A damaged row raises `CorruptRowError` when it is asked for by
name, is skipped and noted in `Store.damaged` by everything that iterates, and the rest stays readable.

Beneath: what is read (`reader.py`), the facts of a file (`meta.py`), threads, forks and transactions (`sqlite.py`),
checked rows (`rows.py`), what a write transaction changes (`write_transaction.py`), and what is done to the whole file
(`maintenance.py`).
"""

from __future__ import annotations

import dataclasses
import os
import sqlite3
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

from delf_edge.errors import OptionError
from delf_edge.geo import check_position, parse_position
from delf_edge.quantization.packed_codes import CodeLayout
from delf_edge.storage.meta import StoreMeta, new_meta
from delf_edge.storage.names import clean_name
from delf_edge.storage.reader import StoreReader
from delf_edge.storage.records import Added, NewImage, Problem, StoreInfo
from delf_edge.storage.rows import CATALOGUE_TABLES, TABLES, Row, delete_rows, put_rows, read_meta
from delf_edge.storage.schema import Value
from delf_edge.storage.sqlite import SharedConnection

if TYPE_CHECKING:  # a program that only reads does without
    from delf_edge.storage.catalogue_moves import Prefer
    from delf_edge.storage.write_transaction import WriteTransaction


class Store(StoreReader):
    """An open database. Use as a context manager.

    Attributes:
        path: the file.
        layout: sizes of its codes.
        bundle_id: the bundle its codes were made with.
        uuid: identity of the database; a copy has the same.
        sealed: it may not be written any more.
        writable: it was opened for writing.
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
        self.path, self.writable = path, writable  # `_check` is called while the file is opened
        self._wanted = bundle_id, layout
        file = SharedConnection(
            path,
            writable=writable,
            create=create,
            busy_timeout=busy_timeout,
            check=self._check,
            keep_version=keep_version,
        )
        super().__init__(file)

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
        """Take what the table meta says; of a new database, write it first."""
        bundle_id, layout = self._wanted
        if bundle_id is not None and layout is not None and self.writable and not self._rows.meta():
            with self._file.write() as db:  # another process may have been faster: look again inside the transaction
                if not self._rows.meta():
                    put_rows(db, "meta", new_meta(bundle_id, layout).items())
        self._take(self._rows.meta())

    def _take(self, rows: Mapping[str, str]) -> None:
        meta = StoreMeta.parse(rows, self.path)
        meta.require(self.path, *self._wanted, writable=self.writable)
        self.bundle_id, self.uuid, self.layout, self.sealed = meta.bundle_id, meta.uuid, meta.layout, meta.sealed

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
        from delf_edge.storage.write_transaction import pack_image, pack_metadata

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
        from delf_edge.storage.catalogue_rows import remove_damaged_rows

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
        from delf_edge.storage.write_transaction import pack_metadata

        text = pack_metadata(metadata or {}, name)
        with self.edit() as edit:
            return edit.set_landmark(name, text, latitude, longitude)

    @contextmanager
    def edit(self) -> Iterator[WriteTransaction]:
        """One durable transaction: all that the block does, or, after an error, nothing of it."""
        from delf_edge.storage.write_transaction import WriteTransaction

        with self._file.write() as db:
            yield WriteTransaction(db, self._rows)

    # ------------------------------------------------------------------ whole rows: packs, deltas, shards

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
        from delf_edge.storage.write_transaction import put_details

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
        from delf_edge.storage import maintenance

        return maintenance.info(self._rows, self.bundle_id, self.layout)

    def verify(self, progress: Callable[[int, int], None] | None = None) -> list[Problem]:
        """Check every page, every row's CRC-32, and that images, codes and landmarks belong together.

        Args:
            progress: called with (images checked, images in all).

        Returns:
            What is wrong; empty for a sound file.
        """
        from delf_edge.storage import maintenance

        return maintenance.verify_database(self._rows, self.layout, progress)

    def seal(self) -> None:
        """Make this one compact file without a log, readable from read-only media; the Store is closed by it.

        Raises:
            StoreBusyError: another connection has the file open; nothing was changed.
        """
        from delf_edge.storage import maintenance

        maintenance.seal(self._rows)

    def compact(self) -> None:
        """Give the space of removed images back to the disk."""
        from delf_edge.storage import maintenance

        maintenance.compact(self._file)

    def snapshot(self, target: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
        """A consistent, writable copy as one file, while this one stays in use; put in place atomically.

        Raises:
            StoreError: `target` exists and `overwrite` is False, or it is open elsewhere.
            StoreFullError: the disk is full; what was at `target` is untouched.
        """
        from delf_edge.storage import maintenance

        return maintenance.snapshot(self._file, Path(target), overwrite=overwrite, unseal=self.sealed)
