"""The commands for millions of photos: build databases, fit a codebook, on one machine or many."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from delf_edge.cli.common import (
    FOUND,
    UNKNOWN,
    BundleOption,
    CommandGroup,
    JsonOption,
    LimitOption,
    PresetOption,
    needs,
    path_of,
)
from delf_edge.cli.output import counted, print_json, say, show, size_text

if TYPE_CHECKING:  # Dask is an extra, and slow to import
    from delf_edge.distributed.cluster import Progress

commands = CommandGroup()

Source = Annotated[
    str, typer.Argument(metavar="SOURCE", help="CSV or Parquet table of photos, a path or URL.", show_default=False)
]
SchedulerOption = Annotated[
    str | None,
    typer.Option(
        "--scheduler",
        metavar="ADDRESS",
        help="A Dask scheduler, such as tcp://10.0.0.1:8786; default: a cluster on this machine.",
        show_default=False,
    ),
]
WorkersOption = Annotated[
    int | None,
    typer.Option(
        "--workers", metavar="N", min=1, max=256, help="Processes of the cluster on this machine.", show_default=False
    ),
]
BaseOption = Annotated[
    str | None,
    typer.Option(
        "--base", metavar="URL", help="Where relative paths start; default: SOURCE's folder.", show_default=False
    ),
]


@commands.command("build", resumes=True)
def build_command(
    source: Source,
    out: Annotated[str, typer.Argument(metavar="OUT", help="Folder of the result, a path or URL.", show_default=False)],
    scheduler: SchedulerOption = None,
    workers: WorkersOption = None,
    shard_size: Annotated[
        int, typer.Option("--shard-size", metavar="N", min=1, max=100_000, help="Photos in a shard.")
    ] = 256,
    base: BaseOption = None,
    split: Annotated[
        str | None,
        typer.Option(
            "--split", metavar="COLUMN", help="One database for each value of this column.", show_default=False
        ),
    ] = None,
    catalogue: Annotated[
        str | None,
        typer.Option(
            "--catalogue",
            metavar="FILE",
            help="Table of what is known of the landmarks, as `catalogue import` reads it.",
            show_default=False,
        ),
    ] = None,
    bundle: BundleOption = None,
    preset: PresetOption = None,
    max_megapixels: LimitOption = None,
    as_json: JsonOption = False,
) -> int:
    """Build databases from millions of photos, on one machine or many.

    Columns: path and landmark; optionally name, latitude, longitude; further ones become metadata. Interrupted or
    failed, the same command goes on from there. The result does not depend on the number of workers. A photo that
    cannot be used is a row of bad.csv; the exit code is then 1. Needs the extra: python -m pip install
    'delf-edge[build]'.
    """
    with needs("build"):
        from delf_edge.distributed.build import BuildOptions
        from delf_edge.distributed.build import build as run

    options = BuildOptions(
        bundle=None if bundle is None else str(bundle),
        preset=preset,
        shard_size=shard_size,
        base=base,
        split=split,
        scheduler=scheduler,
        workers=workers,
        max_pixels=None if max_megapixels is None else max_megapixels * 1_000_000,
        catalogue=catalogue,
    )
    started, moved = _progress(shard_size)
    report = run(source, out, options, on_start=started, on_progress=moved)
    if as_json:
        print_json({"source": source, "out": out, **dataclasses.asdict(report)})
    else:
        for made in report.databases:
            images = f"{counted(made.images, 'image')} of {counted(made.landmarks, 'landmark')}"
            show(f"{made.url}: {images}, {size_text(made.bytes)}")
        shards = f"{counted(report.shards, 'shard')} made, {report.skipped} found finished"
        show(f"{shards}, {counted(report.bad, 'row')} without an image")
        for column in report.not_understood:
            show(f"not understood: {column}")
        for row in report.catalogue_unused:
            show(f"{row}: no photo shows this landmark; it is in no database")
    return UNKNOWN if report.bad else FOUND


@commands.command("fit-codebook", resumes=True)
def fit_codebook_command(
    source: Source,
    out: Annotated[
        Path, typer.Argument(metavar="NEW_BUNDLE", help="Folder of the new bundle.", show_default=False, parser=path_of)
    ],
    scheduler: SchedulerOption = None,
    workers: WorkersOption = None,
    photos: Annotated[
        int, typer.Option("--photos", metavar="N", min=1, max=10_000_000, help="Photos of the sample at most.")
    ] = 4000,
    per_landmark: Annotated[
        int, typer.Option("--per-landmark", metavar="N", min=1, max=1_000_000, help="Photos of one landmark at most.")
    ] = 60,
    words: Annotated[
        int | None,
        typer.Option("--words", min=1, max=1_048_576, help="Words; default: as many as the base.", show_default=False),
    ] = None,
    dim: Annotated[
        int | None,
        typer.Option(
            "--dim", min=1, max=4096, help="Dimension of a descriptor; default: the base's.", show_default=False
        ),
    ] = None,
    code_size: Annotated[
        int | None,
        typer.Option("--code-size", min=1, max=1024, help="Bytes of a code; default: the base's.", show_default=False),
    ] = None,
    global_dim: Annotated[
        int | None,
        typer.Option(
            "--global-dim",
            min=1,
            max=4096,
            help="Dimension of the global descriptor; default: the base's.",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, max=2**63 - 1, help="Seed of the sample and of the fit.")] = 1,
    name: Annotated[
        str | None,
        typer.Option("--name", help="Name of the new bundle; default: the base's, and a note.", show_default=False),
    ] = None,
    probability: Annotated[
        Path | None,
        typer.Option(
            "--probability",
            metavar="FILE",
            help="Weights that `benchmarks.calibrate` fitted with this codebook; default: the base's, with a note.",
            show_default=False,
            parser=path_of,
        ),
    ] = None,
    base: BaseOption = None,
    work: Annotated[
        str | None,
        typer.Option(
            "--work",
            metavar="URL",
            help="Folder for raw features, for all workers; default: NEW_BUNDLE-work.",
            show_default=False,
        ),
    ] = None,
    bundle: BundleOption = None,
    max_megapixels: LimitOption = None,
    as_json: JsonOption = False,
) -> int:
    """Fit PCA, words and codes to a sample of your photos, and put them into a bundle of your own.

    Networks and presets are those of --bundle. The sample and the result do not depend on the number of workers.
    Interrupted, the same command goes on from there. The weights of the probability were fitted for another codebook:
    the new bundle says so until --probability gives new ones. Needs the extra: python -m pip install
    'delf-edge[build]'.
    """
    with needs("build"):
        from delf_edge.distributed.codebook import FitOptions
        from delf_edge.distributed.codebook import fit_codebook as run

    options = FitOptions(
        bundle=None if bundle is None else str(bundle),
        photos=photos,
        per_landmark=per_landmark,
        words=words,
        dim=dim,
        code_size=code_size,
        global_dim=global_dim,
        seed=seed,
        name=name,
        probability=None if probability is None else str(probability),
        base=base,
        work=work,
        scheduler=scheduler,
        workers=workers,
        max_pixels=None if max_megapixels is None else max_megapixels * 1_000_000,
    )
    started, moved = _progress(options.shard_size)
    done = run(source, out, options, on_start=started, on_progress=moved, report=say)
    if as_json:
        print_json({"source": source, **dataclasses.asdict(done)})
    else:
        photos_used = f"{counted(done.photos, 'photo')} of {counted(done.landmarks, 'landmark')}"
        show(f"{done.folder}: bundle {done.bundle}, {photos_used}")
        if done.calibration_of is not None:
            show(f"its probability is that of bundle {done.calibration_of}; fit it again before you rely on it")
    return UNKNOWN if done.bad else FOUND


def _progress(shard_size: int) -> tuple[Callable[[str, int], None], Callable[[Progress], None]]:
    """What says on stderr that the work has begun, and how far it is."""
    total = 0

    def started(dashboard: str, n_photos: int) -> None:
        nonlocal total
        total = n_photos
        say(f"{n_photos} photos; Dask's dashboard (needs bokeh): {dashboard}")

    def moved(progress: Progress) -> None:
        left = progress.eta(max(0, total - progress.photos - progress.skipped * shard_size))
        eta = "" if left is None else f", about {left:.0f} s left"
        say(
            f"{progress.shards + progress.skipped} shards, {progress.photos} photos, {progress.bad} bad, "
            f"{progress.rate:.1f} photos/s{eta}"
        )

    return started, moved
