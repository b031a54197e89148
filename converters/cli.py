"""`delf-edge-convert`: from photos of places to a bundle for the device. Thin: parse, call, print.

Progress goes to stderr, results to stdout. Exit code 1: a check failed; 2: bad usage or bad input.
"""

from __future__ import annotations

import ast
import dataclasses
import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from delf_edge.errors import DelfEdgeError

from .codebooks import CodebookOptions

if TYPE_CHECKING:  # torch takes seconds to import: only the commands that need it do
    from .network import DelfNetwork
    from .photos import Photo

app = typer.Typer(
    name="delf-edge-convert",
    help="Train, export, quantise and pack model bundles for delf-edge.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
_FIT = CodebookOptions()
_WORK = Path("build/convert")

Photos = Annotated[
    list[Path],
    typer.Option("--photos", help="Folder with a subfolder per place, or CSV with columns path, place. Repeatable."),
]
Root = Annotated[
    Path | None, typer.Option(help="Folder that a CSV's paths are relative to. Default: the CSV's folder.")
]
Checkpoint = Annotated[
    Path | None, typer.Option(help="Checkpoint of `train`, e.g. network.pt. Default: ImageNet weights of --backbone.")
]
Backbone = Annotated[str, typer.Option(help="Backbone when there is no checkpoint.")]
Work = Annotated[Path, typer.Option(help="Folder for what takes long: kept, so that a second run is quick.")]
Variants = Annotated[str, typer.Option(help="Variants of the local network, the default one first, with commas.")]
Tails = Annotated[str, typer.Option(help="Variants of the global tail, the default one first; empty for no tail.")]
Selection = Annotated[
    str | None, typer.Option(help="attention or l2norm. Default: attention if there is a checkpoint.")
]
PerPlace = Annotated[int, typer.Option(help="Photos of one place that are used at most.")]
Calibration = Annotated[int, typer.Option(help="Photos that set the ranges of int8.")]
Workers = Annotated[int, typer.Option(help="Threads of the extraction.")]
Dim = Annotated[int, typer.Option(help="D, dimension of a local descriptor.")]
Whiten = Annotated[float, typer.Option(help="Exponent of the PCA whitening, 0 to 1.")]
Words = Annotated[int, typer.Option(help="K, visual words, at most 65536.")]
CodeSize = Annotated[int, typer.Option(help="M, bytes of a PQ code; divides D.")]
Opq = Annotated[bool, typer.Option("--opq/--pq", help="Learn a rotation before PQ.")]
GlobalDim = Annotated[int, typer.Option(help="G, dimension of the global descriptor.")]
GlobalWhiten = Annotated[float, typer.Option(help="Exponent of its whitening, 0 to 1.")]
Storage = Annotated[str, typer.Option(help="How centroids are stored: int8 or float16.")]
Seed = Annotated[int, typer.Option(help="Seed of everything random in the fit.")]


def _say(line: str) -> None:
    typer.echo(line, err=True)


def _print(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2, default=str))


def _command() -> str:
    """The command line for the model card, without the work folder: it changes nothing and names this machine."""
    words = sys.argv[1:]
    if "--work" in words:
        at = words.index("--work")
        words = words[:at] + words[at + 2 :]
    return "delf-edge-convert " + shlex.join(words)


def _network(checkpoint: Path | None, backbone: str) -> DelfNetwork:
    import torch

    from .network import SPECS, load_checkpoint, load_imagenet

    torch.manual_seed(0)  # the fresh attention head of ImageNet weights: the same command gives the same bytes
    if checkpoint is not None:
        return load_checkpoint(checkpoint)
    if backbone not in SPECS:
        raise typer.BadParameter(f"{backbone!r} is unknown; choose from {', '.join(SPECS)}")
    return load_imagenet(SPECS[backbone])


def _photos(sources: list[Path], root: Path | None) -> list[Photo]:
    from .photos import read_photos

    return read_photos(sources, root)


