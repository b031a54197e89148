"""`delf-edge-convert`: from photos of places to a bundle for the device. Thin: parse, call, print.

Progress goes to stderr, results to stdout. Exit code 1: a check failed; 2: bad usage or bad input.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import typer

from delf_edge.errors import DelfEdgeError

from . import options
from .codebooks import CodebookOptions

app = typer.Typer(
    name="delf-edge-convert",
    help="Train, export, quantise and pack model bundles for delf-edge.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.command()
def train(
    out: Annotated[Path, typer.Argument(help="Folder for network.pt, last.pt and log.jsonl. A second run resumes.")],
    photos: options.Photos,
    root: options.Root = None,
    start: Annotated[
        Path | None, typer.Option(help="Folder of an earlier run to start from. Default: ImageNet.")
    ] = None,
    backbone: options.Backbone = "efficientnet-lite0",
    steps: Annotated[int, typer.Option(help="Optimiser steps in all. Ten minutes on two cores: about 600.")] = 3000,
    batch: Annotated[int, typer.Option(help="Photos a step.")] = 24,
    attention_only: Annotated[
        bool, typer.Option("--attention-only", help="Freeze the descriptors: the second stage of the paper.")
    ] = False,
    pairs: Annotated[
        bool,
        typer.Option("--pairs/--no-pairs", help="Find and verify pairs of photos of one place, and train on them."),
    ] = True,
    per_place: Annotated[int, typer.Option(help="Photos of one place that are used at most.")] = 1000,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    more: Annotated[
        list[str] | None,
        typer.Option("--set", help="NAME=VALUE of any other option of converters.training.TrainOptions. Repeatable."),
    ] = None,
) -> None:
    """Train on your own photos: descriptors and attention, from a folder with a subfolder per place.

    The result, OUT/network.pt, is what the other commands take as --checkpoint.
    """
    from .pairs import load_pairs, mine_pairs, save_pairs
    from .photos import balanced
    from .training import TrainOptions
    from .training import train as run

    try:
        settings = TrainOptions(
            spec=backbone,
            steps=steps,
            batch=batch,
            train_trunk=not attention_only,
            seed=seed,
            **options.assignments(more or []),
        )
    except TypeError as e:
        known = ", ".join(f.name for f in dataclasses.fields(TrainOptions))
        raise typer.BadParameter(f"--set: {e}; there is {known}") from e
    chosen = balanced(options.photos(photos, root), per_place)
    found, kept = None, out / "pairs.npz"
    if pairs:
        if not kept.exists():
            out.mkdir(parents=True, exist_ok=True)
            checkpoint = start / "network.pt" if start else None
            mined = mine_pairs(
                options.network(checkpoint, backbone), chosen, max_side=settings.max_side, report=options.say
            )
            save_pairs(mined, kept)
        found = load_pairs(kept)
    path = run(chosen, out, settings, pairs=found, start=start, report=options.say)
    options.print_json({"checkpoint": str(path), "steps": settings.steps})


@app.command()
def export(
    out: Annotated[Path, typer.Argument(help="Folder for the .tflite files and parity.json.")],
    photos: options.Photos,
    root: options.Root = None,
    checkpoint: options.Checkpoint = None,
    backbone: options.Backbone = "efficientnet-lite0",
    variants: options.Variants = "float32,float16,dynamic_range,int8",
    tails: options.Tails = "float32,float16,dynamic_range,int8",
    selection: options.Selection = None,
    calibration: options.Calibration = 200,
    per_place: options.PerPlace = 40,
    work: options.Work = options.WORK,
) -> None:
    """Export a network to TFLite, quantise it, and print how far each variant is from PyTorch."""
    from . import pipeline
    from .photos import balanced

    settings = pipeline.ExportOptions(
        variants=options.names(variants),
        tails=options.names(tails),
        calibration_photos=calibration,
        selection=options.selection(selection, checkpoint),
    )
    chosen = balanced(options.photos(photos, root), per_place)
    models = pipeline.export(options.network(checkpoint, backbone), chosen, settings, work, options.say)
    out.mkdir(parents=True, exist_ok=True)
    for kind, made in (("local", models.local), ("tail", models.tail)):
        for variant, data in made.items():
            (out / f"{kind}_{variant}.tflite").write_bytes(data)
    parity = {"local": [p.as_dict() for p in models.parity], "tail": [p.as_dict() for p in models.tail_parity]}
    (out / "parity.json").write_text(json.dumps(parity, indent=2) + "\n", encoding="utf-8")
    options.print_json(parity)


@app.command()
def codebooks(
    source: Annotated[Path, typer.Argument(help="Bundle whose networks are used.")],
    out: Annotated[Path, typer.Argument(help="codebook.npz to write.")],
    photos: options.Photos,
    root: options.Root = None,
    per_place: options.PerPlace = 40,
    workers: options.Workers = 2,
    work: options.Work = options.WORK,
    dim: options.Dim = options.FIT.dim,
    whiten: options.Whiten = options.FIT.whiten,
    words: options.Words = options.FIT.n_words,
    code_size: options.CodeSize = options.FIT.code_size,
    opq: options.Opq = options.FIT.opq,
    global_dim: options.GlobalDim = options.FIT.global_dim,
    global_whiten: options.GlobalWhiten = options.FIT.global_whiten,
    storage: options.Storage = options.FIT.centroid_storage,
    seed: options.Seed = options.FIT.seed,
) -> None:
    """Fit PCA, words and PQ for the networks of an existing bundle, and print what each step loses."""
    from . import bundles, pipeline
    from .photos import balanced

    settings = CodebookOptions(
        dim=dim,
        whiten=whiten,
        n_words=words,
        code_size=code_size,
        opq=opq,
        global_dim=global_dim,
        global_whiten=global_whiten,
        centroid_storage=storage,
        seed=seed,
    )
    head, local, tail = bundles.read_networks(source)
    chosen = balanced(options.photos(photos, root), per_place)
    fit = pipeline.fit_codebook(local, tail, head, chosen, settings, work, options.say, workers=workers)
    out.write_bytes(bundles.npz(fit.arrays))
    options.print_json(fit.report)


@app.command()
def bundle(
    out: Annotated[Path, typer.Argument(help="The bundle's folder; replaced when the new one is complete.")],
    photos: options.Photos,
    root: options.Root = None,
    checkpoint: options.Checkpoint = None,
    backbone: options.Backbone = "efficientnet-lite0",
    name: Annotated[str, typer.Option(help="Name of the bundle.")] = "delf-edge default",
    version: Annotated[str, typer.Option(help="Version of the bundle.")] = "0.1.0",
    licence: Annotated[str, typer.Option(help="Licence of the weights.")] = "Apache-2.0",
    data: Annotated[list[str] | None, typer.Option(help="A line on training data for the card. Repeatable.")] = None,
    variants: options.Variants = "float16,int8",
    tails: options.Tails = "dynamic_range",
    selection: options.Selection = None,
    presets: Annotated[Path | None, typer.Option(help="JSON file of presets: name -> extraction options.")] = None,
    default_preset: Annotated[str, typer.Option(help="Preset used when none is named, and for the fit.")] = "balanced",
    global_scale: Annotated[float, typer.Option(help="Pyramid scale whose map the global descriptor pools.")] = 0.5,
    gem_p: Annotated[float, typer.Option(help="Exponent of the GeM pooling.")] = 3.0,
    calibration: options.Calibration = 200,
    probability: Annotated[
        Path | None, typer.Option(help="JSON file with the calibration of the probability and of the fusion.")
    ] = None,
    per_place: options.PerPlace = 40,
    workers: options.Workers = 2,
    work: options.Work = options.WORK,
    dim: options.Dim = options.FIT.dim,
    whiten: options.Whiten = options.FIT.whiten,
    words: options.Words = options.FIT.n_words,
    code_size: options.CodeSize = options.FIT.code_size,
    opq: options.Opq = options.FIT.opq,
    global_dim: options.GlobalDim = options.FIT.global_dim,
    global_whiten: options.GlobalWhiten = options.FIT.global_whiten,
    storage: options.Storage = options.FIT.centroid_storage,
    seed: options.Seed = options.FIT.seed,
) -> None:
    """Make a bundle: export, quantise, fit codebooks on photos, write golden vectors and the model card, pack."""
    from . import bundles, pipeline
    from .tflite import receptive_field

    network = options.network(checkpoint, backbone)
    chosen = options.selection(selection, checkpoint)
    source = f"{network.spec.name}, ImageNet weights" + (
        f", trained: {checkpoint.name}" if checkpoint else ", untrained"
    )
    recipe = bundles.Recipe(
        name=name,
        version=version,
        licence=licence,
        training_data=[source, *(data or [])],
        receptive_field=receptive_field(network.spec),
        channels=network.channels,
        tail_channels=network.spec.head,
        selection=chosen,
        default_variant=options.names(variants)[0],
        default_tail=(options.names(tails) or ("none",))[0],
        gem_p=gem_p,
        level_scale=global_scale,
        presets=json.loads(presets.read_text(encoding="utf-8")) if presets else bundles.PRESETS,
        default_preset=default_preset,
        calibration=json.loads(probability.read_text(encoding="utf-8")) if probability else {},
    )
    made = pipeline.build(
        out,
        network,
        options.photos(photos, root),
        recipe,
        pipeline.ExportOptions(
            variants=options.names(variants),
            tails=options.names(tails),
            calibration_photos=calibration,
            level_scale=global_scale,
            selection=chosen,
        ),
        CodebookOptions(
            dim=dim,
            whiten=whiten,
            n_words=words,
            code_size=code_size,
            opq=opq,
            global_dim=global_dim,
            global_whiten=global_whiten,
            centroid_storage=storage,
            seed=seed,
        ),
        work,
        options.command(),
        options.say,
        per_place=per_place,
        workers=workers,
    )
    size = sum(p.stat().st_size for p in out.iterdir())
    options.print_json({"bundle": made.id, "folder": str(out), "bytes": size})


@app.command()
def check(
    source: Annotated[Path, typer.Argument(help="Bundle to check.")],
    photos: options.Photos,
    root: options.Root = None,
    checkpoint: options.Checkpoint = None,
    backbone: options.Backbone = "efficientnet-lite0",
    count: Annotated[int, typer.Option(help="Photos to compare on.")] = 24,
    min_cosine: Annotated[float, typer.Option(help="Smallest mean cosine of descriptors that passes.")] = 0.95,
    min_agreement: Annotated[float, typer.Option(help="Smallest share of equal keypoints that passes.")] = 0.8,
) -> None:
    """Compare every TFLite network of a bundle with PyTorch; exit 1 when one is further off than the bounds."""
    from . import bundles, pipeline, tflite

    network = options.network(checkpoint, backbone)
    head = bundles.read_manifest(source)
    selection, failed, rows = head["selection"], False, []
    seen = list(pipeline.inputs(options.photos(photos, root)[:: max(1, len(photos) // count)][:count], [0.707]))
    for variant, file in head["network"]["variants"].items():
        result = tflite.local_parity(network, variant, (source / file).read_bytes(), seen, selection=selection)
        passed = result.cosine_mean >= min_cosine and result.keypoint_agreement >= min_agreement
        failed |= not passed
        rows.append({**result.as_dict(), "passed": passed})
    options.print_json({"bounds": {"cosine": min_cosine, "agreement": min_agreement}, "local": rows})
    raise typer.Exit(1 if failed else 0)


@app.command("import")
def import_model(
    source: Annotated[Path, typer.Argument(help="SavedModel of DELF v1 or DELG; or a .datum or .delf file.")],
    out: Annotated[Path, typer.Argument(help="Bundle to write; for a .datum an .npy file, for a .delf an .npz file.")],
    photos: Annotated[
        list[Path] | None, typer.Option("--photos", help="Photos to fit codebooks on (SavedModel only). Repeatable.")
    ] = None,
    root: options.Root = None,
    pca_mean: Annotated[Path | None, typer.Option(help="mean.datum of the release.")] = None,
    pca_matrix: Annotated[Path | None, typer.Option(help="pca_proj_mat.datum of the release.")] = None,
    stride: Annotated[int, typer.Option(help="Stride of a DELG model: 32, or 16 if exported without strides.")] = 32,
    variants: options.Variants = "float16,int8",
    licence: Annotated[str, typer.Option(help="Licence of the weights.")] = "see the source of the weights",
    calibration: options.Calibration = 200,
    per_place: options.PerPlace = 40,
    workers: options.Workers = 2,
    work: options.Work = options.WORK,
    dim: options.Dim = 40,
    words: options.Words = options.FIT.n_words,
    code_size: options.CodeSize = 10,
    global_dim: options.GlobalDim = options.FIT.global_dim,
) -> None:
    """Import official files: a SavedModel becomes a bundle, a .datum an array, a .delf arrays of features."""
    from . import importing

    if source.suffix in (".datum", ".delf"):
        options.print_json(importing.convert_file(source, out))
        return
    projection = importing.read_projection(pca_mean, pca_matrix, dim)
    made = importing.build(
        source,
        out,
        options.photos(photos or [], root),
        importing.ImportOptions(
            stride=stride,
            variants=options.names(variants),
            licence=licence,
            calibration_photos=calibration,
            per_place=per_place,
            workers=workers,
        ),
        CodebookOptions(dim=dim, n_words=words, code_size=code_size, global_dim=global_dim),
        projection,
        work,
        options.command(),
        options.say,
    )
    options.print_json({"bundle": made.id, "folder": str(out)})


def main() -> None:
    """Entry point of `delf-edge-convert`: what a user can get wrong is one line on stderr and exit code 2."""
    try:
        app()
    except (DelfEdgeError, ModuleNotFoundError, OSError, ValueError) as e:
        options.say(f"delf-edge-convert: {e}")
        raise SystemExit(2) from e


if __name__ == "__main__":
    main()
