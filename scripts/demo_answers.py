"""The answers to the demo's queries, one JSON line each; or, with --compare A B, whether two machines agree.

They agree where every query has the same landmark (or none). Inliers and probabilities may differ a little: the last
bits of the network's output do, and with them a few keypoints at the edge of being selected.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from delf_edge.listing import list_folder
from delf_edge.recognizer import Recognizer
from examples.demo import PHOTOS, read_queries


def answers() -> None:
    """Index the references, ask every query, print."""
    with tempfile.TemporaryDirectory() as folder, Recognizer.open(Path(folder) / "demo.db") as places:
        for photo in list_folder(PHOTOS / "references", None)[0]:
            places.add(photo.path, landmark=photo.landmark, name=photo.name)
        for query in read_queries(PHOTOS):
            answer = places.identify(query.path)
            print(json.dumps([query.path.name, answer.landmark, answer.n_inliers, round(answer.probability, 4)]))


def compare(here: Path, there: Path) -> int:
    """Print how the answers differ; 1 if a landmark does."""
    a, b = ({row[0]: row[1:] for row in map(json.loads, p.read_text().splitlines())} for p in (here, there))
    other = [name for name in a if name not in b or a[name][0] != b[name][0]]
    inliers = max((abs(a[name][1] - b[name][1]) for name in a if name in b), default=0)
    print(
        f"{len(a) - len(other)} of {len(a)} answers are the same; inliers differ by {inliers} at most; other: {other}"
    )
    return 1 if other or not a else 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--compare"]:
        sys.exit(compare(Path(sys.argv[2]), Path(sys.argv[3])))
    answers()
