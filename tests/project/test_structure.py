"""scripts/structure.py: what it counts, on a package made for it; and the bounds that delf_edge keeps."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from testing.paths import ROOT

MODULES = {
    "__init__.py": '"""The package."""\n__version__ = "1"\n',
    "errors.py": '"""Errors."""\n\n\nclass BadError(Exception):\n    """Bad."""\n',
    "low/__init__.py": '"""Low."""\n',
    "low/a.py": "from delf_edge.errors import BadError\n\nLIMIT = 1\n_HIDDEN = 2\n",
    "low/b.py": "# a comment\nfrom delf_edge.low import a\n\nLIMIT = a.LIMIT\n",
    "high.py": (
        "from typing import TYPE_CHECKING\n\nif TYPE_CHECKING:\n    from delf_edge import top\n\n\n"
        "def use():\n    import delf_edge.low.b\n"
    ),
    "top.py": "from delf_edge.high import use\n",
}


def load_script() -> ModuleType:
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("structure", ROOT / "scripts" / "structure.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["structure"] = module
    spec.loader.exec_module(module)
    return module


structure = load_script()

# What only one part imports; the table of docs/architecture.md says so. `doctor` also asks sqlite3 for its version.
ONE_DOOR = {
    "ai_edge_litert": {"features"},
    "distributed": {"distributed"},
    "hnswlib": {"quantization"},
    "pyarrow": {"interchange"},
    "sqlite3": {"storage", "diagnostics"},
    "sqlite_utils": {"catalogue"},
    "starlette": {"web"},
    "tuf": {"updates"},
    "typer": {"cli"},
    "uvicorn": {"web"},
}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with a small package."""
    for name, text in MODULES.items():
        path = tmp_path / "delf_edge" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return tmp_path


def test_a_small_package_is_counted_right(checkout: Path) -> None:
    found = structure.measure(checkout)
    assert (found.modules, found.imports, found.parts) == (6, 4, 4)
    assert found.chain == ["top", "high", "low", "errors"]
    assert found.circles == []
    assert found.lines_of_code == 1 + 1 + 3 + 2 + 5 + 1
    assert found.names_twice == {"LIMIT": ["low.a", "low.b"]}


def test_a_circle_is_found_and_is_one_level(checkout: Path) -> None:
    with (checkout / "delf_edge" / "low" / "a.py").open("a", encoding="utf-8") as file:
        file.write("import delf_edge.high\n")
    found = structure.measure(checkout)
    assert found.circles == [["high", "low"]]
    assert found.chain == ["top", "high + low", "errors"]


def test_the_command_prints_figures(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert structure.main([str(checkout), "--details"]) == 0
    out = capsys.readouterr().out
    assert "levels          4\n" in out
    assert "LIMIT: low.a, low.b\n" in out
    assert structure.main([str(checkout), "--json"]) == 0
    assert '"levels": 4' in capsys.readouterr().out


def test_delf_edge_has_few_levels_and_no_circle() -> None:
    found = structure.measure(ROOT)
    assert found.circles == []
    assert found.levels <= 11, " -> ".join(found.chain)
    assert found.names_twice == {}


@pytest.mark.parametrize("library", ONE_DOOR)
def test_a_library_is_imported_in_one_part(library: str) -> None:
    found = set()
    # LiteRT has two names, of which the one that is there is imported: it is named as text.
    text = '"ai_edge_litert"' if library == "ai_edge_litert" else rf"^ *(?:import|from) {library}\b"
    for path in (ROOT / "delf_edge").rglob("*.py"):
        part = path.relative_to(ROOT / "delf_edge").parts[0]
        if part not in structure.NOT_COUNTED and re.search(text, path.read_text(encoding="utf-8"), re.MULTILINE):
            found.add(part)
    assert found
    assert found <= ONE_DOOR[library]
