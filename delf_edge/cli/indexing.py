"""The command that adds photos."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
    path_of,
)
from delf_edge.cli.output import complaint, counted, print_json, print_json_line, progress, say, show
from delf_edge.errors import OptionError

if TYPE_CHECKING:
    from delf_edge.interchange.photo_lists import FolderListing

commands = CommandGroup()
# Pictures of kinds that are not read; other files are counted only.
_PICTURES = frozenset(
    f".{kind}"
    for kind in (
        *("arw", "cr2", "cr3", "dng", "eps", "gif", "ico", "j2k", "jp2", "jxl", "nef", "nrw", "orf", "pef"),
        *("pgm", "pnm", "ppm", "psd", "raf", "raw", "rw2", "sr2", "srw", "svg", "tga"),
    )
)


@commands.command("index", resumes=True)
def index(
    database: Database,
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER", help="Photos; each subfolder is a landmark.", show_default=False, parser=path_of
        ),
    ],
    manifest: Annotated[
        Path | None,
        typer.Option(
            "--manifest",
            metavar="CSV",
            help="Table of photos with the columns path (below FOLDER) and landmark, optionally name, latitude and "
            "longitude (of the landmark, degrees); further columns become metadata.",
            show_default=False,
            parser=path_of,
        ),
    ] = None,
    landmark: Annotated[
        str | None,
        typer.Option("--landmark", metavar="NAME", help="All photos below FOLDER show this one.", show_default=False),
    ] = None,
    level: Annotated[
        int,
        typer.Option(
            "--level",
            metavar="N",
            help="Which folder names the landmark: 1 those in FOLDER, 2 those in these, ...; -1 the one that a photo "
            "lies in.",
        ),
    ] = 1,
    exclude: Annotated[
        list[str] | None,
        typer.Option(
            "--exclude",
            metavar="GLOB",
            help="Leave out files and folders whose name or path below FOLDER matches; may be repeated.",
            show_default=False,
        ),
    ] = None,
    thumbnails: Annotated[
        bool, typer.Option("--thumbnails", help="Keep a small JPEG of each photo, for showing it without its file.")
    ] = False,
    prune: Annotated[
        bool, typer.Option("--prune", help="Then remove images whose file below FOLDER is gone from the database.")
    ] = False,
    skip_removed: Annotated[
        bool, typer.Option("--skip-removed", help="Leave out photos that were removed from the database before.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would become what, and change nothing.")
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
    stopped. What `relabel`, `rename` and `locate` have corrected stays. A photo that cannot be indexed is one line on
    stderr; the exit code is then 1.
    """
    from delf_edge.indexing import Indexer, LeftOut, gone_photos
    from delf_edge.ingestion import AddError
    from delf_edge.interchange.photo_lists import FolderListing, read_manifest, walk_folder
    from delf_edge.storage.names import clean_name

    if manifest is not None and landmark is not None:
        raise OptionError("--manifest and --landmark both say what the photos show; give one of them")
    if landmark is not None:
        landmark = clean_name(landmark, "--landmark")
    if manifest is not None:
        listing = FolderListing(read_manifest(manifest, folder), [], {}, {}, [], {})
    else:
        listing = walk_folder(folder, landmark, level=level, exclude=exclude or ())
    failed = [{"name": n, "error": "lies in no subfolder, so its landmark is not known"} for n in listing.unlabelled]
    failed += [{"name": n, "error": f"folder cannot be read ({why})"} for n, why in listing.unreadable.items()]
    for failure in failed:
        say(f"{failure['name']}: {failure['error']}")
        if as_lines:
            print_json_line(failure)
    warnings = [
        f"{name}: the folders {' and '.join(sources)} are one landmark"
        for name, sources in listing.sources.items()
        if len(sources) > 1
    ]
    columns = sorted({name for entry in listing.photos for name in entry.metadata})
    if columns:
        warnings.append(f"columns that are kept as metadata: {', '.join(columns)}")
    for warning in [*warnings, *_passed_over(listing)]:
        say(warning)
    if dry_run:
        return _dry_run(database, folder, listing, failed, warnings, prune=prune, as_json=as_json or as_lines)
    counts = {"added": 0, "unchanged": 0, "updated": 0, "replaced": 0}
    kept, removed, skipped, again = 0, [], [], []
    with open_database(database, bundle, preset, threads, read_only=False, max_megapixels=max_megapixels) as recognizer:
        indexer = Indexer(recognizer, thumbnails=thumbnails, stated=manifest is not None, skip_removed=skip_removed)
        with progress("indexing", len(listing.photos)) as step:
            for result in indexer.add(listing.photos):
                if isinstance(result, AddError):
                    failed.append({"name": result.name, "error": str(result.error)})
                    step(complaint(result.name, result.error))
                    line: dict[str, Any] = failed[-1]
                elif isinstance(result, LeftOut):
                    skipped.append(result.name)
                    step(None)
                    line = {"name": result.name, "status": "skipped"}
                else:
                    counts[result.added.status] += 1
                    kept += result.kept
                    again += [result.added.name] if result.again else []
                    warnings += [] if result.warning is None else [result.warning]
                    step(result.warning)
                    line = dataclasses.asdict(result.added) | {"warning": result.warning}
                if as_lines:
                    print_json_line(line)
        told = indexer.locate(listing.photos)
        told += [f"{name}: has no photo now, `remove --landmark` removes it" for name in indexer.finish()]
        if kept:
            told.append(f"{counted(kept, 'image')}: the landmark that `relabel` gave stays")
        if again:
            told.append(f"removed before, and added again: {_some(again)}; --skip-removed leaves out what was removed")
        if skipped:
            told.append(f"left out, since removed before: {_some(skipped)}")
        for warning in told:
            say(warning)
        if prune:
            removed = [image.name for image in gone_photos(recognizer.store, folder)]
            recognizer.store.remove(*removed, remember=False)
        info = recognizer.info()
    if as_json or as_lines:
        facts: dict[str, Any] = {"database": str(database), **counts, "failed": failed}
        facts |= {"images": info.n_images, "landmarks": info.n_landmarks, "bytes": info.bytes}
        facts |= {"warnings": warnings + told, "kept": kept, "pruned": removed}
        facts |= {"added_again": again, "skipped_removed": skipped}
        facts |= {"passed_over": listing.passed_over, "excluded": listing.excluded}
        (print_json if as_json else print_json_line)(facts)
    else:
        all_counts = {**counts, "failed": len(failed)} | ({"pruned": len(removed)} if prune else {})
        all_counts |= {"left out": len(skipped)} if skip_removed else {}
        done = ", ".join(f"{n} {what}" for what, n in all_counts.items())
        show(f"{done}; {database} holds {counted(info.n_images, 'image')} of {counted(info.n_landmarks, 'landmark')}")
        if listing.passed_over:
            show(f"passed over: {', '.join(_by_suffix(listing.passed_over))}")
    return UNKNOWN if failed else FOUND


