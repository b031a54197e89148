"""The program `delf-edge`: its commands, from the modules beside this one, under one heading each.

Results go to stdout, progress and complaints to stderr. Exit codes: 0 found or done; 1 unknown, a failed check, or a
photo that could not be indexed; 2 wrong usage or bad input; 130 interrupted. Heavy modules are imported inside the
commands, so that `--help` is quick.
"""

from __future__ import annotations

from collections.abc import Sequence

import typer

from delf_edge.cli import database, diagnostics, distributed, indexing, interchange, kiosk, packs, recognition

GROUPS = (
    indexing.commands,
    recognition.commands,
    database.commands,
    kiosk.commands,
    packs.commands,
    interchange.commands,
    distributed.commands,
    diagnostics.commands,
)

app = typer.Typer(
    name="delf-edge",
    help="Recognise places offline: a photo goes in, the landmark it shows comes out, "
    "with the matched points as proof.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
for group in GROUPS:
    group.add_to(app)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of `delf-edge`.

    Args:
        arguments: what follows the program's name; None takes them from `sys.argv`.

    Raises:
        SystemExit: always, with the exit code.
    """
    app(list(arguments) if arguments is not None else None)


if __name__ == "__main__":
    main()
