"""Index the demo photographs, ask for each of the queries, and draw what was matched (run by `make demo`).

Every reference is one photo of 1024 px; the queries are other photos of ten of the monuments, 320 px wide, three of
them the reference itself made small, and photos of sixteen monuments that are not in the database.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from rich.console import Console
from rich.progress import track

from delf_edge import AddItem, Answer, Recognizer
from delf_edge.diagnostics.match_drawing import CAPTION_HEIGHT, draw, save_picture, write_caption
from delf_edge.interchange.photo_lists import list_folder
from delf_edge.types import UInt8Array

PHOTOS = Path(__file__).resolve().parent.parent / "assets" / "demo"
CELL = (640, 240)  # pixels (width, height) of a picture on the contact sheet, with its caption
RIGHT, WRONG = (64, 200, 96), (255, 96, 80)  # colours of the marks
COLUMNS = 3


@dataclass(frozen=True, slots=True, eq=False)
class Query:
    """A photo to ask for, and the landmark it shows; None: one that is not in the database."""

    path: Path
    landmark: str | None
    same_photo: bool


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """A query, its answer, and the picture of its proof."""

    query: Query
    answer: Answer
    picture: UInt8Array

    @property
    def right(self) -> bool:
        """Whether the right landmark was named, or none for a stranger."""
        return self.answer.landmark == self.query.landmark


def read_queries(photos: Path) -> list[Query]:
    """The queries of `photos`/queries.csv."""
    with (photos / "queries.csv").open(newline="", encoding="utf-8") as file:
        return [
            Query(photos / "queries" / row["file"], row["landmark"] or None, row["same_photo"] == "yes")
            for row in csv.DictReader(file)
        ]


def index(recognizer: Recognizer, photos: Path) -> int:
    """Add the references that are not in yet; returns how many images the database holds."""
    listed, _ = list_folder(photos / "references")
    items = (AddItem(p.path, p.landmark, name=p.name, metadata={"path": str(p.path)}) for p in listed)
    console = Console(stderr=True)
    for _ in track(
        recognizer.add_many(items), "indexing", len(listed), console=console, disable=not console.is_terminal
    ):
        pass
    return recognizer.info().n_images


def ask(recognizer: Recognizer, queries: Sequence[Query]) -> list[Asked]:
    """Identify every query, and draw its proof."""
    asked = []
    for query in queries:
        explanation = recognizer.explain(query.path)
        asked.append(Asked(query, explanation.answer, draw(explanation)))
    return asked


def print_table(asked: Sequence[Asked]) -> None:
    """One line a query."""
    print(f"{'':2} {'query':30} {'answer':24} {'probability':>11} {'inliers':>7} {'ms':>6}")
    for one in asked:
        answer, name = one.answer, one.query.path.stem + (" (same photo)" if one.query.same_photo else "")
        elapsed = answer.milliseconds["total"]
        print(
            f"{'ok' if one.right else '--':2} {name:30} {answer.landmark or 'unknown':24} {answer.probability:11.3f} "
            f"{answer.n_inliers:7d} {elapsed:6.0f}"
        )


def contact_sheet(asked: Sequence[Asked]) -> UInt8Array:
    """All proofs on one sheet, each with its caption and a mark, right or wrong; uint8 (H, W, 3), RGB."""
    width, height = CELL
    rows = -(-len(asked) // COLUMNS)
    sheet = np.zeros((rows * height, COLUMNS * width, 3), np.uint8)
    for i, one in enumerate(asked):
        y, x = i // COLUMNS * height, i % COLUMNS * width
        cell = sheet[y : y + height, x : x + width]
        photos = one.picture[CAPTION_HEIGHT:]  # the caption in it would be too small to read
        factor = min(width / photos.shape[1], (height - CAPTION_HEIGHT) / photos.shape[0])
        small = cv2.resize(photos, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
        cell[CAPTION_HEIGHT : CAPTION_HEIGHT + small.shape[0], : small.shape[1]] = small
        write_caption(cell, caption(one), 28, width)
        mark(cell, one.right)
    return sheet


def caption(one: Asked) -> str:
    """What was asked and what was answered; what was expected, where that is another place."""
    answer = one.answer.landmark or "unknown"
    expected = "" if one.right else f", expected {one.query.landmark or 'unknown'}"
    return f"{one.query.path.stem}: {answer}, {one.answer.n_inliers} inliers, p {one.answer.probability:.2f}{expected}"


def mark(cell: UInt8Array, right: bool) -> None:
    """A green tick or a red cross in the upper left corner."""
    strokes = [((6, 14), (12, 21)), ((12, 21), (23, 6))] if right else [((7, 6), (22, 21)), ((22, 6), (7, 21))]
    for start, end in strokes:
        cv2.line(cell, start, end, RIGHT if right else WRONG, 3, cv2.LINE_AA)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; returns 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("out/demo"), help="folder for the database and the pictures")
    parser.add_argument("--photos", type=Path, default=PHOTOS, help="folder with references, queries and queries.csv")
    parser.add_argument("--bundle", type=Path, default=None, help="model bundle to use instead of the built-in one")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)

    for old in options.out.glob("demo.db*"):  # of an earlier run, perhaps with another bundle
        old.unlink()
    with Recognizer.open(options.out / "demo.db", bundle=options.bundle) as recognizer:
        n_images = index(recognizer, options.photos)
        asked = ask(recognizer, read_queries(options.photos))
    print(f"database: {n_images} images in {options.out / 'demo.db'}")
    print_table(asked)
    for one in asked:
        save_picture(one.picture, options.out / f"{one.query.path.stem}.jpg")
    sheet = options.out / "contact_sheet.png"
    save_picture(contact_sheet(asked), sheet)
    print(f"pictures: {sheet}")

    known = [one for one in asked if one.query.landmark is not None]
    strangers = [one for one in asked if one.query.landmark is None]
    right, named = sum(one.right for one in known), sum(one.answer.found for one in strangers)
    same = sum(one.right for one in known if one.query.same_photo)
    print(f"of the right ones, {same} are the reference itself made small")
    print(f"demo: {right} of {len(known)} right, {named} of {len(strangers)} strangers named")
    return 0


if __name__ == "__main__":
    sys.exit(main())
