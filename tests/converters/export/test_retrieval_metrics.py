"""`check` scores as the benchmarks do: the same form, the same curve."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.data.datasets import PLAIN, Query, read_json
from benchmarks.metrics import protocols
from delf_edge.converters.export.retrieval_metrics import Question, QuestionsError, average_precision, read_questions


@settings(max_examples=200, deadline=None)
@given(st.integers(2, 30), st.integers(0, 999), st.floats(0, 1))
def test_average_precision_is_that_of_the_benchmarks(n: int, seed: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    order = rng.permutation(n)
    right = frozenset(int(i) for i in order[: rng.integers(1, n)])
    junk = frozenset(int(i) for i in rng.permutation(n)[: rng.integers(0, 3)]) - right
    ranking = [int(i) for i in rng.permutation(n)[: int(share * n)]]
    scores = np.full(n, -np.inf)
    scores[ranking] = np.arange(len(ranking), 0, -1)
    query = Query("q", {"positive": tuple(sorted(right)), "junk": tuple(sorted(junk))})
    want = protocols.average_precision(protocols.rank(scores, right), query, PLAIN[0])
    got, first = average_precision(ranking, Question("q", right, junk), n)
    assert got == pytest.approx(want, abs=1e-12)
    kept = [i for i in ranking if i not in junk]
    assert first == (bool(kept) and kept[0] in right)


def write(folder: Path, queries: list[dict[str, object]], n: int = 10) -> Path:
    file = folder / "dev.json"
    file.write_text(json.dumps({"queries": queries, "database": [f"{i}.jpg" for i in range(n)]}))
    return file


def test_a_file_is_read_as_the_benchmarks_read_it(tmp_path: Path) -> None:
    queries: list[dict[str, object]] = [
        {"query": "q.jpg", "positives": ["1.jpg", "4.jpg"], "junk": ["4.jpg", "5.jpg"]},
        {"query": "2.jpg", "positives": ["2.jpg", "3.jpg"]},  # itself in the database: its own junk
    ]
    file = write(tmp_path, queries)
    questions, database = read_questions(file)
    theirs = read_json(file)
    assert tuple(database) == theirs.database
    for ours, query in zip(questions, theirs.queries, strict=True):
        assert ours.positives == query.graded("positive")
        assert ours.junk == query.graded("junk")


def test_the_head_keeps_every_photo_that_its_queries_name(tmp_path: Path) -> None:
    file = write(tmp_path, [{"query": f"q{i}.jpg", "positives": [f"{i}.jpg"]} for i in range(4)])
    questions, database = read_questions(file, (2, 5))
    assert [q.query for q in questions] == ["q0.jpg", "q1.jpg"]
    assert len(database) == 5
    assert [database[i] for q in questions for i in q.positives] == ["0.jpg", "1.jpg"]


@pytest.mark.parametrize(
    ("queries", "message"),
    [
        ([{"query": "q.jpg"}], "positives"),
        ([{"query": "q.jpg", "positives": ["absent.jpg"]}], r"absent\.jpg is not in the database"),
        ([], "no query has a positive"),
    ],
)
def test_what_is_no_benchmark_is_refused(tmp_path: Path, queries: list[dict[str, object]], message: str) -> None:
    with pytest.raises(QuestionsError, match=message):
        read_questions(write(tmp_path, queries))
