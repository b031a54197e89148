"""`delf-edge-convert`: from photos of places to a bundle for the device. Thin: parse, call, print.

Progress goes to stderr, results to stdout. Exit code 1: a check failed; 2: bad usage or bad input.
"""

from __future__ import annotations

import typer

from delf_edge.converters.cli_options import say
from delf_edge.converters.commands.bundle import bundle, import_model
from delf_edge.converters.commands.check import check
from delf_edge.converters.commands.export import codebooks, export
from delf_edge.converters.commands.train import train
from delf_edge.errors import DelfEdgeError

app = typer.Typer(
    name="delf-edge-convert",
    help="Train, export, quantise and pack model bundles for delf-edge.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
app.command()(train)
app.command()(export)
app.command()(codebooks)
app.command()(bundle)
app.command()(check)
app.command("import")(import_model)


def main() -> None:
    """Entry point of `delf-edge-convert`: what a user can get wrong is one line on stderr and exit code 2."""
    try:
        app()
    except (DelfEdgeError, ModuleNotFoundError, OSError, ValueError) as e:
        say(f"delf-edge-convert: {e}")
        raise SystemExit(2) from e


if __name__ == "__main__":
    main()
