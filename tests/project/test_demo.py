"""The demo: its photographs, their credits, the reader that took them out, and the run itself."""

from __future__ import annotations

import csv
import importlib.util
import struct
import sys
import zlib
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from testing.paths import ROOT

DEMO = ROOT / "assets" / "demo"
PHOTOS = sorted(path.relative_to(DEMO).as_posix() for path in DEMO.rglob("*.webp"))


def load(path: Path) -> ModuleType:
    """A script as a module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


make_demo = load(DEMO / "make_demo.py")
demo = load(ROOT / "examples" / "demo.py")


def queries() -> list[dict[str, str]]:
    with (DEMO / "queries.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


# ---------------------------------------------------------------------- photographs


def test_every_photo_has_author_licence_and_source() -> None:
    lines = (DEMO / "NOTICE").read_text(encoding="utf-8").splitlines()
    table = [line.split(" | ") for line in lines[lines.index("file | author | licence | source") + 1 :]]
    assert sorted(row[0] for row in table) == PHOTOS
    for row in table:
        _, author, licence, source = row
        assert author
        assert licence in {"Public Domain", "CC0-1.0", "CC-BY-SA 4.0"}
        assert source.startswith("https://")


def test_queries_are_ten_known_places_and_sixteen_strangers() -> None:
    rows = queries()
    assert sorted(row["file"] for row in rows) == sorted(path.name for path in (DEMO / "queries").iterdir())
    known = [row for row in rows if row["landmark"]]
    assert (len(known), len(rows) - len(known)) == (10, 16)
    references = {path.parent.name for path in DEMO.glob("references/*/photo.webp")}
    assert len(references) == 49
    assert {row["landmark"] for row in known} <= references


def test_same_photo_is_said_of_the_right_queries() -> None:
    """The reference scaled to the query's size looks the same exactly where queries.csv says so."""
    for row in filter(lambda row: row["landmark"], queries()):
        files = DEMO / "queries" / row["file"], DEMO / "references" / row["landmark"] / "photo.webp"
        pictures: list[Any] = [
            cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_GRAYSCALE) for path in files
        ]
        query, reference = pictures
        scaled = cv2.resize(reference, (query.shape[1], query.shape[0]), interpolation=cv2.INTER_AREA)
        correlation = np.corrcoef(scaled.ravel(), query.ravel())[0, 1]
        assert (correlation > 0.95) == (row["same_photo"] == "yes"), row["file"]


# ---------------------------------------------------------------------- Qt resources


def pack_rcc(content: bytes, *, flags: int, version: int = 2) -> bytes:
    """A resource with one folder `a`, and in it one file `b`."""
    names = b"".join(struct.pack(">HI", 1, 0) + name.encode("utf-16-be") for name in "ab")
    data = struct.pack(">I", len(content)) + content
    time = b"" if version == 1 else bytes(8)
    tree = struct.pack(">IHII", 0, 2, 1, 1) + time  # the root: one child, node 1
    tree += struct.pack(">IHII", 0, 2, 1, 2) + time  # a: one child, node 2
    tree += struct.pack(">IHHHI", 8, flags, 0, 1, 0) + time  # b
    head = 20 + (4 if version == 3 else 0)
    offsets = head, head + len(tree), head + len(tree) + len(data)
    return b"qres" + struct.pack(">4I", version, *offsets) + bytes(head - 20) + tree + data + names


@pytest.mark.parametrize("version", [1, 2, 3])
def test_read_rcc(version: int) -> None:
    assert list(make_demo.read_rcc(pack_rcc(b"plain", flags=0, version=version))) == [("a/b", b"plain")]
    packed = struct.pack(">I", 5) + zlib.compress(b"plain")
    assert list(make_demo.read_rcc(pack_rcc(packed, flags=1, version=version))) == [("a/b", b"plain")]


@pytest.mark.parametrize(
    ("blob", "message"),
    [
        (b"", "starts with"),
        (b"PK\3\4" + bytes(60), "starts with"),
        (b"qres\0\0", "cut off"),
        (b"qres" + struct.pack(">4I", 9, 0, 0, 0), "version 9"),
        (pack_rcc(b"plain", flags=4), "Zstandard"),
        (pack_rcc(b"1234no zlib", flags=1), "damaged"),
        (pack_rcc(b"plain", flags=0)[:-9], "cut off"),
    ],
)
def test_a_bad_resource_is_refused(blob: bytes, message: str) -> None:
    with pytest.raises(make_demo.RccError, match=message):
        list(make_demo.read_rcc(blob))


def test_read_credits() -> None:
    text = "Copyright: Ann, 2001\nSource: https://example.org/File:A.jpg\nLicense: CC0-1.0\nFiles:\na.webp\nb.webp\n"
    credit = make_demo.Credit("Ann, 2001", "CC0-1.0", "https://example.org/File:A.jpg")
    assert make_demo.read_credits(text) == {"a.webp": credit, "b.webp": credit}


# ---------------------------------------------------------------------- the run


def test_the_time_of_a_query_is_counted_once(capsys: pytest.CaptureFixture[str]) -> None:
    answer = SimpleNamespace(
        landmark="Petra", probability=0.9, n_inliers=30, milliseconds={"decode": 20.0, "network": 60.0, "total": 100.0}
    )
    demo.print_table(
        [demo.Asked(demo.Query(Path("petra.webp"), "Petra", False), answer, np.zeros((1, 1, 3), np.uint8))]
    )
    assert capsys.readouterr().out.split()[-1] == "100"


def test_the_demo_names_its_places_and_no_stranger(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert demo.main(["--out", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    words = lines[-1].split()
    assert " ".join(words[i] for i in (0, 2, 3, 4, 6, 7, 8, 9)) == "demo: of 10 right, of 16 strangers named"
    assert int(words[1]) >= 8
    assert int(words[5]) == 0
    assert sum(line.startswith("ok ") for line in lines) == int(words[1]) + 16
    for row in queries():
        assert (tmp_path / row["file"]).with_suffix(".jpg").stat().st_size > 0
    sheet: Any = cv2.imdecode(np.frombuffer((tmp_path / "contact_sheet.png").read_bytes(), np.uint8), cv2.IMREAD_COLOR)
    assert sheet.shape == (9 * 240, 3 * 640, 3)
    corners = {"right": (64, 200, 96), "wrong": (255, 96, 80)}
    marks = [sheet[y : y + 28, x : x + 28, ::-1] for y in range(0, 9 * 240, 240) for x in range(0, 3 * 640, 640)]
    count = {name: sum(bool((m == colour).all(axis=2).any()) for m in marks) for name, colour in corners.items()}
    assert count["right"] + count["wrong"] == 26
    assert count["right"] == sum(line.startswith("ok ") for line in lines)
