"""A whole build: manifest, bundle and cluster in, databases and a report out."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from delf_edge.bundle.bundle import Bundle, default_bundle_path
from delf_edge.catalogue.columns import read_patches
from delf_edge.catalogue.editor import check_twice
from delf_edge.catalogue.records import LandmarkPatch
from delf_edge.distributed.cluster import Progress, check, connect_cluster, make_shards
from delf_edge.distributed.merging import Merged, merge_shards
from delf_edge.distributed.remote_files import names_in, put_file
from delf_edge.distributed.shards import BadRow
from delf_edge.errors import OptionError
from delf_edge.features.extractor import extract_options
from delf_edge.files import dump_json, resolved
from delf_edge.interchange.photo_tables import cut, located, read_rows


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """How a build is made.

    Attributes:
        bundle: folder of the bundle, the same path on every machine; None for the one of the package.
        preset: extraction preset; None for the bundle's own.
        shard_size: photos in a shard.
        base: where relative paths of the manifest start; None for its folder.
        split: column whose values get a database each; None for one database.
        scheduler: address of a Dask scheduler; None for a cluster on this machine.
        workers: processes of that cluster; None for one for each core.
        max_pixels: most pixels of a photo (`ImageLimits`); None for the default.
        catalogue: table of what is known of the landmarks, a path on this machine; each database takes the rows of the
            landmarks that its photos show. None for none.
    """

    bundle: str | None = None
    preset: str | None = None
    shard_size: int = 256
    base: str | None = None
    split: str | None = None
    scheduler: str | None = None
    workers: int | None = None
    max_pixels: int | None = None
    catalogue: str | None = None

    def __post_init__(self) -> None:
        if self.shard_size < 1 or (self.workers is not None and self.workers < 1):
            raise OptionError(f"{self}: shard_size and workers must be at least 1")


@dataclass(frozen=True, slots=True)
class BuildReport:
    """What a build has made.

    Attributes:
        databases: the files.
        shards, skipped: made in this run, and found finished.
        photos: rows of the manifest that were worked on in this run.
        bad: rows that gave no image, in all; they are listed in `bad.csv`.
        seconds: of the shards, in this run.
        careful: shards that were on too many dying workers, and so were made isolated, in a child process. (The name
            is that of the report's JSON.)
        catalogue_unused: rows of the catalogue whose landmark no photo of the manifest names.
        not_understood: columns of the catalogue that were passed over.
    """

    databases: tuple[Merged, ...]
    shards: int
    skipped: int
    photos: int
    bad: int
    seconds: float
    careful: tuple[int, ...]
    catalogue_unused: tuple[str, ...] = ()
    not_understood: tuple[str, ...] = ()


def build(
    source: str,
    out: str,
    options: BuildOptions | None = None,
    *,
    on_start: Callable[[str, int], None] | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> BuildReport:
    """Build databases from the photos of a manifest. Started again, it goes on where it was.

    Args:
        source: the manifest, a path or fsspec URL (`photo_tables.read_rows`).
        out: folder for the result, a path or fsspec URL that every worker can reach.
        options: see `BuildOptions`.
        on_start: called with the address of the dashboard and the number of photos.
        on_progress: called after every shard.

    Returns:
        What was made. Beside the databases `build.json` says the same, and `bad.csv` lists the rows without an image.

    Raises:
        OptionError: the manifest, the catalogue or an option makes no sense, or `out` has files of these names from
            somebody else.
        BuildError: shards could not be made; everything else is kept, start it again.
        BundleError: the bundle cannot be used.
    """
    options = options or BuildOptions()
    out = located(out)
    check_folder(out, located(source))
    folder = str(resolved(options.bundle)) if options.bundle else str(default_bundle_path())
    bundle = Bundle.load(folder)
    preset = options.preset or bundle.manifest.default_preset
    extract_options(bundle, preset)  # a wrong name is noticed here and not on the workers
    told, not_understood = _catalogue(options.catalogue)  # before the long part, for the same reason
    n_photos = sum(1 for _ in read_rows(source, options.base))
    if not n_photos:
        raise OptionError(f"{source}: no row below the header; write one row for each photo")
    with connect_cluster(options.scheduler, options.workers) as client:
        if on_start is not None:
            on_start(client.dashboard_link, n_photos)
        shards = cut(
            read_rows(source, options.base),
            options.shard_size,
            bundle=folder,
            bundle_id=bundle.id,
            preset=preset,
            out=f"{out}/shards",
            max_pixels=options.max_pixels,
        )
        names, progress = make_shards(client, shards, f"{out}/shards", on_progress)
    seconds = _elapsed(progress)
    check(progress, len(names))
    databases, bad, unused = merge_shards(out, names, split=options.split, catalogue=told)
    report = BuildReport(
        databases=tuple(databases),
        shards=progress.shards,
        skipped=progress.skipped,
        photos=progress.photos,
        bad=len(bad),
        seconds=seconds,
        careful=tuple(progress.isolated),
        catalogue_unused=tuple(unused),
        not_understood=tuple(not_understood),
    )
    put_bad(out, bad)
    facts = {"format": 1, "bundle_id": bundle.id, "preset": preset, **asdict(report)}
    put_file(dump_json(facts), f"{out}/build.json")
    return report


def _catalogue(table: str | None) -> tuple[list[LandmarkPatch], list[str]]:
    """What a table says of landmarks, and its columns that were not understood."""
    if table is None:
        return [], []
    path = Path(table)
    patches, not_understood = read_patches(path, database=path.resolve().parent)
    check_twice(patches)
    return patches, not_understood


def check_folder(out: str, source: str) -> None:
    """Make sure that a build replaces only what a build made.

    Raises:
        OptionError: `out` has a database, or a file of a build's names, but no shards; or the manifest would be lost.
    """
    made = ("build.json", "bad.csv")
    if source in {f"{out}/{name}" for name in made}:
        raise OptionError(f"{source}: would be replaced by the build's own; write to another folder")
    there = names_in(out)
    others = sorted(name for name in there if name in made or name.endswith(".db"))
    if others and "shards" not in there:
        raise OptionError(
            f"{out}: {others[0]} is there and no build made it; choose a folder that is absent or empty, or one of an "
            "earlier build"
        )


def put_bad(out: str, bad: Sequence[BadRow]) -> None:
    """Write `bad.csv`, the rows that gave nothing."""
    table = io.StringIO()
    writer = csv.DictWriter(table, ["row", "url", "error", "message"])
    writer.writeheader()
    writer.writerows(asdict(row) for row in bad)
    put_file(table.getvalue().encode(), f"{out}/bad.csv")


def _elapsed(progress: Progress) -> float:
    return round(progress.photos / progress.rate, 3) if progress.photos else 0.0
