"""What README.md promises is run: its commands, its snippets, its JSON; and nothing that exists is left out."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import typer.main

import delf_edge.converters.cli
from delf_edge.cli.main import app, main
from testing.paths import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
DEMO = ROOT / "assets" / "demo"
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder that a reader has: photos of places, two photos, and the database the first command makes."""
    path = tmp_path_factory.mktemp("reader")
    for landmark in ("Colosseum", "Petra"):
        shutil.copytree(DEMO / "references" / landmark, path / "photos" / landmark)
    for name, source in (("holiday", "queries/colosseum.webp"), ("eiffel", "references/Eiffel Tower/photo.webp")):
        pixels = cv2.imdecode(np.frombuffer((DEMO / source).read_bytes(), np.uint8), cv2.IMREAD_COLOR)
        (path / f"{name}.jpg").write_bytes(cv2.imencode(".jpg", pixels)[1].tobytes())
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path)
        yield path


def test_commands_and_snippets_run_from_top_to_bottom(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ran: list[str] = []
    for language, text in BLOCKS:
        if language == "python":
            exec(compile(text, "README.md", "exec"), {})
            ran.append("python")
        elif language == "sh":
            ran += [run_line(line) for line in text.splitlines()]
        else:
            assert language in ("json", "text")  # text: what needs PyTorch; its commands are looked up below
    out = capsys.readouterr().out
    assert ran.count("python") == 2
    assert {"make", "index", "identify", "explain", "seal", "doctor"} <= set(ran)
    assert "holiday.jpg: Colosseum" in out
    assert re.search(r"^Colosseum [01]\.\d+ \d+$", out, re.MULTILINE)
    assert re.search(r"^Colosseum None$", out, re.MULTILINE)
    assert sorted(path.name for path in folder.glob("*.db")) == ["backup.db", "kiosk.db", "places.db"]
    assert (folder / "match.png").stat().st_size > 0


def run_line(line: str) -> str:
    """Run a line of a shell block; returns what it was."""
    program, *arguments = shlex.split(line)
    if program == "make":
        assert set(arguments) <= TARGETS
        return program
    assert program == "delf-edge", line
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 0, line
    return arguments[0]


def test_the_json_has_the_keys_that_are_printed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["index", "json.db", "photos"])
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main(["identify", "json.db", "holiday.jpg", "--json"])
    printed: dict[str, Any] = json.loads(capsys.readouterr().out)
    (shown,) = (json.loads(text) for language, text in BLOCKS if language == "json")
    assert list(shown) == list(printed)
    assert list(shown["answers"][0]) == list(printed["answers"][0])
    assert shown["answers"][0]["image"] == printed["answers"][0]["image"]
    (folder / "json.db").unlink()


def test_every_command_is_documented() -> None:
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    listed = re.findall(r"^\| `delf-edge ([a-z-]+)", README, re.MULTILINE)
    assert sorted(listed) == sorted(commands)
    for name, command in commands.items():
        for option in (option for parameter in command.params for option in parameter.opts if option.startswith("--")):
            assert f"`{option}" in README or f" {option} " in README, f"{name} {option} is not in README.md"


def test_every_converter_is_documented() -> None:
    commands = typer.main.get_command(delf_edge.converters.cli.app).commands  # type: ignore[attr-defined]
    assert sorted(re.findall(r"^\| `delf-edge-convert ([a-z]+)", README, re.MULTILINE)) == sorted(commands)
    for name, command in commands.items():
        assert len(command.help.split()) >= 4
        for parameter in command.params:
            assert getattr(parameter, "help", None), f"{name}: {parameter.name} has no help"


def test_commands_that_need_pytorch_are_spelt_right() -> None:
    programs = {"delf-edge": app, "delf-edge-convert": delf_edge.converters.cli.app}
    for line in "".join(text for language, text in BLOCKS if language == "text").splitlines():
        program, name, *arguments = shlex.split(line)
        if program == "python":
            assert [name, *arguments[:2]] == ["-m", "pip", "install"] or (ROOT / name).is_file()
            continue
        command = typer.main.get_command(programs[program]).commands[name]  # type: ignore[attr-defined]
        command.make_parser(typer.Context(command)).parse_args(arguments)


def test_options_in_the_readme_exist() -> None:
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    options = {option for command in commands.values() for parameter in command.params for option in parameter.opts}
    assert set(re.findall(r"`(--[a-z-]+)", README)) <= options


def test_make_targets_are_documented_and_exist() -> None:
    assert set(re.findall(r"^\| `make ([a-z-]+)`", README, re.MULTILINE)) == TARGETS - {"help"}


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert target.startswith("https://") or (ROOT / target).exists(), target
