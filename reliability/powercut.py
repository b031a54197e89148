"""Power cuts: a real process is recorded, and its crash points are replayed (`python -m reliability powercut`).

The process runs every operation of `world.steps` above the shim, which logs each write, truncation, sync, creation,
renaming and deletion. A cut at any point leaves behind: whatever was synced; of what was not, any 512-byte sector or
none, torn in the middle of a sector or out of order; and of the folder's entries the first few changes since its last
sync, in order, as journalling file systems keep them. Then the database must open as `world.complaint` demands.

Recording the process itself, rather than SQLite through a VFS of another binding, covers the library that ships and
what the SDK does around it (fsync, rename).
"""

from __future__ import annotations

import collections
import json
import shutil
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from delf_edge.errors import DelfEdgeError
from reliability import shim, world

SECTOR = 512
LOSSES = ("nothing", "everything", "the end", "sectors", "whole writes")


@dataclass
class File:
    """What is on the disk, and what is on its way: (offset, bytes) written, or (size, None) cut."""

    durable: bytearray = field(default_factory=bytearray)
    pending: list[tuple[int, bytes | None]] = field(default_factory=list)

    def sync(self) -> None:
        for change in self.pending:
            _apply(self.durable, change)
        self.pending.clear()

    def after_cut(self, loss: str, rng: np.random.Generator) -> bytes:
        """What the file may hold after a cut."""
        data = bytearray(self.durable)
        changes = self.pending
        if loss == "everything":
            return bytes(data)
        if loss == "the end":
            n = int(rng.integers(len(changes) + 1))
            torn = changes[n] if n < len(changes) else None
            changes = changes[:n]
            if torn is not None and torn[1]:
                changes = [*changes, (torn[0], torn[1][: int(rng.integers(len(torn[1]) + 1))])]
        for at, written in changes:
            if loss == "sectors" and written is not None:
                for start in range(0, len(written), SECTOR):
                    if rng.random() < 0.5:
                        _apply(data, (at + start, written[start : start + SECTOR]))
            elif loss in ("nothing", "the end") or rng.random() < 0.5:
                _apply(data, (at, written))
        return bytes(data)


def _apply(data: bytearray, change: tuple[int, bytes | None]) -> None:
    at, written = change
    if written is None:
        del data[at:]
        data.extend(bytes(at - len(data)))
        return
    data.extend(bytes(max(0, at - len(data))))
    data[at : at + len(written)] = written


class Disk:
    """The files of a recorded process, at one point of its log."""

    def __init__(self, *, strict: bool) -> None:
        self.files: dict[int, File] = {}
        self.entries: dict[str, int] = {}  # as synced
        self.moves: list[tuple[int, bytes, int]] = []  # not synced: kind, paths, file
        self.strict = strict  # False: syncing a file syncs the folder too, as most file systems do

    def take(self, event: shim.Event) -> None:
        """Go one event further."""
        file = self.files.setdefault(event.file, File())
        if event.kind == shim.WRITE:
            file.pending.append((event.offset, event.data))
        elif event.kind == shim.TRUNCATE:
            file.pending.append((event.offset, None))
        elif event.kind in (shim.CREATE, shim.RENAME, shim.UNLINK):
            self.moves.append((event.kind, event.data, event.file))
        elif event.kind == shim.SYNC:
            file.sync()
        if event.kind == shim.SYNC_FOLDER or (event.kind == shim.SYNC and not self.strict):
            self.entries = self._moved(len(self.moves))
            self.moves.clear()

    def _moved(self, n: int) -> dict[str, int]:
        entries = dict(self.entries)
        for kind, paths, file in self.moves[:n]:
            if kind == shim.CREATE:
                entries[paths.decode()] = file
            elif kind == shim.UNLINK:
                entries.pop(paths.decode(), None)
            else:
                source, target = paths.decode().split("\n")
                if source in entries:
                    entries[target] = entries.pop(source)
        return entries

    def cut(self, folder: Path, loss: str, rng: np.random.Generator) -> None:
        """Write to `folder` what a power cut at this point may leave."""
        n = int(rng.integers(len(self.moves) + 1)) if loss != "nothing" else len(self.moves)
        for path, file in self._moved(n).items():
            name = Path(path).name
            if name.endswith("-shm"):  # mapped, never synced: anything may be in it
                data = rng.bytes(32768) if rng.random() < 0.3 else b""
            else:
                data = self.files[file].after_cut(loss, rng)
            (folder / name).write_bytes(data)


