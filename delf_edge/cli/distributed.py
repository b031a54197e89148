"""The commands for many photos and other programs: build on a cluster, export, import."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from delf_edge.cli.common import (
    FOUND,
    UNKNOWN,
    BundleOption,
    Database,
    JsonOption,
    PresetOption,
    command,
    needs,
    print_json,
    say,
)

if TYPE_CHECKING:  # Dask is an extra, and slow to import
    from delf_edge.distributed.cluster import Progress

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
    typer.Option("--workers", metavar="N", min=1, help="Processes of the cluster on this machine.", show_default=False),
]
BaseOption = Annotated[
    str | None,
    typer.Option(
        "--base", metavar="URL", help="Where relative paths start; default: SOURCE's folder.", show_default=False
    ),
]


@command("build")
def build(
    source: Source,
    out: Annotated[str, typer.Argument(metavar="OUT", help="Folder of the result, a path or URL.", show_default=False)],
    scheduler: SchedulerOption = None,
    workers: WorkersOption = None,
    shard_size: Annotated[int, typer.Option("--shard-size", metavar="N", min=1, help="Photos in a shard.")] = 256,
    base: BaseOption = None,
    split: Annotated[
        str | None,
        typer.Option(
            "--split", metavar="COLUMN", help="One database for each value of this column.", show_default=False
        ),
    ] = None,
    bundle: BundleOption = None,
    preset: PresetOption = None,
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
    )
    started, moved = _progress(shard_size)
    report = run(source, out, options, on_start=started, on_progress=moved)
    if as_json:
        print_json({"source": source, "out": out, **dataclasses.asdict(report)})
    else:
        for made in report.databases:
            typer.echo(f"{made.url}: {made.images} images of {made.landmarks} landmarks, {made.bytes} bytes")
        typer.echo(f"{report.shards} shards made, {report.skipped} found finished, {report.bad} rows without an image")
    return UNKNOWN if report.bad else FOUND


@command("fit-codebook")
def fit_codebook(
    source: Source,
    out: Annotated[Path, typer.Argument(metavar="NEW_BUNDLE", help="Folder of the new bundle.", show_default=False)],
    scheduler: SchedulerOption = None,
    workers: WorkersOption = None,
    photos: Annotated[int, typer.Option("--photos", metavar="N", min=1, help="Photos of the sample at most.")] = 4000,
    per_landmark: Annotated[
        int, typer.Option("--per-landmark", metavar="N", min=1, help="Photos of one landmark at most.")
    ] = 60,
    words: Annotated[
        int | None, typer.Option("--words", min=1, help="Words; default: as many as the base.", show_default=False)
    ] = None,
    dim: Annotated[
        int | None,
        typer.Option("--dim", min=1, help="Dimension of a descriptor; default: the base's.", show_default=False),
    ] = None,
    code_size: Annotated[
        int | None,
        typer.Option("--code-size", min=1, help="Bytes of a code; default: the base's.", show_default=False),
    ] = None,
    global_dim: Annotated[
        int | None,
        typer.Option(
            "--global-dim", min=1, help="Dimension of the global descriptor; default: the base's.", show_default=False
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the sample and of the fit.")] = 1,
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
    )
    started, moved = _progress(options.shard_size)
    done = run(source, out, options, on_start=started, on_progress=moved, report=say)
    if as_json:
        print_json({"source": source, **dataclasses.asdict(done)})
    else:
        typer.echo(f"{done.folder}: bundle {done.bundle}, {done.photos} photos of {done.landmarks} landmarks")
        if done.calibration_of is not None:
            typer.echo(f"its probability is that of bundle {done.calibration_of}; fit it again before you rely on it")
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


@command("export")
def export(
    database: Database,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder for the files.", show_default=False)],
    descriptors: Annotated[
        bool, typer.Option("--descriptors", help="Also every feature's descriptor as float32, for other engines.")
    ] = False,
    bundle: BundleOption = None,
    as_json: JsonOption = False,
) -> int:
    """Write a database as Parquet and GeoJSON, for other programs.

    images.parquet has the metadata and codes of every image, landmarks.geojson the places with coordinates. Needs the
    extra: python -m pip install 'delf-edge[interchange]'.
    """
    with needs("interchange"):
        from delf_edge.interchange.parquet import export_database
    from delf_edge.bundle.bundle import Bundle, default_bundle_path
    from delf_edge.storage.store import Store

    with Store.open(database, mode="ro") as store:
        codebook = Bundle.load(bundle or default_bundle_path()) if descriptors else None
        written = export_database(store, out, decode_with=codebook)
    return _said(written, as_json, database=str(database))


@command("import")
def import_(
    database: Database,
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="Folder that export wrote.", show_default=False)],
    bundle: BundleOption = None,
    as_json: JsonOption = False,
) -> int:
    """Add the images of an export to a database.

    The database is made if it does not exist. The same photo again updates its name, landmark and metadata. Needs the
    extra: python -m pip install 'delf-edge[interchange]'.
    """
    with needs("interchange"):
        from delf_edge.interchange.parquet import import_database
    from delf_edge.bundle.bundle import Bundle, default_bundle_path
    from delf_edge.quantization.product_quantizer import CodeLayout
    from delf_edge.storage.store import Store

    loaded = Bundle.load(bundle or default_bundle_path())
    with Store.open(database, bundle_id=loaded.id, layout=CodeLayout.of(loaded.codebook)) as store:
        done = import_database(store, source)
    return _said(done, as_json, database=str(database))


def _said(facts: dict[str, Any], as_json: bool, **more: str) -> int:
    if as_json:
        print_json({**more, **facts})
    else:
        for key, value in facts.items():
            typer.echo(f"{key}: {value}")
    return FOUND
