"""Images, landmarks and codes in one SQLite file (the schema: `database.py`; the codes: `codec.py`).

A `Store` may be shared between threads, and any number of processes may have the file open, one of them writing at a
time. What `add` has returned from survives a power cut. A damaged row raises `CorruptRowError` when it is asked for by
name, is skipped and noted in `Store.damaged` by everything that iterates, and the rest stays readable.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from delf_edge import database
from delf_edge.codec import CodeBatch, CodeLayout, pack_codes, packed_size, unpack_codes
from delf_edge.database import Value, row_crc32, transaction
from delf_edge.errors import (
    BundleMismatchError,
    CorruptRowError,
    NotADatabaseError,
    NotFoundError,
    OptionError,
    ReadOnlyError,
    StoreError,
)
from delf_edge.types import Codes

_IMAGE = ("id", "name", "landmark_id", "metadata", "width", "height", "content_hash", "added_at", "revision")
_LANDMARK = ("id", "name", "metadata", "latitude", "longitude", "revision")
_COLUMNS: dict[str, tuple[str, ...]] = {  # the first one is the key; `crc32` follows the last
    "meta": ("key", "value"),
    "landmarks": _LANDMARK,
    "images": _IMAGE,
    "codes": ("image_id", "n", "blob"),
    "thumbnails": ("image_id", "jpeg"),
    "tombstones": ("image_id", "content_hash", "revision"),
}
TABLES: Mapping[str, tuple[str, ...]] = MappingProxyType(_COLUMNS)  # what `Store.rows` gives, column by column
_CHUNK = 500
_MAX_KEYS = 10_000_000  # ids tried one by one where a table cannot be read
Row = tuple[Any, ...]
_WAL_HIGH = 8 << 20  # bytes of log that make a writer insist on a checkpoint
_MAX_TOMBSTONES = 20_000
_forked: list[sqlite3.Connection] = []  # a parent's connections: closing them in a child would harm the parent


@dataclass(frozen=True, slots=True, eq=False)
class NewImage:
    """An image to store.

    Attributes:
        name: what the user calls it; unique in a database.
        landmark: name of the place it shows.
        content_hash: identity of the photo (`images.content_hash`); the same photo twice is one image.
        codes: its features.
        metadata: anything JSON can hold.
        thumbnail: a small JPEG of the photo; None keeps the one that the same photo already has.
    """

    name: str
    landmark: str
    content_hash: bytes
    codes: Codes
    metadata: Mapping[str, Any] = field(default_factory=dict)
    thumbnail: bytes | None = None


@dataclass(frozen=True, slots=True)
class Added:
    """What became of a `NewImage`: its id, and whether it was new, the same photo again, or took over a name."""

    image_id: int
    status: Literal["added", "updated", "replaced"]


@dataclass(frozen=True, slots=True)
class StoredImage:
    """A row of `images` with its landmark's name; `added_at` in seconds since 1970, `size` (width, height)."""

    image_id: int
    name: str
    landmark: str
    metadata: Mapping[str, Any]
    size: tuple[int, int]
    content_hash: bytes
    added_at: float
    revision: int


@dataclass(frozen=True, slots=True)
class Landmark:
    """A place; latitude and longitude in degrees (WGS 84), None where unknown."""

    landmark_id: int
    name: str
    metadata: Mapping[str, Any]
    latitude: float | None
    longitude: float | None
    n_images: int


@dataclass(frozen=True, slots=True)
class Changes:
    """What happened after a revision.

    Attributes:
        revision: the state this leads to.
        complete: False where the removals are no longer all known; start again from all images.
        updated: ids of images that were added or changed, ascending.
        removed: ids that are gone.
    """

    revision: int
    complete: bool
    updated: tuple[int, ...]
    removed: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Problem:
    """One finding of `Store.verify`: the table, the row's name or key, and what is wrong."""

    table: str
    name: str
    what: str


@dataclass(frozen=True, slots=True)
class StoreInfo:
    """Facts about a database; `bytes` counts the file and its log."""

    path: str
    uuid: str
    schema_version: int
    bundle_id: str
    layout: CodeLayout
    revision: int
    n_images: int
    n_landmarks: int
    n_features: int
    bytes: int
    sealed: bool
    read_only: bool


