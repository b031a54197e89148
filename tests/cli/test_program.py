"""The program as a whole: version, help, completion, numbers without sense, many photos, photos through a pipe."""

from __future__ import annotations

import importlib
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import get_args, get_type_hints

import cv2
import numpy as np
import pytest
import typer

import delf_edge
from delf_edge import Recognizer, library_threads
from delf_edge.cli import command_list
from delf_edge.cli.command_list import COMMANDS, HEADINGS
from delf_edge.cli.common import path_of
from delf_edge.cli.main import app, main
from delf_edge.cli.output import progress
from testing.paths import ROOT, TINY_BUNDLE

BUNDLE = ["--bundle", str(TINY_BUNDLE)]


def photo(seed: int) -> bytes:
    blocks = np.random.default_rng(seed).integers(0, 256, (12, 16, 3)).astype(np.uint8)
    return cv2.imencode(".png", cv2.resize(blocks, (320, 240), interpolation=cv2.INTER_NEAREST))[1].tobytes()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two photos and a file that is none, and a database of the first."""
    path = tmp_path_factory.mktemp("program")
    (path / "photos" / "deeper").mkdir(parents=True)
    (path / "photos" / "a.png").write_bytes(photo(0))
    (path / "photos" / "deeper" / "b.png").write_bytes(photo(1))
    (path / "photos" / "notes.txt").write_text("x")
    with Recognizer.open(path / "places.db", bundle=TINY_BUNDLE) as recognizer:
        recognizer.add(photo(0), landmark="Town hall", name="hall.png")
    return path


def run(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    assert isinstance(ended.value.code, int)
    return ended.value.code, out, err


def test_every_path_of_every_command_is_refused_where_it_is_empty_or_a_url(
    capsys: pytest.CaptureFixture[str], folder: Path
) -> None:
    paths = 0
    for module in {listed.module for listed in COMMANDS.values()}:
        for name, command in vars(importlib.import_module(f"delf_edge.cli.{module}")).items():
            if name.startswith("_") or not hasattr(command, "__wrapped__"):  # no command
                continue
            for parameter, hint in get_type_hints(command, include_extras=True).items():
                kinds = get_args(hint)
                if kinds and "Path" in str(kinds[0]):
                    paths += 1
                    assert kinds[1].parser is path_of, f"{name}: {parameter}"
    assert paths > 40
    for wrong, why in (("", "the path is empty"), ("https://a.example/b.jpg", "is a URL")):
        code, _, err = run(capsys, "identify", folder / "places.db", wrong)
        assert (code, why in err) == (2, True)


def test_it_says_its_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "--version")[:2] == (0, f"delf-edge {delf_edge.__version__}\n")


def test_it_runs_as_a_module() -> None:
    command = [sys.executable, "-m", "delf_edge", "-h"]
    ran = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert ran.stdout.startswith("Usage: delf-edge ")


def test_help_lists_every_command_under_its_heading(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "-h")
    assert code == 0
    for heading in HEADINGS:
        assert out.count(f"\n{heading}:\n") == 1
    for name in COMMANDS:
        assert re.search(rf"^  {name} ", out, re.MULTILINE)
        assert run(capsys, name, "-h")[0] == 0


def test_the_list_of_commands_says_what_their_own_help_says() -> None:
    for name, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        assert command.name == name
        assert " ".join(command.help.split("\n\n")[0].split()) == COMMANDS[name].summary


def test_every_command_of_every_module_is_listed() -> None:
    for path in sorted(Path(command_list.__file__).parent.glob("*.py")):
        names = re.findall(r'^@commands\.command\("([a-z-]+)"', path.read_text(encoding="utf-8"), re.MULTILINE)
        if path.stem == "catalogue":  # they are under one command of the program
            names = ["catalogue"]
        assert names == [name for name, listed in COMMANDS.items() if listed.module == path.stem]


def test_a_command_loads_its_own_module_alone() -> None:
    code = """
import sys
from delf_edge.cli.main import main
try:
    main(["info", "--help"])
except SystemExit:
    print(*sorted(m.removeprefix("delf_edge.cli.") for m in sys.modules if m.startswith("delf_edge.cli.")))
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert ran.stdout.splitlines()[-1] == "command_list common database main output"


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="one core: one thread in any case")
@pytest.mark.parametrize("command", ["identify", "index", "lint", "doctor"])
def test_the_libraries_beneath_start_as_many_threads_as_are_asked_for(
    folder: Path, tmp_path: Path, command: str
) -> None:
    given: dict[str, list[str | Path]] = {
        "identify": [folder / "places.db", folder / "photos" / "a.png"],
        "index": [tmp_path / "new.db", folder / "photos", "--landmark", "Town hall"],
        "lint": [folder / "places.db"],
        "doctor": [],
    }
    code = """
import os, sys
from delf_edge.cli.main import main
try:
    main(sys.argv[1:])
except SystemExit as end:
    print(end.code, os.environ["OPENBLAS_NUM_THREADS"], len(os.listdir("/proc/self/task")))
"""

    def ended(*options: str, **said: str) -> list[int]:
        (tmp_path / "new.db").unlink(missing_ok=True)
        line = [sys.executable, "-c", code, command, *map(str, given[command]), *BUNDLE, *options]
        environment = {name: v for name, v in os.environ.items() if name not in library_threads.VARIABLES} | said
        ran = subprocess.run(line, capture_output=True, text=True, check=True, cwd=ROOT, env=environment)
        return [int(n) for n in ran.stdout.splitlines()[-1].split()]

    end, number, threads = ended()
    assert (end, number) == (0, 1)
    assert ended("--threads", "2")[:2] == [0, 2]
    end, number, more = ended(OPENBLAS_NUM_THREADS="2")  # who says it himself gets it
    assert (end, number) == (0, 2)
    assert more > threads


