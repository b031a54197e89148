"""The package's front door: every public name is there, and nothing heavy is loaded until it is asked for."""

from __future__ import annotations

import subprocess
import sys

import pytest

import delf_edge


@pytest.mark.parametrize("name", delf_edge.__all__)
def test_every_public_name_can_be_imported(name: str) -> None:
    value = getattr(delf_edge, name)
    assert name in dir(delf_edge)
    assert name == "__version__" or value.__module__.startswith("delf_edge.")


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nonsense"):
        _ = delf_edge.nonsense  # type: ignore[attr-defined]


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = "import sys, delf_edge; print(sorted({'numpy', 'cv2', 'ai_edge_litert', 'hnswlib'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
