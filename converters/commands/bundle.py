"""`delf-edge-convert bundle` and `import`: whole bundles, of networks of our own and of official ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from delf_edge.codebooks.fit import CodebookOptions
from delf_edge.converters import cli_options


def bundle(
    out: Annotated[
        Path, typer.Argument(help="The bundle's folder: absent, empty, or an old bundle, which the new one replaces.")
    ],
    photos: cli_options.Photos,
    root: cli_options.Root = None,
    per_place: cli_options.PerPlace = 40,
    checkpoint: cli_options.Checkpoint = None,
    backbone: cli_options.Backbone = "efficientnet-lite0",
    variants: cli_options.Variants = "float16,int8",
    tails: cli_options.Tails = "dynamic_range",
    selection: cli_options.Selection = None,
    calibration: cli_options.CalibrationPhotos = 200,
    dim: cli_options.Dim = cli_options.DEFAULT.dim,
    projection: cli_options.Projection = cli_options.DEFAULT.projection,
    whiten: cli_options.Whiten = cli_options.DEFAULT.whiten,
    words: cli_options.Words = cli_options.DEFAULT.n_words,
    code_size: cli_options.CodeSize = cli_options.DEFAULT.code_size,
    opq: cli_options.Opq = cli_options.DEFAULT.opq,
    global_dim: cli_options.GlobalDim = cli_options.DEFAULT.global_dim,
    global_whiten: cli_options.GlobalWhiten = cli_options.DEFAULT.global_whiten,
    storage: cli_options.Storage = cli_options.DEFAULT.centroid_storage,
    seed: cli_options.Seed = cli_options.DEFAULT.seed,
    name: Annotated[str, typer.Option(help="Name of the bundle.")] = "delf-edge default",
    version: Annotated[str, typer.Option(help="Version of the bundle.")] = "0.1.0",
    licence: cli_options.Licence = "Apache-2.0",
    data: Annotated[list[str] | None, typer.Option(help="A line on training data for the card. Repeatable.")] = None,
    presets: Annotated[Path | None, typer.Option(help="JSON file of presets: name -> extraction options.")] = None,
    default_preset: Annotated[str, typer.Option(help="Preset used when none is named, and for the fit.")] = "balanced",
    global_scale: Annotated[float, typer.Option(help="Pyramid scale whose map the global descriptor pools.")] = 0.5,
    gem_p: Annotated[float, typer.Option(help="Exponent of the GeM pooling.")] = 3.0,
    probability: Annotated[
        Path | None,
        typer.Option(help="JSON of the weights of probability and fusion; benchmarks.calibrate prints it."),
    ] = None,
    workers: cli_options.Workers = 2,
    work: cli_options.Work = cli_options.WORK,
) -> None:
    """Make a bundle: export, quantise, fit codebooks on photos, write golden vectors and the model card, pack."""
    source = cli_options.PhotoOptions(photos, root, per_place)
    network = cli_options.NetworkOptions(checkpoint, backbone)
    form = cli_options.ExportOptions(variants, tails, selection, calibration)
    fit = CodebookOptions(
        dim=dim,
        projection=projection,
        whiten=whiten,
        n_words=words,
        code_size=code_size,
        opq=opq,
        global_dim=global_dim,
        global_whiten=global_whiten,
        centroid_storage=storage,
        seed=seed,
    )
    from delf_edge.codebooks import bundle_writer

    given = (*source.photos, *(path for path in (network.checkpoint, presets, probability) if path is not None))
    bundle_writer.check_target(out, given)
    from delf_edge.converters.export import pipeline, recipes
    from delf_edge.converters.export.tflite import receptive_field

    loaded = network.load()
    local, tail = cli_options.names(form.variants), cli_options.names(form.tails)
    trained = f"trained: {network.checkpoint.name}" if network.checkpoint else "untrained"
    recipe = recipes.Recipe(
        name=name,
        version=version,
        licence=licence,
        training_data=[f"{loaded.spec.name}, ImageNet weights, {trained}", *(data or [])],
        receptive_field=receptive_field(loaded.spec),
        channels=loaded.channels,
        tail_channels=loaded.spec.head if tail else loaded.channels,
        selection=form.chosen(network.checkpoint),
        default_variant=local[0],
        default_tail=(tail or ("none",))[0],
        gem_p=gem_p,
        level_scale=global_scale,
        presets=json.loads(presets.read_text(encoding="utf-8")) if presets else recipes.PRESETS,
        default_preset=default_preset,
        calibration=bundle_writer.read_calibration(probability) if probability else {},
    )
    exported = pipeline.ExportOptions(
        variants=local,
        tails=tail,
        calibration_photos=form.calibration,
        level_scale=global_scale,
        selection=recipe.selection,
    )
    made = pipeline.build(
        out,
        loaded,
        source.read(),
        recipe,
        exported,
        fit,
        work,
        cli_options.command(),
        cli_options.say,
        per_place=source.per_place,
        workers=workers,
    )
    size = sum(p.stat().st_size for p in out.iterdir())
    cli_options.print_json({"bundle": made.id, "folder": str(out), "bytes": size})


def import_model(
    source: Annotated[
        Path, typer.Argument(help="SavedModel of DELF v1 or DELG; or a .datum, .delf, .npy or .npz file.")
    ],
    out: Annotated[
        Path,
        typer.Argument(help="Bundle to write; of a .datum an .npy file, of a .delf an .npz file, or the other way."),
    ],
    photos: cli_options.Photos = [],  # noqa: B006 - Typer copies it
    root: cli_options.Root = None,
    per_place: cli_options.PerPlace = 40,
    dim: cli_options.Dim = 40,
    projection: cli_options.Projection = cli_options.DEFAULT.projection,
    whiten: cli_options.Whiten = cli_options.DEFAULT.whiten,
    words: cli_options.Words = cli_options.DEFAULT.n_words,
    code_size: cli_options.CodeSize = 10,
    opq: cli_options.Opq = cli_options.DEFAULT.opq,
    global_dim: cli_options.GlobalDim = cli_options.DEFAULT.global_dim,
    global_whiten: cli_options.GlobalWhiten = cli_options.DEFAULT.global_whiten,
    storage: cli_options.Storage = cli_options.DEFAULT.centroid_storage,
    seed: cli_options.Seed = cli_options.DEFAULT.seed,
    pca_mean: Annotated[Path | None, typer.Option(help="mean.datum of the release.")] = None,
    pca_matrix: Annotated[Path | None, typer.Option(help="pca_proj_mat.datum of the release.")] = None,
    stride: Annotated[int, typer.Option(help="Stride of a DELG model: 32, or 16 if exported without strides.")] = 32,
    licence: cli_options.Licence = "see the source of the weights",
    variants: cli_options.Variants = "float16,int8",
    calibration: cli_options.CalibrationPhotos = 200,
    workers: cli_options.Workers = 2,
    work: cli_options.Work = cli_options.WORK,
) -> None:
    """Import official files: a SavedModel becomes a bundle, a .datum an array, a .delf arrays of features; and back.

    A SavedModel needs photos (--photos), which the words and codes are fitted on.
    """
    given = cli_options.PhotoOptions(photos, root, per_place)
    fit = CodebookOptions(
        dim=dim,
        projection=projection,
        whiten=whiten,
        n_words=words,
        code_size=code_size,
        opq=opq,
        global_dim=global_dim,
        global_whiten=global_whiten,
        centroid_storage=storage,
        seed=seed,
    )
    from delf_edge.converters.official import feature_files

    if source.suffix in feature_files.FILES:
        cli_options.print_json(feature_files.convert_file(source, out))
        return
    from delf_edge.codebooks import bundle_writer

    bundle_writer.check_target(out, [source, *photos, *(p for p in (pca_mean, pca_matrix) if p is not None)])
    from delf_edge.converters.official import import_model

    pca = import_model.read_projection(pca_mean, pca_matrix, fit.dim)
    made = import_model.build(
        source,
        out,
        given.read(),
        import_model.ImportOptions(
            stride=stride,
            variants=cli_options.names(variants),
            licence=licence,
            calibration_photos=calibration,
            per_place=per_place,
            workers=workers,
        ),
        fit,
        pca,
        work,
        cli_options.command(),
        cli_options.say,
    )
    cli_options.print_json({"bundle": made.id, "folder": str(out)})
