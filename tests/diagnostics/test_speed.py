"""`delf-edge bench`: what it prints, its schema, and the boards that were contributed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from delf_edge import Bundle, OptionError, Recognizer
from delf_edge.cli.main import app
from delf_edge.diagnostics import speed
from delf_edge.errors import DelfEdgeError
from testing.paths import ROOT, TINY_BUNDLE
from testing.synthetic_database import make_database

jsonschema = pytest.importorskip("jsonschema", reason="checks the schema of benchmarks/boards")
BENCHMARKS = ROOT / "benchmarks"
SCHEMA = json.loads((BENCHMARKS / "boards.schema.json").read_text(encoding="utf-8"))


def check(result: Any) -> None:
    jsonschema.Draft202012Validator(SCHEMA).validate(result)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two photos, one of them in a subfolder."""
    from reliability import world

    folder = tmp_path_factory.mktemp("photos")
    (folder / "below").mkdir()
    (folder / "a.png").write_bytes(world.photo(1))
    (folder / "below" / "b.png").write_bytes(world.photo(2))
    return folder


def test_the_figures_of_a_machine_follow_the_schema(photos: Path, tmp_path: Path) -> None:
    arguments = ["bench", "--bundle", str(TINY_BUNDLE), "--photos", str(photos), "--runs", "2", "--json"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    check(result)
    assert result["photos"] == {"source": "own", "n": 2}
    assert result["database"]["images"] == 2
    assert set(result["extract_ms"]) == set(Bundle.load(TINY_BUNDLE).presets)
    for row in [*result["extract_ms"].values(), *result["identify_ms"].values()]:
        assert row["n"] == 4
        assert 0 <= row["least"] <= row["median"] <= row["most"]
    assert result["start"]["seconds"]["n"] == speed.BenchOptions().starts
    assert str(photos) not in done.stdout


def test_a_database_of_ones_own_and_a_table(photos: Path, tmp_path: Path) -> None:
    database = make_database(tmp_path / "own.db", Bundle.load(TINY_BUNDLE), n_images=7)
    before = database.read_bytes()
    arguments = ["bench", str(database), "--bundle", str(TINY_BUNDLE), "--photos", str(photos), "--runs", "1"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert "2 photos (own), 7 images searched" in done.stdout
    assert "self-test: passed" in done.stdout
    assert database.read_bytes() == before


def test_a_stage_that_some_photos_need_is_counted_for_those(photos: Path, tmp_path: Path) -> None:
    database = tmp_path / "one.db"
    with Recognizer.open(database, bundle=TINY_BUNDLE) as recognizer:
        recognizer.add(photos / "a.png", landmark="a")
    result = speed.measure_speed(
        TINY_BUNDLE, database=database, photos=photos, options=speed.BenchOptions(runs=2, starts=1)
    )
    check(result)
    assert result["identify_ms"]["total"]["n"] == 4
    assert result["identify_ms"]["turns"]["n"] == 2  # of the photo that is not stored


def test_without_the_demo_the_picture_of_the_bundle_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(speed, "DEMO", tmp_path / "none")
    result = speed.measure_speed(TINY_BUNDLE, options=speed.BenchOptions(runs=1, starts=1))
    check(result)
    assert result["photos"]["n"] == 1
    assert result["photos"]["source"].startswith("picture of the bundle")


def test_what_cannot_be_measured_is_said(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="no photo"):
        speed.measure_speed(TINY_BUNDLE, photos=tmp_path)
    with pytest.raises(OptionError, match="at least 1"):
        speed.BenchOptions(runs=0)
    with pytest.raises(DelfEdgeError, match="gave no answer"):
        speed.first_answer(tmp_path / "none.db", TINY_BUNDLE, tmp_path / "none.png", 1)


@pytest.mark.parametrize("path", sorted((BENCHMARKS / "boards").glob("*.json")), ids=lambda path: path.stem)
def test_contributed_boards_follow_the_schema(path: Path) -> None:
    check(json.loads(path.read_text(encoding="utf-8")))


def test_the_schema_refuses_what_is_no_board() -> None:
    wrongs: list[object] = [{}, {"format": "delf-edge bench 2"}, []]
    for wrong in wrongs:
        with pytest.raises(jsonschema.ValidationError):
            check(wrong)
