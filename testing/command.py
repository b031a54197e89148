"""The command line inside a test: what it printed, and how it ended."""

from __future__ import annotations

import io
import json
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from delf_edge.cli.main import main


@dataclass(frozen=True)
class Ran:
    """What a command left: exit code and both outputs."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """The object that --json printed."""
        value = json.loads(self.out)
        if not isinstance(value, dict):
            raise TypeError(f"no JSON object but {self.out!r}")
        return value


def run(*arguments: str | Path) -> Ran:
    """Run `delf-edge` with arguments."""
    out, err = io.StringIO(), io.StringIO()
    code: object = 0
    with redirect_stdout(out), redirect_stderr(err):
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as ended:
            code = ended.code
    if not isinstance(code, int):
        raise TypeError(f"exit code {code!r}")
    return Ran(code, out.getvalue(), err.getvalue())
