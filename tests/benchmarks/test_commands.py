"""Every `python -m benchmarks.NAME` says how it is used, and what draws says what is missing."""

from __future__ import annotations

import importlib
import os
import re
import runpy
import sys
from pathlib import Path

import pytest

from testing.paths import ROOT

SOURCES = {path.stem: path.read_text(encoding="utf-8") for path in sorted((ROOT / "benchmarks").glob("*.py"))}
COMMANDS = [name for name, text in SOURCES.items() if '__name__ == "__main__"' in text]
DOCUMENTED = {
    name
    for page in (
        ROOT / "README.md",
        ROOT / "benchmarks" / "README.md",
        ROOT / "Makefile",
        *(ROOT / "docs").rglob("*.md"),
    )
    for name in re.findall(r"-m benchmarks\.([a-z0-9_]+)", page.read_text(encoding="utf-8"))
}
DRAWING = {
    "ablations": ["dev.json"],
    "bench": ["dev.json"],
    "search": [],
    "selection": ["photo.jpg"],
    "wins": ["dev.json", "a", "b"],
}


def test_every_documented_command_is_one() -> None:
    assert DOCUMENTED
    assert set(COMMANDS) >= DOCUMENTED


@pytest.mark.parametrize("name", COMMANDS)
def test_help_names_every_option(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also: importing a benchmark needs no package that the benchmarks' extra brings."""
    monkeypatch.setattr(os, "environ", os.environ.copy())  # some set their threads
    monkeypatch.setattr(sys, "argv", [f"{name}.py", "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(ROOT / "benchmarks" / f"{name}.py"), run_name="__main__")
    assert not ended.value.code
    options = set(re.findall(r'add_argument\(\s*"(--[a-z-]+)"', SOURCES[name]))
    assert options | {"--help"} <= set(re.findall(r"--[a-z-]+", capsys.readouterr().out))


@pytest.mark.parametrize("name", DRAWING)
def test_what_draws_says_that_matplotlib_is_missing(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert importlib.import_module(f"benchmarks.{name}").main(DRAWING[name]) == 2
    assert "pip install matplotlib" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_what_draws_is_known() -> None:
    assert {name for name, text in SOURCES.items() if "plots.figure(" in text or "plots.save(" in text} <= set(DRAWING)
