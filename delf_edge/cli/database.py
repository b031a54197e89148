"""The commands for what is stored: look, correct, remove, check, copy, seal."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from delf_edge.cli.common import FOUND, UNKNOWN, CommandGroup, Database, JsonOption, naming, parse_numbers, path_of
from delf_edge.cli.output import counted, print_json, say, show, size_text
from delf_edge.errors import OptionError

commands = CommandGroup()


@commands.command("info")
def info_command(database: Database, as_json: JsonOption = False) -> int:
    """Say what is in a database."""
    from delf_edge.storage.store import Store

    with Store.open(database, mode="ro") as store:
        facts = dataclasses.asdict(store.info())
        facts["read_only"] = store.sealed or not _writable(database)
        landmarks = {landmark.name: landmark.n_images for landmark in store.landmarks()}
        damaged = list(store.damaged.values())
    if as_json:
        print_json({**facts, "landmarks": landmarks, "damaged": damaged})
        return FOUND
    for line in _info_lines(facts):
        show(line)
    for name, count in landmarks.items():
        show(f"  {count:6d}  {name}")
    for what in damaged:
        say(what)
    return FOUND


def _writable(database: Path) -> bool:
    """Whether this user may change a database: the file, and its log beside it."""
    return os.access(database, os.W_OK) and os.access(database.parent, os.W_OK)


def _info_lines(facts: dict[str, Any]) -> Iterator[str]:
    layout = facts["layout"]
    yield f"path: {facts['path']}"
    yield f"uuid: {facts['uuid']}"
    yield f"schema version: {facts['schema_version']}"
    yield f"bundle: {facts['bundle_id']}"
    yield (
        f"codes: {counted(layout['code_size'], 'byte')} a feature, {counted(layout['n_words'], 'word')}, global "
        f"descriptor of {counted(layout['global_dim'], 'dimension')}"
    )
    yield f"revision: {facts['revision']}"
    for what in ("image", "landmark", "feature"):
        yield f"{what}s: {facts[f'n_{what}s']}"
    yield f"size: {size_text(facts['bytes'])}"
    yield f"sealed: {'yes' if facts['sealed'] else 'no'}"
    yield f"read-only for you: {'yes' if facts['read_only'] else 'no'}"


@commands.command("remove")
def remove_command(
    database: Database,
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME", help="Images to remove.", show_default=False)
    ] = None,
    landmark: Annotated[
        str | None,
        typer.Option("--landmark", metavar="NAME", help="Remove all images of this landmark.", show_default=False),
    ] = None,
    as_json: JsonOption = False,
) -> int:
    """Remove images, or a landmark with its images and coordinates.

    It takes effect at once, also for programs that have the database open.
    """
    from delf_edge.storage.store import Store

    if bool(names) == (landmark is not None):
        raise OptionError("name the images to remove, or a landmark with --landmark; one of the two")
    with Store.open(database) as store:
        wanted = list(names or [])
        if landmark is None:
            store.remove(*wanted)
        else:
            wanted = [image.name for image in store.images_by_id(store.image_ids(landmark))]
            store.remove_landmark(landmark)
    if as_json:
        print_json({"database": str(database), "removed": wanted})
    else:
        show(f"removed {counted(len(wanted), 'image')}")
    return FOUND


@commands.command("relabel")
def relabel(
    database: Database,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the image.", show_default=False)],
    landmark: Annotated[str, typer.Argument(metavar="LANDMARK", help="The landmark it shows.", show_default=False)],
    as_json: JsonOption = False,
) -> int:
    """Say that an image shows another landmark."""
    from delf_edge.storage.store import Store

    with Store.open(database) as store:
        store.relabel(name, landmark)
    if as_json:
        print_json({"database": str(database), "name": name, "landmark": landmark})
    else:
        show(f"{name} shows {landmark}")
    return FOUND


@commands.command("rename")
def rename_command(
    database: Database,
    landmark: Annotated[str, typer.Argument(metavar="LANDMARK", help="The landmark.", show_default=False)],
    name: Annotated[str, typer.Argument(metavar="NAME", help="Its new name.", show_default=False)],
    merge: Annotated[
        bool, typer.Option("--merge", help="If another landmark is called so, give it the images.")
    ] = False,
    as_json: JsonOption = False,
) -> int:
    """Give a landmark another name, or merge it with another one.

    `index` then knows its folder by the old name too, and leaves the new one.
    """
    from delf_edge.storage.store import Store

    with Store.open(database) as store:
        store.rename_landmark(landmark, name, merge=merge)
        n_images = store.landmark(name).n_images
    if as_json:
        print_json({"database": str(database), "landmark": landmark, "name": name, "images": n_images})
    else:
        show(f"{landmark} is {name} now, with {counted(n_images, 'image')}")
    return FOUND


@commands.command("locate")
def locate(
    database: Database,
    landmark: Annotated[str, typer.Argument(metavar="LANDMARK", help="The landmark.", show_default=False)],
    at: Annotated[
        str | None,
        typer.Option("--at", metavar="LAT,LON", help="Degrees, south and west negative.", show_default=False),
    ] = None,
    clear: Annotated[bool, typer.Option("--clear", help="Take its coordinates away.")] = False,
    as_json: JsonOption = False,
) -> int:
    """Say where a landmark is.

    A camera that knows its own position then takes only the landmarks around it for candidates: `identify --near`.
    """
    from delf_edge.errors import NotFoundError
    from delf_edge.storage.store import Store

    if (at is None) != clear:
        raise OptionError("give --at, where the landmark is, or --clear, to take its coordinates away; one of the two")
    latitude, longitude = None, None
    if at is not None:
        latitude, longitude = parse_numbers(at, 2, f"--at {at}: give latitude,longitude in degrees")
    with Store.open(database) as store:
        try:
            with naming("--at", at or ""):
                store.locate(landmark, latitude, longitude)
        except NotFoundError as e:
            raise OptionError(f"{e}; see `delf-edge info`") from e
    if as_json:
        print_json({"database": str(database), "landmark": landmark, "latitude": latitude, "longitude": longitude})
    elif at is None:
        show(f"{landmark} has no coordinates now")
    else:
        show(f"{landmark} is at latitude {latitude:g}, longitude {longitude:g}")
    return FOUND


@commands.command("missing")
def missing(database: Database, as_json: JsonOption = False) -> int:
    """List stored images whose photo file is gone.

    They are recognised as before. `index --prune` removes those below its folder. The exit code is 1 if there are any.
    """
    from delf_edge.indexing import gone_photos
    from delf_edge.storage.store import Store

    with Store.open(database, mode="ro") as store:
        gone = [(image.name, image.landmark, image.metadata["path"]) for image in gone_photos(store)]
        n_images = len(store)
    if as_json:
        rows = [{"name": name, "landmark": landmark, "path": path} for name, landmark, path in gone]
        print_json({"database": str(database), "images": n_images, "missing": rows})
    else:
        for name, landmark, path in gone:
            show(f"{name} ({landmark}): {path}")
        show(f"{len(gone)} of {counted(n_images, 'image')} without their file")
    return UNKNOWN if gone else FOUND


@commands.command("verify")
def verify_command(database: Database, as_json: JsonOption = False) -> int:
    """Check every page and every checksum.

    The exit code is 1 if something is damaged.
    """
    from delf_edge.storage.store import Store

    with Store.open(database, mode="ro") as store:
        n_images = len(store)
        problems = store.verify()
    if as_json:
        found = [dataclasses.asdict(problem) for problem in problems]
        print_json({"database": str(database), "images": n_images, "problems": found})
    else:
        for problem in problems:
            show(f"{problem.table}: {problem.name}: {problem.what}")
        show(f"{counted(n_images, 'image')} checked, {counted(len(problems), 'problem')}")
    return UNKNOWN if problems else FOUND


@commands.command("snapshot")
def snapshot_command(
    database: Database,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The copy.", show_default=False, parser=path_of)],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")] = False,
    as_json: JsonOption = False,
) -> int:
    """Copy a database while it is in use."""
    from delf_edge.storage.store import Store

    with Store.open(database, mode="ro") as store:
        n_images = len(store)
        store.snapshot(out, overwrite=overwrite)
    size = out.stat().st_size
    if as_json:
        print_json({"database": str(database), "snapshot": str(out), "images": n_images, "bytes": size})
    else:
        show(f"{out}: {counted(n_images, 'image')}, {size_text(size)}")
    return FOUND


@commands.command("seal")
def seal_command(
    database: Database,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="FILE",
            help="Seal a copy of this name and leave DB as it is.",
            show_default=False,
            parser=path_of,
        ),
    ] = None,
    as_json: JsonOption = False,
) -> int:
    """Make one compact read-only file.

    It can be read from read-only media, which a database in use cannot.
    """
    from delf_edge.storage.store import Store

    target = database if out is None else out
    if out is not None:
        with Store.open(database, mode="ro") as store:
            store.snapshot(out)
    with Store.open(target) as store:
        store.seal()
    size = target.stat().st_size
    if as_json:
        print_json({"database": str(database), "sealed": str(target), "bytes": size})
    else:
        show(f"{target}: sealed, {size_text(size)}")
    return FOUND
