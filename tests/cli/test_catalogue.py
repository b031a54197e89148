"""`delf-edge catalogue`: every command, its JSON, and that nothing half is done."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
import typer

from delf_edge.cli.main import app, main
from testing.stores import new_image, open_store

COMMANDS = ("export", "import", "list", "merge", "prune", "rename", "search", "set", "show")


@pytest.fixture
def database(tmp_path: Path) -> Path:
    with open_store(tmp_path / "places.db") as store:
        store.add_many(new_image(i) for i in range(8))
    return tmp_path / "places.db"


def run(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main(["catalogue", *map(str, arguments)])
    out, err = capsys.readouterr()
    assert isinstance(ended.value.code, int)
    return ended.value.code, out, err


def test_every_command_has_help_and_json() -> None:
    group = typer.main.get_command(app).commands["catalogue"]  # type: ignore[attr-defined]
    assert sorted(group.commands) == sorted(COMMANDS)
    for command in group.commands.values():
        assert len(command.help.split()) >= 4
        assert all(getattr(parameter, "help", None) for parameter in command.params)
        assert "--json" in {option for parameter in command.params for option in parameter.opts}


def test_a_catalogue_from_its_table_to_its_export(
    database: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "a.csv"
    table.write_text("name,title.en,title.pl,colour\nplace 0,Château,Zamek,red\nNew,Nothing,,\n", encoding="utf-8")
    code, out, _ = run(capsys, "import", database, table, "--dry-run")
    assert (code, out) == (
        0,
        "1 landmarks would be created, 1 would be updated, 0 unchanged; 3 texts and 0 media would be written\n"
        "not understood: colour\n",
    )
    assert json.loads(run(capsys, "import", database, table, "--json")[1])["not_understood"] == ["colour"]
    code, out, _ = run(capsys, "search", database, "chateau", "--language", "pl")
    assert (code, out.splitlines()[2].split()) == (0, ["place-0", "Zamek", "4", "en", "pl"])
    assert run(capsys, "search", database, "nowhere")[0] == 1
    assert "[pl] Zamek" in run(capsys, "show", database, "place-0")[1]
    rows = list(csv.DictReader(io.StringIO(run(capsys, "list", database, "--csv")[1])))
    assert [row["slug"] for row in rows] == ["new", "place-0", "place-1"]
    assert len(json.loads(run(capsys, "list", database, "--json")[1])["landmarks"]) == 3
    assert run(capsys, "list", database, "--csv", "--table")[0] == 2
    assert run(capsys, "set", database, "place-1", "title.en=One", "kind=gate")[0] == 0
    code, _, err = run(capsys, "set", database, "place-1", "colour=red")
    assert (code, "'colour' is no column" in err) == (2, True)
    assert run(capsys, "rename", database, "place-1", "Gate", "--slug", "gate")[0] == 0
    code, _, err = run(capsys, "merge", database, "gate", "place-0")
    assert (code, "--prefer old or --prefer new" in err) == (2, True)
    merged = json.loads(run(capsys, "merge", database, "gate", "place-0", "--prefer", "old", "--json")[1])
    assert (merged["images"], merged["texts"]["en"]["title"], merged["kind"]) == (8, "One", "gate")
    assert run(capsys, "prune", database, "--dry-run")[1] == "new\n1 landmarks would be removed\n"
    assert run(capsys, "prune", database)[0] == 0
    assert run(capsys, "export", database, tmp_path / "out.geojson")[0] == 0
    assert run(capsys, "export", database, tmp_path / "out.geojson")[0] == 2
    assert run(capsys, "export", database, database, "--format", "csv", "--overwrite")[0] == 2
    assert json.loads((tmp_path / "out.geojson").read_text())["features"][0]["properties"]["slug"] == "place-0"


def test_an_error_names_row_and_column(database: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = tmp_path / "a.csv"
    table.write_text("name,title.xx\nA,b\n")
    code, out, err = run(capsys, "import", database, table, "--json")
    assert code == 2
    assert "row 1, column title.xx" in err
    assert json.loads(out)["error"]["type"] == "OptionError"
