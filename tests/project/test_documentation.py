"""What README.md and the pages of docs/ promise is run: commands, snippets, JSON; and nothing that exists is left out.

The language of a block says what is done with it:

sh, python   run from top to bottom, each page in a new folder with the photos that a reader has
json         its keys are compared with what the command prints
text, bash   needs PyTorch, a cluster, a channel or a Raspberry Pi; commands of ours in it are parsed, but not run
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import typer.main

import delf_edge
import delf_edge.converters.cli
from delf_edge.cli.main import app, main
from testing.paths import ROOT

DEMO = ROOT / "assets" / "demo"
TOP = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md"]
FOLDER = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md"))
PAGES = {name: (ROOT / name).read_text(encoding="utf-8") for name in TOP + FOLDER}
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BLOCKS = {name: BLOCK.findall(text) for name, text in PAGES.items()}
RUN = [name for name, blocks in BLOCKS.items() if {language for language, _ in blocks} & {"sh", "python"}]
ALL = "\n".join(text for name, text in PAGES.items() if name != "CHANGELOG.md")
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
PROGRAMS = {"delf-edge": app, "delf-edge-convert": delf_edge.converters.cli.app}
# What a page's blocks must have printed (a pattern), and the files they must have left.
PRINTED = {
    "README.md": ["holiday.jpg: Colosseum", r"(?m)^Colosseum [01]\.\d+ \d+$"],
    "docs/tutorial.md": ["holiday.jpg: Colosseum", "before: None after: Eiffel Tower"],
    "docs/own-photos.md": ["holiday.jpg: Colosseum", r"(?m)^Colosseum None$", r"(?m)^added\nadded$"],
    "docs/updates.md": ["holiday.jpg: Colosseum"],
}
LEFT = {
    "README.md": ["match.png", "places.db"],
    "docs/tutorial.md": ["match.png", "places.db"],
    "docs/own-photos.md": ["album.db", "backup.db", "kiosk.db", "match.png", "places.db"],
    "docs/updates.md": ["colosseum.pack", "colosseum.pack.json", "places.db"],
}


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """The folder that a reader has: photos of places, and two photos."""
    for landmark in ("Colosseum", "Petra"):
        shutil.copytree(DEMO / "references" / landmark, tmp_path / "photos" / landmark)
    for name, source in (("holiday", "queries/colosseum.webp"), ("eiffel", "references/Eiffel Tower/photo.webp")):
        pixels = cv2.imdecode(np.frombuffer((DEMO / source).read_bytes(), np.uint8), cv2.IMREAD_COLOR)
        (tmp_path / f"{name}.jpg").write_bytes(cv2.imencode(".jpg", pixels)[1].tobytes())
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        yield tmp_path


def test_the_pages_that_are_run() -> None:
    assert set(RUN) == set(PRINTED) == set(LEFT)
    ran = " ".join(text for name in RUN for language, text in BLOCKS[name] if language == "sh")
    for word in ("make", "index", "identify", "explain", "seal", "doctor", "pack", "snapshot", "remove", "verify"):
        assert re.search(rf"\b{word}\b", ran), word
    languages = [language for blocks in BLOCKS.values() for language, _ in blocks]
    assert languages.count("python") >= 3
    assert set(languages) <= {"sh", "python", "json", "text", "bash"}


@pytest.mark.parametrize("page", RUN)
def test_commands_and_snippets_run_from_top_to_bottom(
    page: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = {path: path.read_bytes() for path in folder.rglob("*.*") if path.is_file()}
    for language, text in BLOCKS[page]:
        if language == "python":
            exec(compile(text, page, "exec"), {})
        elif language == "sh":
            for line in text.splitlines():
                run_line(line)
    out = capsys.readouterr().out
    for pattern in PRINTED[page]:
        assert re.search(pattern, out), pattern
    made = {path.name for path in folder.glob("*.*") if path not in own}
    assert sorted(name for name in made if not name.endswith(("-wal", "-shm"))) == LEFT[page]
    assert {path: path.read_bytes() for path in own} == own  # the reader's photos are as they were


def test_a_snippet_takes_nothing_from_the_reader(folder: Path) -> None:
    """What README's snippet adds is still there after those of own-photos.md: none relabels or removes it."""
    for page in ("README.md", "docs/own-photos.md"):
        for text in (text for language, text in BLOCKS[page] if language == "python"):
            exec(compile(text, page, "exec"), {})
    with delf_edge.Recognizer.open("places.db") as recognizer:
        assert recognizer.identify("eiffel.jpg").landmark == "Eiffel Tower"


