"""The lab's figures as the table of SECURITY.md: `python -m reliability.report` prints it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

from reliability.campaigns import RESULTS


def rows(results: dict[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    """What was counted, how many, what was found, and the commit."""

    def commit(name: str) -> str:
        parts: dict[str, int] = results[name].get("by commit", {})
        return ", ".join(f"{c} ({n:,})" for c, n in parts.items()) or str(results[name]["environment"]["commit"])

    def of(name: str) -> str:
        r = results[name]
        return f"{r['n']:,} of {r['target']:,}" if r["n"] < r["target"] else f"{r['n']:,}"

    r = results["powercut"]
    yield "power cuts", of("powercut"), f"{r['lost or wrong']} lost or wrong", commit("powercut")
    r = results["kill"]
    yield "kill -9, of each of 11 operations", of("kill"), f"{r['lost or wrong']} lost or wrong", commit("kill")
    r = results["faults"]
    what = f"{r['lost or wrong']} lost, wrong or of another kind"
    yield "failing system calls, in each of 10 operations", of("faults"), what, commit("faults")
    r = results["fuzz"]
    unexpected = sum(door.get("unexpected", 0) for door in r["by door"].values())
    wrong = sum(door["wrong answers"] for door in r["by door"].values())
    what = f"{r['process deaths']} deaths, {wrong} wrong answers, {unexpected} other exceptions"
    yield f"mutants at each of {len(r['by door'])} doors", of("fuzz"), what, commit("fuzz")
    r = results["bitflip"]
    what = f"{r['lost or wrong']} that changed data went unnoticed"
    yield (
        f"flipped bits in each of {len(r['by kind of file']) - 1} kinds of file",
        of("bitflip"),
        what,
        commit("bitflip"),
    )
    r = results["bombs"]
    what = f"at most {r['most MB of one']} MB, refused within {r['most cpu ms to refuse one']} ms of processor"
    yield "decompression bombs", f"{len(r['files'])}", what, commit("bombs")
    r = results["concurrency"]
    what = f"{r['inconsistent reads']} inconsistent; log at most {r['most bytes of the log'] / 1e6:.1f} MB"
    yield "reads by 8 beside 2 writers and a compactor", of("concurrency"), what, commit("concurrency")
    if "growth" in results:
        r = results["growth"]
        what = f"{r['MB per 10,000 queries by the line']} MB more per 10,000"
        yield "queries in one process", of("growth"), what, commit("growth")
    r = results["longrun"]
    ends = r["first and last quarter after warming up"]
    least, most = (round(v / 1e6) for v in ends["rss"])
    p99 = "{:.0f} then {:.0f}".format(*ends["p99"])
    what = (
        f"RSS {least} to {most} MB, handles and threads the same, log at most {r['wal, most'] / 1e6:.1f} MB, "
        f"p99 {p99} ms; {r['named wrong']} of {r['asked']:,} answers wrong, with a tiny network for tests"
    )
    yield "frames of a camera in an hour, with faults", f"{r['frames']:,}", what, commit("longrun")


def table(results: dict[str, Any]) -> str:
    """In Markdown."""
    lines = ["| what | how many | found | commit |", "|---|---|---|---|"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows(results))])


def main() -> int:
    """The command."""
    print(table(json.loads(RESULTS.read_text(encoding="utf-8"))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
