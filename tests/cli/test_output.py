"""What reaches a terminal, a pipe, a full disk: names are shown as they are safe, JSON is JSON, and ends are quiet."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from delf_edge import Bundle, Recognizer
from delf_edge.cli.output import clean, counted, size_text
from testing.paths import ROOT, TINY_BUNDLE
from testing.synthetic_database import make_database

ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT)}
PROGRAM = [sys.executable, "-m", "delf_edge"]
NAMES = ("red \x1b[31m alarm", "two\nlines", ":heart: [bold]Łódź[/bold]", "evil \u202e txt.exe")


def run(*arguments: str | Path | bytes, **environment: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([*PROGRAM, *arguments], capture_output=True, check=False, env=ENVIRONMENT | environment)


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = make_database(tmp_path_factory.mktemp("output") / "places.db", Bundle.load(TINY_BUNDLE), n_images=len(NAMES))
    with Recognizer.open(path, bundle=TINY_BUNDLE) as recognizer:
        images = [image.name for image in recognizer.store.images()]
        for image, name in zip(images, NAMES, strict=True):
            recognizer.store.relabel(image, name)
    return path


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Łódź, São Paulo, 東京, 👩‍🚀", "Łódź, São Paulo, 東京, 👩‍🚀"),
        ("a\x1b[31mb\x07", "a\\x1b[31mb\\x07"),
        ("a\nb\rc\td", "a\\nb\\rc\\td"),
        ("\x9b31m\x85", "\\x9b31m\\x85"),
        ("a\u2028b", "a\\u2028b"),
        ("\u202eexe.gpj", "\\u202eexe.gpj"),
        (os.fsdecode(b"caf\xe9.jpg"), "caf\\xe9.jpg"),
        (":heart: [bold]x[/bold]", ":heart: [bold]x[/bold]"),
    ],
)
def test_what_a_terminal_would_obey_is_shown_instead(text: str, shown: str) -> None:
    assert clean(text) == shown


def test_names_with_control_characters_stay_on_their_line(database: Path) -> None:
    ran = run("info", database)
    assert ran.returncode == 0
    lines = ran.stdout.decode().splitlines()
    assert b"\x1b" not in ran.stdout
    assert {line.split(None, 1)[1] for line in lines} >= {clean(name) for name in NAMES}


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "iso-8859-1"])
def test_the_json_is_valid_whatever_the_names_and_the_locale(database: Path, encoding: str) -> None:
    ran = run("info", database, "--json", PYTHONIOENCODING=encoding)
    assert ran.returncode == 0, ran.stderr
    assert b"\x1b" not in ran.stdout
    assert set(json.loads(ran.stdout.decode(encoding))["landmarks"]) >= set(NAMES)
    text = run("info", database, PYTHONIOENCODING=encoding)
    assert text.returncode == 0, text.stderr


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_a_file_name_that_is_no_utf8_is_shown_and_is_valid_json(database: Path, tmp_path: Path, encoding: str) -> None:
    photo = os.fsencode(tmp_path) + b"/caf\xe9.jpg"
    Path(os.fsdecode(photo)).write_bytes(b"no photo")
    arguments = ("identify", database, photo, "--bundle", TINY_BUNDLE)
    ran = run(*arguments, "--json", PYTHONIOENCODING=encoding)
    assert ran.returncode == 2
    (answer,) = json.loads(ran.stdout.decode(encoding))["answers"]
    assert os.fsencode(answer["photo"]) == photo
    assert answer["error"]["type"] == "ImageDecodeError"
    lines = run(*arguments, "--jsonl", PYTHONIOENCODING=encoding).stdout.decode(encoding).splitlines()
    assert [json.loads(line)["photo"] for line in lines] == [answer["photo"]]
    assert b"caf\\xe9.jpg" in ran.stderr
    assert b"Traceback" not in ran.stderr


def piped_away(*arguments: str | Path) -> tuple[int, bytes]:
    """Exit code and stderr of a command whose reader has gone before it prints."""
    reader, writer = os.pipe()
    os.close(reader)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    try:
        ran = subprocess.run(
            [*PROGRAM, *arguments], stdout=writer, stderr=subprocess.PIPE, check=False, env=environment
        )
    finally:
        os.close(writer)
    return ran.returncode, ran.stderr


@pytest.mark.parametrize("more", [[], ["--json"]])
def test_a_reader_that_goes_away_ends_it_without_a_word(database: Path, more: list[str]) -> None:
    assert piped_away("info", database, *more) == (141, b"")
    assert piped_away("--help") == (141, b"")


@pytest.mark.parametrize("arguments", ["info DB", "info DB --json", "--help", "--version", "info --json"])
def test_a_full_disk_is_one_line_and_exit_code_2(database: Path, arguments: str) -> None:
    line = [str(database) if argument == "DB" else argument for argument in arguments.split()]
    with open("/dev/full", "wb") as full:
        ran = subprocess.run([*PROGRAM, *line], stdout=full, stderr=subprocess.PIPE, check=False, env=ENVIRONMENT)
    assert ran.returncode == 2
    last = ran.stderr.decode().splitlines()[-1]
    assert last == "delf-edge: the output cannot be written (No space left on device)"
    assert b"Traceback" not in ran.stderr
    assert b"Exception ignored" not in ran.stderr


def shell(line: str, database: Path) -> subprocess.CompletedProcess[bytes]:
    environment = ENVIRONMENT | {"PYTHON": sys.executable, "DB": str(database)}
    return subprocess.run(["bash", "-c", line], capture_output=True, check=False, env=environment)


def test_closed_streams_do_no_harm(database: Path) -> None:
    ran = shell('"$PYTHON" -m delf_edge info "$DB" >&-', database)
    assert ran.returncode == 2
    assert ran.stderr.decode().splitlines() == ["delf-edge: the output cannot be written (Bad file descriptor)"]
    ran = shell('"$PYTHON" -m delf_edge info "$DB" --json 2>&- <&-', database)
    assert ran.returncode == 0
    assert set(json.loads(ran.stdout)["landmarks"]) >= set(NAMES)
    assert shell('"$PYTHON" -m delf_edge info "$DB.absent" 2>/dev/full', database).returncode == 2


@pytest.mark.parametrize(
    "arguments",
    ["nonsense --json", "info --json", "info a.db --nonsense --json", "identify a.db b --top 0 --json"],
)
def test_wrong_usage_is_json_too_where_json_is_asked_for(arguments: str) -> None:
    ran = run(*arguments.split())
    assert ran.returncode == 2
    error = json.loads(ran.stdout)["error"]
    assert error["type"] == "UsageError"
    assert error["message"]
    assert b"Usage: delf-edge" in ran.stderr


def test_an_interruption_while_modules_load_is_quiet() -> None:
    code = """