def run_line(line: str) -> None:
    """Run a line of a shell block."""
    program, *arguments = shlex.split(line)
    if program == "make":
        assert set(arguments) <= TARGETS
        return
    assert program == "delf-edge", line
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 0, line


def test_the_json_has_the_keys_that_are_printed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["index", "json.db", "photos"])
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main(["identify", "json.db", "holiday.jpg", "--json"])
    printed: dict[str, Any] = json.loads(capsys.readouterr().out)
    (shown,) = (json.loads(text) for language, text in BLOCKS["docs/own-photos.md"] if language == "json")
    assert list(shown) == list(printed)
    assert list(shown["answers"][0]) == list(printed["answers"][0])
    assert shown["answers"][0]["image"] == printed["answers"][0]["image"]


def commands_of(program: str) -> dict[str, Any]:
    """Name -> command of a program; a command of a group has the name of both, with a blank between."""
    found: dict[str, Any] = {}
    for name, command in typer.main.get_command(PROGRAMS[program]).commands.items():  # type: ignore[attr-defined]
        group = getattr(command, "commands", None)
        found |= {name: command} if group is None else {f"{name} {below}": c for below, c in group.items()}
    return found


def command_in(line: str, program: str) -> tuple[str, str]:
    """The command that a line begins with, and the rest of the line."""
    words = line.split(" ")
    length = 2 if " ".join(words[:2]) in commands_of(program) else 1
    return " ".join(words[:length]), " ".join(words[length:])


def listed(program: str) -> list[str]:
    """The commands that have a row in a table of docs/commands.md."""
    rows = re.findall(rf"^\| `{program} ([^`|]+)`", PAGES["docs/commands.md"], re.MULTILINE)
    return sorted(command_in(row, program)[0] for row in rows)


def test_every_command_is_documented() -> None:
    commands = commands_of("delf-edge")
    assert listed("delf-edge") == sorted(commands)
    for name, command in commands.items():
        for option in (option for parameter in command.params for option in parameter.opts if option.startswith("--")):
            assert f"`{option}" in ALL or f" {option} " in ALL, f"{name} {option} is in no page; see docs/commands.md"


def test_every_converter_is_documented() -> None:
    commands = commands_of("delf-edge-convert")
    assert listed("delf-edge-convert") == sorted(commands)
    for name, command in commands.items():
        assert len(command.help.split()) >= 4
        for parameter in command.params:
            assert getattr(parameter, "help", None), f"{name}: {parameter.name} has no help"


def test_commands_that_are_not_run_are_spelt_right() -> None:
    seen = set()
    for page, blocks in BLOCKS.items():
        for line in "".join(text for language, text in blocks if language in ("text", "bash")).splitlines():
            for found in re.finditer(r"(?:^|[ /])(delf-edge(?:-convert)?) ([a-z][^|>;]*)", line):
                program, rest = found.groups()
                name, arguments = command_in(rest.strip(), program)
                command = commands_of(program)[name]
                command.make_parser(typer.Context(command)).parse_args(shlex.split(arguments))
                seen.add((program, name))
            if script := re.match(r"python (scripts/\S+)", line):
                assert (ROOT / script[1]).is_file(), f"{page}: {line}"
    assert {("delf-edge-convert", "train"), ("delf-edge", "build"), ("delf-edge", "serve")} <= seen