def test_the_shell_can_complete_commands() -> None:
    variables = {"_DELF_EDGE_COMPLETE": "complete_bash", "COMP_WORDS": "delf-edge ide", "COMP_CWORD": "1"}
    command = [sys.executable, "-m", "delf_edge"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env=variables)
    assert ran.stdout.split() == ["identify"]


@pytest.mark.parametrize(
    "arguments",
    [
        "identify a.db b.jpg --threads 99999",
        "identify a.db b.jpg --threads 0",
        "identify a.db b.jpg --top 99999999999",
        "identify a.db b.jpg --near 91,0,5",
        "identify a.db b.jpg --near 1,1,nan",
        "identify a.db b.jpg --near 1,1,inf",
        "serve a.db --port 65536",
        "lint a.db --below 101",
        "bench --runs 99999",
        "publish channel --keys keys --days 99999999",
        "pack a.db b.pack --version 99999999999999999999",
        "pack a.db b.pack --region 1,2,3,nan",
        "build a.csv out --shard-size 999999999999",
        "build a.csv out --workers 99999",
        "fit-codebook a.csv out --words 99999999999",
        "fit-codebook a.csv out --dim 99999999",
        "fit-codebook a.csv out --code-size 99999999",
        "fit-codebook a.csv out --global-dim 99999999",
        "fit-codebook a.csv out --photos 99999999999999",
        "fit-codebook a.csv out --per-landmark 99999999999999",
        "fit-codebook a.csv out --seed 99999999999999999999",
    ],
)
def test_numbers_without_sense_are_refused_before_any_work(
    capsys: pytest.CaptureFixture[str], folder: Path, monkeypatch: pytest.MonkeyPatch, arguments: str
) -> None:
    monkeypatch.chdir(folder)
    line = arguments.replace("a.db", "places.db").split()
    code, out, err = run(capsys, *line)
    assert (code, out) == (2, "")
    assert line[-2] in err
    assert sorted(path.name for path in folder.iterdir() if path.suffix != ".index") == ["photos", "places.db"]


def test_identify_takes_folders(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    code, out, _ = run(capsys, "identify", folder / "places.db", folder / "photos", *BUNDLE, "--json")
    assert code == 1
    answers = {Path(answer["photo"]).name: answer["landmark"] for answer in json.loads(out)["answers"]}
    assert answers["a.png"] == "Town hall"
    assert set(answers) == {"a.png", "b.png"}


def test_identify_takes_a_photo_through_a_pipe(
    capsys: pytest.CaptureFixture[str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(photo(0)), isatty=lambda: False))
    code, out, _ = run(capsys, "identify", folder / "places.db", "-", *BUNDLE, "--json")
    (answer,) = json.loads(out)["answers"]
    assert (code, answer["photo"], answer["landmark"]) == (0, "-", "Town hall")
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: True))
    assert run(capsys, "identify", folder / "places.db", "-", *BUNDLE)[0] == 2
    monkeypatch.setattr(sys, "stdin", None)
    assert run(capsys, "identify", folder / "places.db", "-", *BUNDLE)[0] == 2


def test_json_lines_are_an_object_for_each_photo(
    capsys: pytest.CaptureFixture[str], folder: Path, tmp_path: Path
) -> None:
    code, out, _ = run(capsys, "identify", folder / "places.db", folder / "photos", tmp_path / "no", *BUNDLE, "--jsonl")
    assert code == 2
    rows = [json.loads(line) for line in out.splitlines()]
    assert [row.get("landmark") for row in rows][::2] == ["Town hall", None]
    assert rows[2]["error"]["type"] == "ImageError"
    code, out, _ = run(capsys, "index", tmp_path / "new.db", folder / "photos", *BUNDLE, "--jsonl")
    rows = [json.loads(line) for line in out.splitlines()]
    assert code == 1  # a.png lies in no subfolder
    assert rows[0]["name"] == "a.png"
    assert (rows[1]["name"], rows[1]["status"]) == ("deeper/b.png", "added")
    assert (rows[-1]["images"], len(rows[-1]["failed"])) == (1, 1)
    code, out, _ = run(capsys, "lint", folder / "places.db", *BUNDLE, "--below", "100", "--jsonl")
    assert [json.loads(line)["name"] for line in out.splitlines()] == ["hall.png"]
    assert run(capsys, "identify", folder / "places.db", folder / "photos", "--json", "--jsonl")[0] == 2


def test_a_photo_is_named_once_in_its_error(capsys: pytest.CaptureFixture[str], folder: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.jpg").write_bytes(b"no photo")
    for name in ("bad.jpg", "absent.jpg"):
        _, _, err = run(capsys, "identify", folder / "places.db", tmp_path / name, *BUNDLE)
        assert err.count(name) == 1


def test_progress_without_a_terminal_is_a_line_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = iter(range(0, 1000, 4))  # seconds, four a step
    monkeypatch.setattr("delf_edge.cli.output.time.monotonic", lambda: float(next(now)))
    with progress("indexing", 6) as step:
        for number in range(6):
            step("a.jpg: \x1b[31m" if number == 4 else None)
    err = capsys.readouterr().err.splitlines()
    assert err == ["indexing: 3 of 6, about 12 s left", "a.jpg: \\x1b[31m"]
