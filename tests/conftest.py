"""Fixtures for all tests."""

from __future__ import annotations

import ctypes
import os
import shutil
import sqlite3
import subprocess
from pathlib import Path
from typing import Any

import pytest

from delf_edge import native

SOURCE = Path(native.__file__).with_name("_native.cpp")


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL | None:
    """The compiled loops of this checkout's source; None where there is no compiler."""
    compiler = os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++")
    if compiler is None:
        return native.library()
    target = tmp_path_factory.mktemp("native") / "_native.so"
    flags = ["-O3", "-std=c++17", "-ffp-contract=off", "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror"]
    subprocess.run([compiler, *flags, str(SOURCE), "-o", str(target)], check=True)
    return native.load(target)


@pytest.fixture
def connections(monkeypatch: pytest.MonkeyPatch) -> list[sqlite3.Connection]:
    """Every connection to SQLite that is opened from here on, the latest one last."""
    opened: list[sqlite3.Connection] = []
    connect = sqlite3.connect

    def recorded(*given: Any, **options: Any) -> sqlite3.Connection:
        opened.append(connect(*given, **options))
        return opened[-1]

    monkeypatch.setattr(sqlite3, "connect", recorded)
    return opened
