"""The reading side of a database: images, landmarks, codes, what has changed, and whole rows."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from delf_edge.errors import CorruptRowError, OptionError
from delf_edge.quantization.packed_codes import CodeBatch, CodeLayout
from delf_edge.storage.names import LOCATED, REMOVED, same_names
from delf_edge.storage.records import Landmark, StoredImage
from delf_edge.storage.rows import CheckedRows, Row, chunks, find_name
from delf_edge.storage.schema import Value
from delf_edge.storage.sqlite import SharedConnection, transaction
from delf_edge.types import Changes, Codes

if TYPE_CHECKING:
    from delf_edge.storage.catalogue_rows import CatalogueRows


class StoreReader:
    """What can be read of an open database; `Store` opens it, and writes.

    Attributes:
        path: the file.
        layout: sizes of its codes.
    """

    layout: CodeLayout

    def __init__(self, file: SharedConnection) -> None:
        """Use `Store.open`."""
        self.path = file.path
        self._file, self._rows = file, CheckedRows(file)

    @cached_property
    def catalogue(self) -> CatalogueRows:
        """Lookups in what is known of its landmarks."""
        from delf_edge.storage.catalogue_rows import CatalogueRows  # where nothing is found, nobody asks for it

        return CatalogueRows(self._rows)

    @property
    def damaged(self) -> dict[tuple[str, Value], str]:
        """What is wrong, by table and key, with every damaged row met so far."""
        return self._rows.damaged

    # ------------------------------------------------------------------ images and landmarks

    def __len__(self) -> int:
        with self._file.read() as db:
            return int(db.execute("SELECT count(*) FROM images").fetchone()[0])

    def image(self, key: int | str) -> StoredImage:
        """One image by id or name.

        Raises:
            NotFoundError: there is none.
            CorruptRowError: its row, or its landmark's, is damaged.
            OptionError: `key` is neither.
        """
        if isinstance(key, bool) or not isinstance(key, str | int | np.integer):  # True would be the image with id 1
            raise OptionError(f"{key!r} is of type {type(key).__name__}; an image is known by its name or its id")
        with self._file.read() as db, transaction(db, "BEGIN"):
            image = self._rows.one(db, "images", self._rows.image_id(db, key) if isinstance(key, str) else int(key))
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
                ids = sorted({image[2] for image in images})
                landmarks = {row[0]: row for row in self._rows.many("landmarks", ids)}
            for image in images:
                if image[2] in landmarks:
                    yield _stored_image(image, landmarks[image[2]])
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

    # ------------------------------------------------------------------ codes and changes

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
        it). Rows that cannot be read are left out.
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
        """Rows as they are stored, without checksum, columns as in `TABLES`; damaged ones are skipped and noted.

        Args:
            table: a table of `TABLES`.
            keys: which rows, None for all; ascending within each 500 keys.
        """
        yield from self._rows.many(table, self._rows.keys(table) if keys is None else keys)

    def contents(self) -> dict[int, bytes]:
        """The content hash of every image by id, without looking at checksums."""
        with self._file.read() as db:
            return dict(db.execute("SELECT id, content_hash FROM images ORDER BY id").fetchall())


def _stored_image(image: Row, landmark: Row) -> StoredImage:
    image_id, name, _, metadata, *size, content_hash, added_at, revision = image
    metadata = json.loads(metadata)
    return StoredImage(image_id, name, landmark[1], metadata, tuple(size), content_hash, added_at, revision)
