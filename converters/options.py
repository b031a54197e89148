"""What the commands of `delf-edge-convert` share: their options, and how options become objects."""

from __future__ import annotations

import ast
import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .codebooks import CodebookOptions

if TYPE_CHECKING:  # torch takes seconds to import: only the commands that need it do
    from .network import DelfNetwork
    from .photos import Photo

FIT = CodebookOptions()
WORK = Path("build/convert")

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


def say(line: str) -> None:
    """One line of progress, on stderr."""
    typer.echo(line, err=True)


def print_json(value: Any) -> None:
    """The result, on stdout."""
    typer.echo(json.dumps(value, indent=2, default=str))


def command() -> str:
    """The command line for the model card, without the work folder: it changes nothing and names this machine."""
    words = sys.argv[1:]
    if "--work" in words:
        at = words.index("--work")
        words = words[:at] + words[at + 2 :]
    return "delf-edge-convert " + shlex.join(words)


def network(checkpoint: Path | None, backbone: str) -> DelfNetwork:
    """The network of a checkpoint, else ImageNet's, in eval mode."""
    import torch

    from .network import SPECS, load_checkpoint, load_imagenet

    torch.manual_seed(0)  # the fresh attention head of ImageNet weights: the same command gives the same bytes
    if checkpoint is not None:
        return load_checkpoint(checkpoint)
    if backbone not in SPECS:
        raise typer.BadParameter(f"{backbone!r} is unknown; choose from {', '.join(SPECS)}")
    return load_imagenet(SPECS[backbone])


def photos(sources: list[Path], root: Path | None) -> list[Photo]:
    """The photos of folders and CSV files."""
    from .photos import read_photos

    return read_photos(sources, root)


def names(text: str) -> tuple[str, ...]:
    """The parts of a list with commas."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def selection(selection: str | None, checkpoint: Path | None) -> str:
    """attention or l2norm; attention needs a trained head."""
    chosen = selection or ("attention" if checkpoint else "l2norm")
    if chosen not in ("attention", "l2norm"):
        raise typer.BadParameter(f"selection is {chosen!r}; choose attention or l2norm")
    return chosen


def assignments(texts: list[str]) -> dict[str, Any]:
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
