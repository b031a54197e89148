"""The recorded rows as a Markdown table."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.metrics import stats

Rows = Mapping[str, Mapping[str, Any]]
BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"
ABLATIONS_BEGIN, ABLATIONS_END = "<!-- ablations: begin -->", "<!-- ablations: end -->"

OWN = "delf-edge"

COLUMNS = (
    ("system", "left"),
    ("in the paper's table", "left"),
    ("mAP (95 %)", "right"),
    ("top-1", "right"),
    ("VAL: mAP, top-1, named at 1 %", "right"),
    ("mAP before RANSAC", "right"),
    ("recall@10, @50", "right"),
    ("named right", "right"),
    ("strangers named", "right"),
    ("at 95 % recall", "right"),
    ("extract ms", "right"),
    ("query ms", "right"),
    ("bytes/image", "right"),
    ("RSS MB", "right"),
)


def number(value: Any, digits: int = 3) -> str:
    """A figure, or a dash where there is none."""
    return "–" if value is None else f"{value:.{digits}f}"


def percent(value: Any) -> str:
    """A share in per cent, or a dash."""
    return "–" if value is None else f"{100 * value:.0f} %"


def of_val(row: Mapping[str, Any]) -> str:
    """The figures of a row on VAL, or a dash."""
    if "map" not in row:
        return "–"
    named = row["unknown"].get("recall_at_1_percent_false_accepts")
    return f"{number(row['map'])}, {number(row['top1'])}, {number(named)}"


def cells(name: str, row: Mapping[str, Any]) -> list[str]:
    """One line of the table."""
    if "error" in row:
        return [name, str(row.get("role", "")), str(row["error"]), *[""] * (len(COLUMNS) - 3)]
    low, high = row["map_ci"]
    stage = row["stages"].get("candidates") or {"map": None, "recall_at": {}}
    unknown = row["unknown"]
    return [
        name,
        str(row.get("role") or ""),
        f"{number(row['map'])} ({number(low, 2)}–{number(high, 2)})",
        number(row["top1"]),
        of_val(row.get("val", {})),
        number(stage["map"]),
        f"{number(stage['recall_at'].get('10'), 2)}, {number(stage['recall_at'].get('50'), 2)}",
        percent(unknown.get("named_right")),
        percent(unknown.get("false_accepts")),
        percent(unknown["false_accepts_at_95_recall"]),
        number(row["extract_ms"], 0),
        number(row["query_ms"], 1),
        number(row["bytes_per_image"], 0),
        number(row["rss_mb"], 0),
    ]


def table(systems: Rows) -> str:
    """The Markdown table, in the order of the rows."""
    lines = [[c for c, _ in COLUMNS], ["---" if side == "left" else "---:" for _, side in COLUMNS]]
    lines += [cells(name, row) for name, row in systems.items()]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def places(systems: Rows, names: Sequence[str]) -> str:
    """mAP by place of a few rows, the place with most queries first."""
    shown = [n for n in names if "places" in systems.get(n, {})]
    if not shown:
        return ""
    counts = {p: v["queries"] for n in shown for p, v in systems[n]["places"].items()}
    head = ["place", "queries", *shown]
    lines = [head, ["---", "---:", *["---:"] * len(shown)]]
    for place in sorted(counts, key=lambda p: (-counts[p], p)):
        values = [number(systems[n]["places"].get(place, {}).get("map"), 2) for n in shown]
        lines.append([place, str(counts[place]), *values])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def differences(systems: Rows, a: str, b: str, n: int = 5) -> str:
    """The queries where one row wins most over the other, both ways (the paper's Figures 6 and 7, in numbers)."""
    if "queries" not in systems.get(a, {}) or "queries" not in systems.get(b, {}):
        return ""
    pairs = [
        (x["ap"] - y["ap"], x["query"], x["ap"], y["ap"])
        for x, y in zip(systems[a]["queries"], systems[b]["queries"], strict=True)
        if x["ap"] is not None and y["ap"] is not None
    ]
    pairs.sort()
    lines = ["| query | " + a + " | " + b + " |", "| --- | ---: | ---: |"]
    won = [p for p in reversed(pairs) if p[0] > 0][:n]
    lost = [p for p in pairs if p[0] < 0][:n]
    lines += [f"| {query} | {x:.2f} | {y:.2f} |" for _, query, x, y in [*won, *lost]]
    return "\n".join(lines)


def document(result: Mapping[str, Any]) -> str:
    """The part of benchmarks/README.md that is written by `make bench`."""
    systems: Rows = result["systems"]
    environment = result["environment"]
    versions = ", ".join(f"{k} {v}" for k, v in environment["versions"].items())
    own, rival = OWN, best_other(systems)
    parts = [
        f"`{result['command']}` at commit {environment['commit']}, {environment['date']}, on {environment['machine']}; "
        f"Python {environment['python']}, {versions}.",
        table(systems),
        "VAL is the set of photos on which things are chosen, all other figures are of DEV; its *named at 1 %* is the "
        "share of known queries that are named right at the threshold that names 1 % of the strangers. "
        "mAP by the trapezoid rule with a bootstrap interval over queries; *before RANSAC* is the mAP of the candidate "
        "stage (of a global row before expansion of the query) and *recall* its share of positives among the first 10 "
        "and 50. *Named right* and *strangers named* are at the row's own threshold (the SDK's: its bundle's; others: "
        "set for 1 % on the training set); a *stranger* is a query whose place was taken out of the database. *At 95 % "
        "recall* is the share of strangers named at the threshold that keeps 95 % of the right answers. Milliseconds "
        "are medians of processor time on one thread, so that other work on the machine does not enter; the clock's "
        "are in the JSON. RSS is the process' largest, with the features of the whole set in it for all rows but "
        "those of the SDK. Figures compare systems run side by side here; they are not Oxford or Paris figures.",
        standing(systems),
        "![mAP against time](results/speed.png) ![precision and right answers](results/precision_recall.png) "
        "![reliability](results/reliability.png)",
    ]
    by_place = places(systems, [n for n in (own, "GeM", "RootSIFT") if n in systems])
    if by_place:
        parts += ["### mAP by place", by_place]
    if rival:
        compared = differences(systems, own, rival)
        if compared:
            parts += [
                f"### Where delf-edge wins most over the best other row, and where it loses most ({rival})",
                compared,
            ]
    return "\n\n".join(part for part in parts if part)


def rounded(value: Any) -> Any:
    """The same with floats of six digits (more mean nothing) and without the names of the photos found."""
    if isinstance(value, dict):
        return {k: rounded(v) for k, v in value.items() if k != "best"}
    if isinstance(value, list):
        return [rounded(v) for v in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


def as_text(result: Mapping[str, Any], lines: str) -> str:
    """JSON in which every member of the object `lines` has a line of its own, so that a diff shows what has changed."""
    head = json.dumps({k: v for k, v in result.items() if k != lines}, indent=1).removesuffix("\n}")
    members = [f"  {json.dumps(name)}: {json.dumps(rounded(value))}" for name, value in result[lines].items()]
    return f"{head},\n {json.dumps(lines)}: {{\n" + ",\n".join(members) + "\n }\n}\n"


def standing(systems: Rows) -> str:
    """Where the SDK's row stands: its difference in mAP to each other row over the same queries, the closest first."""
    own = systems.get(OWN, {})
    if own.get("map") is None:
        return ""
    ap = np.array([q["ap"] for q in own["queries"]], np.float64)
    others = [(r["map"], n) for n, r in systems.items() if r.get("map") is not None and not n.startswith(OWN)]
    said = []
    for _, name in sorted(others, reverse=True)[:4]:
        of_other = np.array([q["ap"] for q in systems[name]["queries"]], np.float64)
        difference, low, high = stats.paired_difference(ap, of_other)
        said.append(f"{difference:+.3f} to {name} (95 % {low:+.3f} to {high:+.3f})")
    return f"mAP of {OWN} against the best other rows, over the same queries: {', '.join(said)}." if said else ""


def best_other(systems: Rows) -> str | None:
    """The best row that is neither the SDK nor built of its features."""
    others = {n: r["map"] for n, r in systems.items() if r.get("map") is not None and not n.lower().startswith("delf")}
    return max(others, key=lambda n: others[n]) if others else None


def write_between(path: Path, text: str, begin: str = BEGIN, end: str = END) -> None:
    """Replace what stands between two markers of a file.

    Raises:
        ValueError: the file does not have both markers.
    """
    whole = path.read_text(encoding="utf-8")
    if begin not in whole or end not in whole:
        raise ValueError(f"{path}: expected the lines {begin} and {end}")
    before, _, rest = whole.partition(begin)
    _, _, after = rest.partition(end)
    path.write_text(f"{before}{begin}\n\n{text}\n\n{end}{after}", encoding="utf-8")
