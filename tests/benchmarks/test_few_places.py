"""Databases of few places, counted on the demo's photos."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks import few_places
from benchmarks.data.datasets import PLAIN, Dataset, Query
from delf_edge import Recognizer
from testing.paths import DEMO


def test_what_a_small_database_answers_is_counted(tmp_path: Path) -> None:
    stored = ["Brandenburg Gate", "Colosseum", "Eiffel Tower"]
    asked = {"brandenburgGate": stored[0], "colosseum": stored[1], "eiffelTower": stored[2], "burj": "Burj Khalifa"}
    dataset = Dataset(
        "demo",
        DEMO,
        tuple(f"references/{place}/photo.webp" for place in stored),
        tuple(Query(f"queries/{name}.webp", {"positive": ()}, place) for name, place in asked.items()),
        PLAIN,
        tuple(stored),
    )
    with Recognizer.open(tmp_path / "views.db") as extractor:
        views = few_places.Views(dataset, extractor)
        counts = few_places.one_database(dataset, views, ["Colosseum"], 2, np.random.default_rng(0), tmp_path / "a.db")
    assert counts == {
        "known": 1,
        "first right": 1,
        "named right": 1,
        "named wrong": 0,
        "strangers": 2,
        "strangers named": 0,
    }


def test_without_the_photos_it_says_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert few_places.main([str(tmp_path)]) == 2
    assert "train.csv" in capsys.readouterr().err
