"""The campaigns of the reliability lab: `python -m reliability [NAME...] [--n N] [--seconds S] [--quick]`.

Every campaign runs in seeded batches and keeps its sums in out/reliability, so a stopped run goes on where it was;
`--afresh` forgets them. The figures go to benchmarks/results/reliability.json.
"""

from __future__ import annotations

import argparse
import importlib
import json
import multiprocessing
import sys
import time
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from pathlib import Path
from typing import Any

from benchmarks.lab.records import environment
from testing.paths import ROOT

# name -> (size of a batch, whole campaign, short form)
CAMPAIGNS = {
    "powercut": (125, 10_000, 40),
    "kill": (20, 1000, 2),
    "bitflip": (200, 2000, 20),
    "fuzz": (500, 20_000, 60),
    "faults": (20, 100, 5),
    "concurrency": (50_000, 1_000_000, 4000),
    "bombs": (1, 1, 1),
    "growth": (10_000, 10_000, 200),
    "habits": (400, 100_000, 40),
}
SUMS = ROOT / "out" / "reliability"
RESULTS = ROOT / "benchmarks" / "results" / "reliability.json"


def merge(total: Any, part: Any, key: str = "") -> Any:
    """Counts add up, "most ..." keeps the largest, lists keep their first 20 lines."""
    if isinstance(part, dict):
        total = total or {}
        return total | {k: merge(total.get(k), v, k) for k, v in part.items()}
    if isinstance(part, list):
        return [*(total or []), *part][:20]
    if total is None or isinstance(part, str):
        return part
    return max(total, part) if key.startswith("most") else total + part


def one_batch(name: str, seed: int, n: int) -> dict[str, Any]:
    """A batch of a campaign, in whichever process."""
    result: dict[str, Any] = importlib.import_module(f"reliability.{name}").batch(seed, n)
    return result


def run(name: str, n: int, seconds: float, *, jobs: int = 1, keep: Path | None = None) -> dict[str, Any]:
    """Batches of a campaign until it has its n or the time is over; the sums so far."""
    size = CAMPAIGNS[name][0]
    sums: dict[str, Any] = {"n": 0, "batches": 0}
    if keep is not None and keep.exists():
        sums = json.loads(keep.read_text())
    until = time.monotonic() + seconds
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
        running: set[Future[dict[str, Any]]] = set()
        begun, seed = sums["n"], sums["batches"]
        while running or (begun < n and time.monotonic() < until):
            while len(running) < jobs and begun < n and time.monotonic() < until:
                running.add(pool.submit(one_batch, name, seed, min(size, n - begun)))
                begun, seed = begun + min(size, n - begun), seed + 1
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for part in done:
                sums = merge(sums, {"batches": 1, **part.result()})
            if keep is not None:
                keep.parent.mkdir(parents=True, exist_ok=True)
                keep.write_text(json.dumps(sums))
                print(f"{name}: {sums['n']} of {n}, {sums['lost or wrong']} lost or wrong", file=sys.stderr, flush=True)
    return sums


def write(name: str, n: int, sums: dict[str, Any]) -> None:
    """Put the sums of a campaign into the recorded results."""
    command = f"python -m reliability {name}" + (f" --n {n}" if n != CAMPAIGNS[name][1] else "")
    record(name, {"command": command, "environment": environment(), "target": CAMPAIGNS[name][1], **sums})


def record(name: str, result: dict[str, Any]) -> None:
    """Put one result among the recorded ones."""
    results = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    results[name] = result
    RESULTS.write_text(json.dumps(results, indent=1, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


def main() -> int:
    """Run the named campaigns, or all; exit code 1 if anything was lost or wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(CAMPAIGNS)}; default: all")
    parser.add_argument("--n", type=int, default=None, help="size of the campaign, instead of the recorded one")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after so many, going on next time")
    parser.add_argument("--jobs", type=int, default=1, help="batches at a time")
    parser.add_argument("--quick", action="store_true", help="the short form; nothing is recorded")
    parser.add_argument("--afresh", action="store_true", help="forget what earlier runs counted")
    options = parser.parse_args()
    bad = 0
    for name in options.names or CAMPAIGNS:
        if name not in CAMPAIGNS:
            parser.error(f"no campaign is called {name!r}; there are {', '.join(CAMPAIGNS)}")
        _, whole, short = CAMPAIGNS[name]
        n = options.n or (short if options.quick else whole)
        keep = None if options.quick else SUMS / f"{name}.json"
        if options.afresh and keep is not None:
            keep.unlink(missing_ok=True)
        sums = run(name, n, options.seconds, jobs=options.jobs, keep=keep)
        print(json.dumps({name: sums}, indent=1, ensure_ascii=False))
        if keep is not None:
            write(name, n, sums)
        bad += sums["lost or wrong"]
    return 1 if bad else 0