def _some(names: list[str]) -> str:
    """Names for a message, a few of them by name."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def _passed_over(listing: FolderListing) -> list[str]:
    """What a person should know of the files that were passed over."""
    told = []
    pictures = {suffix: n for suffix, n in sorted(listing.passed_over.items()) if suffix in _PICTURES}
    if pictures:
        counts = ", ".join(_by_suffix(pictures))
        told.append(f"pictures of kinds that are not read: {counts}; save them as JPEG or PNG to index them")
    if listing.excluded:
        told.append(f"left out: {', '.join(listing.excluded)}")
    return told


def _by_suffix(files: Mapping[str, int]) -> list[str]:
    return [f"{n} {suffix or 'without suffix'}" for suffix, n in sorted(files.items())]


def _dry_run(
    database: Path,
    folder: Path,
    listing: FolderListing,
    failed: list[dict[str, str]],
    warnings: list[str],
    *,
    prune: bool,
    as_json: bool,
) -> int:
    """Show what `index` would do."""
    from delf_edge.indexing import gone_photos
    from delf_edge.storage.store import Store

    for entry in listing.photos:
        if not entry.path.is_file():
            failed.append({"name": entry.name, "error": f"{entry.path} is no file"})
            say(f"{entry.name}: {entry.path} is no file")
    removed: list[str] = []
    if prune and database.exists():
        with Store.open(database, mode="ro") as store:
            removed = [image.name for image in gone_photos(store, folder)]
    landmarks = Counter(entry.landmark for entry in listing.photos)
    if as_json:
        photos = [{"path": entry.url, "name": entry.name, "landmark": entry.landmark} for entry in listing.photos]
        facts = {"database": str(database), "dry_run": True, "landmarks": dict(landmarks), "photos": photos}
        facts |= {"failed": failed, "warnings": warnings, "pruned": removed}
        print_json(facts | {"passed_over": listing.passed_over, "excluded": listing.excluded})
    else:
        for name, n in sorted(landmarks.items()):
            show(f"  {n:6d}  {name}")
        for name in removed:
            show(f"would be removed: {name}")
        found = f"{counted(len(listing.photos), 'photo')} of {counted(len(landmarks), 'landmark')}"
        show(f"{found}; nothing was changed")
    return UNKNOWN if failed else FOUND