def test_options_in_the_pages_exist() -> None:
    options = {
        option
        for program in PROGRAMS
        for command in commands_of(program).values()
        for parameter in command.params
        for option in (*parameter.opts, *parameter.secondary_opts)
    }
    # Options of other programs: Chromium's, curl's, pip's, and those of our own scripts and benchmarks.
    others = {
        "--data-binary",
        "--kiosk",
        "--system-site-packages",
        "--require-hashes",
        "--use-fake-ui-for-media-stream",
    }
    for page in ("README.md", *FOLDER):
        named = set(re.findall(r"`(--[a-z][a-z-]+)", PAGES[page]))
        here = set(re.findall(r"(?:benchmarks|scripts|examples)[./]\S+ [^`]*", PAGES[page]))
        theirs = {option for line in here for option in re.findall(r"--[a-z][a-z-]+", line)}
        assert named - others - theirs <= options, page


def test_modules_that_are_named_as_commands_exist() -> None:
    for dotted in re.findall(r"python -m ((?:benchmarks|reliability)[\w.]*)", ALL):
        path = ROOT / dotted.replace(".", "/")
        assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file(), dotted


def test_make_targets_are_documented_and_exist() -> None:
    assert set(re.findall(r"^\| `make ([a-z-]+)`", PAGES["CONTRIBUTING.md"], re.MULTILINE)) == TARGETS - {"help"}
    assert set(re.findall(r"`make ([a-z-]+)", ALL)) <= TARGETS


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", PAGES[page]):
        assert target.startswith("https://") or ((ROOT / page).parent / target).exists(), target


def test_every_public_name_is_in_the_reference() -> None:
    listed = re.findall(r"^::: delf_edge\.(\w+)$", PAGES["docs/api.md"], re.MULTILINE)
    assert sorted(listed) == sorted(set(delf_edge.__all__) - {"__version__"})


# What names a file of the repository, in code font: with a slash, or with a suffix of source or pages.
PATH = re.compile(r"`((?:[\w.-]+/)+(?:[\w.-]+\.\w+)?|[\w.-]+\.(?:py|pyi|cpp|md|toml|lock|yml))`")
MAPS = ("docs/architecture.md", "CONTRIBUTING.md", "docs/glossary.md", "docs/releasing.md")


@pytest.mark.parametrize("page", [*MAPS, *(page for page in PAGES if "/adr/" in page)])
def test_every_file_that_is_named_exists(page: str) -> None:
    for name in PATH.findall(PAGES[page]):
        assert (ROOT / name).exists() or name.startswith("out/"), f"{page} names {name}"


@pytest.mark.parametrize("page", ["docs/architecture.md", "docs/architecture.svg"])
def test_every_part_in_the_picture_and_its_text_exists(page: str) -> None:
    """Names below delf_edge/, as the picture, the drawings in text and the table of folders have them."""
    text = (ROOT / page).read_text(encoding="utf-8")
    named = re.findall(r">([a-z_]+/(?:[a-z_]+\.py)?|[a-z_]+\.py)[<,]", text)  # of the picture
    named += re.findall(r"--([a-z]+(?:/[a-z_]+)?)-->", text)
    assert len(named) >= 7
    for name in named:
        homes = [ROOT / "delf_edge" / name, ROOT / "delf_edge" / f"{name}.py", ROOT / name, ROOT / f"{name}.py"]
        assert any(home.exists() for home in homes), name


def test_the_table_of_folders_is_complete() -> None:
    rows = PAGES["docs/architecture.md"].partition("## The folders")[2].partition("Beside `")[0]
    listed = {name.removesuffix("/") for name in re.findall(r"`delf_edge/([a-z_]+(?:/|\.py))`", rows)}
    folders = {path.parent.name for path in (ROOT / "delf_edge").glob("*/__init__.py")} - {"converters"}
    modules = {path.name for path in (ROOT / "delf_edge").glob("[!_]*.py")}
    assert listed == folders | modules


def test_the_readme_is_short() -> None:
    assert PAGES["README.md"].count("\n") <= 120