import sys

class Interrupted:
    def find_spec(self, name, path, target=None):
        if name == "delf_edge.cli.main":
            raise KeyboardInterrupt

sys.meta_path.insert(0, Interrupted())
from delf_edge.__main__ import start
start()
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False, cwd=ROOT)
    assert (ran.returncode, ran.stdout, ran.stderr) == (130, b"", b"")


def test_numbers_go_with_their_nouns_and_units() -> None:
    assert [counted(n, "image") for n in (0, 1, 2)] == ["0 images", "1 image", "2 images"]
    sizes = {1: "1 byte", 999: "999 bytes", 30720: "30.7 kB (30720 bytes)", 999_999: "1.0 MB (999999 bytes)"}
    assert {n: size_text(n) for n in sizes} == sizes


def test_info_is_in_words(database: Path, tmp_path: Path) -> None:
    text = run("info", database).stdout.decode()
    for word in ("{", "True", "False", "None", "n images"):
        assert word not in text
    assert re.search(r"^size: [0-9.]+ kB \([0-9]+ bytes\)$", text, re.MULTILINE)
    assert "sealed: no\nread-only for you: no\n" in text
    assert json.loads(run("info", database, "--json").stdout)["read_only"] is False
    assert run("seal", database, "--out", tmp_path / "sealed.db").returncode == 0
    assert "sealed: yes\nread-only for you: yes\n" in run("info", tmp_path / "sealed.db").stdout.decode()


def test_one_image_is_one_image(tmp_path: Path) -> None:
    path = make_database(tmp_path / "one.db", Bundle.load(TINY_BUNDLE), n_images=1)
    assert run("verify", path).stdout == b"1 image checked, 0 problems\n"
    assert run("remove", path, "0.jpg").stdout == b"removed 1 image\n"
