"""`web-sdk/` stays what the Python code is: its vectors are what this code gives, and its own tests pass."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from typing import Any

import numpy as np
import pytest

from delf_edge.storage import schema
from testing.paths import ROOT
from testing.web_sdk import built_or_skip, packages_or_skip, run
from testing.web_sdk_vectors import FOLDER, compute, load

SDK = ROOT / "web-sdk"


def assert_near(found: Any, stored: Any, where: str) -> None:
    """Equal but for rounding: products are summed in another order by another processor."""
    if isinstance(stored, dict):
        assert found.keys() == stored.keys(), where
        for key in stored:
            assert_near(found[key], stored[key], f"{where}/{key}")
    elif isinstance(stored, list):
        assert len(found) == len(stored), where
        for i, (a, b) in enumerate(zip(found, stored, strict=True)):
            assert_near(a, b, f"{where}/{i}")
    elif isinstance(stored, float):
        assert found == pytest.approx(stored, abs=2e-3), where
    else:
        assert found == stored, where


def test_the_vectors_are_what_this_code_gives() -> None:
    pictures, stored, maps, facts = load()
    found, found_facts = compute(FOLDER, pictures, maps)
    assert found.keys() == stored.keys()
    for name, values in stored.items():
        if values.dtype.kind == "f":
            np.testing.assert_allclose(found[name], values, rtol=1e-4, atol=1e-2, equal_nan=True, err_msg=name)
        elif name.endswith("/words"):  # words that are equally near may swap
            assert (found[name] != values).mean() < 0.005, name
        else:
            np.testing.assert_array_equal(found[name], values, err_msg=name)
    assert_near(json.loads(json.dumps(found_facts)), facts, "vectors.json")


def test_the_networks_were_not_run_for_it() -> None:
    pictures, _, maps, _ = load()
    before = set(maps)
    compute(FOLDER, pictures, maps)
    assert set(maps) == before


def test_the_schema_is_the_same() -> None:
    text = (SDK / "src" / "storage" / "schema.ts").read_text()
    said = [part.strip() for part in text.partition("SCHEMA: ")[2].split("`")[1::2]]
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as ours:
        schema.migrate(ours)
        expected = ours.execute("SELECT type, name, sql FROM sqlite_master ORDER BY name").fetchall()
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as theirs:
        for script in said[: schema.SCHEMA_VERSION]:
            for statement in script.split(";\n"):
                theirs.execute(statement)
        found = theirs.execute("SELECT type, name, sql FROM sqlite_master ORDER BY name").fetchall()
    assert found == expected
    assert f"SCHEMA_VERSION = {schema.SCHEMA_VERSION};" in text
    assert f"APPLICATION_ID = {schema.APPLICATION_ID:#x}" in text


@pytest.mark.parametrize("folder", ["web-sdk", "benchmarks/phone_js"])
def test_the_lock_names_no_registry(folder: str) -> None:
    lock = json.loads((ROOT / folder / "package-lock.json").read_text())
    assert not [name for name, package in lock["packages"].items() if "resolved" in package]
    assert all("integrity" in package for name, package in lock["packages"].items() if name)


def test_its_own_tests_pass() -> None:
    done = run(str(shutil.which("npm")), "test", folder=packages_or_skip())
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    assert "warning" not in (done.stdout + done.stderr).lower(), done.stdout[-3000:] + done.stderr[-2000:]


def test_the_page_names_the_licence_of_every_package_in_it() -> None:
    built = built_or_skip() / "visit" / "licences.txt"
    listed = (ROOT / "docs" / "licences.md").read_text(encoding="utf-8").partition("| npm package |")[2]
    rows = [row.strip("| ").split(" | ") for row in listed.partition("\n\n")[0].splitlines()[2:]]
    said = built.read_text(encoding="utf-8")
    for name, version, licence in rows:
        assert f"{name} {version}, {licence}" in said
    assert "Apache License" in said
