"""The answers to the demo's queries, one JSON line each; or whether two machines agree.

usage: demo_answers.py DB [MONUMENTS]            answers on this machine; DB is made, or taken up where it is; all of
                                                 the demo, or only so many of the monuments that are asked for, with
                                                 as many strangers
       demo_answers.py --compare A B DOCTOR OUT  two files of answers, the JSON of `doctor` for B; OUT gets the figures

They agree where every query has the same landmark (or none). Inliers and probabilities may differ a little: the last
bits of the network's output do, and with them a few keypoints at the edge of being selected.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from delf_edge.interchange.photo_lists import list_folder
from delf_edge.recognizer import Recognizer
from examples.demo import PHOTOS, read_queries


def answers(database: Path, monuments: int | None) -> None:
    """Index the references, ask the queries, print."""
    references, queries = list_folder(PHOTOS / "references", None)[0], read_queries(PHOTOS)
    if monuments is not None:
        known = [query for query in queries if query.landmark is not None][:monuments]
        queries = known + [query for query in queries if query.landmark is None][:monuments]
        references = [photo for photo in references if photo.landmark in {query.landmark for query in known}]
    with Recognizer.open(database) as recognizer:
        for photo in references:
            added = recognizer.add(photo.path, landmark=photo.landmark, name=photo.name)
            print(f"{added.status} {photo.name}, {time.process_time():.0f} s", file=sys.stderr, flush=True)
        for query in queries:
            answer = recognizer.identify(query.path)
            row = [query.path.name, answer.landmark, answer.n_inliers, round(answer.probability, 4)]
            print(json.dumps(row), flush=True)


def compare(here: Path, there: Path, doctor: Path) -> dict[str, Any]:
    """How the answers differ, and what `doctor` found there."""
    from benchmarks.lab.records import environment  # not in the userland

    a, b = ({row[0]: row[1:] for row in map(json.loads, p.read_text().splitlines())} for p in (here, there))
    whole = read_queries(PHOTOS)
    known = sum(query.landmark is not None and query.path.name in a for query in whole)
    both = [name for name in a if name in b]
    report = json.loads(doctor.read_text())
    machine = {"versions": report["versions"], "machine": report["machine"], "bundle": report["bundle"]["bundle id"]}
    return {
        "what": "the SDK in a Debian arm64 userland, emulated by qemu-user; times are those of the emulator",
        "command": "scripts/arm64_check.sh FOLDER" + ("" if len(a) == len(whole) else f" {known}"),
        "golden vectors": {c["name"]: {"passed": c["passed"], "detail": c["detail"]} for c in report["checks"]},
        "queries": len(a),
        "queries of the whole demo": len(whole),
        "answers equal": sum(a[name][0] == b[name][0] for name in both),
        "other answers": [
            [name, a[name][0], b.get(name, [None])[0]] for name in a if name not in b or a[name][0] != b[name][0]
        ],
        "most inliers of difference": max((abs(a[name][1] - b[name][1]) for name in both), default=0),
        "most probability of difference": round(max((abs(a[name][2] - b[name][2]) for name in both), default=0.0), 4),
        "there": machine,
        "environment": environment(),
    }


def main(arguments: list[str]) -> int:
    """The command."""
    if arguments[:1] != ["--compare"]:
        answers(Path(arguments[0]), int(arguments[1]) if arguments[1:] else None)
        return 0
    here, there, doctor, out = map(Path, arguments[1:])
    found = compare(here, there, doctor)
    out.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"{found['answers equal']} of {found['queries']} answers are the same; other: {found['other answers']}")
    passed = all(check["passed"] for check in found["golden vectors"].values())
    return 0 if passed and found["queries"] and found["answers equal"] == found["queries"] else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
