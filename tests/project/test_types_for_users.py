"""A user's program passes the strict type checkers: mypy here and in `make lint`, pyright where it is installed."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from testing.paths import ROOT

PROGRAM = ROOT / "tests" / "project" / "user_program" / "program.py"


def pyright(program: Path, folder: Path) -> tuple[int, str]:
    """Exit code and output of `pyright` in strict mode."""
    settings = {"include": [str(program)], "strict": [str(program)], "extraPaths": [str(ROOT)]}
    (folder / "pyrightconfig.json").write_text(json.dumps(settings | {"pythonVersion": "3.11"}))
    words = ["pyright", "--project", str(folder), "--pythonpath", sys.executable]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout


@pytest.mark.skipif(shutil.which("pyright") is None, reason="pyright is not installed: pip install 'pyright[nodejs]'")
def test_pyright_has_nothing_to_say(tmp_path: Path) -> None:
    code, said = pyright(PROGRAM, tmp_path)
    assert code == 0, said
    wrong = tmp_path / "wrong.py"
    wrong.write_text(PROGRAM.read_text().replace("answer.reason", "answer.reazon"))
    code, said = pyright(wrong, tmp_path)
    assert code == 1, said
    assert "reazon" in said
