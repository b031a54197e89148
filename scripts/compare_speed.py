"""How much processor time do everyday commands take, compared with another state of the code?

usage: compare_speed.py OLD NEW [--only NAME ...] [--pairs N] [--photos FOLDER] [--out FILE]

OLD and NEW are checkouts, each with its compiled loops where it has them. Every command is a process of its own, in
alternating pairs: OLD, NEW, NEW, OLD, ... What is compared is processor time, user and system, so that other programs
on the machine matter less; the ratio is the median of the ratios of the pairs. A run of each before is not
counted, and all modules are compiled before.

import        python -c "import delf_edge"
recognizer    python -c "from delf_edge import Recognizer"
version       delf-edge --version (left out where OLD has no such option)
help          delf-edge --help
command-help  delf-edge identify --help
info          delf-edge info DB
identify      delf-edge identify DB PHOTO: from the start of the process to the first answer
tiny          delf-edge index NEW.db FOLDER: `--tiny N` photos of 320 pixels, cut from those of the demo
real          the same with `--real N` photos of 1,024 pixels; of --photos FOLDER, else cut from the demo

Exit code 1: something takes more than `--most` (1.03) times as long as before.
"""

from __future__ import annotations

import argparse
import compileall
import json
import os
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import cv2
import numpy as np

DEMO = Path(__file__).resolve().parent.parent / "assets" / "demo"
PHOTOS = (".jpg", ".jpeg", ".png", ".webp")
NAMES = ("import", "recognizer", "version", "help", "command-help", "info", "identify", "tiny", "real")
MOST = 1.03


class Checkout:
    """A state of the code, and its program `delf-edge`."""

    def __init__(self, root: Path, scratch: Path) -> None:
        self.root, self.scratch = root.resolve(), scratch
        compileall.compile_dir(self.root / "delf_edge", quiet=1)  # compiling is no part of what is compared
        module, _, name = self._entry_point().partition(":")
        self._program = ["-c", f"import sys; from {module} import {name}; sys.exit({name}())"]

    def _entry_point(self) -> str:
        project = tomllib.loads((self.root / "pyproject.toml").read_text())["project"]
        return str(project["scripts"]["delf-edge"])

    def python(self, *arguments: str) -> float:
        """Processor seconds of a run of Python."""
        environment = {**os.environ, "PYTHONPATH": str(self.root)}
        with tempfile.TemporaryFile() as said:
            run = subprocess.Popen(
                [sys.executable, *arguments], cwd=self.scratch, env=environment, stdout=said, stderr=subprocess.STDOUT
            )
            _, status, used = os.wait4(run.pid, 0)
            run.returncode = os.waitstatus_to_exitcode(status)
            if run.returncode:
                said.seek(0)
                text = said.read().decode(errors="replace")
                raise RuntimeError(f"{self.root}: {arguments} ended with {run.returncode}: {text[-2000:]}")
            return used.ru_utime + used.ru_stime

    def command(self, *arguments: str) -> float:
        """Processor seconds of a run of `delf-edge`."""
        return self.python(*self._program, *arguments)

    def can(self, *arguments: str) -> bool:
        """Whether `delf-edge` takes these arguments."""
        try:
            self.command(*arguments)
        except RuntimeError:
            return False
        return True


def make_photos(folder: Path, n: int, pixels: int, photos: Sequence[Path]) -> None:
    """n JPEG files of different content, the longer side `pixels` long, cut and scaled from others."""
    rng = np.random.default_rng(0)
    for i in range(n):
        source = photos[i % len(photos)]
        picture: Any = cv2.imread(str(source), cv2.IMREAD_COLOR)
        if picture is None:
            raise ValueError(f"{source}: no photo")
        height, width = picture.shape[:2]
        if i >= len(photos):
            part = float(rng.uniform(0.5, 1))
            h, w = int(height * part), int(width * part)
            top, left = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
            picture = picture[top : top + h, left : left + w]
        scale = pixels / max(picture.shape[:2])
        size = (max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale)))
        file = folder / f"place{i % len(photos):03d}" / f"{i:05d}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(file), cv2.resize(picture, size, interpolation=cv2.INTER_AREA))


