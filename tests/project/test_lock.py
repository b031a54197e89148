"""requirements.lock: what pyproject.toml asks for, within its bounds, hashed; and docs/licences.md, which lists it."""

from __future__ import annotations

import json
import re
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from testing.paths import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")
# `name==version`, then its hashes on the lines that follow
ENTRY = re.compile(r"^([\w.-]+)==(\S+) \\\n((?: +--hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", re.MULTILINE)
LOCKED = {canonicalize_name(name): Version(version) for name, version, _ in ENTRY.findall(LOCK)}
EXTRAS = ("build", "docs", "heif", "interchange", "update", "web", "test")
ASKED = [
    requirement
    for text in [*PROJECT["dependencies"], *(t for extra in EXTRAS for t in PROJECT["optional-dependencies"][extra])]
    if (requirement := Requirement(text)).name != PROJECT["name"]
]


@pytest.mark.parametrize("requirement", ASKED, ids=str)
def test_what_is_asked_for_is_locked_within_its_bounds(requirement: Requirement) -> None:
    version = LOCKED[canonicalize_name(requirement.name)]
    assert requirement.specifier.contains(version), f"{requirement} is locked as {version}; run scripts/lock.py again"


def test_every_entry_has_a_version_and_hashes_and_names_no_registry() -> None:
    rest = ENTRY.sub("", LOCK)
    assert [line for line in rest.splitlines() if line and not line.startswith("#")] == []
    assert len(LOCKED) == len(ENTRY.findall(LOCK))
    assert "://" not in LOCK


def test_the_container_installs_exactly_some_of_it() -> None:
    text = (ROOT / "requirements-web.lock").read_text(encoding="utf-8")
    entries = {canonicalize_name(name): (version, hashes.split()) for name, version, hashes in ENTRY.findall(text)}
    whole = {canonicalize_name(name): (version, hashes.split()) for name, version, hashes in ENTRY.findall(LOCK)}
    assert entries.items() <= whole.items(), "run scripts/lock.py again"
    extras = PROJECT["optional-dependencies"]
    needed = {canonicalize_name(Requirement(text).name) for text in [*PROJECT["dependencies"], *extras["web"]]}
    assert needed <= set(entries)
    assert "pytest" not in entries
    container = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    assert "--require-hashes --no-deps -r requirements-web.lock" in container


def table() -> dict[str, list[str]]:
    """Name -> version, licence, and the extra that needs it, as docs/licences.md has them."""
    text = (ROOT / "docs" / "licences.md").read_text(encoding="utf-8").partition("| package |")[2]
    rows = [line.strip("| ").split(" | ") for line in text.splitlines()[2:]]
    return {name: rest for name, *rest in rows}


def test_the_licence_of_every_locked_package_is_listed() -> None:
    listed = table()
    assert {name: row[0] for name, row in listed.items()} == {name: str(v) for name, v in LOCKED.items()}, (
        "install requirements.lock and run scripts/licences.py"
    )
    assert [name for name, (_, licence, _) in listed.items() if not licence or "UNKNOWN" in licence] == []


def test_nothing_on_a_device_is_under_the_gpl() -> None:
    for name, (_, licence, why) in table().items():
        assert why == "test" or "GPL" not in licence, f"{name}: {licence}"


def test_the_licences_of_weights_and_photos_are_listed() -> None:
    text = (ROOT / "docs" / "licences.md").read_text(encoding="utf-8")
    weights = json.loads((ROOT / "assets" / "default" / "manifest.json").read_text(encoding="utf-8"))["licence"]
    assert f"golden vectors | {weights} |" in text
    notice = (ROOT / "assets" / "demo" / "NOTICE").read_text(encoding="utf-8")
    photos = list((ROOT / "assets" / "demo").rglob("*.webp"))
    assert f"| {len(photos)} demo photos" in text
    for licence in ("Public Domain", "CC0-1.0", "CC-BY-SA 4.0"):
        assert f"{notice.count(f' | {licence} | ')} {licence}" in text


def test_the_npm_packages_that_are_shipped_are_listed_as_in_their_lock() -> None:
    text = (ROOT / "docs" / "licences.md").read_text(encoding="utf-8")
    rows = text.partition("| npm package |")[2].partition("\n\n")[0].splitlines()[2:]
    lock = json.loads((ROOT / "web-sdk" / "package-lock.json").read_text(encoding="utf-8"))["packages"]
    shipped = {name.rpartition("node_modules/")[2]: p for name, p in lock.items() if name and not p.get("dev")}
    assert len(shipped) >= 4
    assert [row.strip("| ").split(" | ") for row in rows] == [
        [name, package["version"], package["license"]] for name, package in shipped.items()
    ], "run scripts/licences.py"