class Store:
    """An open database. Use as a context manager.

    Attributes:
        path: the file.
        layout: sizes of its codes.
        bundle_id: the bundle its codes were made with.
        damaged: (table, key) -> what is wrong, of every damaged row met so far.
    """

    def __init__(self, path: Path, *, writable: bool, busy_timeout: float, create: bool) -> None:
        """Use `Store.open`."""
        self.path = path
        self.damaged: dict[tuple[str, Value], str] = {}
        self.writable = writable
        self._busy_timeout = busy_timeout
        self._lock = threading.RLock()
        self._pid = os.getpid()
        self._seen = -1
        self._connection: sqlite3.Connection | None = database.connect(
            path, writable=writable, create=create, busy_timeout=busy_timeout
        )

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        bundle_id: str | None = None,
        layout: CodeLayout | None = None,
        mode: Literal["rw", "ro"] = "rw",
        busy_timeout: float = 5.0,
    ) -> Store:
        """Open a database, or create it (mode "rw", with `bundle_id` and `layout`).

        Args:
            path: the file.
            bundle_id: bundle the caller works with; None accepts any (for looking, verifying, sealing).
            layout: its `CodeLayout`; None takes the file's.
            mode: "ro" never writes, and is the only mode for a sealed file.
            busy_timeout: seconds to wait for another writer.

        Raises:
            BundleMismatchError: the file was made with another bundle.
            NotADatabaseError, SchemaVersionError: the file is something else, cut off, or newer than this SDK.
            StoreBusyError, ReadOnlyError, StoreFullError, StoreError: as their names say.
        """
        if mode not in ("rw", "ro"):
            raise OptionError(f"mode {mode!r}: must be 'rw' or 'ro'")
        path = Path(path)
        create = mode == "rw" and bundle_id is not None and layout is not None
        store = cls(path, writable=mode == "rw", busy_timeout=busy_timeout, create=create)
        try:
            store._check_meta(bundle_id, layout)
        except BaseException:
            store.close()
            raise
        return store

    def _check_meta(self, bundle_id: str | None, layout: CodeLayout | None) -> None:
        if bundle_id is not None and layout is not None and self.writable and not self._meta():
            with self._write() as db:  # another process may have been faster: look again inside the transaction
                if not self._meta():
                    facts = {"bundle_id": bundle_id, "uuid": str(uuid.uuid4()), "created_at": f"{time.time():.3f}"}
                    sizes = {n: str(getattr(layout, n)) for n in CodeLayout.__dataclass_fields__}
                    for key, value in (facts | sizes | {"revision": "0", "pruned": "0", "sealed": "0"}).items():
                        _put(db, "meta", (key, value))
        meta = self._meta()
        try:
            self.layout = CodeLayout(*(int(meta[n]) for n in CodeLayout.__dataclass_fields__))
            self.bundle_id, self.uuid, self.sealed = meta["bundle_id"], meta["uuid"], meta["sealed"] == "1"
            self._seen = int(meta["revision"])
        except (KeyError, ValueError, OptionError) as e:
            raise NotADatabaseError(f"{self.path}: its table meta is incomplete or damaged at {e}") from e
        if (bundle_id is not None and bundle_id != self.bundle_id) or (layout is not None and layout != self.layout):
            raise BundleMismatchError(
                f"{self.path}: made with bundle {self.bundle_id} ({self.layout}), the loaded bundle is {bundle_id} "
                f"({layout}); open it with --bundle, or rebuild it with `delf-edge index`"
            )
        if self.sealed and self.writable:
            raise ReadOnlyError(f"{self.path}: sealed; open it with mode='ro', or make a writable copy with `snapshot`")

    # ------------------------------------------------------------------ connection

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; closing twice is fine."""
        if self._pid != os.getpid():
            self._adopt_fork()
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def _adopt_fork(self) -> None:
        """In a forked child: leave the parent's connection alone; a new one is opened when needed."""
        if self._connection is not None:
            _forked.append(self._connection)
            self._connection = database.connect(
                self.path, writable=self.writable, create=False, busy_timeout=self._busy_timeout
            )
        self._lock, self._pid = threading.RLock(), os.getpid()

    @contextmanager
    def _read(self) -> Iterator[sqlite3.Connection]:
        if self._pid != os.getpid():
            self._adopt_fork()
        with self._lock, database.translate_errors(self.path):
            if self._connection is None:
                raise StoreError(f"{self.path}: this Store is closed; open it again")
            yield self._connection

    @contextmanager
    def _write(self) -> Iterator[sqlite3.Connection]:
        """One durable transaction."""
        if not self.writable:
            raise ReadOnlyError(f"{self.path}: opened with mode='ro'; open it with mode='rw' to change it")
        with self._read() as db:
            with transaction(db):
                yield db
            self._limit_log(db)

    def _limit_log(self, db: sqlite3.Connection) -> None:
        try:
            if os.stat(f"{self.path}-wal").st_size <= _WAL_HIGH:
                return
            db.execute("PRAGMA busy_timeout=200")  # for readers to finish; not longer, the transaction itself is safe
            try:
                db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            finally:
                db.execute(f"PRAGMA busy_timeout={round(self._busy_timeout * 1000)}")
        except (OSError, sqlite3.OperationalError):
            return  # the next writer tries again

    def _meta(self) -> dict[str, str]:
        with self._read() as db:
            rows = db.execute("SELECT key, value, crc32 FROM meta").fetchall()
        for row in rows:
            if row_crc32("meta", row[:-1]) != row[-1]:
                raise CorruptRowError(f"{self.path}: meta {row[0]!r} is damaged; restore the file from a copy")
        return {key: value for key, value, _ in rows}

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
            OptionError: codes of another layout, an empty name, metadata that is not JSON, or a taken name.
            StoreBusyError, StoreFullError, ReadOnlyError: nothing was stored.
        """
        prepared = [(image, self._pack(image), _dump(image.metadata, image.name)) for image in images]
        if not prepared:
            return []
        with self._write() as db:
            revision = self._next_revision(db)
            return [self._add(db, *one, replace=replace, revision=revision) for one in prepared]

    def _pack(self, image: NewImage) -> bytes:
        if not image.name or not image.landmark or not image.content_hash:
            raise OptionError(f"image {image.name!r}, landmark {image.landmark!r}: neither name nor hash may be empty")
        codes, layout = image.codes, self.layout
        if codes.codes.shape[1:] != (layout.code_size,) or codes.global_code.shape != (layout.global_dim,):
            raise OptionError(
                f"{image.name}: codes {codes.codes.shape} and global code {codes.global_code.shape} do not fit {layout}"
            )
        if len(codes) and int(codes.words.max()) >= layout.n_words:
            raise OptionError(
                f"{image.name}: word {int(codes.words.max())}, but the codebook has {layout.n_words} words"
            )
        return pack_codes(codes)

    def _add(
        self, db: sqlite3.Connection, image: NewImage, blob: bytes, metadata: str, *, replace: bool, revision: int
    ) -> Added:
        status: Literal["added", "updated", "replaced"] = "added"
        same = db.execute("SELECT id, landmark_id, added_at FROM images WHERE content_hash = ?", (image.content_hash,))
        known = same.fetchone()
        holder = db.execute("SELECT id FROM images WHERE name = ?", (image.name,)).fetchone()
        if holder and (not known or holder[0] != known[0]):
            if not replace:
                raise OptionError(f"{image.name}: another photo has this name; remove it, or add with replace=True")
            self._delete(db, holder[0], revision)
            status = "replaced"
        landmark_id = self._landmark_id(db, image.landmark, revision)
        facts = (image.name, landmark_id, metadata, *image.codes.image_size, image.content_hash)
        if known:
            image_id, old_landmark, added_at = known
            _put(db, "images", (image_id, *facts, added_at, revision))
            self._drop_if_bare(db, old_landmark)
            status = "updated" if status == "added" else status
        else:
            image_id = _next_id(db, "images")
            _put(db, "images", (image_id, *facts, time.time(), revision))
        _put(db, "codes", (image_id, len(image.codes), blob))
        if image.thumbnail is not None:
            _put(db, "thumbnails", (image_id, image.thumbnail))
        return Added(image_id, status)

    def remove(self, *names: str) -> list[int]:
        """Remove images by name, in one transaction.

        Returns:
            Their ids.

        Raises:
            NotFoundError: one of them does not exist; nothing was removed.
        """
        with self._write() as db:
            revision = self._next_revision(db)
            ids = [self._id_of(db, name) for name in names]
            for image_id in dict.fromkeys(ids):
                self._delete(db, image_id, revision)
            return ids

    def remove_damaged(self) -> list[int]:
        """Remove every image whose row or codes fail their CRC-32, so that they can be indexed again.

        A damaged thumbnail is removed by itself; its image stays.
        """
        for _ in self.images():
            pass
        for _ in self.code_batches():
            pass
        for _ in self._rows("thumbnails", self._keys("thumbnails")):
            pass
        spoilt = [(key,) for table, key in self.damaged if table == "thumbnails"]
        ids = sorted({int(k) for (table, k) in self.damaged if table in ("images", "codes") and isinstance(k, int)})
        with self._write() as db:
            revision = self._next_revision(db)
            for image_id in ids:
                self._delete(db, image_id, revision)
            db.executemany("DELETE FROM thumbnails WHERE image_id = ?", spoilt)
        mended = ("images", "codes", "thumbnails")
        self.damaged = {key: what for key, what in self.damaged.items() if key[0] not in mended}
        return ids

    def relabel(self, name: str, landmark: str) -> int:
        """Say that an image shows another landmark.

        Returns:
            The image's id.

        Raises:
            NotFoundError: there is no image of this name.
            CorruptRowError: its row is damaged.
        """
        if not landmark:
            raise OptionError(f"{name}: a landmark's name may not be empty")
        with self._write() as db:
            revision = self._next_revision(db)
            row = list(self._row(db, "images", self._id_of(db, name)))
            old, row[_IMAGE.index("landmark_id")] = (
                row[_IMAGE.index("landmark_id")],
                self._landmark_id(db, landmark, revision),
            )
            row[_IMAGE.index("revision")] = revision
            _put(db, "images", row)
            self._drop_if_bare(db, old)
            return int(row[0])

    def set_landmark(
        self,
        name: str,
        *,
        metadata: Mapping[str, Any] | None = None,
        latitude: float | None = None,
        longitude: float | None = None,
    ) -> int:
        """Create a landmark, or replace its metadata and coordinates (degrees); returns its id."""
        if abs(latitude or 0.0) > 90 or abs(longitude or 0.0) > 180:
            raise OptionError(f"{name}: latitude {latitude} and longitude {longitude} are no place on Earth")
        text = _dump(metadata or {}, name)
        with self._write() as db:
            revision = self._next_revision(db)
            landmark_id = self._landmark_id(db, name, revision)
            place = (None if latitude is None else float(latitude), None if longitude is None else float(longitude))
            _put(db, "landmarks", (landmark_id, name, text, *place, revision))
            return landmark_id

    def _next_revision(self, db: sqlite3.Connection) -> int:
        revision = self._revision_of(db) + 1
        _put(db, "meta", ("revision", str(revision)))
        self._prune(db)
        return revision

    def _id_of(self, db: sqlite3.Connection, name: str) -> int:
        row = db.execute("SELECT id FROM images WHERE name = ?", (name,)).fetchone()
        if row is None:
            raise NotFoundError(f"{self.path}: no image is called {name!r}")
        return int(row[0])

    def _landmark_id(self, db: sqlite3.Connection, name: str, revision: int) -> int:
        row = db.execute("SELECT id FROM landmarks WHERE name = ?", (name,)).fetchone()
        if row is None:
            row = (_next_id(db, "landmarks"),)
            _put(db, "landmarks", (row[0], name, "{}", None, None, revision))
        return int(row[0])

    def _delete(self, db: sqlite3.Connection, image_id: int, revision: int) -> None:
        row = db.execute("SELECT landmark_id, content_hash FROM images WHERE id = ?", (image_id,)).fetchone()
        landmark_id, content_hash = row or (None, b"")
        db.execute("DELETE FROM codes WHERE image_id = ?", (image_id,))
        db.execute("DELETE FROM thumbnails WHERE image_id = ?", (image_id,))
        db.execute("DELETE FROM images WHERE id = ?", (image_id,))
        _put(db, "tombstones", (image_id, content_hash, revision))
        self._drop_if_bare(db, landmark_id)

    def _drop_if_bare(self, db: sqlite3.Connection, landmark_id: Value) -> None:
        """A landmark that only existed through its images goes with the last of them."""
        db.execute(
            "DELETE FROM landmarks WHERE id = ? AND metadata = '{}' AND latitude IS NULL AND longitude IS NULL "
            "AND NOT EXISTS (SELECT 1 FROM images WHERE landmark_id = landmarks.id)",
            (landmark_id,),
        )

    def _prune(self, db: sqlite3.Connection) -> None:
        """Forget the older half of the tombstones when there are many: years of daily churn stay small."""
        (n,) = db.execute("SELECT count(*) FROM tombstones").fetchone()
        if n > _MAX_TOMBSTONES:
            half = "SELECT revision FROM tombstones ORDER BY revision LIMIT 1 OFFSET ?"
            (upto,) = db.execute(half, (n // 2,)).fetchone()
            db.execute("DELETE FROM tombstones WHERE revision <= ?", (upto,))
            _put(db, "meta", ("pruned", str(upto)))

    # ------------------------------------------------------------------ reading

    def __len__(self) -> int:
        with self._read() as db:
            return int(db.execute("SELECT count(*) FROM images").fetchone()[0])

    def image(self, key: int | str) -> StoredImage:
        """One image by id or name.

        Raises:
            NotFoundError: there is none.
            CorruptRowError: its row, or its landmark's, is damaged.
        """
        with self._read() as db, transaction(db, "BEGIN"):
            image_id = self._id_of(db, key) if isinstance(key, str) else key
            image = self._row(db, "images", image_id)
            if isinstance(key, str) and image[1] != key:
                raise CorruptRowError(
                    f"{self.path}: the index of names leads {key!r} to {image[1]!r}; restore it from a copy"
                )
            return self._image(image, self._row(db, "landmarks", image[2]))

    def images(self) -> Iterator[StoredImage]:
        """All images by ascending id; damaged ones are skipped and noted in `damaged`."""
        yield from self._images(self._keys("images"))

    def images_by_id(self, image_ids: Sequence[int]) -> list[StoredImage]:
        """Images by id, in no particular order; absent ones are left out, damaged ones too, and noted."""
        return list(self._images(image_ids))

    def _images(self, image_ids: Sequence[Value]) -> Iterator[StoredImage]:
        for i in range(0, len(image_ids), _CHUNK):
            with self._read() as db, transaction(db, "BEGIN"):  # else a landmark may go between its image and itself
                images = list(self._rows("images", image_ids[i : i + _CHUNK]))
                landmarks = {row[0]: row for row in self._rows("landmarks", sorted({image[2] for image in images}))}
            for image in images:
                if image[2] in landmarks:
                    yield self._image(image, landmarks[image[2]])
                else:
                    self.damaged["images", image[0]] = f"image {image[1]!r}: its landmark {image[2]} cannot be read"

    def find_content(self, content_hash: bytes) -> int | None:
        """Id of the image with this content hash, or None."""
        with self._read() as db:
            row = db.execute("SELECT id FROM images WHERE content_hash = ?", (content_hash,)).fetchone()
            return None if row is None else int(row[0])

    def has_name(self, name: str) -> bool:
        """Whether an image has this name."""
        with self._read() as db:
            return db.execute("SELECT 1 FROM images WHERE name = ?", (name,)).fetchone() is not None

    def thumbnail(self, image_id: int) -> bytes | None:
        """The small JPEG of an image; None where it has none, or a damaged one (noted in `damaged`)."""
        return next((bytes(row[1]) for row in self._rows("thumbnails", [image_id])), None)

    def image_ids(self, landmark: str) -> list[int]:
        """Ids of the images that show a landmark, ascending; none where there is no such landmark."""
        sql = "SELECT i.id FROM images i JOIN landmarks l ON l.id = i.landmark_id WHERE l.name = ? ORDER BY i.id"
        with self._read() as db:
            return [image_id for (image_id,) in db.execute(sql, (landmark,))]

    def landmarks(self) -> list[Landmark]:
        """All landmarks by name; damaged ones are skipped and noted in `damaged`."""
        with self._read() as db:
            counts = dict(db.execute("SELECT landmark_id, count(*) FROM images GROUP BY landmark_id").fetchall())
        found = [
            Landmark(row[0], row[1], json.loads(row[2]), row[3], row[4], counts.get(row[0], 0))
            for row in self._rows("landmarks", self._keys("landmarks"))
        ]
        return sorted(found, key=lambda landmark: landmark.name)

    def codes(self, image_ids: Sequence[int]) -> dict[int, Codes]:
        """Codes by image id; ids that are absent or damaged are left out (the latter noted in `damaged`)."""
        found = {}
        for row in self._checked_codes(image_ids):
            try:
                found[row[0]] = unpack_codes(row[2], self.layout)
            except ValueError as e:
                self.damaged["codes", row[0]] = f"codes of image {row[0]!r}: {e}"
        return found

    def code_batches(self, image_ids: Sequence[int] | None = None, *, size: int = 512) -> Iterator[CodeBatch]:
        """Codes of many images (None: all), `size` images at a time; damaged ones are skipped and noted."""
        ids = self._keys("codes") if image_ids is None else image_ids
        for i in range(0, len(ids), size):
            with self._read() as db, transaction(db, "BEGIN"):  # codes and marks of one state of the file
                rows = list(self._checked_codes(ids[i : i + size]))
                marks = dict(self._marks(db, [r[0] for r in rows]))
            batch = CodeBatch.unpack([r[0] for r in rows], [r[2] for r in rows], self.layout)
            if len(batch.words) and int(batch.words.max()) >= self.layout.n_words:  # somebody wrote this on purpose
                sound = self.codes([r[0] for r in rows])
                batch = CodeBatch.of(list(sound.items()), self.layout)
            found = [marks.get(k, 0) for k in batch.image_ids.tolist()]
            yield replace(batch, marks=np.array(found, np.int64).astype(np.uint32))  # a damaged one may be of 64 bits

    def fingerprints(self) -> tuple[int, NDArray[np.int64], NDArray[np.uint32]]:
        """All images as they are now: the revision, ids int64 (I,) ascending, and the CRC-32 of their rows (I,).

        A checksum changes with everything about an image, its codes included (the row carries the revision that wrote
        it). Rows that cannot be read are left out.
        """
        with self._read() as db, transaction(db, "BEGIN"):
            revision = self._revision_of(db)
            pairs = self._all_marks(db)
        return revision, pairs[:, 0].copy(), pairs[:, 1].astype(np.uint32)

    def _all_marks(self, db: sqlite3.Connection) -> NDArray[np.int64]:
        """int64 (I, 2), `_marks` of all images, without a Python object for each."""
        try:
            rows = db.execute("SELECT id, crc32 FROM images WHERE typeof(crc32) = 'integer' ORDER BY id")
            return np.fromiter(chain.from_iterable(rows), np.int64).reshape(-1, 2)
        except sqlite3.DatabaseError as e:
            if not database.is_corruption(e):
                raise
        return np.array(self._marks(db, self._keys("images")), np.int64).reshape(-1, 2)

    def _marks(self, db: sqlite3.Connection, image_ids: Sequence[Value]) -> list[tuple[int, int]]:
        """(id, crc32) of images, ascending; the unreadable are left out."""
        found = []
        for i in range(0, len(image_ids), _CHUNK):
            part = image_ids[i : i + _CHUNK]
            sql = f"SELECT id, crc32 FROM images WHERE id IN ({','.join('?' * len(part))}) ORDER BY id"
            found += self._salvage(db, "images", sql, part, ("id", "crc32"))
        return [(key, crc) for key, crc in found if isinstance(crc, int)]

    def _checked_codes(self, image_ids: Sequence[Value]) -> Iterator[Row]:
        for row in self._rows("codes", image_ids):
            try:
                if not isinstance(row[2], bytes) or packed_size(row[2], self.layout) != row[1]:
                    raise ValueError("its count of features is wrong")
            except ValueError as e:
                self.damaged["codes", row[0]] = f"codes of image {row[0]!r}: {e}"
            else:
                yield row

    def revision(self) -> int:
        """Number of the last write transaction of the file, whoever made it."""
        with self._read() as db:
            return self._revision_of(db)

    def _revision_of(self, db: sqlite3.Connection) -> int:
        return int(self._row(db, "meta", "revision")[1])

    def changes(self, since: int) -> Changes:
        """What happened after revision `since`, as one consistent state."""
        with self._read() as db, transaction(db, "BEGIN"):
            revision = self._revision_of(db)
            if revision == since:
                return Changes(revision, True, (), ())
            pruned = int(self._row(db, "meta", "pruned")[1])
            # The "+" keeps SQLite from walking through all ids in order instead of looking revisions up.
            updated = db.execute("SELECT id FROM images WHERE revision > ? ORDER BY +id", (since,)).fetchall()
            removed = db.execute(
                "SELECT image_id FROM tombstones WHERE revision > ? ORDER BY +image_id", (since,)
            ).fetchall()
        complete = pruned <= since <= revision
        return Changes(revision, complete, tuple(r[0] for r in updated), tuple(r[0] for r in removed))

    def _image(self, image: Sequence[Any], landmark: Sequence[Any]) -> StoredImage:
        image_id, name, _, metadata, width, height, content_hash, added_at, revision = image
        return StoredImage(
            image_id, name, landmark[1], json.loads(metadata), (width, height), content_hash, added_at, revision
        )

    def _row(self, db: sqlite3.Connection, table: str, key: Value) -> Row:
        """One row without its checksum."""
        columns = _COLUMNS[table]
        try:
            row = db.execute(
                f"SELECT {', '.join(columns)}, crc32 FROM {table} WHERE {columns[0]} = ?", (key,)
            ).fetchone()
        except sqlite3.DatabaseError as e:
            if database.is_corruption(e):
                raise CorruptRowError(
                    f"{self.path}: {table} {key!r} cannot be read ({e}); restore it from a copy"
                ) from e
            raise
        if row is None:
            raise NotFoundError(f"{self.path}: {table} has no row {key!r}")
        if (what := _damage(table, row)) is not None:
            self.damaged[table, key] = what
            raise CorruptRowError(f"{self.path}: {what}; remove it and add it again, or restore the file from a copy")
        return tuple(row[:-1])

    def _rows(self, table: str, keys: Sequence[Value]) -> Iterator[Row]:
        """Rows without checksums, ascending by key within a chunk; the damaged ones go to `damaged`."""
        columns = _COLUMNS[table]
        for i in range(0, len(keys), _CHUNK):
            chunk = keys[i : i + _CHUNK]
            sql = (
                f"SELECT {', '.join(columns)}, crc32 FROM {table} WHERE {columns[0]} IN ({','.join('?' * len(chunk))}) "
                f"ORDER BY {columns[0]}"
            )
            with self._read() as db:
                rows = self._salvage(db, table, sql, chunk, (*columns, "crc32"))
            for row in rows:
                if (what := _damage(table, row)) is not None:
                    self.damaged[table, row[0]] = what
                else:
                    yield tuple(row[:-1])

    def _salvage(
        self, db: sqlite3.Connection, table: str, sql: str, keys: Sequence[Value], columns: Sequence[str]
    ) -> list[Any]:
        """All rows of a chunk, or after damage to a page, those that can be read one by one."""
        try:
            return db.execute(sql, tuple(keys)).fetchall()
        except sqlite3.DatabaseError as e:
            if not database.is_corruption(e):
                raise
        rows: list[Any] = []
        column = _COLUMNS[table][0]
        for key in keys:
            try:
                one = f"SELECT {', '.join(columns)} FROM {table} WHERE {column} = ?"
                rows += db.execute(one, (key,)).fetchall()
            except sqlite3.DatabaseError as e:
                if not database.is_corruption(e):
                    raise
                self.damaged[table, key] = f"{table} {key!r} cannot be read ({e})"
        return rows

    def _keys(self, table: str) -> list[Value]:
        """All keys of a table; where its pages are damaged, every key it may have had."""
        column = _COLUMNS[table][0]
        with self._read() as db:
            try:
                return [key for (key,) in db.execute(f"SELECT {column} FROM {table} ORDER BY {column}")]
            except sqlite3.DatabaseError as e:
                if not database.is_corruption(e) or table == "meta":
                    raise
            sequence = "landmarks" if table == "landmarks" else "images"
            row = db.execute("SELECT seq FROM sqlite_sequence WHERE name = ?", (sequence,)).fetchone()
            if row is None or not isinstance(row[0], int) or row[0] > _MAX_KEYS:
                raise NotADatabaseError(f"{self.path}: damaged, not even its numbering can be read; restore a copy")
            return list(range(1, row[0] + 1))

    # ------------------------------------------------------------------ whole rows: packs, deltas, shards

    def keys(self, table: str) -> list[Value]:
        """All keys of a table of `TABLES`, ascending."""
        return self._keys(table)

    def rows(self, table: str, keys: Sequence[Value] | None = None) -> Iterator[Row]:
        """Rows as they are stored, without checksum, columns as in `TABLES`; damaged ones are skipped and noted.

        Args:
            table: a table of `TABLES`.
            keys: which rows, None for all; ascending within each 500 keys.
        """
        yield from self._rows(table, self._keys(table) if keys is None else keys)

    def contents(self) -> dict[int, bytes]:
        """The content hash of every image by id, without looking at checksums."""
        with self._read() as db:
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
        with self._write() as db:
            db.execute("PRAGMA defer_foreign_keys=1")
            for table in reversed(_COLUMNS):
                keys = [(key,) for key in (delete or {}).get(table, ())]
                db.executemany(f"DELETE FROM {table} WHERE {_COLUMNS[table][0]} = ?", keys)
            for table in _COLUMNS:
                for row in put.get(table, ()):
                    _put(db, table, row)

    # ------------------------------------------------------------------ whole file

    def info(self) -> StoreInfo:
        """Facts about the database."""
        meta = self._meta()
        with self._read() as db, transaction(db, "BEGIN"):
            counts = [db.execute(f"SELECT count(*) FROM {t}").fetchone()[0] for t in ("images", "landmarks")]
            (n_features,) = db.execute("SELECT coalesce(sum(n), 0) FROM codes").fetchone()
            version = database.pragma_value(db, "user_version")
        files = [self.path, Path(f"{self.path}-wal")]
        return StoreInfo(
            path=str(self.path),
            uuid=meta["uuid"],
            schema_version=version,
            bundle_id=self.bundle_id,
            layout=self.layout,
            revision=int(meta["revision"]),
            n_images=counts[0],
            n_landmarks=counts[1],
            n_features=n_features,
            bytes=sum(database.file_bytes(file) or 0 for file in files),
            sealed=meta["sealed"] == "1",
            read_only=not self.writable,
        )

    def verify(self, progress: Callable[[int, int], None] | None = None) -> list[Problem]:
        """Check every page, every row's CRC-32, and that images, codes and landmarks belong together.

        Args:
            progress: called with (images checked, images in all).

        Returns:
            What is wrong; empty for a sound file.
        """
        problems = self._verify_pages()
        self.damaged.clear()
        seen: dict[str, set[Value]] = {}
        for table in ("meta", "landmarks", "tombstones", "images", "thumbnails"):
            seen[table] = {row[0] for row in self._rows(table, self._keys(table))}
        ids, seen["codes"] = self._keys("codes"), set()
        for i in range(0, len(ids), _CHUNK):
            for row in self._checked_codes(ids[i : i + _CHUNK]):
                seen["codes"].add(row[0])
                try:
                    unpack_codes(row[2], self.layout)
                except ValueError as e:
                    self.damaged["codes", row[0]] = f"codes of image {row[0]!r}: {e}"
            if progress is not None:
                progress(min(i + _CHUNK, len(ids)), len(ids))
        bad = {table: {k for t, k in self.damaged if t == table} for table in _COLUMNS}
        for key in sorted(seen["images"] - seen["codes"] - bad["codes"], key=str):
            self.damaged["images", key] = f"image {key!r} has no codes"
        for table in ("codes", "thumbnails"):
            for key in sorted(seen[table] - seen["images"] - bad["images"], key=str):
                self.damaged[table, key] = f"{table} of image {key!r}, which does not exist"
        names = self._names()
        return problems + [Problem(t, names.get(k, str(k)), what) for (t, k), what in self.damaged.items()]

    def _verify_pages(self) -> list[Problem]:
        with self._read() as db:
            try:
                lines = [line for (line,) in db.execute("PRAGMA integrity_check(100)") if line != "ok"]
                lines += [f"row {r[1]} of {r[0]} refers to no {r[2]}" for r in db.execute("PRAGMA foreign_key_check")]
            except sqlite3.DatabaseError as e:
                lines = [str(e)]
        return [Problem("file", self.path.name, line) for line in lines]

    def _names(self) -> dict[Value, str]:
        """Names of the damaged images, as far as they can be read."""
        names: dict[Value, str] = {}
        with self._read() as db:
            for table, key in self.damaged:
                if table in ("images", "codes", "thumbnails"):
                    try:
                        row = db.execute("SELECT name FROM images WHERE id = ?", (key,)).fetchone()
                    except sqlite3.DatabaseError:
                        continue
                    if row is not None:
                        names[key] = str(row[0])
        return names

    def seal(self) -> None:
        """Make this one compact file without a log, readable from read-only media; the Store is closed by it.

        Raises:
            StoreBusyError: another connection has the file open; nothing was changed.
        """
        if not self.writable:
            raise ReadOnlyError(f"{self.path}: opened with mode='ro'; open it with mode='rw' to seal it")
        with self._read() as db:
            try:
                db.execute("PRAGMA locking_mode=EXCLUSIVE")  # nobody may return to the log in between
                db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                db.execute("PRAGMA journal_mode=DELETE")
                db.execute(
                    "PRAGMA synchronous=EXTRA"
                )  # FULL leaves the end of a journal to the next sync of its folder
            except sqlite3.Error:
                db.execute("PRAGMA locking_mode=NORMAL")
                raise
            with transaction(db):
                self._next_revision(db)
                _put(db, "meta", ("sealed", "1"))
            db.execute("VACUUM")
        self.close()

    def compact(self) -> None:
        """Give the space of removed images back to the disk."""
        if not self.writable:
            raise ReadOnlyError(f"{self.path}: opened with mode='ro'; open it with mode='rw' to compact it")
        with self._read() as db:
            db.execute("VACUUM")
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def snapshot(self, target: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
        """A consistent, writable copy as one file, while this one stays in use; put in place atomically.

        Raises:
            StoreError: `target` exists and `overwrite` is False, or it is open elsewhere.
            StoreFullError: the disk is full; what was at `target` is untouched.
        """
        target = Path(target)
        wal = Path(f"{target}-wal")
        if (database.file_bytes(target) is not None and not overwrite) or database.file_bytes(wal):
            raise StoreError(f"{target}: exists already or is in use; choose another name, or pass overwrite=True")

        def unseal(copy: sqlite3.Connection) -> None:
            if self.sealed:
                _put(copy, "meta", ("sealed", "0"))

        with self._read() as db:
            try:
                database.copy_database(db, target, unseal)
            except OSError as e:
                raise StoreError(f"{target}: cannot be written ({e.strerror})") from e
            except sqlite3.Error as e:  # damage is the source's, everything else the target's
                raise database.as_store_error(e, self.path if database.is_corruption(e) else target) from e
        return target


def _put(db: sqlite3.Connection, table: str, values: Sequence[Value]) -> None:
    """Insert or update a row with its checksum."""
    columns = _COLUMNS[table]
    changed = ", ".join(f"{c} = excluded.{c}" for c in (*columns[1:], "crc32"))
    db.execute(
        f"INSERT INTO {table} ({', '.join(columns)}, crc32) VALUES ({', '.join('?' * (len(columns) + 1))}) "
        f"ON CONFLICT ({columns[0]}) DO UPDATE SET {changed}",
        (*values, row_crc32(table, values)),
    )


def _next_id(db: sqlite3.Connection, table: str) -> int:
    """An id that no row of the table has or had."""
    row = db.execute("SELECT seq FROM sqlite_sequence WHERE name = ?", (table,)).fetchone()
    return int(row[0]) + 1 if row else 1


def _damage(table: str, row: Sequence[Any]) -> str | None:
    """What is wrong with a row whose last value is its checksum."""
    if row_crc32(table, row[:-1]) == row[-1]:
        return None if _is_ours(table, row) else f"{table} {row[0]!r} has the right CRC-32, and values of another kind"
    if table == "images":
        what = f"image {row[1]!r}"
    else:
        what = f"{table} of image {row[0]!r}" if table in ("codes", "thumbnails") else f"{table} {row[0]!r}"
    return f"{what} is damaged: the CRC-32 of its row is not {row[-1]}"


def _is_ours(table: str, row: Sequence[Any]) -> bool:
    """Whether a row holds what this module writes: whoever makes a file on purpose writes the right CRC-32 too."""
    if table not in ("images", "landmarks"):
        return True
    kinds = (int, str, int, str, int, int, bytes, float, int) if table == "images" else (int, str, str)
    if not all(isinstance(value, kind) for value, kind in zip(row, kinds, strict=False)):
        return False
    if table == "landmarks" and not all(v is None or isinstance(v, float) for v in row[3:5]):
        return False
    try:
        return isinstance(json.loads(row[_COLUMNS[table].index("metadata")]), dict)
    except (ValueError, RecursionError):
        return False


def _dump(metadata: Mapping[str, Any], name: str) -> str:
    try:
        return json.dumps(dict(metadata), ensure_ascii=False, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as e:
        raise OptionError(f"{name}: metadata must be what JSON can hold: {e}") from e