def record(folder: Path, seed: int, rounds: int) -> list[shim.Event]:
    """The log of a process that runs `world.steps`."""
    log = folder.with_name("log")
    done = shim.run(["reliability.powercut", str(folder), str(seed), str(rounds)], folder, log)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return list(shim.events(log))


def perform(folder: Path, seed: int, rounds: int) -> None:
    """Run all steps, with remarks in the log; the recorded process is here."""
    inside = shim.Inside()
    for step in world.steps(folder, seed, rounds):
        inside.mark("begin " + step.as_json())
        step.act()
        inside.mark("done")


@dataclass
class Known:
    """What the process had been promised at one point of its log: file -> contents that are allowed."""

    allowed: dict[str, list[world.State | None]] = field(default_factory=dict)
    sealed: set[str] = field(default_factory=set)
    operation: str = "between"
    step: dict[str, Any] = field(default_factory=dict)

    def take(self, remark: str) -> None:
        if remark.startswith("begin "):
            self.step = json.loads(remark[6:])
            self.operation = self.step["operation"]
            self.allowed[self.step["file"]] = [_state(self.step["before"]), _state(self.step["after"])]
        else:
            self.allowed[self.step["file"]] = [_state(self.step["after"])]
            if self.operation == "seal":
                self.sealed.add(self.step["file"])
            self.operation = "between"


def _state(raw: dict[str, list[str]] | None) -> world.State | None:
    return None if raw is None else {name: (landmark, sha256) for name, (landmark, sha256) in raw.items()}


def replay(log: list[shim.Event], cuts: int, seed: int) -> dict[str, Any]:
    """Cut the power `cuts` times at points spread evenly over operations; figures and complaints."""
    rng = np.random.default_rng(seed)
    at_step: dict[str, list[int]] = collections.defaultdict(list)
    known = Known()
    for i, event in enumerate(log):
        if event.kind == shim.MARK:
            known.take(event.data.decode())
        at_step[known.operation].append(i)
    at_step.pop("between", None)
    points: collections.Counter[int] = collections.Counter()
    for i in range(cuts):
        operation = sorted(at_step)[i % len(at_step)]
        points[int(rng.choice(at_step[operation]))] += 1
    known = Known()
    counts: collections.Counter[str] = collections.Counter()
    complaints: list[str] = []
    disks = [Disk(strict=True), Disk(strict=False)]
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as scratch:
        for i, event in enumerate(log):
            if event.kind == shim.MARK:
                known.take(event.data.decode())
            else:
                for disk in disks:
                    disk.take(event)
            for _ in range(points[i]):
                counts[known.operation] += 1
                loss = LOSSES[int(rng.integers(len(LOSSES)))]
                folder = Path(scratch) / "cut"
                folder.mkdir()
                disks[int(rng.integers(2))].cut(folder, loss, rng)
                complaints += [f"event {i} ({known.operation}), lost {loss}: {c}" for c in _judge(folder, known, rng)]
                shutil.rmtree(folder)
    return {"n": sum(counts.values()), "lost or wrong": len(complaints), "by operation": counts, "found": complaints}


def _judge(folder: Path, known: Known, rng: np.random.Generator) -> list[str]:
    wrong = []
    for file, allowed in known.allowed.items():
        if file not in ("places.db", known.step["file"]) and rng.random() < 0.9:
            continue  # untouched since it was synced: look at it now and then
        try:
            what = world.complaint(folder / file, allowed, rng, sealed=file in known.sealed)
        except (DelfEdgeError, OSError) as e:
            what = f"{type(e).__name__}: {e}"
        if what is not None:
            wrong.append(f"{file}: {what}")
    return wrong


def batch(seed: int, n: int) -> dict[str, Any]:
    """Record one process, cut the power n times."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "data"
        folder.mkdir()
        log = record(folder, seed, rounds=2)
    return replay(log, n, seed)


if __name__ == "__main__":
    perform(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
