"""`delf-edge-convert export` and `codebooks`: the parts of a bundle, made one by one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from delf_edge.bundle.manifest import MANIFEST
from delf_edge.codebooks.fit import CodebookOptions
from delf_edge.converters import cli_options
from delf_edge.errors import OptionError
from delf_edge.files import require_apart, write_atomically

ALL = "float32,float16,dynamic_range,int8"


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
    if out.suffix != ".npz" or out.is_dir() or (out.parent / MANIFEST).exists():
        raise OptionError(f"{out}: name a .npz file outside a bundle's folder")
    require_apart(out, source.photos)
    from delf_edge.codebooks import bundle_writer
    from delf_edge.converters.export import pipeline, recipes

    head, local, tail = recipes.read_networks(networks)
    found = pipeline.fit_codebook(local, tail, head, source.balanced(), fit, work, cli_options.say, workers=workers)
    write_atomically(out, bundle_writer.npz(found.arrays))
    cli_options.print_json(found.report)
