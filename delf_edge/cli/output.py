"""What the commands print: results on stdout, progress and complaints on stderr."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import typer


class Step(Protocol):
    """Moves the progress bar on by one, and prints a line above it."""

    def __call__(self, line: str | None = None) -> None:
        """One is done; `line` is the complaint."""


def show(line: str) -> None:
    """One line of the result, on stdout."""
    typer.echo(line)


def say(line: str) -> None:
    """One line on stderr."""
    typer.echo(line, err=True)


def print_json(value: dict[str, Any]) -> None:
    """One JSON object on stdout; NaN is no JSON, so it becomes an error rather than bad output."""
    typer.echo(json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False, default=str))


def error_json(e: BaseException) -> dict[str, str]:
    """An error as JSON."""
    return {"type": type(e).__name__, "message": str(e)}


def complaint(name: str, error: BaseException) -> str:
    """One line on what is wrong with one of several things; an error that names it already is not named twice."""
    text = str(error)
    return text if name in text else f"{name}: {text}"


@contextmanager
def progress(what: str, total: int) -> Iterator[Step]:
    """A progress bar on stderr, shown when that is a terminal; complaints are printed in any case."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True, soft_wrap=True)
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console, disable=not console.is_terminal or total < 2) as bar:
        task = bar.add_task(what, total=total)

        def step(line: str | None = None) -> None:
            if line is not None:
                console.print(line, markup=False, highlight=False)
            bar.advance(task)

        yield step
