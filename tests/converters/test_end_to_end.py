"""From a folder of photos to an answer, by the commands of the README: train, bundle, check, index, identify.

The photos are the demo's: one of each of a dozen monuments to train, fit and index, and the small queries to ask with.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from testing.paths import ROOT

pytest.importorskip("torch", reason="needs PyTorch: make test-converters")
pytest.importorskip("litert_torch", reason="needs litert-torch: make test-converters")
pytestmark = pytest.mark.torch

DEMO = ROOT / "assets" / "demo"
STEPS = int(os.environ.get("DELF_EDGE_STEPS", "240"))  # about two minutes on two idle cores


def run(program: str, *words: str | Path, folder: Path, allowed: tuple[int, ...] = (0,)) -> Any:
    """One command in `folder`, as a reader types it; returns the JSON that it prints."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", program, *map(str, words)]
    done = subprocess.run(command, cwd=folder, env=environment, text=True, capture_output=True, check=False)
    assert done.returncode in allowed, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a reader has: photos/PLACE/photo.webp of a dozen places."""
    path = tmp_path_factory.mktemp("reader")
    asked = {row["landmark"] for row in queries()}
    others = sorted(p.name for p in (DEMO / "references").iterdir() if p.name not in asked)
    for place in [*sorted(asked), *others][:12]:
        shutil.copytree(DEMO / "references" / place, path / "photos" / place)
    return path


def queries() -> list[dict[str, str]]:
    """The demo's queries of monuments that it has a reference of."""
    with (DEMO / "queries.csv").open(newline="", encoding="utf-8") as f:
        return [row for row in csv.DictReader(f) if row["landmark"]]


def test_a_dozen_photos_become_a_bundle_that_names_places(folder: Path) -> None:
    small = ["--set", "sizes=(128,)", "--set", "warmup=10", "--batch", "8", "--no-pairs"]
    convert, photos = "delf_edge.converters.cli", ["--photos", "photos"]
    run(convert, "train", "trained", *photos, "--steps", str(STEPS), *small, folder=folder)
    log = [json.loads(line) for line in (folder / "trained" / "log.jsonl").read_text().splitlines()]
    if STEPS >= 100:
        assert log[-1]["nce"] < log[0]["nce"]  # cells find themselves again more often than before
    fit = ["--dim", "32", "--words", "64", "--code-size", "8", "--global-dim", "8"]
    trained = ["--checkpoint", "trained/network.pt"]
    made = run(convert, "bundle", "bundle", *photos, *trained, *fit, folder=folder)
    assert made["bytes"] < 8_000_000
    judged = run(convert, "check", "bundle", *photos, *trained, "--count", "2", folder=folder)
    assert [row["variant"] for row in judged["local"]] == ["float16", "int8"]

    indexed = run("delf_edge.cli.main", "index", "places.db", "photos", "--bundle", "bundle", "--json", folder=folder)
    assert indexed["added"] == 12
    asked = queries()
    files = [DEMO / "queries" / row["file"] for row in asked]
    # 1: a photo is unknown; the probability of this bundle is not calibrated, so only the first of the list counts.
    identify: list[str | Path] = ["identify", "places.db", *files, "--bundle", "bundle", "--json"]
    said = run("delf_edge.cli.main", *identify, folder=folder, allowed=(0, 1))
    first = [answer["matches"][0]["landmark"] if answer["matches"] else None for answer in said["answers"]]
    right = sum(a == row["landmark"] for a, row in zip(first, asked, strict=True))
    assert right >= len(asked) // 2, list(zip(first, asked, strict=True))
