"""The inverted index of a store in RAM: it follows the store's changes while searches go on.

The lists (`inverted_lists`) are derived from the store. A change publishes a new content at once, so a search sees an
image whole or not at all, and never waits (`search`). An index follows one `CodeSource`: a store, or several that show
themselves as one.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from delf_edge.arrays import l2_normalise
from delf_edge.errors import OptionError
from delf_edge.index.index_file import index_path, read_index, write_index
from delf_edge.index.inverted_lists import MAX_SEGMENT, IndexSnapshot
from delf_edge.index.search import SearchOptions, search
from delf_edge.index.slots import Slots
from delf_edge.quantization.coarse_quantizer import CoarseIndex
from delf_edge.quantization.packed_codes import CodeBatch, CodeLayout
from delf_edge.quantization.product_quantizer import decode_global
from delf_edge.types import Candidate, Changes, Codebook, Features, Float32Array

DEAD_SHARE = 0.25  # of dead features, from which on lists are rewritten
WORTH_SAVING = 300_000  # features; fewer are read from the store in a moment
STALE_SHARE = 0.1  # of images read anew, from which on the file of the index is written again


class CodeSource(Protocol):
    """What an index reads of a store; see `Store` for what each gives."""

    layout: CodeLayout

    def revision(self) -> int:
        """Changes with the content."""

    def changes(self, since: int) -> Changes:
        """What happened after a revision."""

    def code_batches(self, image_ids: Sequence[int] | None = None, *, size: int = ...) -> Iterator[CodeBatch]:
        """Codes of many images, with the checksums of their rows."""

    def fingerprints(self) -> tuple[int, NDArray[np.int64], NDArray[np.uint32]]:
        """The revision, and ids and row checksums of all images as of then."""


class InvertedIndex:
    """Searchable content of a store; may be changed in one thread while others search.

    Args:
        layout: sizes of the codes.
        snapshot: its first content, such as `read_index` gives; None for none.
    """

    def __init__(self, layout: CodeLayout, snapshot: IndexSnapshot | None = None) -> None:
        self.layout = layout
        self.revision = -1
        self._lock = threading.Lock()  # of writers
        self._refresh_lock = threading.Lock()
        self._adopt(IndexSnapshot.empty(layout) if snapshot is None else snapshot)

    @classmethod
    def from_store(cls, store: CodeSource, *, database: Path | None = None, uuid: str = "") -> InvertedIndex:
        """An index of everything readable in a store.

        Args:
            store: what to index.
            database: the database file, beside which the index of an earlier start may lie (`index_path`). What it
                says of an image is used only where the image's row is still the same, to its checksum; the rest is
                read from the store. The file is written anew where that was much, with the permissions of the
                database, and may be deleted at any time. None: no file.
            uuid: of the database, which the file bears too; needed with `database`.
        """
        index = cls(store.layout)
        if database is None:
            index._reconcile(store)
            return index
        snapshot = read_index(index_path(database), uuid, store.layout)
        if snapshot is not None:
            index._adopt(snapshot)
        n_read = index._reconcile(store)
        if n_read > STALE_SHARE * index.n_images and index.n_features >= WORTH_SAVING:
            index.save(database, uuid)
        return index

    def moved_to(self, store: CodeSource) -> InvertedIndex:
        """An index of another store, made from this one; images that are the same there are not read again."""
        index = InvertedIndex(self.layout, self._snapshot)
        index._reconcile(store)
        return index

    def save(self, database: Path, uuid: str) -> bool:
        """Write the index beside the database for the next start; returns whether that worked. Failing is no error."""
        return write_index(index_path(database), uuid, self.layout, self._snapshot, like=database)

    @property
    def snapshot(self) -> IndexSnapshot:
        """The content as it is now; it never changes."""
        return self._snapshot

    def _adopt(self, snapshot: IndexSnapshot) -> None:
        self._snapshot = snapshot
        slots = np.flatnonzero(snapshot.alive)
        self._slots = Slots(snapshot.image_ids[slots], slots)

    def refresh(self, store: CodeSource) -> bool:
        """Take over what changed in the store since the last call, by whichever process.

        Returns:
            Whether anything had changed.
        """
        with self._refresh_lock:  # else an older change could be applied after a newer one
            since = self.revision
            if since >= 0 and store.revision() == since:
                return False
            changes = store.changes(max(since, 0))
            if since < 0 or not changes.complete:
                self._reconcile(store)
                return True
            self.apply(removed=changes.removed)
            seen: set[int] = set()
            for batch in store.code_batches(changes.updated):
                self.apply(batch)
                seen.update(batch.image_ids.tolist())
            self.apply(removed=set(changes.updated) - seen)  # changed, and now damaged or gone
            self.revision = changes.revision
            return True

    def _reconcile(self, store: CodeSource) -> int:
        """Bring the index to the store's content whatever it held before; returns how many images were read."""
        revision, ids, checksums = store.fingerprints()
        snapshot = self._snapshot
        slots = np.flatnonzero(snapshot.alive)
        slots = slots[np.argsort(snapshot.image_ids[slots])]
        known = snapshot.image_ids[slots]
        at = np.minimum(np.searchsorted(known, ids), max(0, len(known) - 1))
        same = np.zeros(len(ids), np.bool_)
        if len(known):
            same = (known[at] == ids) & (snapshot.row_checksums[slots][at] == checksums) & (checksums != 0)
        self.apply(removed=np.setdiff1d(known, ids[same]).tolist())
        wanted = ids[~same].tolist()
        for batch in _gathered(store.code_batches(wanted), self.layout):
            self.apply(batch)
        self.revision = revision
        return len(wanted)

    @property
    def n_images(self) -> int:
        """Images that a search can find."""
        return len(self._slots)

    @property
    def n_features(self) -> int:
        """Features in the lists, of removed images too until the next merge."""
        return self._snapshot.n_features

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return self._snapshot.nbytes

    # ------------------------------------------------------------------ changes

    def apply(self, batch: CodeBatch | None = None, *, removed: Iterable[int] = ()) -> None:
        """Add or replace the images of a batch and drop others, as one change.

        Args:
            batch: images to add; an id that is there already is replaced.
            removed: ids to drop; unknown ones are ignored.

        Raises:
            OptionError: the codes are not of this index's layout, or a word is out of range.
        """
        if batch is not None:
            self._check(batch)
        with self._lock:
            snapshot, ids = self._snapshot, [] if batch is None else batch.image_ids.tolist()
            gone = [i for i in {*map(int, removed), *ids} if i in self._slots]
            if gone:
                snapshot = snapshot.without([self._slots.get(i) for i in gone])
            first = len(snapshot.image_ids)
            if batch is not None and ids:
                snapshot = snapshot.extended(batch, self.layout.n_words)
            self._snapshot = snapshot
            self._slots.drop(gone)
            self._slots.put(ids, first)
            if gone:
                self._sweep()

    def _check(self, batch: CodeBatch) -> None:
        M, G, K = self.layout.code_size, self.layout.global_dim, self.layout.n_words
        if batch.codes.shape[1:] != (M,) or batch.global_codes.shape[1:] != (G,):
            raise OptionError(f"codes {batch.codes.shape} and {batch.global_codes.shape} do not fit {self.layout}")
        if len(np.unique(batch.image_ids)) != len(batch.image_ids):
            raise OptionError("a batch names an image twice; apply the two versions one after the other")
        if len(batch.words) and int(batch.words.max()) >= K:
            raise OptionError(f"word {int(batch.words.max())} is out of range: the codebook has {K} words")

    def _sweep(self) -> None:
        """Rewrite lists and number slots anew once enough of them are dead; searches go on meanwhile."""
        snapshot = self._snapshot
        n_slots = len(snapshot.alive)
        many_slots = n_slots - len(self._slots) > max(1000, n_slots // 2)
        if many_slots or snapshot.dead_features() > DEAD_SHARE * (snapshot.n_features + 1):
            for smaller in snapshot.swept(self.layout.n_words):
                self._snapshot = smaller
        if many_slots:
            self._adopt(self._snapshot.renumbered(self.layout.n_words))

    # ------------------------------------------------------------------ search

    def search(
        self,
        features: Features,
        codebook: Codebook,
        coarse: CoarseIndex,
        options: SearchOptions | None = None,
        *,
        without: Sequence[int] = (),
    ) -> list[Candidate]:
        """Candidates for a query; see `search`."""
        return search(self._snapshot, features, codebook, coarse, options, without=without)

    def global_descriptors(self, image_ids: Sequence[int]) -> Float32Array:
        """Global descriptors of images, float32 (n, G), unit L2; zeros for an image that is not in the index."""
        with self._lock:
            snapshot, slots = self._snapshot, np.array([self._slots.get(i) for i in image_ids], np.int64)
        found = l2_normalise(decode_global(snapshot.global_codes[slots])) if len(snapshot.image_ids) else None
        if found is None:
            return np.zeros((len(image_ids), self.layout.global_dim), np.float32)
        found[slots < 0] = 0
        return found


def _gathered(batches: Iterator[CodeBatch], layout: CodeLayout) -> Iterator[CodeBatch]:
    """Batches joined to whole segments, so that a first load sorts every feature once."""
    waiting: list[CodeBatch] = []
    for batch in batches:
        if waiting and sum(len(b.words) for b in waiting) + len(batch.words) > MAX_SEGMENT:
            yield CodeBatch.join(waiting, layout)
            waiting = []
        waiting.append(batch)
    if waiting:
        yield CodeBatch.join(waiting, layout)
