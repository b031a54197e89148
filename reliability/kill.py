"""Kill -9 of real processes at random moments (`python -m reliability kill`).

A forked process carries out one kind of operation over and over and says through a pipe what it begins and what is
done; at a random moment it is killed. What it said was done must be there, what it had begun must have happened or
not, and the database must be sound. An indexing run is killed the same way and then run again to its end.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from delf_edge.errors import NotADatabaseError
from delf_edge.ingestion import AddItem, AddResult
from delf_edge.recognizer import Recognizer
from delf_edge.storage.store import Store
from reliability import world

INDEXED = 5  # photos of an indexing run


class Victim:
    """Forks processes and kills them at a random moment between two of their lines.

    The first forks show how long that usually takes on this machine, as busy as it is.
    """

    def __init__(self, rng: np.random.Generator, lines: int) -> None:
        self._rng, self._lines = rng, lines
        self._gaps: list[float] = []

    def run(self, body: Callable[[BinaryIO], None]) -> list[str]:
        """Fork, let `body` write some lines, kill it a little later; its complete lines."""
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                os.close(reading)
                with os.fdopen(writing, "wb", buffering=0) as pipe:
                    body(pipe)
            except BaseException as e:
                os.write(2, f"child: {type(e).__name__}: {e}\n".encode())
                os._exit(3)
            os._exit(0)
        os.close(writing)
        text, wanted, last = b"", int(self._rng.integers(1, self._lines + 1)), 0.0
        while text.count(b"\n") < wanted:
            more = os.read(reading, 1 << 16)
            now = time.monotonic()
            if last:
                self._gaps = [*self._gaps[-50:], now - last]
            text, last = text + more, now
            if not more:
                break
        usual = float(np.median(self._gaps)) if self._gaps else 0.005
        time.sleep(float(self._rng.uniform(0, 1.5 * usual)))
        os.kill(pid, signal.SIGKILL)
        with os.fdopen(reading, "rb") as pipe:
            text += pipe.read()
        _, status = os.waitpid(pid, 0)
        if os.WIFEXITED(status) and os.WEXITSTATUS(status):
            raise RuntimeError("the child failed before it was killed; see stderr")
        return [line[:-1] for line in text.decode().splitlines(keepends=True) if line.endswith("\n")]


def batch(seed: int, n: int) -> dict[str, Any]:
    """Kill n processes in each operation."""
    rng = np.random.default_rng(seed)
    counts = dict.fromkeys((*world.OPERATIONS, "index"), n)
    found: list[str] = []
    finished = 0
    if (
        n > 5
    ):  # described once, here: a child that describes photos would be killed while it does that, not while it writes
        for number in range(world.PHOTOS):
            world.codes(number)
    with tempfile.TemporaryDirectory() as scratch:
        for operation in world.OPERATIONS:
            folder = Path(scratch) / operation.replace(" ", "-")
            folder.mkdir()
            complaints, after = _kill_operation(folder, operation, n, rng)
            found += complaints
            finished += after
            shutil.rmtree(folder)
        victim = Victim(rng, INDEXED)
        for _ in range(n):
            found += _kill_indexing(Path(scratch), victim, rng)
    return {
        "n": n,
        "lost or wrong": len(found),
        "kills": sum(counts.values()),
        "killed between two operations": finished,
        "by operation": counts,
        "found": found,
    }


def _kill_operation(folder: Path, operation: str, n: int, rng: np.random.Generator) -> tuple[list[str], int]:
    """Complaints of n kills, and how many of them fell between two operations."""
    first = world.World(folder, {}, None, rng)
    for _ in range(2):
        step = first.step("add many")
        step.act()
        first.done(step)
    state, copied, victim = first.state, None, Victim(rng, 5)
    first.close()
    found, between = [], 0
    for i in range(n):
        start = np.random.default_rng(rng.integers(2**62))

        def work(
            pipe: BinaryIO,
            state: world.State = state,
            copied: world.State | None = copied,
            start: np.random.Generator = start,
        ) -> None:
            here = world.World(folder, state, copied, start)
            for _ in range(10**6):
                full = len(here.state) > 40
                next_step = here.step("remove landmark" if full and operation.startswith("add") else operation)
                pipe.write(b"begin " + next_step.as_json().encode() + b"\n")
                next_step.act()
                here.done(next_step)
                pipe.write(b"done\n")

        lines = victim.run(work)
        allowed: dict[str, list[world.State | None]] = {"places.db": [state], "copy.db": [copied]}
        sealed: set[str] = set()
        for line in lines:
            if line.startswith("begin "):
                begun = json.loads(line[6:])
                allowed[begun["file"]] = [_state(begun["before"]), _state(begun["after"])]
            else:
                allowed[begun["file"]] = [_state(begun["after"])]
                sealed |= {begun["file"]} & {name for name in allowed if name.startswith("sealed")}
        between += lines[-1:] == ["done"]
        for file, contents in allowed.items():
            what = world.complaint(folder / file, contents, rng, sealed=file in sealed, ask=0.2)
            if what is not None:
                found.append(f"{operation}, kill {i}: {file}: {what}")
        for copy in (*folder.glob("*sealed*"), *folder.glob("old*")):
            copy.unlink()
        with Store.open(folder / "places.db") as store:
            state = world.content(store)
        if operation == "snapshot" and (folder / "copy.db").exists():
            with Store.open(folder / "copy.db", mode="ro") as store:
                copied = world.content(store)
    return found, between


def _state(raw: dict[str, list[str]] | None) -> world.State | None:
    return None if raw is None else {name: (landmark, sha256) for name, (landmark, sha256) in raw.items()}


def _items(numbers: list[int]) -> list[AddItem]:
    return [AddItem(world.photo(i), f"l{i % 5}", f"p{i}", thumbnail=True) for i in numbers]


def _just_made(path: Path) -> bool:
    """Whether a database was killed between its first page and its log; the error must say that it may be moved away.

    A database that was moved without its log is the same to the bit, so the SDK cannot tell them apart.
    """
    if not path.exists():
        return False
    try:
        Store.open(path).close()
    except NotADatabaseError as e:
        return f"nothing was in it yet: move {path.name} away" in str(e)
    return False


def _kill_indexing(scratch: Path, victim: Victim, rng: np.random.Generator) -> list[str]:
    """Kill an indexing run; what it reported is there, and the same run again completes it."""
    folder = scratch / "index"
    folder.mkdir()
    numbers = [int(i) for i in rng.choice(world.PHOTOS, INDEXED, replace=False)]
    path = folder / "places.db"

    def work(pipe: BinaryIO) -> None:
        pipe.write(b"start\n")
        with Recognizer.open(path, bundle=world.bundle(), preset=world.PRESET) as recognizer:
            for result in recognizer.add_many(_items(numbers)):
                assert isinstance(result, AddResult)
                pipe.write(result.name.encode() + b"\n")
        time.sleep(60)

    acknowledged = victim.run(work)[1:]
    found = []
    if not acknowledged and _just_made(path):
        path.unlink()
    after = {f"p{i}": (f"l{i % 5}", world.digest(i)) for i in numbers}
    contents: list[world.State | None] = [
        {name: after[name] for name in list(after)[:n]} for n in (len(acknowledged), len(acknowledged) + 1)
    ]
    what = world.complaint(path, [*contents, None] if not acknowledged else contents, rng, ask=0.2)
    if what is not None:
        found.append(f"index: {what}")
    with Recognizer.open(path, bundle=world.bundle(), preset=world.PRESET) as recognizer:
        results = list(recognizer.add_many(_items(numbers)))
    kept = [r.name for r in results if isinstance(r, AddResult) and r.status == "unchanged"]
    if not set(acknowledged) <= set(kept):
        found.append(f"index: {set(acknowledged) - set(kept)} were done again")
    what = world.complaint(path, [after], rng, ask=0.2)
    if what is not None:
        found.append(f"index, run again: {what}")
    shutil.rmtree(folder)
    return found
