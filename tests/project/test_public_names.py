"""The package's front door: every public name is there, and nothing heavy is loaded until it is asked for."""

from __future__ import annotations

import dataclasses
import inspect
import subprocess
import sys
from collections.abc import Iterator
from typing import Any, get_args, get_type_hints

import pytest

import delf_edge

# What public attributes and methods give out, and is no public name: the insides of a model and of a search.
INSIDE = {"CodeLayout", "Cohort", "Codebook", "CombinedStore", "Manifest", "QueryPipeline", "WordGraph"}
UNKNOWN: dict[str, Any] = {"NDArray": list, "BinaryFile": Any, "PillowImage": Any}  # known to type checkers only
PUBLIC = {name: getattr(delf_edge, name) for name in delf_edge.__all__}  # some are imported where they are used
CLASSES = [name for name in delf_edge.__all__ if inspect.isclass(getattr(delf_edge, name))]
FUNCTIONS = [name for name in delf_edge.__all__ if inspect.isfunction(getattr(delf_edge, name))]


@pytest.mark.parametrize("name", delf_edge.__all__)
def test_every_public_name_can_be_imported(name: str) -> None:
    value = getattr(delf_edge, name)
    assert name in dir(delf_edge)
    assert name == "__version__" or value.__module__.startswith("delf_edge.")


def classes_in(hint: Any) -> Iterator[type]:
    """The classes of delf-edge that an annotation names."""
    if inspect.isclass(hint) and hint.__module__.startswith("delf_edge."):
        yield hint
    for part in get_args(hint):
        yield from classes_in(part)


def given_out(name: str) -> Iterator[tuple[str, type]]:
    """(where, class) of what the results, properties and fields of a public name are."""
    value = getattr(delf_edge, name)
    members = [(name, value)] if name in FUNCTIONS else [m for m in inspect.getmembers(value) if m[0][0] != "_"]
    for member, found in members:
        function: Any = found.fget if isinstance(found, property) else found
        function = inspect.unwrap(function)
        if inspect.isfunction(function) or inspect.ismethod(function):
            hints = get_type_hints(function, localns=UNKNOWN | PUBLIC)
            yield from ((f"{name}.{member}", c) for c in classes_in(hints["return"]))
    if dataclasses.is_dataclass(value):
        for field, hint in get_type_hints(value, localns=UNKNOWN | PUBLIC).items():
            yield from ((f"{name}.{field}", c) for c in classes_in(hint))


@pytest.mark.parametrize("name", CLASSES + FUNCTIONS)
def test_what_a_public_name_gives_out_is_public(name: str) -> None:
    missing = {f"{where}: {c.__name__}" for where, c in given_out(name) if c.__name__ not in delf_edge.__all__}
    assert {line for line in missing if line.split(": ")[1] not in INSIDE} == set()


def test_the_insides_are_still_given_out() -> None:
    found = {c.__name__ for name in CLASSES + FUNCTIONS for _, c in given_out(name)}
    assert found >= INSIDE
    assert INSIDE.isdisjoint(delf_edge.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nonsense"):
        _ = delf_edge.nonsense  # type: ignore[attr-defined]


def test_who_only_asks_loads_nothing_that_writes() -> None:
    unneeded = (
        "ingestion catalogue.editor storage.write_transaction storage.maintenance packs.manifest query.query_expansion"
    )
    code = "import sys; from delf_edge import Recognizer; print(*(m[10:] for m in sys.modules if m[:9] == 'delf_edge'))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "recognizer" in done.stdout.split()
    assert set(unneeded.split()) & set(done.stdout.split()) == set()


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = "import sys, delf_edge; print(sorted({'numpy', 'cv2', 'ai_edge_litert', 'hnswlib'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
