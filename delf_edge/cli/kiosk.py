"""The command that serves the kiosk page."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

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
    path_of,
)
from delf_edge.cli.output import counted, print_json, show, size_text
from delf_edge.errors import OptionError

commands = CommandGroup()


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
            parser=path_of,
        ),
    ] = None,
    visit: Annotated[
        bool, typer.Option("--visit", help="Give visitors' phones the page that recognises by itself, at /visit/.")
    ] = False,
    qr: Annotated[bool, typer.Option("--qr", help="Print the address of that page as a QR code, too.")] = False,
    kiosk: Annotated[
        bool,
        typer.Option("--kiosk", help="The page hangs on a wall: its camera starts by itself, and answers are counted."),
    ] = False,
    branding: Annotated[
        Path | None,
        typer.Option(
            "--branding",
            metavar="FILE",
            help="TOML file with title, logo, languages, colours, fonts, camera of the page.",
            show_default=False,
            parser=path_of,
        ),
    ] = None,
    pin_file: Annotated[
        Path | None,
        typer.Option(
            "--pin-file",
            metavar="FILE",
            help="File with a PIN of six or more digits by which staff sign in; default: the variable DELF_EDGE_PIN.",
            show_default=False,
            parser=path_of,
        ),
    ] = None,
    open_reading: Annotated[
        bool,
        typer.Option("--open-reading", help="Everybody who reaches it may ask and read without the token."),
    ] = False,
    statistics: Annotated[
        Path | None,
        typer.Option(
            "--statistics",
            metavar="FILE",
            help="Where answers are counted; default with --kiosk: DB-statistics beside the database.",
            show_default=False,
            parser=path_of,
        ),
    ] = None,
    keep_questions: Annotated[
        Path | None,
        typer.Option(
            "--keep-questions",
            metavar="DIR",
            help="Folder for pictures that were not recognised, if a visitor agrees; they go after 14 days.",
            show_default=False,
            parser=path_of,
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
        from delf_edge.web.access import SignIns
        from delf_edge.web.app import ServiceOptions, create_app
        from delf_edge.web.branding import Branding, read_branding
        from delf_edge.web.security import Policy, is_loopback, public_address
        from delf_edge.web.server import address_of, listen, read_pin, read_token
        from delf_edge.web.server import run_server as run
        from delf_edge.web.visit import VisitPage, page_folder
    if not (new or database.exists()):
        raise OptionError(f"{database}: no such database; check the path, or let --new make it")
    token, is_new = read_token(token_file)
    names = frozenset(name.lower() for name in [host, *(allow_host or [])])
    public = public_address(public_url) if public_url is not None else None
    policy = Policy(
        token,
        names,
        loopback_only=is_loopback(host),
        public_url=public,
        open_reading=open_reading,
        sign_ins=SignIns(read_pin(pin_file)),
    )
    if statistics is not None:
        from delf_edge.files import require_apart

        require_apart(statistics, [database])
    elif kiosk:
        statistics = database.with_name(database.name + "-statistics")
    options = ServiceOptions(
        policy,
        kiosk=kiosk,
        branding=read_branding(branding) if branding is not None else Branding(),
        statistics=statistics,
        questions=keep_questions,
    )
    phones_url = address_of(host, port, None, public) + "visit/"
    if qr and is_loopback(urlsplit(phones_url).hostname or ""):
        raise OptionError(f"--qr: a phone cannot open {phones_url}; name the address that it can with --public-url")
    if visit or qr:
        page_folder()
    with (
        listen(host, port) as sockets,
        open_database(
            database, bundle, preset, threads, read_only=read_only, packs=packs, max_megapixels=max_megapixels
        ) as recognizer,
    ):
        url = address_of(host, port, token if is_new and not read_only else None, public)
        staff_url = url.replace("/#", "/staff#") if "/#" in url else f"{url}staff"
        if as_json:
            print_json({"database": str(database), "url": url, "staff_url": staff_url, "read_only": read_only})
        else:
            show(url)
            show(f"{staff_url} (staff)")
        page = None
        if visit or qr:
            from delf_edge.bundle.bundle import default_bundle_path

            page = VisitPage(recognizer.store, bundle or default_bundle_path(), phones_url)
            if not as_json:
                show(phones_url)
        if qr and not as_json:
            from delf_edge.web.qr import qr_text

            show(qr_text(phones_url))
        with contextlib.nullcontext() if page is None else contextlib.closing(page):
            run(create_app(recognizer, dataclasses.replace(options, visit=page)), host, port, sockets)
    return FOUND


@commands.command("webapp")
def webapp(
    database: Database,
    out: Annotated[
        Path, typer.Argument(metavar="OUT", help="Folder for the page.", show_default=False, parser=path_of)
    ],
    title: Annotated[
        str | None,
        typer.Option("--title", metavar="TEXT", help="What the page calls itself.", show_default=False),
    ] = None,
    variant: Annotated[
        str | None,
        typer.Option(
            "--variant", metavar="NAME", help="Network of the bundle; default: int8, the fast one.", show_default=False
        ),
    ] = None,
    bundle: BundleOption = None,
    as_json: JsonOption = False,
) -> int:
    """Write the page for visitors' phones: a folder that any web server can give out over HTTPS.

    It recognises places on the phone itself, also without a network after the first visit. DB is a pack, which is taken
    as it is, or a database, of which a pack is cut. A folder that an earlier run wrote is replaced,
    unless somebody has changed a file in it.
    """
    from delf_edge.bundle.bundle import default_bundle_path
    from delf_edge.packs.manifest import manifest_path
    from delf_edge.storage.store import Store
    from delf_edge.web.visit import write_webapp

    folder = bundle or default_bundle_path()
    if not database.exists():
        raise OptionError(f"{database}: no such database or pack; check the path")
    if manifest_path(database).exists():
        release = write_webapp(database, out, bundle=folder, title=title, variant=variant)
    else:
        with contextlib.closing(Store.open(database, mode="ro")) as store:
            release = write_webapp(store, out, bundle=folder, title=title, variant=variant)
    size = sum(file["bytes"] for file in release["files"].values())
    if as_json:
        print_json({"out": str(out), "version": release["version"], "files": len(release["files"]), "bytes": size})
    else:
        show(f"{out}: {counted(len(release['files']), 'file')}, {size_text(size)}, version {release['version'][:12]}")
    return FOUND
