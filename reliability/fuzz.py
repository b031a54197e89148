"""Hostile input at every door (`python -m reliability fuzz`).

Each door gets seeded mutants in a forked process, so that a crash is counted and the rest goes on behind it. Allowed is
an error of the SDK's own tree, or an answer; an answer about a photo that is known may only be the right one or
"unknown". Anything else (a signal, a hang, another exception) is a finding, named by door and seed.
"""

from __future__ import annotations

import collections
import faulthandler
import os
import resource
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from reliability import doors
from reliability.cli_door import cli_door
from reliability.pack_door import pack_door

MEMORY = 8 << 30  # bytes of address space: more than any input may need
HANG = 60  # seconds of processor time for one mutant
DOORS: dict[str, doors.Maker] = {**doors.DOORS, "cli": cli_door, "pack": pack_door}


def batch(seed: int, n: int, only: tuple[str, ...] = ()) -> dict[str, Any]:
    """n mutants at each door."""
    by_door: dict[str, dict[str, int]] = {}
    found: list[str] = []
    for name, make in DOORS.items():
        if not only or name in only:
            by_door[name], complaints = door(name, make, seed, n)
            found += complaints
    deaths = sum(counts["process deaths"] for counts in by_door.values())
    return {"n": n, "lost or wrong": len(found), "process deaths": deaths, "by door": by_door, "found": found}


def door(name: str, make: doors.Maker, seed: int, n: int) -> tuple[dict[str, int], list[str]]:
    """Counts of what n mutants led to, and complaints."""
    counts: collections.Counter[str] = collections.Counter({"mutants": n, "process deaths": 0, "wrong answers": 0})
    found: list[str] = []
    first = 0
    while first < n:
        with tempfile.TemporaryDirectory() as folder:
            reached, outcomes, status = _forked(make, Path(folder), seed, first, n)
        for outcome in outcomes:
            kind = outcome.split(":")[0]
            counts[kind] += 1
            if kind in ("wrong answers", "unexpected"):
                found.append(f"{name}, seed {seed}: {outcome}")
        if status == 0:
            break
        if reached < 0:
            raise RuntimeError(f"door {name} cannot be set up (wait status {status})")
        counts["process deaths"] += 1
        found.append(f"{name}, seed {seed}, mutant {reached}: the process died ({status})")
        first = reached + 1
    return dict(counts), found


def _forked(make: doors.Maker, folder: Path, seed: int, first: int, n: int) -> tuple[int, list[str], int]:
    """Run mutants in a child: the last one begun, the outcomes, and the wait status."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.close(reading)
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            os.dup2(2, 1)
            os.chdir(folder)  # a mutated argument may name a file to write
            _child(make(folder), writing, seed, first, n)
            code = 0
        finally:
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        lines = pipe.read().decode(errors="replace").split("\n")[:-1]
    _, status = os.waitpid(pid, 0)
    begun = [int(line[1:]) for line in lines if line.startswith("#")]
    return (begun[-1] if begun else -1), [line for line in lines if not line.startswith("#")], status


def _child(attempt: Callable[[np.random.Generator], str], pipe: int, seed: int, first: int, n: int) -> None:
    def hang(number: int, frame: object) -> None:
        os.kill(os.getpid(), signal.SIGABRT)

    faulthandler.disable()  # a crash is counted, not described
    signal.signal(signal.SIGVTALRM, hang)
    for i in range(first, n):
        os.write(pipe, f"#{i}\n".encode())
        signal.setitimer(signal.ITIMER_VIRTUAL, HANG)
        try:
            outcome = attempt(np.random.default_rng((seed, i)))
        except MemoryError:
            outcome = "out of memory"
        except BaseException as e:
            where = e.__traceback__
            while where is not None and where.tb_next is not None:
                where = where.tb_next
            line = "" if where is None else f"{Path(where.tb_frame.f_code.co_filename).name}:{where.tb_lineno}"
            outcome = f"unexpected: mutant {i}: {type(e).__name__} at {line}: {str(e)[:200]}"
        os.write(pipe, (outcome.replace("\n", " ") + "\n").encode(errors="replace"))
    signal.setitimer(signal.ITIMER_VIRTUAL, 0)
