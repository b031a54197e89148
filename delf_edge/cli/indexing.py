"""The command that adds photos."""

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
    JsonLinesOption,
    JsonOption,
    LimitOption,
    PresetOption,
    ThreadsOption,
    open_database,
    set_positions,
)
from delf_edge.cli.output import complaint, counted, print_json, print_json_line, progress, say, show
from delf_edge.errors import OptionError

commands = CommandGroup("Recognition")


@commands.command("index", resumes=True)
def index(
    database: Database,
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Photos; each subfolder is a landmark.", show_default=False)
    ],
    manifest: Annotated[
        Path | None,
        typer.Option(
            "--manifest",
            metavar="CSV",
            help="Table of photos with the columns path (below FOLDER) and landmark, optionally name, latitude and "
            "longitude (of the landmark, degrees); further columns become metadata.",
            show_default=False,
        ),
    ] = None,
    landmark: Annotated[
        str | None,
        typer.Option("--landmark", metavar="NAME", help="All photos below FOLDER show this one.", show_default=False),
    ] = None,
    thumbnails: Annotated[
        bool, typer.Option("--thumbnails", help="Keep a small JPEG of each photo, for showing it without its file.")
    ] = False,
    bundle: BundleOption = None,
    preset: PresetOption = None,
    threads: ThreadsOption = 1,
    max_megapixels: LimitOption = None,
    as_json: JsonOption = False,
    as_lines: JsonLinesOption = False,
) -> int:
    """Add the photos of a folder.

    The database is made if it does not exist. What is already in is skipped, so an interrupted run goes on where it
    stopped. A photo that cannot be read is one line on stderr; the exit code is then 1.
    """
    from delf_edge.interchange.photo_lists import list_folder, read_manifest
    from delf_edge.recognizer import AddError, AddItem

    if manifest is not None and landmark is not None:
        raise OptionError("--manifest and --landmark both say what the photos show; give one of them")
    unlabelled: list[str] = []
    if manifest is not None:
        photos = read_manifest(manifest, folder)
    else:
        photos, unlabelled = list_folder(folder, landmark)
    counts = {"added": 0, "unchanged": 0, "updated": 0, "replaced": 0}
    failed = [{"name": name, "error": "lies in no subfolder, so its landmark is not known"} for name in unlabelled]
    for failure in failed:
        say(f"{failure['name']}: {failure['error']}")
        if as_lines:
            print_json_line(failure)
    items = (
        AddItem(p.path, p.landmark, p.name, {**p.metadata, "path": str(p.path.resolve())}, thumbnail=thumbnails)
        for p in photos
    )
    with open_database(database, bundle, preset, threads, read_only=False, max_megapixels=max_megapixels) as recognizer:
        with progress("indexing", len(photos)) as step:
            for result in recognizer.add_many(items, on_error="collect"):
                if isinstance(result, AddError):
                    failed.append({"name": result.name, "error": str(result.error)})
                    step(complaint(result.name, result.error))
                else:
                    counts[result.status] += 1
                    step()
                if as_lines:
                    print_json_line(failed[-1] if isinstance(result, AddError) else dataclasses.asdict(result))
        set_positions(recognizer.store, {p.landmark: p.position for p in photos if p.position is not None})
        info = recognizer.info()
    if as_json or as_lines:
        totals = {"images": info.n_images, "landmarks": info.n_landmarks, "bytes": info.bytes}
        report = {"database": str(database), **counts, "failed": failed, **totals}
        (print_json if as_json else print_json_line)(report)
    else:
        done = ", ".join(f"{n} {what}" for what, n in {**counts, "failed": len(failed)}.items())
        show(f"{done}; {database} holds {counted(info.n_images, 'image')} of {counted(info.n_landmarks, 'landmark')}")
    return UNKNOWN if failed else FOUND
