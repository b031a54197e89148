"""`make docs`: the site is built strictly, without the network, and holds what is made while it is built."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import delf_edge
from testing.paths import ROOT


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site. Whatever tries to fetch something fails: the proxy is a port that nobody has."""
    pytest.importorskip("mkdocs")
    folder = tmp_path_factory.mktemp("site")
    nowhere = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
    environment = {**os.environ, **nowhere, "NO_MKDOCS_2_WARNING": "1"}
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def test_every_public_name_has_its_docstring(site: Path) -> None:
    text = (site / "api.html").read_text(encoding="utf-8")
    for name in set(delf_edge.__all__) - {"__version__"}:
        assert re.search(rf'id="delf_edge\.(\w+\.)*{name}"', text), name
    assert "Name the landmark a photo shows, or say that it is unknown." in text


def test_every_command_has_its_help(site: Path) -> None:
    text = re.sub(r"<[^>]+>", "", (site / "commands.html").read_text(encoding="utf-8"))
    for line in ("Name the place that each photo shows.", "$ delf-edge identify", "$ delf-edge-convert train"):
        assert line in text, line


def test_pages_of_the_top_folder_and_linked_files_are_there(site: Path) -> None:
    for page in ("index.html", "contributing.html", "changelog.html", "security.html"):
        assert (site / page).is_file(), page
    assert (site / "source" / "benchmarks" / "results" / "speed.json").is_file()


def test_the_site_asks_nobody_else_for_anything(site: Path) -> None:
    for page in site.glob("*.html"):
        text = page.read_text(encoding="utf-8")
        for tag in re.findall(r"<(?:script|link|img|iframe)[^>]*>", text):
            assert not re.search(r"(?:src|href)=\"(?:https?:)?//", tag), f"{page.name}: {tag}"


def test_links_within_the_site_lead_somewhere(site: Path) -> None:
    made = site / "source", site / "404.html"  # files of the repository as they are; a page for web servers
    for page in (path for path in site.rglob("*.html") if not any(path.is_relative_to(other) for other in made)):
        for target in re.findall(r'<a [^>]*href="([^"#]+)', page.read_text(encoding="utf-8")):
            if not re.match(r"[a-z]+:", target):
                assert (page.parent / target).exists(), f"{page.name}: {target}"
