"""What the commands print: results on stdout, progress and complaints on stderr.

Names of files and landmarks come from anywhere: whatever a terminal would obey or a locale cannot print is shown as
an escape (`\\x1b`, `\\n`, `\\xff`), and the JSON is valid whatever the names are.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TextIO

# Control characters, line separators, what turns the direction of writing, and bytes of names that are no UTF-8.
_HARMFUL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_QUIET = 10.0  # seconds between lines of progress where there is no terminal


class OutputError(Exception):
    """Stdout cannot be written.

    Attributes:
        closed: the reader has gone, as `head` does; nobody waits for a message.
    """

    def __init__(self, e: OSError) -> None:
        super().__init__(f"the output cannot be written ({os.strerror(e.errno) if e.errno else e})")
        self.closed = isinstance(e, BrokenPipeError)


class Step(Protocol):
    """Moves the progress bar on by one, and prints a line above it."""

    def __call__(self, line: str | None = None) -> None:
        """One is done; `line` is the complaint."""


def clean(text: str) -> str:
    """The same with escapes in place of what a terminal would obey."""
    return _HARMFUL.sub(lambda match: _escape(match.group()), text)


def show(line: str) -> None:
    """One line of the result, on stdout.

    Raises:
        OutputError: it cannot be written.
    """
    _write(clean(line))


def say(line: str) -> None:
    """One line on stderr; where that cannot be written, nobody can be told."""
    if sys.stderr is not None:
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(_printable(clean(line), sys.stderr) + "\n")
            sys.stderr.flush()


def print_json(value: dict[str, Any]) -> None:
    """One JSON object on stdout; NaN is no JSON, so it becomes an error rather than bad output.

    Raises:
        OutputError: it cannot be written.
    """
    _write(_json(value, indent=2))


def print_json_line(value: dict[str, Any]) -> None:
    """One JSON object as one line on stdout, for JSON Lines.

    Raises:
        OutputError: it cannot be written.
    """
    _write(_json(value, indent=None))


def counted(n: int, what: str) -> str:
    """A number and its noun: "1 image", "2 images"."""
    return f"{n} {what}{'' if n == 1 else 's'}"


def size_text(n: int) -> str:
    """A size with its unit, and exactly where that says more: "30.7 kB (30720 bytes)"."""
    if n < 1000:
        return counted(n, "byte")
    size, units = n / 1000, iter(("kB", "MB", "GB", "TB"))
    unit = next(units)
    while size >= 999.95 and unit != "TB":
        size, unit = size / 1000, next(units)
    return f"{size:.1f} {unit} ({n} bytes)"


def error_json(e: BaseException) -> dict[str, str]:
    """An error as JSON."""
    return {"type": type(e).__name__, "message": str(e)}


def complaint(name: str, error: BaseException) -> str:
    """One line on what is wrong with one of several things; an error that names it already is not named twice."""
    text = str(error).removeprefix("the photo: ")
    return text if name in text else f"{name}: {text}"


def finish_output() -> None:
    """Write what is still buffered, while an error can be told.

    Raises:
        OutputError: it cannot be written.
    """
    if sys.stdout is not None:
        try:
            sys.stdout.flush()
        except OSError as e:
            raise OutputError(e) from e


def abandon_output() -> None:
    """What is still buffered goes nowhere, so that the end of the process does not complain about it again."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


@contextmanager
def progress(what: str, total: int) -> Iterator[Step]:
    """How far a command is, on stderr: a bar on a terminal, else a line every ten seconds; complaints in any case."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True, soft_wrap=True, markup=False, emoji=False, highlight=False)
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    lines = _Lines(what, total)
    with Progress(*columns, console=console, disable=not console.is_terminal or total < 2) as bar:
        task = bar.add_task(what, total=total)

        def step(line: str | None = None) -> None:
            if line is not None:
                if console.is_terminal:
                    console.print(clean(line))
                else:
                    say(line)
            bar.advance(task)
            if not console.is_terminal:
                lines.step()

        yield step


class _Lines:
    """Progress where there is no terminal, as in a log or a pipe."""

    def __init__(self, what: str, total: int) -> None:
        self._what, self._total, self._done = what, total, 0
        self._began = self._last = time.monotonic()

    def step(self) -> None:
        self._done += 1
        now = time.monotonic()
        if now - self._last >= _QUIET and self._done < self._total:
            self._last = now
            left = (now - self._began) / self._done * (self._total - self._done)
            say(f"{self._what}: {self._done} of {self._total}, about {left:.0f} s left")


def _escape(letter: str) -> str:
    byte = ord(letter) - 0xDC00  # how Python holds a byte that is no UTF-8
    if 0x80 <= byte <= 0xFF:
        return f"\\x{byte:02x}"
    return letter.encode("unicode_escape").decode("ascii")


def _printable(text: str, stream: TextIO) -> str:
    """The same with escapes in place of what the stream's encoding does not have."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


def _json(value: dict[str, Any], indent: int | None) -> str:
    """JSON in which every letter that a terminal would obey, or the stream cannot take, is an escape of JSON's own."""
    encoding = (getattr(sys.stdout, "encoding", None) or "utf-8").lower().replace("_", "-")
    ascii_only = encoding not in ("utf-8", "utf8")
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent, allow_nan=False, default=str)
    lines = text.split("\n")  # the line feeds are json.dumps' own; those of names are escaped already
    return "\n".join(_HARMFUL.sub(lambda match: f"\\u{ord(match.group()):04x}", line) for line in lines)


def _write(text: str) -> None:
    if sys.stdout is None:
        raise OutputError(OSError(errno.EBADF, "stdout is closed"))
    try:
        sys.stdout.write(_printable(text, sys.stdout) + "\n")
        sys.stdout.flush()
    except OSError as e:
        raise OutputError(e) from e
