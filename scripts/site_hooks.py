"""What `make docs` adds to the pages in docs/: mkdocs calls these functions (`hooks` in mkdocs.yml).

* README.md, CONTRIBUTING.md, CHANGELOG.md and SECURITY.md are pages of the site, too.
* commands.md ends with the help of every command, as the installed program prints it, so it cannot drift.
* A link to a file of the repository that is no page, such as a benchmark's result, leads to a copy in `source/`.
"""

from __future__ import annotations

import os
import posixpath
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
# Pages that lie at the top of the repository: their name there, and in the site.
TOP_PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "security.md",
}
PROGRAMS = {"delf-edge": "delf_edge.cli.main", "delf-edge-convert": "delf_edge.converters.cli"}
HELP_MARK = "<!-- help of every command -->"
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\[\]]*\])*)\]\(([^)\s#]+)(#[^)\s]*)?\)")

_origins: dict[str, str] = {}  # page of the site -> file of the repository


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages at the top of the repository, and every file that a page links to."""
    _origins.clear()
    for file in files.documentation_pages():
        _origins[file.src_uri] = f"docs/{file.src_uri}"
    for source, target in TOP_PAGES.items():
        files.append(File.generated(config, target, abs_src_path=str(ROOT / source)))
        _origins[target] = source
    ahead = list(_origins)
    while ahead:
        page = ahead.pop()
        for target in _linked(page):
            site = _site_path(target)
            if site.startswith("source/") and files.get_file_from_path(site) is None:
                files.append(File.generated(config, site, abs_src_path=str(ROOT / target)))
                if site.endswith(".md"):
                    _origins[site] = target
                    ahead.append(site)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Lead every link to its place in the site, and add the help of the commands."""
    here = page.file.src_uri
    if HELP_MARK in markdown:
        markdown = markdown.replace(HELP_MARK, "\n".join(_help(*program) for program in PROGRAMS.items()))
    return LINK.sub(lambda match: _relinked(match, here), markdown)


def _linked(page: str) -> list[str]:
    """Files of the repository that a page links to."""
    text = (ROOT / _origins[page]).read_text(encoding="utf-8")
    targets = [_target(match[3], page) for match in LINK.finditer(text)]
    return [target for target in targets if target is not None and (ROOT / target).is_file()]


def _target(link: str, page: str) -> str | None:
    """The file of the repository that a link means; None for an address of the web."""
    if "://" in link or link.startswith("mailto:"):
        return None
    return posixpath.normpath(posixpath.join(posixpath.dirname(_origins[page]), link))


def _site_path(target: str) -> str:
    """Where a file of the repository is in the site."""
    if target in TOP_PAGES:
        return TOP_PAGES[target]
    return target.removeprefix("docs/") if target.startswith("docs/") else f"source/{target}"


def _relinked(match: re.Match[str], page: str) -> str:
    image, text, link, anchor = match.groups()
    target = _target(link, page)
    if target is None:
        return match[0]
    if (ROOT / target).is_dir():
        return str(text)  # a folder is no page
    path = posixpath.relpath(_site_path(target), posixpath.dirname(page) or ".")
    return f"{image}[{text}]({path}{anchor or ''})"


def _help(program: str, module: str) -> str:
    """The help of a program and its commands, as Markdown by Typer's own `utils docs`."""
    environment: dict[str, Any] = {**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1"}
    command = [sys.executable, "-m", "typer", module, "utils", "docs", "--name", program]
    text = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, env=environment).stdout
    return re.sub(r"^(#+) ", r"\1# ", text, flags=re.MULTILINE).rstrip() + "\n"
