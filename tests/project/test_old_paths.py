"""What a program written for 0.1 imports is still there, with a warning that names the new place."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

from delf_edge import _old_paths


@pytest.mark.parametrize("old", sorted(_old_paths.MOVED))
def test_an_old_module_warns_and_gives_the_names_of_the_new_one(old: str) -> None:
    pytest.importorskip("dask") if old.startswith("building") else None
    sys.modules.pop(f"delf_edge.{old}", None)
    with pytest.warns(DeprecationWarning, match=rf"delf_edge\.{old} is now delf_edge\."):
        module = importlib.import_module(f"delf_edge.{old}")
    home = importlib.import_module(f"delf_edge.{_old_paths.MOVED[old][0]}")
    for name in (n for n in vars(home) if not n.startswith("__")):
        assert getattr(module, name) is getattr(home, name)
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = module.no_such_name


@pytest.mark.parametrize(
    ("package", "name"),
    [
        ("images", "load_image"),
        ("images", "probe_size"),
        ("bundle", "Bundle"),
        ("bundle", "Manifest"),
        ("features", "Extractor"),
        ("camera", "watch"),
        ("packs", "PackManifest"),
        ("cli", "app"),
    ],
)
def test_a_module_that_became_a_folder_forwards_its_names(package: str, name: str) -> None:
    module = importlib.import_module(f"delf_edge.{package}")
    with pytest.warns(DeprecationWarning, match=rf"delf_edge\.{package}\.{name} is now"):
        value = getattr(module, name)
    assert getattr(value, "__name__", name) == name


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("asking", "Asker"),
        ("asking", "IdentifyOptions"),
        ("candidates", "CandidateIndex"),
        ("candidates", "search"),
        ("lists", "State"),
        ("evidence", "Evidence"),
        ("scan", "asmk"),
        ("codec", "CodeLayout"),
        ("codec", "encode"),
        ("gate", "Look"),
    ],
)
def test_what_has_another_name_or_another_half_is_found_by_its_old_one(module: str, name: str) -> None:
    sys.modules.pop(f"delf_edge.{module}", None)
    with pytest.warns(DeprecationWarning, match=rf"delf_edge\.{module} is now"):
        found = getattr(importlib.import_module(f"delf_edge.{module}"), name)
    assert found.__name__ in _old_paths.RENAMED.get(name, (name,))


def test_the_warning_names_the_line_that_imports() -> None:
    code = "\n\nfrom delf_edge.candidates import SearchOptions\n"
    done = subprocess.run([sys.executable, "-W", "always", "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.startswith("<string>:3: DeprecationWarning: delf_edge.candidates is now")


def test_a_name_that_never_was_is_not_found() -> None:
    with pytest.raises(ModuleNotFoundError, match="nonsense"):
        importlib.import_module("delf_edge.nonsense")