def _names(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _selection(selection: str | None, checkpoint: Path | None) -> str:
    chosen = selection or ("attention" if checkpoint else "l2norm")
    if chosen not in ("attention", "l2norm"):
        raise typer.BadParameter(f"selection is {chosen!r}; choose attention or l2norm")
    return chosen


def _assignments(texts: list[str]) -> dict[str, Any]:
    """`name=value` as keyword arguments; values are Python literals, anything else is a string."""
    values: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise typer.BadParameter(f"{text!r} is not of the form NAME=VALUE")
        try:
            values[name.strip()] = ast.literal_eval(value)
        except (SyntaxError, ValueError):
            values[name.strip()] = value
    return values


@app.command()
def train(
    out: Annotated[Path, typer.Argument(help="Folder for network.pt, last.pt and log.jsonl. A second run resumes.")],
    photos: Photos,
    root: Root = None,
    start: Annotated[
        Path | None, typer.Option(help="Folder of an earlier run to start from. Default: ImageNet.")
    ] = None,
    backbone: Backbone = "efficientnet-lite0",
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
        options = TrainOptions(
            spec=backbone,
            steps=steps,
            batch=batch,
            train_trunk=not attention_only,
            seed=seed,
            **_assignments(more or []),
        )
    except TypeError as e:
        known = ", ".join(f.name for f in dataclasses.fields(TrainOptions))
        raise typer.BadParameter(f"--set: {e}; there is {known}") from e
    chosen = balanced(_photos(photos, root), per_place)
    found, kept = None, out / "pairs.npz"
    if pairs:
        if not kept.exists():
            out.mkdir(parents=True, exist_ok=True)
            checkpoint = start / "network.pt" if start else None
            mined = mine_pairs(_network(checkpoint, backbone), chosen, max_side=options.max_side, report=_say)
            save_pairs(mined, kept)
        found = load_pairs(kept)
    path = run(chosen, out, options, pairs=found, start=start, report=_say)
    _print({"checkpoint": str(path), "steps": options.steps})


@app.command()
def export(
    out: Annotated[Path, typer.Argument(help="Folder for the .tflite files and parity.json.")],
    photos: Photos,
    root: Root = None,
    checkpoint: Checkpoint = None,
    backbone: Backbone = "efficientnet-lite0",
    variants: Variants = "float32,float16,dynamic_range,int8",
    tails: Tails = "float32,float16,dynamic_range,int8",
    selection: Selection = None,
    calibration: Calibration = 200,
    per_place: PerPlace = 40,
    work: Work = _WORK,
) -> None:
    """Export a network to TFLite, quantise it, and print how far each variant is from PyTorch."""
    from . import pipeline
    from .photos import balanced

    options = pipeline.ExportOptions(
        variants=_names(variants),
        tails=_names(tails),
        calibration_photos=calibration,
        selection=_selection(selection, checkpoint),
    )
    chosen = balanced(_photos(photos, root), per_place)
    models = pipeline.export(_network(checkpoint, backbone), chosen, options, work, _say)
    out.mkdir(parents=True, exist_ok=True)
    for kind, made in (("local", models.local), ("tail", models.tail)):
        for variant, data in made.items():
            (out / f"{kind}_{variant}.tflite").write_bytes(data)
    parity = {"local": [p.as_dict() for p in models.parity], "tail": [p.as_dict() for p in models.tail_parity]}
    (out / "parity.json").write_text(json.dumps(parity, indent=2) + "\n", encoding="utf-8")
    _print(parity)


@app.command()
def codebooks(
    source: Annotated[Path, typer.Argument(help="Bundle whose networks are used.")],
    out: Annotated[Path, typer.Argument(help="codebook.npz to write.")],
    photos: Photos,
    root: Root = None,
    per_place: PerPlace = 40,
    workers: Workers = 2,
    work: Work = _WORK,
    dim: Dim = _FIT.dim,
    whiten: Whiten = _FIT.whiten,
    words: Words = _FIT.n_words,
    code_size: CodeSize = _FIT.code_size,
    opq: Opq = _FIT.opq,
    global_dim: GlobalDim = _FIT.global_dim,
    global_whiten: GlobalWhiten = _FIT.global_whiten,
    storage: Storage = _FIT.centroid_storage,
    seed: Seed = _FIT.seed,
) -> None:
    """Fit PCA, words and PQ for the networks of an existing bundle, and print what each step loses."""
    from . import bundles, pipeline
    from .photos import balanced

    options = CodebookOptions(
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
    chosen = balanced(_photos(photos, root), per_place)
    fit = pipeline.fit_codebook(local, tail, head, chosen, options, work, _say, workers=workers)
    out.write_bytes(bundles.npz(fit.arrays))
    _print(fit.report)


@app.command()
def bundle(
    out: Annotated[Path, typer.Argument(help="The bundle's folder; replaced when the new one is complete.")],
    photos: Photos,
    root: Root = None,
    checkpoint: Checkpoint = None,
    backbone: Backbone = "efficientnet-lite0",
    name: Annotated[str, typer.Option(help="Name of the bundle.")] = "delf-edge default",
    version: Annotated[str, typer.Option(help="Version of the bundle.")] = "0.1.0",
    licence: Annotated[str, typer.Option(help="Licence of the weights.")] = "Apache-2.0",
    data: Annotated[list[str] | None, typer.Option(help="A line on training data for the card. Repeatable.")] = None,
    variants: Variants = "float16,int8",
    tails: Tails = "dynamic_range",
    selection: Selection = None,
    presets: Annotated[Path | None, typer.Option(help="JSON file of presets: name -> extraction options.")] = None,
    default_preset: Annotated[str, typer.Option(help="Preset used when none is named, and for the fit.")] = "balanced",
    global_scale: Annotated[float, typer.Option(help="Pyramid scale whose map the global descriptor pools.")] = 0.5,
    gem_p: Annotated[float, typer.Option(help="Exponent of the GeM pooling.")] = 3.0,
    calibration: Calibration = 200,
    probability: Annotated[
        Path | None, typer.Option(help="JSON file with the calibration of the probability and of the fusion.")
    ] = None,
    per_place: PerPlace = 40,
    workers: Workers = 2,
    work: Work = _WORK,
    dim: Dim = _FIT.dim,
    whiten: Whiten = _FIT.whiten,
    words: Words = _FIT.n_words,
    code_size: CodeSize = _FIT.code_size,
    opq: Opq = _FIT.opq,
    global_dim: GlobalDim = _FIT.global_dim,
    global_whiten: GlobalWhiten = _FIT.global_whiten,
    storage: Storage = _FIT.centroid_storage,
    seed: Seed = _FIT.seed,
) -> None:
    """Make a bundle: export, quantise, fit codebooks on photos, write golden vectors and the model card, pack."""
    from . import bundles, pipeline
    from .tflite import receptive_field

    network = _network(checkpoint, backbone)
    chosen = _selection(selection, checkpoint)
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
        default_variant=_names(variants)[0],
        default_tail=(_names(tails) or ("none",))[0],
        gem_p=gem_p,
        level_scale=global_scale,
        presets=json.loads(presets.read_text(encoding="utf-8")) if presets else bundles.PRESETS,
        default_preset=default_preset,
        calibration=json.loads(probability.read_text(encoding="utf-8")) if probability else {},
    )
    made = pipeline.build(
        out,
        network,
        _photos(photos, root),
        recipe,
        pipeline.ExportOptions(
            variants=_names(variants),
            tails=_names(tails),
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
        _command(),
        _say,
        per_place=per_place,
        workers=workers,
    )
    size = sum(p.stat().st_size for p in out.iterdir())
    _print({"bundle": made.id, "folder": str(out), "bytes": size})


@app.command()
def check(
    source: Annotated[Path, typer.Argument(help="Bundle to check.")],
    photos: Photos,
    root: Root = None,
    checkpoint: Checkpoint = None,
    backbone: Backbone = "efficientnet-lite0",
    count: Annotated[int, typer.Option(help="Photos to compare on.")] = 24,
    min_cosine: Annotated[float, typer.Option(help="Smallest mean cosine of descriptors that passes.")] = 0.95,
    min_agreement: Annotated[float, typer.Option(help="Smallest share of equal keypoints that passes.")] = 0.8,
) -> None:
    """Compare every TFLite network of a bundle with PyTorch; exit 1 when one is further off than the bounds."""
    from . import bundles, pipeline, tflite

    network = _network(checkpoint, backbone)
    head = bundles.read_manifest(source)
    selection, failed, rows = head["selection"], False, []
    seen = list(pipeline.inputs(_photos(photos, root)[:: max(1, len(photos) // count)][:count], [0.707]))
    for variant, file in head["network"]["variants"].items():
        result = tflite.local_parity(network, variant, (source / file).read_bytes(), seen, selection=selection)
        passed = result.cosine_mean >= min_cosine and result.keypoint_agreement >= min_agreement
        failed |= not passed
        rows.append({**result.as_dict(), "passed": passed})
    _print({"bounds": {"cosine": min_cosine, "agreement": min_agreement}, "local": rows})
    raise typer.Exit(1 if failed else 0)


def main() -> None:
    """Entry point of `delf-edge-convert`: what a user can get wrong is one line on stderr and exit code 2."""
    try:
        app()
    except (DelfEdgeError, ModuleNotFoundError, OSError, ValueError) as e:
        _say(f"delf-edge-convert: {e}")
        raise SystemExit(2) from e


if __name__ == "__main__":
    main()
