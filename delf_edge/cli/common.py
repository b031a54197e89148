"""What the commands share: options, exit codes, errors, and the way to the database."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from delf_edge import library_threads
from delf_edge.cli.output import error_json, print_json, print_json_line, say
from delf_edge.errors import DelfEdgeError, OptionError

if TYPE_CHECKING:
    from delf_edge.recognizer import Recognizer

FOUND, UNKNOWN, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130
MAX_THREADS = 1024  # more is a slip of the hand; what the machine has not got is never started
MAX_ROWS = 1_000_000
_GOES_ON = "; what was stored is safe, and the same command goes on from there"


def path_of(text: str) -> Path:
    """A path of the command line: an empty one is a mistake, not the current folder, and a URL is no file."""
    if not text.strip():
        raise typer.BadParameter("the path is empty; '.' is the current folder")
    if "://" in text:
        raise typer.BadParameter(f"{text} is a URL; download it, and give the file")
    return Path(text)


Database = Annotated[
    Path, typer.Argument(metavar="DB", help="The database, one file.", show_default=False, parser=path_of)
]
Photo = Annotated[Path, typer.Argument(metavar="PHOTO", help="The photo.", show_default=False, parser=path_of)]
BundleOption = Annotated[
    Path | None,
    typer.Option(
        "--bundle", metavar="DIR", help="Model bundle, instead of the built-in one.", show_default=False, parser=path_of
    ),
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
ThreadsOption = Annotated[
    int,
    typer.Option(
        "--threads",
        metavar="N",
        min=1,
        max=MAX_THREADS,
        help="Threads of the network and of the libraries beneath, as many as cores at most.",
    ),
]
LimitOption = Annotated[
    int | None,
    typer.Option(
        "--max-megapixels",
        metavar="N",
        min=1,
        max=4000,
        help="Largest photo to read, in million pixels; four times that for a JPEG that is read reduced. Default: 120.",
        show_default=False,
    ),
]
NearOption = Annotated[
    str | None,
    typer.Option(
        "--near",
        metavar="LAT,LON,METRES",
        help="Where the photo was taken: landmarks with coordinates farther away are no candidates.",
        show_default=False,
    ),
]
UprightOption = Annotated[
    bool,
    typer.Option(
        "--upright", help="The photo stands upright: do not try the other turns where it is unknown, which takes long."
    ),
]
LanguageOption = Annotated[
    str | None,
    typer.Option(
        "--language",
        metavar="TAG",
        help="Language of what is said of a place, such as de or pt-BR; else English, or what there is.",
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
        parser=path_of,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]
JsonLinesOption = Annotated[
    bool, typer.Option("--jsonl", help="Print JSON Lines: an object for each photo as soon as it is done.")
]


class CommandGroup:
    """The commands of a module; `command_list` says under which heading they stand.

    Args:
        under: the command that they are commands of, as `catalogue` in `delf-edge catalogue list`; None: the program.
        help: what `under` is for.
    """

    def __init__(self, *, under: str | None = None, help: str | None = None) -> None:
        self._under, self._help = under, help
        self._commands: dict[str, Callable[..., None]] = {}

    def command(self, name: str, *, resumes: bool = False) -> Callable[[Callable[..., int]], Callable[..., None]]:
        """Register a command that returns its exit code; errors become one line on stderr and exit code 2.

        Args:
            name: of the command.
            resumes: whether the same command goes on where it was interrupted.
        """

        def register(body: Callable[..., int]) -> Callable[..., None]:
            run = _with_exit_code(body, _GOES_ON if resumes else "")
            self._commands[name] = run
            return run

        return register

    def click_command(self, name: str) -> Any:
        """One of the commands, or the one that all of them are under, as Click has it."""
        app = typer.Typer(
            name=self._under, help=self._help, no_args_is_help=True, rich_markup_mode=None, add_completion=False
        )
        for own, run in self._commands.items():
            if self._under == name or own == name:
                app.command(own)(run)
        return typer.main.get_command(app)


def _with_exit_code(body: Callable[..., int], after_interruption: str) -> Callable[..., None]:
    @functools.wraps(body)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            if kwargs["as_json"] and kwargs.get("as_lines"):
                raise OptionError("--json and --jsonl are two forms of the same output; give one of them")
            if "threads" in kwargs:  # the command imports NumPy, which starts them
                library_threads.limit(os.environ, kwargs["threads"])
            code = body(*args, **kwargs)
        except KeyboardInterrupt:
            say(f"interrupted{after_interruption}")
            code = INTERRUPTED
        except (DelfEdgeError, OSError) as e:
            say(f"delf-edge: {e}")
            if kwargs["as_json"]:
                print_json({"error": error_json(e)})
            elif kwargs.get("as_lines"):
                print_json_line({"error": error_json(e)})
            code = BAD_INPUT
        raise typer.Exit(code)

    return run


@contextmanager
def needs(extra: str) -> Iterator[None]:
    """Turn a missing package into the advice to install an extra."""
    try:
        yield
    except ImportError as e:
        raise OptionError(f"{e}; install the extra: python -m pip install 'delf-edge[{extra}]'") from e


@contextmanager
def naming(option: str, text: str) -> Iterator[None]:
    """Say in an error which option of the command line it is about."""
    try:
        yield
    except OptionError as e:
        raise OptionError(f"{option} {text}: {e}") from e


def open_database(
    database: Path,
    bundle: Path | None,
    preset: str | None,
    threads: int,
    *,
    read_only: bool,
    packs: Sequence[Path] | None = None,
    max_megapixels: int | None = None,
) -> Recognizer:
    """The database and packs of a command."""
    from delf_edge.images.limits import limits_of
    from delf_edge.recognizer import Recognizer

    return Recognizer.open(
        database,
        bundle=bundle,
        preset=preset,
        num_threads=threads,
        limits=limits_of(None if max_megapixels is None else max_megapixels * 1_000_000),
        read_only=read_only,
        packs=packs or (),
    )


def parse_numbers(text: str, n: int, complaint: str) -> list[float]:
    """n numbers between commas.

    Raises:
        OptionError: anything else; its message is `complaint`.
    """
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError as e:
        raise OptionError(complaint) from e
    if len(numbers) != n:
        raise OptionError(complaint)
    return numbers
