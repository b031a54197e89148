"""What every command shares: the program, common options, errors, output and progress."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol

import typer

from delf_edge.errors import DelfEdgeError, OptionError

if TYPE_CHECKING:
    from delf_edge.recognizer import Recognizer

FOUND, UNKNOWN, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130

app = typer.Typer(
    name="delf-edge",
    help="Recognise places offline: a photo goes in, the landmark it shows comes out, "
    "with the matched points as proof.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

Database = Annotated[Path, typer.Argument(metavar="DB", help="The database, one file.", show_default=False)]
Photo = Annotated[Path, typer.Argument(metavar="PHOTO", help="The photo.", show_default=False)]
BundleOption = Annotated[
    Path | None,
    typer.Option("--bundle", metavar="DIR", help="Model bundle, instead of the built-in one.", show_default=False),
]
PresetOption = Annotated[
    str | None,
    typer.Option(
        "--preset",
        metavar="NAME",
        help="Extraction preset of the bundle, instead of its default.",
        show_default=False,
    ),
]
ThreadsOption = Annotated[int, typer.Option("--threads", metavar="N", min=1, help="Threads of the network.")]
NearOption = Annotated[
    str | None,
    typer.Option(
        "--near",
        metavar="LAT,LON,METRES",
        help="Where the photo was taken: landmarks with coordinates farther away are no candidates.",
        show_default=False,
    ),
]
PacksOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--pack",
        metavar="PATH",
        help="A pack to search as well, or the folder that `update` keeps packs in; may be repeated.",
        show_default=False,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]


class Step(Protocol):
    """Moves the progress bar on by one, and prints a line above it."""

    def __call__(self, complaint: str | None = None) -> None:
        """One is done; `complaint` is the line."""


def say(line: str) -> None:
    """One line on stderr."""
    typer.echo(line, err=True)


def print_json(value: dict[str, Any]) -> None:
    """One JSON object on stdout; NaN is no JSON, so it becomes an error rather than bad output."""
    typer.echo(json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False, default=str))


@contextmanager
def needs(extra: str) -> Iterator[None]:
    """Turn a missing package into the advice to install an extra."""
    try:
        yield
    except ImportError as e:
        raise OptionError(f"{e}; install the extra: python -m pip install 'delf-edge[{extra}]'") from e


def command(name: str) -> Callable[[Callable[..., int]], Callable[..., None]]:
    """Register a command that returns its exit code; errors become one line on stderr and exit code 2."""

    def register(body: Callable[..., int]) -> Callable[..., None]:
        @functools.wraps(body)
        def run(*args: Any, **kwargs: Any) -> None:
            try:
                code = body(*args, **kwargs)
            except KeyboardInterrupt:
                say("interrupted; what was stored is safe, and the same command goes on from there")
                code = INTERRUPTED
            except (DelfEdgeError, OSError) as e:
                say(f"delf-edge: {e}")
                if kwargs["as_json"]:
                    print_json({"error": error_json(e)})
                code = BAD_INPUT
            raise typer.Exit(code)

        app.command(name)(run)
        return run

    return register


def error_json(e: BaseException) -> dict[str, str]:
    """An error as JSON."""
    return {"type": type(e).__name__, "message": str(e)}


@contextmanager
def progress(what: str, total: int) -> Iterator[Step]:
    """A progress bar on stderr, shown when that is a terminal; complaints are printed in any case."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True, soft_wrap=True)
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console, disable=not console.is_terminal or total < 2) as bar:
        task = bar.add_task(what, total=total)

        def step(complaint: str | None = None) -> None:
            if complaint is not None:
                console.print(complaint, markup=False, highlight=False)
            bar.advance(task)

        yield step


def open_database(
    database: Path,
    bundle: Path | None,
    preset: str | None,
    threads: int,
    *,
    read_only: bool,
    packs: Sequence[Path] | None = None,
) -> Recognizer:
    """The database and packs of a command."""
    from delf_edge.recognizer import Recognizer

    return Recognizer.open(
        database, bundle=bundle, preset=preset, num_threads=threads, read_only=read_only, packs=packs or ()
    )
