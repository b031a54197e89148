"""Ways to run a command of `delf-edge`: in this process, in a forked one, as a program of its own, as a service.

A forked process is as good as a program of its own and takes milliseconds, since all modules are loaded. Nothing of the
database may be open here when it is forked: SQLite's locks do not go along.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

from typer.main import get_command

import delf_edge.cli.main as program
from testing.paths import TINY_BUNDLE

BUNDLE = ("--bundle", str(TINY_BUNDLE), "--preset", "fast")
TOKEN = "0123456789abcdef"
STRANGER = 65534  # "nobody"
_PATIENCE = 30.0  # seconds for a service to begin or end


@dataclass(frozen=True, slots=True)
class Ran:
    """What a command said."""

    words: tuple[str, ...]
    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        try:
            told = json.loads(self.out)
        except ValueError as e:
            raise AssertionError(f"{' '.join(self.words)}: stdout is no JSON: {self.out[:200]!r}") from e
        assert isinstance(told, dict)
        return told

    def __str__(self) -> str:
        return f"{' '.join(self.words)}: exit {self.code}, {self.out[:400]} {self.err[:400]}"


@cache
def _commands() -> Callable[..., Any]:
    """The commands as Typer makes them of their functions: the same every time, and nine tenths of a call's time."""
    commands: Callable[..., Any] = get_command(program.app)
    return commands


def here(words: Sequence[str]) -> Ran:
    """In this process."""
    out, err = io.StringIO(), io.StringIO()
    code: Any = 0
    commands = mock.patch.object(program, "app", _commands())
    with commands, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            program.main(words)
        except SystemExit as e:
            code = e.code
    return Ran(tuple(words), code, out.getvalue(), err.getvalue())


def forked(words: Sequence[str], *, user: int | None = None, kill_after: float | None = None) -> Ran:
    """In a forked process.

    Args:
        words: the command.
        user: whose process it becomes; for root alone.
        kill_after: seconds until it is killed, if it has not ended; the code is -9 then.
    """
    with tempfile.TemporaryFile() as said:
        pid = os.fork()
        if pid == 0:
            try:
                if user is not None:
                    os.setgroups([])
                    os.setgid(user)
                    os.setuid(user)
                ran = here(words)
                said.write(json.dumps([ran.code, ran.out, ran.err]).encode())
                said.flush()
                os._exit(0)
            finally:
                os._exit(1)
        if kill_after is not None:
            time.sleep(kill_after)
            os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        said.seek(0)
        text = said.read()
    if os.WIFSIGNALED(status):
        return Ran(tuple(words), -os.WTERMSIG(status), "", "")
    assert text, f"{words}: the process ended without a word ({status})"
    return Ran(tuple(words), *json.loads(text))


def as_program(words: Sequence[str]) -> Ran:
    """As a program of its own, started by its name."""
    done = subprocess.run([sys.executable, "-m", "delf_edge", *words], capture_output=True, text=True, check=False)
    return Ran(tuple(words), done.returncode, done.stdout, done.stderr)


class Service:
    """`delf-edge serve` in a forked process, and requests to it.

    Args:
        database: what it serves.
    """

    def __init__(self, database: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port = free.getsockname()[1]
        words = ["serve", str(database), "--port", str(self._port), *BUNDLE, "--json"]
        self._pid = os.fork()
        if self._pid == 0:
            try:
                os.environ["DELF_EDGE_TOKEN"] = TOKEN
                here(words)
                os._exit(0)
            finally:
                os._exit(1)
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                self.ask("GET", "/healthz")
                return
            except OSError:
                if time.monotonic() > deadline:
                    self.end(signal.SIGKILL)
                    raise
                time.sleep(0.02)

    def ask(self, method: str, path: str, body: bytes = b"") -> tuple[int, dict[str, Any]]:
        """Status and JSON of a request."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=_PATIENCE)
        try:
            connection.request(method, path, body, {"Authorization": f"Bearer {TOKEN}"})
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()

    def end(self, how: int = signal.SIGTERM) -> None:
        """Stop it, or kill it."""
        os.kill(self._pid, how)
        deadline = time.monotonic() + _PATIENCE
        while os.waitpid(self._pid, os.WNOHANG)[0] == 0:
            if time.monotonic() > deadline:
                os.kill(self._pid, signal.SIGKILL)
            time.sleep(0.005)
