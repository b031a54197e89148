"""`delf-edge-convert`: from photos of places to a bundle for the device. Thin: parse, call, print.

Progress goes to stderr, results to stdout. Exit code 1: a check failed; 2: bad usage or bad input.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
from pathlib import Path
from typing import Annotated

import typer

from delf_edge.bundle.manifest import MANIFEST
from delf_edge.converters import cli_options
from delf_edge.errors import DelfEdgeError, OptionError
from delf_edge.files import require_apart, write_atomically

app = typer.Typer(
    name="delf-edge-convert",
    help="Train, export, quantise and pack model bundles for delf-edge.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
ALL = "float32,float16,dynamic_range,int8"


@app.command()
def train(
    out: Annotated[Path, typer.Argument(help="Folder for network.pt, last.pt and log.jsonl. A second run resumes.")],
    photos: cli_options.Photos,
    root: cli_options.Root = None,
    per_place: cli_options.PerPlace = 1000,
    start: Annotated[
        Path | None, typer.Option(help="Folder of an earlier run to start from. Default: ImageNet.")
    ] = None,
    backbone: Annotated[
        str, typer.Option(help="Backbone: efficientnet-lite0, -lite1 or -lite2.")
    ] = "efficientnet-lite0",
    steps: Annotated[int, typer.Option(help="Optimiser steps in all. Ten minutes on two cores: about 600.")] = 3000,
    batch: Annotated[int, typer.Option(help="Photos a step.")] = 24,
    attention_only: Annotated[
        bool, typer.Option("--attention-only", help="Freeze the descriptors: the second stage of the paper.")
    ] = False,
    pairs: Annotated[
        bool,
        typer.Option("--pairs/--no-pairs", help="Find and verify pairs of photos of one place, and train on them."),
    ] = True,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...; auto takes a GPU when there is one.")] = "auto",
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    more: Annotated[
        list[str] | None,
        typer.Option("--set", help="NAME=VALUE of any other option; `--set help` lists them. Repeatable."),
    ] = None,
) -> None:
    """Train on your own photos: descriptors and attention, from a folder with a subfolder per place.

    The result, OUT/network.pt, is what the other commands take as --checkpoint. Two places are the least; ten photos
    of each of a hundred places are a good start. Places with few photos are drawn more often than their number says.
    Photos are held in memory: one of 640 x 480 pixels takes 0.9 MB.

    A run that was stopped goes on with the same command, and ends with the same weights as one that was not.

    ```
    delf-edge-convert train run --photos photos --steps 600
    delf-edge-convert train run --photos train_clean.csv --root gldv2 --per-place 20
    delf-edge-convert bundle my-bundle --photos photos --checkpoint run/network.pt
    ```
    """
    source = cli_options.PhotoOptions(photos, root, per_place)
    from delf_edge.converters.training.options import TrainOptions
    from delf_edge.converters.training.pairs import load_pairs, mine_pairs, save_pairs
    from delf_edge.converters.training.photos import readable
    from delf_edge.converters.training.trainer import train as run

    if more == ["help"]:
        typer.echo(inspect.getdoc(TrainOptions))
        return
    try:
        settings = TrainOptions(
            spec=backbone,
            steps=steps,
            batch=batch,
            train_trunk=not attention_only,
            seed=seed,
            **cli_options.assignments(more or []),
        )
    except TypeError as e:
        known = ", ".join(f.name for f in dataclasses.fields(TrainOptions))
        raise typer.BadParameter(f"--set: {e}; there is {known}") from e
    chosen, passed_over = readable(source.balanced(), cli_options.say)
    if len({photo.place for photo in chosen}) < 2:
        raise OptionError(
            f"all {len(chosen)} readable photos are of one place, {chosen[0].place!r}; training tells places apart and "
            "needs at least two"
        )
    found, kept = None, out / "pairs.npz"
    if pairs:
        if not kept.exists():
            out.mkdir(parents=True, exist_ok=True)
            checkpoint = start / "network.pt" if start else None
            network = cli_options.NetworkOptions(checkpoint, backbone).load()
            save_pairs(mine_pairs(network, chosen, max_side=settings.max_side, report=cli_options.say), kept)
        found = load_pairs(kept)
    path = run(chosen, out, settings, pairs=found, start=start, device=device, report=cli_options.say)
    cli_options.print_json(
        {"checkpoint": str(path), "steps": settings.steps, "passed_over": [str(file) for file in passed_over]}
    )


@app.command()
def export(
    out: Annotated[Path, typer.Argument(help="Folder for the .tflite files and parity.json.")],
    photos: cli_options.Photos,
    root: cli_options.Root = None,
    per_place: cli_options.PerPlace = 40,
    checkpoint: cli_options.Checkpoint = None,
    backbone: cli_options.Backbone = "efficientnet-lite0",
    variants: cli_options.Variants = ALL,
    tails: cli_options.Tails = ALL,
    selection: cli_options.Selection = None,
    calibration: cli_options.CalibrationPhotos = 200,
    work: cli_options.Work = cli_options.WORK,
) -> None:
    """Export a network to TFLite, quantise it, and print how far each variant is from PyTorch."""
    source = cli_options.PhotoOptions(photos, root, per_place)
    network = cli_options.NetworkOptions(checkpoint, backbone)
    form = cli_options.ExportOptions(variants, tails, selection, calibration)
    require_apart(out, source.photos)
    if (out / MANIFEST).exists():
        raise OptionError(f"{out}: is a bundle, whose networks would be replaced; choose another folder")
    from delf_edge.converters.export import pipeline

    settings = pipeline.ExportOptions(
        variants=cli_options.names(form.variants),
        tails=cli_options.names(form.tails),
        calibration_photos=form.calibration,
        selection=form.chosen(network.checkpoint),
    )
    models = pipeline.export(network.load(), source.balanced(), settings, work, cli_options.say)
    out.mkdir(parents=True, exist_ok=True)
    for kind, made in (("local", models.local), ("tail", models.tail)):
        for variant, data in made.items():
            write_atomically(out / f"{kind}_{variant}.tflite", data)
    parity = {"local": [p.as_dict() for p in models.parity], "tail": [p.as_dict() for p in models.tail_parity]}
    write_atomically(out / "parity.json", (json.dumps(parity, indent=2) + "\n").encode())
    cli_options.print_json(parity)


@app.command()
def codebooks(
    networks: Annotated[Path, typer.Argument(metavar="BUNDLE", help="Bundle whose networks are used.")],
    out: Annotated[Path, typer.Argument(help="codebook.npz to write.")],
    photos: cli_options.Photos,
    root: cli_options.Root = None,
    per_place: cli_options.PerPlace = 40,
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
    workers: cli_options.Workers = 2,
    work: cli_options.Work = cli_options.WORK,
) -> None:
    """Fit PCA, words and PQ for the networks of an existing bundle, and print what each step loses."""
    source = cli_options.PhotoOptions(photos, root, per_place)
    fit = cli_options.FitOptions(
        dim, projection, whiten, words, code_size, opq, global_dim, global_whiten, storage, seed
    )
    if out.suffix != ".npz" or out.is_dir() or (out.parent / MANIFEST).exists():
        raise OptionError(f"{out}: name a .npz file outside a bundle's folder")
    require_apart(out, source.photos)
    from delf_edge.codebooks import bundle_writer
    from delf_edge.converters.export import pipeline, recipes

    settings = fit.settings()
    head, local, tail = recipes.read_networks(networks)
    found = pipeline.fit_codebook(
        local, tail, head, source.balanced(), settings, work, cli_options.say, workers=workers
    )
    write_atomically(out, bundle_writer.npz(found.arrays))
    cli_options.print_json(found.report)


@app.command()
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
    licence: Annotated[str, typer.Option(help="Licence of the weights.")] = "Apache-2.0",
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
    fit = cli_options.FitOptions(
        dim, projection, whiten, words, code_size, opq, global_dim, global_whiten, storage, seed
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
        fit.settings(),
        work,
        cli_options.command(),
        cli_options.say,
        per_place=source.per_place,
        workers=workers,
    )
    size = sum(p.stat().st_size for p in out.iterdir())
    cli_options.print_json({"bundle": made.id, "folder": str(out), "bytes": size})


@app.command()
def check(
    bundle: Annotated[Path, typer.Argument(help="Bundle to check.")],
    photos: cli_options.Photos,
    root: cli_options.Root = None,
    per_place: cli_options.PerPlace = 40,
    checkpoint: Annotated[
        Path | None, typer.Option(help="Checkpoint it was made of. Default: the weights of its own float variant.")
    ] = None,
    backbone: Annotated[str, typer.Option(help="Its backbone, where no checkpoint is given.")] = "efficientnet-lite0",
    count: Annotated[int, typer.Option(help="Photos to compare on.")] = 24,
    benchmark: Annotated[
        Path | None,
        typer.Option(help="JSON of queries, positives and database to measure mAP on, names relative to its folder."),
    ] = None,
    head: Annotated[
        tuple[int, int] | None,
        typer.Option(metavar="QUERIES PHOTOS", help="Only a part of the benchmark, for a quick look."),
    ] = None,
    preset: Annotated[str | None, typer.Option(help="Preset of the benchmark. Default: the bundle's own.")] = None,
    tflite_runtime_python: Annotated[
        Path | None,
        typer.Option(help="A Python below 3.12 with tflite-runtime, numpy<2, hnswlib and OpenCV: checked there too."),
    ] = None,
    min_cosine: Annotated[float, typer.Option(help="Smallest mean cosine of descriptors that passes.")] = 0.95,
    min_agreement: Annotated[float, typer.Option(help="Smallest share of equal keypoints that passes.")] = 0.8,
    max_map_loss: Annotated[float, typer.Option(help="Most that mAP may lose against float.")] = 0.01,
    work: cli_options.Work = cli_options.WORK,
) -> None:
    """Compare every TFLite network of a bundle with float PyTorch; exit 1 when one is further off than the bounds.

    Each variant gets a row: cosine of the descriptors, agreement of the selected keypoints, milliseconds, and with
    --benchmark mAP through the whole path and what it lost; with --tflite-runtime-python once for each runtime.
    """
    source = cli_options.PhotoOptions(photos, root, per_place)
    from delf_edge.converters.export import check, runtimes

    if checkpoint is None:
        reference = check.restored(bundle, cli_options.backbone(backbone))
    else:
        reference = check.exported(cli_options.NetworkOptions(checkpoint).load(), str(checkpoint))
    judged_on: list[runtimes.Runtime] = [runtimes.Here()]
    if tflite_runtime_python is not None:
        judged_on.append(runtimes.Elsewhere(tflite_runtime_python))
    result = check.check(
        bundle,
        reference,
        check.inputs(bundle, source.balanced(), count),
        check.Bounds(min_cosine, min_agreement, max_map_loss),
        judged_on,
        runtimes.Benchmark(benchmark, work / "check", preset, head) if benchmark else None,
        cli_options.say,
    )
    cli_options.print_json(result)
    raise typer.Exit(0 if result["passed"] else 1)


@app.command("import")
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
    licence: Annotated[str, typer.Option(help="Licence of the weights.")] = "see the source of the weights",
    variants: Annotated[
        str, typer.Option(help="Variants, the default one first, with commas: float32, float16, dynamic_range, int8.")
    ] = "float16,int8",
    calibration: Annotated[int, typer.Option(help="Photos that set the ranges of int8.")] = 200,
    workers: cli_options.Workers = 2,
    work: cli_options.Work = cli_options.WORK,
) -> None:
    """Import official files: a SavedModel becomes a bundle, a .datum an array, a .delf arrays of features; and back.

    A SavedModel needs photos (--photos), which the words and codes are fitted on.
    """
    given = cli_options.PhotoOptions(photos, root, per_place)
    fit = cli_options.FitOptions(
        dim, projection, whiten, words, code_size, opq, global_dim, global_whiten, storage, seed
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
        fit.settings(),
        pca,
        work,
        cli_options.command(),
        cli_options.say,
    )
    cli_options.print_json({"bundle": made.id, "folder": str(out)})


def main() -> None:
    """Entry point of `delf-edge-convert`: what a user can get wrong is one line on stderr and exit code 2."""
    try:
        app()
    except (DelfEdgeError, ModuleNotFoundError, OSError, ValueError) as e:
        cli_options.say(f"delf-edge-convert: {e}")
        raise SystemExit(2) from e


if __name__ == "__main__":
    main()
