"""A fault at every system call (`python -m reliability faults`).

A process above the shim carries out each operation while its n-th call of a kind fails: no space, I/O error, read-only,
no permission, too many files, no memory for a mapping, no locks, a write that is cut short. The operation must succeed
or raise an error of the SDK's own tree; nothing stored may be lost; and the next call must work.
"""

from __future__ import annotations

import collections
import errno
import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from delf_edge.errors import DelfEdgeError
from reliability import shim, world


def batch(seed: int, n: int) -> dict[str, Any]:
    """n faults in each operation, in one process above the shim."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "data"
        folder.mkdir()
        done = shim.run(["reliability.faults", str(folder), str(seed), str(n)], folder)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def perform(folder: Path, seed: int, n: int) -> dict[str, Any]:
    """Draw faults at random over kinds of call, the number of the call, and the error."""
    rng, inside = np.random.default_rng(seed), shim.Inside()
    outcomes: collections.Counter[str] = collections.Counter()
    by_call: collections.Counter[str] = collections.Counter()
    found: list[str] = []
    base = folder / "base"
    base.mkdir()
    first = world.World(base, {}, None, rng)
    for operation in ("add many", "add many", "snapshot"):
        step = first.step(operation)
        step.act()
        first.done(step)
    state = first.state
    first.close()
    here = folder / "here"
    for operation in world.OPERATIONS:
        shutil.copytree(base, here)
        calls = counted(here, state, operation, inside)
        shutil.rmtree(here)
        for i in range(n):
            shutil.copytree(base, here)
            try:
                what, call = one(here, state, operation, calls, inside, rng)
                outcomes[what.split(":")[0]] += 1
                by_call[call] += 1
                if what.startswith("BAD"):
                    found.append(f"{operation}, fault {i}: {call}: {what}")
            finally:
                inside.disarm()
                shutil.rmtree(here)
    counts = {"outcomes": outcomes, "by call": by_call}
    return {"n": n, "faults": sum(by_call.values()), "lost or wrong": len(found), **counts, "found": found}


def counted(here: Path, state: world.State, operation: str, inside: shim.Inside) -> dict[str, int]:
    """How often an operation makes each kind of call."""
    mirror = world.World(here, state, state, np.random.default_rng(0))
    step = mirror.step(operation)
    inside.disarm()
    step.act()
    calls = {call: inside.count(call) for call in shim.CALLS if inside.count(call)}
    mirror.close()
    return calls


def one(
    here: Path,
    state: world.State,
    operation: str,
    calls: dict[str, int],
    inside: shim.Inside,
    rng: np.random.Generator,
) -> tuple[str, str]:
    """Carry out an operation with one fault in it; what came of it, and the call that failed."""
    mirror = world.World(here, state, state, np.random.default_rng(int(rng.integers(2**31))))
    call = str(rng.choice(sorted(calls)))
    error = int(rng.choice(shim.ERRORS[call]))
    step = mirror.step(operation)
    inside.arm(call, int(rng.integers(1, calls[call] + 1)), error, sticky=bool(rng.random() < 0.3))
    failed: BaseException | None = None
    try:
        step.act()
    except DelfEdgeError as e:
        failed = e
    except MemoryError as e:
        failed = None if error == errno.ENOMEM else e
    except BaseException as e:
        return f"BAD: {type(e).__name__}: {e}", call
    fired = inside.fired
    inside.disarm()
    what = "not reached" if not fired else "refused" if failed is not None else "done all the same"
    try:
        if operation == "close and open":
            mirror.recognizer.close()
            mirror = world.World(here, state, state, np.random.default_rng(1))
        after = [step.after] if failed is None else [step.before, step.after]
        mirror.recognizer.store.relabel(sorted(mirror.state)[0], "afterwards")  # the next call works
    except DelfEdgeError as e:
        if operation.startswith("remove"):
            after = [step.before, step.after]
        else:
            return f"BAD: the next call fails: {e} (after {failed})", call
    finally:
        mirror.close()
    contents: list[world.State | None] = []
    for content in after:
        contents.append(content)
        if content and step.file == "places.db" and sorted(state)[0] in content:
            name = sorted(state)[0]
            contents.append(content | {name: ("afterwards", content[name][1])})
    file = here / step.file
    sealed = operation == "seal" and failed is None
    complaint = world.complaint(file, contents, rng, sealed=sealed, ask=0.2)
    return (f"BAD: {complaint} (after {failed})" if complaint else what), call


if __name__ == "__main__":
    print(json.dumps(perform(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))))
