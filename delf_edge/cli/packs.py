"""The commands that bring databases to other machines: cut packs, publish them, keep them up to date."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from delf_edge.cli.common import (
    FOUND,
    UNKNOWN,
    BundleOption,
    CommandGroup,
    Database,
    JsonOption,
    naming,
    needs,
    path_of,
)
from delf_edge.cli.output import counted, print_json, say, show, size_text
from delf_edge.errors import OptionError

commands = CommandGroup()

KeysOption = Annotated[
    Path,
    typer.Option(
        "--keys", metavar="DIR", help="Folder of the channel's private keys.", show_default=False, parser=path_of
    ),
]


@commands.command("pack")
def pack(
    database: Database,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The pack's file.", show_default=False, parser=path_of)],
    version: Annotated[
        int,
        typer.Option("--version", metavar="N", min=1, max=2**31 - 1, help="Larger than that of the pack it follows."),
    ] = 1,
    name: Annotated[
        str | None,
        typer.Option("--name", metavar="NAME", help="What devices call it; default: that of OUT.", show_default=False),
    ] = None,
    region: Annotated[
        str | None,
        typer.Option(
            "--region",
            metavar="S,W,N,E",
            help="Only landmarks inside: south, west, north and east in degrees.",
            show_default=False,
        ),
    ] = None,
    collection: Annotated[
        str | None,
        typer.Option(
            "--collection", metavar="NAME", help="Only images of this collection (metadata).", show_default=False
        ),
    ] = None,
    landmarks: Annotated[
        Path | None,
        typer.Option(
            "--landmarks",
            metavar="FILE",
            help="Only the landmarks in this file, one a line.",
            show_default=False,
            parser=path_of,
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing pack.")] = False,
    as_json: JsonOption = False,
) -> int:
    """Cut a read-only pack out of a database.

    It is one file, with a manifest beside it. Devices search it beside their own database: identify --pack.
    """
    from delf_edge.geo import Box
    from delf_edge.packs.create import Selection, cut_pack
    from delf_edge.storage.store import Store

    box = None
    if region is not None:
        try:
            south, west, north, east = map(float, region.split(","))
        except ValueError as e:
            raise OptionError(f"--region {region}: give four numbers, south,west,north,east") from e
        with naming("--region", region):
            box = Box(south, west, north, east)
    listed = None
    if landmarks is not None:
        try:
            lines = landmarks.read_text(encoding="utf-8-sig").splitlines()
        except UnicodeDecodeError as e:
            raise OptionError(f"--landmarks {landmarks}: no text in UTF-8 ({e}); write one name a line") from e
        listed = frozenset(line.strip() for line in lines if line.strip())
    with Store.open(database, mode="ro") as store:
        manifest = cut_pack(
            store,
            out,
            name=name or out.stem.lower(),
            version=version,
            selection=Selection(box, collection, listed),
            overwrite=overwrite,
        )
    if as_json:
        print_json({"database": str(database), "pack": str(out), "manifest": manifest.as_json()})
    else:
        show(
            f"{out}: {manifest.name} version {manifest.version}, {counted(manifest.images, 'image')} of "
            f"{counted(manifest.landmarks, 'landmark')}, {size_text(manifest.bytes)}"
        )
    return FOUND


@commands.command("publish")
def publish(
    channel: Annotated[
        Path, typer.Argument(metavar="CHANNEL", help="The channel's folder.", show_default=False, parser=path_of)
    ],
    keys: KeysOption,
    packs: Annotated[
        list[Path] | None, typer.Argument(metavar="PACK", help="Packs to publish.", show_default=False, parser=path_of)
    ] = None,
    new: Annotated[bool, typer.Option("--new", help="Make the channel and its keys.")] = False,
    rotate: Annotated[
        str | None,
        typer.Option(
            "--rotate",
            metavar="ROLE",
            help="Give a role a new key: root, targets, snapshot or timestamp.",
            show_default=False,
        ),
    ] = None,
    days: Annotated[
        int,
        typer.Option("--days", metavar="N", min=1, max=36_500, help="Days until devices refuse this state as stale."),
    ] = 90,
    as_json: JsonOption = False,
) -> int:
    """Sign packs and put them into a channel, with deltas from the versions before.

    A channel is a folder that any web server can serve. Without PACK the present state is signed again. Needs the
    extra: python -m pip install 'delf-edge[update]'.
    """
    with needs("update"):
        from delf_edge.updates.publisher import Channel, PublishOptions

    options = PublishOptions(days=days)
    opened = Channel.create(channel, keys, options) if new else Channel(channel, keys)
    if rotate is not None:
        opened.rotate(rotate, options)
    catalogue = opened.publish(packs or [], options) if packs or not (new or rotate) else opened.catalogue()
    facts = {
        name: {
            "version": entry["manifest"]["version"],
            "bytes": entry["manifest"]["bytes"],
            "deltas": [delta["bytes"] for delta in entry["deltas"]],
        }
        for name, entry in sorted(catalogue.items())
    }
    if as_json:
        print_json({"channel": str(channel), "packs": facts})
    else:
        for name, fact in facts.items():
            deltas = ", ".join(size_text(size) for size in fact["deltas"]) or "none"
            show(f"{name} version {fact['version']}: {size_text(fact['bytes'])}, deltas: {deltas}")
        if new:
            show(f"give {channel}/metadata/1.root.json to every device; keep {keys}/root.pem off line")
    return FOUND


@commands.command("update")
def update_command(
    source: Annotated[str, typer.Argument(metavar="CHANNEL", help="A folder or a URL.", show_default=False)],
    folder: Annotated[
        Path, typer.Argument(metavar="PACKS", help="Folder of this device's packs.", show_default=False, parser=path_of)
    ],
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME", help="Packs to have; default: those that are there, or all.", show_default=False
        ),
    ] = None,
    root: Annotated[
        Path | None,
        typer.Option(
            "--root",
            metavar="FILE",
            help="The channel's 1.root.json, needed the first time.",
            show_default=False,
            parser=path_of,
        ),
    ] = None,
    bundle: BundleOption = None,
    as_json: JsonOption = False,
) -> int:
    """Bring this device's packs to the state of a channel.

    Everything is verified, only what changed is fetched, and a new version is used once it has answered a self-test;
    until then, and if it fails, the one before stays in use. The exit code is 1 if a pack was refused. Needs the
    extra: python -m pip install 'delf-edge[update]'.
    """
    with needs("update"):
        from delf_edge.updates.client import update as update_packs
    from delf_edge.bundle.bundle import Bundle, default_bundle_path

    report = update_packs(source, folder, Bundle.load(bundle or default_bundle_path()), root=root, wanted=names or ())
    if as_json:
        print_json({"channel": source, **dataclasses.asdict(report)})
    for result in report.packs:
        if result.reason is not None:
            say(result.reason)
        if not as_json:
            fetched = f", fetched as {result.how}" if result.how else ""
            show(f"{result.name}: {result.status}, version {result.version}{fetched}")
    if not as_json:
        show(f"{size_text(report.bytes)} fetched")
    return FOUND if report.sound else UNKNOWN
