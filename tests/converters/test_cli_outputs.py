"""No command of `delf-edge-convert` takes away what it was not asked to replace; it refuses before it begins."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from testing.paths import TINY_BUNDLE


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("myphotos/a/1.jpg", "myphotos/b/2.jpg", "holiday/3.jpg", "model/saved_model.pb", "mean.datum"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"mine")
    shutil.copytree(TINY_BUNDLE, tmp_path / "bundle")
    return tmp_path


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("bundle myphotos --photos myphotos", "which is read from"),
        ("bundle myphotos/new --photos myphotos", "which is read from"),
        ("bundle . --photos myphotos", "which is read from"),
        ("bundle holiday --photos myphotos", "would be lost"),
        ("bundle holiday/3.jpg --photos myphotos", "is a file"),
        ("import model myphotos --photos myphotos", "which is read from"),
        ("import model holiday --photos myphotos", "would be lost"),
        ("import model model --photos myphotos", "which is read from"),
        ("import mean.datum holiday/3.jpg", "becomes a .npy file"),
        ("import mean.datum mean.datum", "becomes a .npy file"),
        ("export myphotos --photos myphotos", "which is read from"),
        ("export bundle --photos myphotos", "is a bundle"),
        ("codebooks bundle holiday/3.jpg --photos myphotos", "name a .npz file"),
        ("codebooks bundle bundle/codebook.npz --photos myphotos", "name a .npz file"),
    ],
)
def test_nothing_is_lost(folder: Path, line: str, why: str) -> None:
    before = {p: p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
    program = "from delf_edge.converters.cli import main; main()"
    ran = subprocess.run(
        [sys.executable, "-c", program, *line.split()], cwd=folder, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 2, ran.stderr
    assert why in ran.stderr
    assert "Traceback" not in ran.stderr
    assert {p: p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()} == before
