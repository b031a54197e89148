"""Nothing in the package runs what data says, and SECURITY.md names tests that exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from testing.paths import ROOT

FORBIDDEN_MODULES = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "runpy", "code"}
FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__"}
FORBIDDEN_METHODS = {("os", "system"), ("os", "popen"), ("yaml", "load"), ("tempfile", "mktemp")}


def sins(path: Path) -> list[str]:
    """Forbidden imports and calls of a source file, with their lines."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        else:
            names = []
        found += [f"{getattr(node, 'lineno', 0)}: import {n}" for n in names if n.split(".")[0] in FORBIDDEN_MODULES]
        if isinstance(node, ast.Call):
            function = node.func
            if isinstance(function, ast.Name) and function.id in FORBIDDEN_CALLS:
                found.append(f"{node.lineno}: {function.id}()")
            if isinstance(function, ast.Attribute):
                owner = getattr(function.value, "id", "")
                if (owner, function.attr) in FORBIDDEN_METHODS:
                    found.append(f"{node.lineno}: {owner}.{function.attr}()")
            for keyword in node.keywords:
                value = keyword.value
                if keyword.arg in ("shell", "allow_pickle") and not (
                    isinstance(value, ast.Constant) and value.value is False
                ):
                    found.append(f"{node.lineno}: {keyword.arg}=")
    return found


@pytest.mark.parametrize("path", sorted((ROOT / "delf_edge").rglob("*.py")), ids=lambda p: p.name)
def test_no_code_from_data(path: Path) -> None:
    assert sins(path) == []


def test_the_check_finds_what_it_looks_for(tmp_path: Path) -> None:
    path = tmp_path / "bad.py"
    path.write_text("import pickle\neval('1')\nimport os\nos.system('x')\nf(shell=True)\nnp.load(x, allow_pickle=y)\n")
    assert len(sins(path)) == 5


def test_every_line_of_the_threat_model_names_a_test_that_exists() -> None:
    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    (table,) = (part for part in text.split("\n\n") if part.startswith("| what comes in"))
    rows = table.splitlines()[2:]
    assert len(rows) > 10
    for row in rows:
        named = re.findall(r"`([\w/]+(?:\.py)?)`", row.split("|")[-2])
        places = [n for n in named if "/" in n or n.endswith(".py")]
        assert places, row
        for place in places:
            assert (ROOT / place).exists() or (ROOT / "reliability" / place).exists(), place
