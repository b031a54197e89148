"""Arguments of the command as a door: lines that are right, changed at a few places, and lines that never were.

`serve` is left out (it runs until it is stopped; its requests have a door of their own). `bench`, `build` and
`fit-codebook` are begun with what they must refuse: what they do with good input takes seconds, and other processes.
"""

from __future__ import annotations

import contextlib
import io
import shutil
from pathlib import Path

import numpy as np

from delf_edge.cli.main import app
from reliability import world
from reliability.doors import Attempt, places_file
from reliability.mutate import mutate
from testing.paths import TINY_BUNDLE

B = ["--bundle", "bundle"]  # a copy: a changed line may write into it
LINES = {
    "index": [["places.db", "photos", "--manifest", "table.csv", *B], ["new.db", "photos/x", "--landmark", "l", *B]],
    "identify": [["places.db", "photo.png", *B, "--top", "3"], ["places.db", "photo.png", *B, "--near", "1,2,30"]],
    "explain": [["places.db", "photo.png", "--out", "out.png", *B]],
    "remove": [["places.db", "p1", "p2"], ["places.db", "--landmark", "l3"]],
    "relabel": [["places.db", "p1", "l9"]],
    "locate": [["places.db", "l1", "--at", "48.1,-2.5"]],
    "info": [["places.db"], ["places.db", "--json"]],
    "verify": [["places.db"]],
    "seal": [["places.db", "--out", "sealed.db"]],
    "snapshot": [["places.db", "copy.db", "--overwrite"]],
    "lint": [["places.db", *B, "--below", "50"]],
    "doctor": [[*B], [*B, "--json"]],
    "export": [["places.db", "exported", *B], ["places.db", "exported", *B, "--descriptors"]],
    "import": [["places.db", "exported", *B], ["new.db", "exported", *B]],
    "pack": [
        ["places.db", "new.pack", "--landmarks", "names.txt"],
        ["places.db", "one.pack", "--overwrite", "--version", "2"],
    ],
    "publish": [
        ["channel2", "one.pack", "--keys", "keys2", "--new"],
        ["channel", "--keys", "keys", "--rotate", "root"],
    ],
    "update": [["channel", "packs", "--root", "channel/metadata/1.root.json", *B]],
    "bench": [["none.db", *B, "--runs", "1"], ["places.db", "--photos", "none", "--bundle", "none"]],
    "build": [["none.csv", "built", *B, "--workers", "1"]],
    "fit-codebook": [["none.csv", "fitted", *B, "--words", "8", "--workers", "1"]],
}
SLOW = ("bench", "build", "fit-codebook")
FILES = [
    "photo.png",
    "broken.png",
    "photos",
    "photos/x",
    "table.csv",
    "names.txt",
    "none",
    "out.png",
    "places.db",
    "new.db",
    "one.pack",
]
ODD = [
    "",
    "-",
    "--",
    "\0",
    "\ud800",
    "a" * 5000,
    "-1",
    "0",
    "1e9",
    "9" * 20,
    "nan",
    "l1",
    "p1",
    "../..",
    ".",
    "x/y",
    "caf\udce9",
    "s3://a/b",
    "file:///x",
    "%s%n",
    "1,2",
    "1,2,3",
]
OPTIONS = [
    "--at",
    "--base",
    "--below",
    "--bundle",
    "--collection",
    "--help",
    "--json",
    "--keys",
    "--landmark",
    "--landmarks",
    "--manifest",
    "--name",
    "--near",
    "--new",
    "--out",
    "--overwrite",
    "--pack",
    "--preset",
    "--region",
    "--split",
    "--threads",
    "--thumbnails",
    "--top",
    "--version",
]


def changed(line: list[str], pool: list[str], rng: np.random.Generator) -> list[str]:
    """An argument more, less, in another place, another one, or with other letters."""
    line = list(line)
    at, kind = int(rng.integers(len(line) + 1)), int(rng.integers(5))
    if kind == 0 or at == len(line):
        line.insert(at, pool[int(rng.integers(len(pool)))])
    elif kind == 1:
        del line[at]
    elif kind == 2:
        line.append(line.pop(at))
    elif kind == 3:
        line[at] = pool[int(rng.integers(len(pool)))]
    else:
        text = line[at].encode("utf-8", "surrogatepass") or b"-"
        line[at] = mutate(text, [o.encode() for o in OPTIONS], rng).decode("utf-8", "surrogateescape")
    return line


def cli_door(folder: Path) -> Attempt:
    """Arguments of the command: an exit code of the documented ones, never a traceback."""
    whole, here = folder / "whole", folder / "a" / "b" / "c"  # ".." in an argument stays inside of `folder`
    (whole / "photos" / "x").mkdir(parents=True)
    places_file(whole / "places.db")
    shutil.copytree(TINY_BUNDLE, whole / "bundle")
    (whole / "photo.png").write_bytes(world.photo(1))
    (whole / "broken.png").write_bytes(world.photo(1)[:99])
    (whole / "photos" / "x" / "a.png").write_bytes(world.photo(7))
    (whole / "names.txt").write_text("l1\nl2\n")
    (whole / "table.csv").write_text("path,landmark\nx/a.png,x\n")
    for made in (
        ["export", "places.db", "exported", *B],
        ["pack", "places.db", "one.pack"],
        ["publish", "channel", "one.pack", "--new", "--keys", "keys"],
    ):
        with contextlib.chdir(whole):
            code, said = outcome(made)
        if code:
            raise RuntimeError(f"{made}: {said}")
    state: list[tuple[str, int, int]] = []

    def attempt(rng: np.random.Generator) -> str:
        nonlocal state
        command = list(LINES)[int(rng.integers(len(LINES)))]
        line = LINES[command][int(rng.integers(len(LINES[command])))]
        pool = [*ODD, *OPTIONS] if command in SLOW else [*FILES, *ODD, *OPTIONS]
        for _ in range(int(rng.integers(0, 4))):
            line = changed(line, pool, rng)
        if not state or files_of(here) != state:
            shutil.rmtree(here, ignore_errors=True)
            shutil.copytree(whole, here)
            state = files_of(here)
        arguments = [command, *line] if rng.random() < 0.97 else line
        with contextlib.chdir(here):
            code, _ = outcome(arguments)
        if code not in (0, 1, 2, None):
            return f"unexpected: exit code {code!r} for {arguments}"
        return "refused" if code == 2 else "answered"

    return attempt


def outcome(arguments: list[str]) -> tuple[object, str]:
    """Exit code of the command in this process, and what it printed."""
    sink = io.StringIO()
    with contextlib.redirect_stdout(sink), contextlib.redirect_stderr(sink):
        try:
            app(args=arguments, prog_name="delf-edge")
        except SystemExit as e:
            return e.code, sink.getvalue()
    return 0, sink.getvalue()


def files_of(folder: Path) -> list[tuple[str, int, int]]:
    """Every path below a folder, with size and time of change."""
    return sorted((str(p), p.lstat().st_size, p.lstat().st_mtime_ns) for p in folder.rglob("*"))
