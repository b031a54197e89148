"""The packs that a recogniser searches now: it follows `current.json` of their folders while it runs.

At a query, at most once a second, the pointers of the folders are looked at (a `stat` for each pack). Where one has
moved, a thread opens the new version and makes the index for it, and then both are put into use at once. A query works
with one `PackSnapshot` from its beginning to its end, so it is answered wholly from the old packs or wholly from the
new ones; an old pack is closed when no query uses it any more. What cannot be opened changes nothing but `problems`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from delf_edge.errors import DelfEdgeError, PackError, StoreError
from delf_edge.index.inverted_index import InvertedIndex
from delf_edge.storage.combined import CombinedStore
from delf_edge.storage.store import Store

POLL, _RETRY = 1.0, 60.0  # seconds between polls, and until what failed is tried again
_log = logging.getLogger(__name__)
PointerStates = tuple[tuple[str, int, int, int], ...]


@dataclass(slots=True, eq=False)
class _Pack:
    """An open pack, its number in the combined store, and how many snapshots hold it."""

    store: Store
    number: int
    holders: int = 0


@dataclass(slots=True, eq=False)
class PackSnapshot:
    """Stores and their index, as they are searched together; `users` are the queries that work with it."""

    store: CombinedStore
    index: InvertedIndex
    packs: tuple[_Pack, ...]
    users: int = 0


def pointer_states(folders: Sequence[Path]) -> PointerStates:
    """What changes whenever a pack of the folders is switched; a folder that cannot be read says nothing."""
    if not folders:
        return ()
    from delf_edge.packs.installed import POINTER  # as below: a device without packs does without

    found = []
    for folder in folders:
        with suppress(OSError):
            for path in sorted(folder.glob(f"*/{POINTER}")):
                facts = path.stat()
                found.append((str(path), facts.st_ino, facts.st_mtime_ns, facts.st_size))
    return tuple(found)


class LivePacks:
    """The snapshot in use, and how it gives way to the next.

    Args:
        store: the database and the packs beside it; those that lie in one of the folders are followed.
        index: of all of them.
        folders: where `delf-edge update` switches packs.
        seen: `pointer_states(folders)` from before the packs were opened; None: from now.
    """

    def __init__(
        self,
        store: CombinedStore,
        index: InvertedIndex,
        folders: Sequence[Path] = (),
        seen: PointerStates | None = None,
    ) -> None:
        self._own, self._folders = store.own, tuple(folders)
        self._lock = threading.Lock()  # of the fields
        self._loading = threading.Lock()  # whoever makes a new snapshot
        self._thread: threading.Thread | None = None
        self._local = threading.local()
        self._closed = False
        self._seen = pointer_states(self._folders) if seen is None else seen
        self._next_poll, self._retry_at = 0.0, float("inf")
        packs = tuple(_Pack(pack, number, 1) for number, pack in enumerate(store.packs, 1))
        self._last_number = len(packs)
        self._snapshot = PackSnapshot(store, index, packs)
        self.problems: tuple[str, ...] = ()
        self.switches = 0

    @property
    def now(self) -> PackSnapshot:
        """The snapshot of this thread's query, or where it has none the newest."""
        pinned: PackSnapshot | None = getattr(self._local, "snapshot", None)
        return self._snapshot if pinned is None else pinned

    @contextmanager
    def pin(self) -> Iterator[PackSnapshot]:
        """One and the same snapshot until the end of the block; inside another such block, that one's."""
        pinned: PackSnapshot | None = getattr(self._local, "snapshot", None)
        if pinned is not None:
            yield pinned
            return
        self.poll()
        with self._lock:
            snapshot = self._snapshot
            snapshot.users += 1
        self._local.snapshot = snapshot
        try:
            yield snapshot
        finally:
            self._local.snapshot = None
            with self._lock:
                snapshot.users -= 1
                idle = self._let_go(snapshot) if snapshot is not self._snapshot and not snapshot.users else []
            _close(idle)

    def _let_go(self, snapshot: PackSnapshot) -> list[_Pack]:
        """Give up a snapshot's packs; returns those that nobody holds now. With the lock held."""
        for pack in snapshot.packs:
            pack.holders -= 1
        idle = [pack for pack in snapshot.packs if not pack.holders]
        snapshot.packs = ()
        return idle

    def poll(self) -> None:
        """Start taking up what has changed, if a poll is due; costs a few microseconds when it is not."""
        now = time.monotonic()
        if not self._folders or now < self._next_poll:
            return
        with self._lock:
            if now < self._next_poll or self._closed or (self._thread is not None and self._thread.is_alive()):
                return
            self._next_poll = now + POLL
            if pointer_states(self._folders) == self._seen and now < self._retry_at:
                return
            self._thread = threading.Thread(target=self.refresh, name="delf-edge-packs", daemon=True)
            self._thread.start()

    def refresh(self) -> None:
        """Take up what has changed, now; when this returns, the next query is answered from it."""
        if not self._folders:
            return
        with self._loading:
            seen = pointer_states(self._folders)  # before anything is opened: a later switch is seen at the next poll
            if self._closed or (seen == self._seen and time.monotonic() < self._retry_at):
                return
            opened: list[_Pack] = []
            problems: list[str] = []
            try:
                packs = self._wanted(opened, problems)
                if set(packs) != set(self._snapshot.packs):
                    self._publish(packs)
            except Exception as e:  # whatever it is, what is in use stays in use
                problems.append(f"{type(e).__name__}: {e}")
                _log.exception("new packs cannot be used; going on with those before")
            _close([pack for pack in opened if not pack.holders])
            self.problems = tuple(problems)
            self._retry_at = time.monotonic() + _RETRY if problems else float("inf")
            self._seen = seen

    def _wanted(self, opened: list[_Pack], problems: list[str]) -> list[_Pack]:
        """The packs of the next snapshot: those in use, but for the ones that have a newer version that opens."""
        from delf_edge.packs.installed import names, versions

        homes = {pack.store.path.parent: pack for pack in self._snapshot.packs}
        packs = {pack.number: pack for pack in self._snapshot.packs}
        for folder in self._folders:
            for name in names(folder):
                old, files = homes.get(folder / name), versions(folder, name)
                if not files or (old is not None and old.store.path == files[0]):
                    continue
                store = self._open(folder, name, files[0], old is None, problems)
                if store is None:
                    continue
                self._last_number += old is None
                new = _Pack(store, self._last_number if old is None else old.number)
                opened.append(new)
                packs[new.number] = new
        return [packs[number] for number in sorted(packs)]

    def _open(self, folder: Path, name: str, path: Path, first: bool, problems: list[str]) -> Store | None:
        """The version in use; for a pack that is not open yet, else the one before it."""
        from delf_edge.packs.installed import open_installed
        from delf_edge.packs.manifest import open_pack

        try:
            return open_pack(path, bundle_id=self._own.bundle_id, layout=self._own.layout)
        except (PackError, StoreError, OSError) as e:
            problems.append(f"{name}: {e}")
            _log.warning("%s cannot be used, going on without it: %s", path, e)
        try:
            if first:
                return open_installed(folder, name, bundle_id=self._own.bundle_id, layout=self._own.layout)
        except DelfEdgeError:
            pass
        return None

    def _publish(self, packs: list[_Pack]) -> None:
        store = CombinedStore(self._own, [pack.store for pack in packs], [pack.number for pack in packs])
        snapshot = PackSnapshot(store, self._snapshot.index.moved_to(store), tuple(packs))
        with self._lock:
            if self._closed:
                return
            for pack in packs:
                pack.holders += 1
            old, self._snapshot = self._snapshot, snapshot
            self.switches += 1
            idle = [] if old.users else self._let_go(old)
        _close(idle)
        _log.info("packs in use: %s", ", ".join(str(pack.store.path) for pack in packs))

    def close(self) -> None:
        """Close the database and all packs, those of running queries when these end; closing twice is fine."""
        with self._lock:
            self._closed = True
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()
        _close(list(self._snapshot.packs))
        self._own.close()


def _close(packs: Sequence[_Pack]) -> None:
    for pack in packs:
        pack.store.close()
