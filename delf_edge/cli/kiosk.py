"""The command that serves the kiosk page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from delf_edge.cli.common import (
    FOUND,
    BundleOption,
    CommandGroup,
    Database,
    JsonOption,
    LimitOption,
    PacksOption,
    PresetOption,
    ThreadsOption,
    needs,
    open_database,
)
from delf_edge.cli.output import print_json, show
from delf_edge.errors import OptionError

commands = CommandGroup("Kiosk")


@commands.command("serve")
def serve_command(
    database: Database,
    host: Annotated[str, typer.Option("--host", metavar="ADDRESS", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", metavar="N", min=1, max=65535, help="Port to listen on.")] = 8000,
    allow_host: Annotated[
        list[str] | None,
        typer.Option("--allow-host", metavar="NAME", help="Name that browsers call it by.", show_default=False),
    ] = None,
    public_url: Annotated[
        str | None,
        typer.Option(
            "--public-url",
            metavar="URL",
            help="Address by which browsers reach it through a proxy, with its path; nothing is then local.",
            show_default=False,
        ),
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(
            "--token-file",
            metavar="FILE",
            help="File with the token for changes; default: the variable DELF_EDGE_TOKEN, or a new one each time.",
            show_default=False,
        ),
    ] = None,
    read_only: Annotated[bool, typer.Option("--read-only", help="Allow no changes.")] = False,
    new: Annotated[bool, typer.Option("--new", help="Make the database if it does not exist.")] = False,
    bundle: BundleOption = None,
    preset: PresetOption = None,
    threads: ThreadsOption = 1,
    max_megapixels: LimitOption = None,
    packs: PacksOption = None,
    as_json: JsonOption = False,
) -> int:
    """Serve the kiosk page and its service, until it is stopped.

    The page is for this machine alone unless --host says otherwise; from another machine everything needs the token.
    Needs the extra: python -m pip install 'delf-edge[web]'.
    """
    with needs("web"):
        from delf_edge.web.app import ServiceOptions, create_app
        from delf_edge.web.security import Policy, is_loopback, public_address
        from delf_edge.web.server import address_of, listen, read_token
        from delf_edge.web.server import run_server as run
    if not (new or database.exists()):
        raise OptionError(f"{database}: no such database; check the path, or let --new make it")
    token, is_new = read_token(token_file)
    names = frozenset(name.lower() for name in [host, *(allow_host or [])])
    public = public_address(public_url) if public_url is not None else None
    policy = Policy(token, names, loopback_only=is_loopback(host), public_url=public)
    with (
        listen(host, port) as sockets,
        open_database(
            database, bundle, preset, threads, read_only=read_only, packs=packs, max_megapixels=max_megapixels
        ) as recognizer,
    ):
        url = address_of(host, port, token if is_new and not read_only else None, public)
        if as_json:
            print_json({"database": str(database), "url": url, "read_only": read_only})
        else:
            show(url)
        run(create_app(recognizer, ServiceOptions(policy)), host, port, sockets)
    return FOUND
