"""`delf-edge-convert train`: a network from photos of places."""

from __future__ import annotations

import dataclasses
import inspect
from pathlib import Path
from typing import Annotated

import typer

from delf_edge.converters import cli_options
from delf_edge.errors import OptionError


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