def runs(options: argparse.Namespace, scratch: Path) -> Iterator[tuple[str, Callable[[Checkout], float]]]:
    """What is to be measured, by name."""
    demo = sorted(p for p in DEMO.glob("references/*/*") if p.suffix in PHOTOS)
    given = sorted(p for p in options.photos.rglob("*") if p.suffix.lower() in PHOTOS) if options.photos else demo
    query = DEMO / "queries" / "colosseum.webp"  # known in both: an unknown photo is tried in other turns

    def fresh(folder: Path) -> Callable[[Checkout], float]:
        def run(checkout: Checkout) -> float:
            for old in scratch.glob("new.db*"):
                old.unlink()
            return checkout.command("index", str(scratch / "new.db"), str(folder))

        return run

    def small(checkout: Checkout) -> str:
        database = scratch / f"{checkout.root.name}.db"
        if not database.exists():
            checkout.command("index", str(database), str(scratch / "small"))
        return str(database)

    for name in options.only or NAMES:
        match name:
            case "import":
                yield name, lambda checkout: checkout.python("-c", "import delf_edge")
            case "recognizer":
                yield name, lambda checkout: checkout.python("-c", "from delf_edge import Recognizer")
            case "version":
                yield name, lambda checkout: checkout.command("--version")
            case "help":
                yield name, lambda checkout: checkout.command("--help")
            case "command-help":
                yield name, lambda checkout: checkout.command("identify", "--help")
            case "info" | "identify":
                if not (scratch / "small").exists():
                    make_photos(scratch / "small", 20, 640, demo[:20])
                if name == "info":
                    yield name, lambda checkout: checkout.command("info", small(checkout))
                else:
                    yield (
                        name,
                        lambda checkout: checkout.command("identify", small(checkout), str(query)),
                    )
            case "tiny" | "real":
                n, pixels = (options.tiny, 320) if name == "tiny" else (options.real, 1024)
                make_photos(scratch / name, n, pixels, demo if name == "tiny" else given)
                yield name, fresh(scratch / name)


def compare(old: Checkout, new: Checkout, run: Callable[[Checkout], float], pairs: int) -> dict[str, Any]:
    """Processor milliseconds of both, and the ratio."""
    times: dict[str, list[float]] = {"old": [], "new": []}
    for pair in range(pairs + 1):
        for which in ("old", "new") if pair % 2 else ("new", "old"):
            spent = run(old if which == "old" else new) * 1000
            if pair:
                times[which].append(spent)
    ratios = sorted(b / a for a, b in zip(times["old"], times["new"], strict=True))
    return {
        "pairs": pairs,
        "old": round(median(times["old"]), 1),
        "new": round(median(times["new"]), 1),
        "ratio": round(median(ratios), 3),
        "quartiles": [round(ratios[len(ratios) // 4], 3), round(ratios[-1 - len(ratios) // 4], 3)],
    }


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--only", nargs="+", choices=NAMES, metavar="NAME", help=f"of {', '.join(NAMES)}")
    parser.add_argument("--pairs", type=int, default=21, help="of the short commands; index runs are 3")
    parser.add_argument("--index-pairs", type=int, default=3)
    parser.add_argument("--tiny", type=int, default=3000)
    parser.add_argument("--real", type=int, default=300)
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--most", type=float, default=MOST)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        old, new = Checkout(options.old, scratch), Checkout(options.new, scratch)
        for name, run in runs(options, scratch):
            if name == "version" and not old.can("--version"):
                results[name] = "OLD has no --version"
            else:
                pairs = options.index_pairs if name in ("tiny", "real") else options.pairs
                results[name] = compare(old, new, run, pairs)
            print(f"{name:13} {json.dumps(results[name])}", flush=True)
    if options.out:
        options.out.write_text(json.dumps({"milliseconds of processor": results}, indent=1) + "\n")
    slower = [n for n, r in results.items() if isinstance(r, dict) and r["ratio"] > options.most]
    if slower:
        print(f"slower than {options.most} times: {', '.join(slower)}", file=sys.stderr)
    return 1 if slower else 0


if __name__ == "__main__":
    raise SystemExit(main())
