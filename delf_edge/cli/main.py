"""The program `delf-edge`: its commands, from the modules beside this one.

Results go to stdout, progress and complaints to stderr. Exit codes: 0 found or done; 1 unknown, a failed check, or a
photo that could not be indexed; 2 wrong usage, bad input, or output that cannot be written; 130 interrupted; 141 the
reader of the output has gone, as of `delf-edge info DB | head`. A module of commands is imported when one of them is
asked for (`command_list`), and heavy modules inside the commands, so that `--help` is quick.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

import delf_edge
from delf_edge.cli.command_list import HEADINGS, LazyCommands
from delf_edge.cli.common import BAD_INPUT, FOUND, INTERRUPTED
from delf_edge.cli.output import OutputError, abandon_output, finish_output, print_json, print_json_line, say, show

BROKEN_PIPE = 141  # as a shell says it of SIGPIPE


class Program(TyperGroup):
    """The group of all commands, whose help lists them under their headings; each is loaded when it is asked for."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands = LazyCommands()

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """The commands under their headings."""
        width = formatter.width - 6 - max(map(len, self.commands))
        for heading, commands in HEADINGS.items():
            with formatter.section(heading):
                formatter.write_dl(
                    [(n, TyperCommand(n, help=c.summary).get_short_help_str(width)) for n, c in commands.items()]
                )


app = typer.Typer(
    name="delf-edge",
    cls=Program,
    help="Recognise places offline: a photo goes in, the landmark it shows comes out, "
    "with the matched points as proof.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        show(f"delf-edge {delf_edge.__version__}")
        raise typer.Exit(FOUND)


@app.callback()
def program(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    """What stands before the command."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of `delf-edge`.

    Args:
        arguments: what follows the program's name; None takes them from `sys.argv`.

    Raises:
        SystemExit: always, with the exit code.
    """
    try:
        code = _run(sys.argv[1:] if arguments is None else list(arguments))
        finish_output()
    except OutputError as e:
        abandon_output()
        if not e.closed:
            say(f"delf-edge: {e}")
        code = BROKEN_PIPE if e.closed else BAD_INPUT
    except KeyboardInterrupt:
        say("interrupted")
        code = INTERRUPTED
    sys.exit(code)


def _run(arguments: list[str]) -> int:
    """The exit code of a command line."""
    try:
        code = app(arguments, prog_name="delf-edge", standalone_mode=False)
    except SystemExit as e:  # Typer's own end where the reader of a help text has gone
        raise OutputError(BrokenPipeError()) if e.code == 1 else e from e
    except OSError as e:  # of a help text; those of commands end inside them
        raise OutputError(e) from e
    except Exception as e:
        if not hasattr(e, "format_message"):  # wrong usage: the class has no public name in all versions of Typer
            raise
        return _complain(e, arguments)
    return code if isinstance(code, int) else FOUND


def _complain(e: Any, arguments: list[str]) -> int:
    """Say what is wrong with a command line."""
    text = io.StringIO()
    e.show(file=text)
    for line in text.getvalue().splitlines():
        say(line)
    for option, print_error in (("--json", print_json), ("--jsonl", print_json_line)):
        if option in arguments:
            print_error({"error": {"type": "UsageError", "message": e.format_message()}})
    return BAD_INPUT


if __name__ == "__main__":
    main()
