"""A benchmark in its simplest form, and the score of a ranking: what `check` needs where `benchmarks` is not installed.

The form and the score are those of `benchmarks.datasets.read_json` and `benchmarks.protocols.trapezoid_ap`; a test
holds the two against each other.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from delf_edge.errors import DelfEdgeError


class QuestionsError(DelfEdgeError, ValueError):
    """The file is no benchmark."""


@dataclass(frozen=True, slots=True)
class Question:
    """One query: its photo, and which photos of the database (indices) are right and which do not count."""

    query: str
    positives: frozenset[int]
    junk: frozenset[int]


def read_questions(file: Path, head: tuple[int, int] | None = None) -> tuple[list[Question], list[str]]:
    """Read `{"queries": [{"query", "positives", "junk"?}], "database": [...]}`; names are relative to the file.

    Args:
        file: the JSON file. A query that is also in the database counts as its own junk.
        head: only the first so many queries, and so many photos: theirs, and others at even steps.

    Raises:
        QuestionsError: not of this form, without positives, or a name is not in the database.
        OSError: it cannot be read.
    """
    try:
        raw: Any = json.loads(file.read_text(encoding="utf-8"))
        database = [str(name) for name in raw["database"]]
        asked = [(str(q["query"]), set(q["positives"]), set(q.get("junk", ()))) for q in raw["queries"]]
    except (KeyError, TypeError, AttributeError, ValueError) as e:
        raise QuestionsError(f"{file}: not a benchmark ({e!r}); expected queries, positives and database") from e
    if head is not None:
        asked = asked[: head[0]]
        graded = set().union(*(p | j for _, p, j in asked))
        others = [name for name in database if name not in graded]
        wanted = max(0, head[1] - len(graded))
        graded.update(others[:: max(1, len(others) // max(1, wanted))][:wanted])
        database = [name for name in database if name in graded]
    index = {name: i for i, name in enumerate(database)}
    questions = []
    for query, positives, junk in asked:
        if unknown := sorted((positives | junk) - index.keys()):
            raise QuestionsError(f"{file}: query {query}: {unknown[0]} is not in the database")
        without = {index[name] for name in junk | {query} if name in index}
        right = {index[name] for name in positives} - without
        if right:
            questions.append(Question(query, frozenset(right), frozenset(without)))
    if not questions:
        raise QuestionsError(f"{file}: no query has a positive; there is nothing to measure")
    return questions, database


def average_precision(ranking: Sequence[int], question: Question, n: int) -> tuple[float, bool]:
    """Area under the precision-recall curve by the trapezoid rule (Oxford), and whether the first answer is right.

    Args:
        ranking: indices of photos, best first. Those left out come last, the right ones after all others.
        question: what is right, and what is skipped.
        n: photos in the database.
    """
    right, junk = question.positives, question.junk
    named = [i for i in ranking if i not in junk]
    left_out = right - set(named)
    ranks = [at for at, i in enumerate(named) if i in right]
    ranks += range(n - len(junk) - len(left_out), n - len(junk))
    area = 0.0
    for found, at in enumerate(ranks):
        area += (found / at if at else 1.0) + (found + 1) / (at + 1)
    return area / (2 * len(right)), bool(named) and named[0] in right
