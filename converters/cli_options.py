"""What the commands of `delf-edge-convert` share: groups of options, and how options become objects.

An option's name and help are written once, here, as a type: a command takes `dim: cli_options.Dim`. Options that belong
together are handed on as one object, whose fields have the defaults.
"""

from __future__ import annotations

import ast
import json
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from delf_edge.codebooks.fit import CodebookOptions

if TYPE_CHECKING:  # torch takes seconds to import: only the commands that need it do
    from delf_edge.converters.networks.delf import DelfNetwork
    from delf_edge.converters.training.photos import Photo

DEFAULT = CodebookOptions()
WORK = Path("build/convert")

Work = Annotated[Path, typer.Option(help="Folder for what takes long: kept, so that a second run is quick.")]
Workers = Annotated[int, typer.Option(help="Threads of the extraction.")]
Photos = Annotated[
    list[Path],
    typer.Option(
        "--photos",
        help="Folder with a subfolder of photos per place, or a CSV with the columns path, place (ours), or "
        "id, landmark_id or landmark_id, images (Google Landmarks). Repeatable.",
    ),
]
Root = Annotated[
    Path | None, typer.Option(help="Folder that a CSV's paths are relative to. Default: the CSV's folder.")
]
PerPlace = Annotated[int, typer.Option(help="Photos of one place that are used at most.")]
Checkpoint = Annotated[
    Path | None, typer.Option(help="Checkpoint of `train`, e.g. network.pt. Default: ImageNet weights of --backbone.")
]
Backbone = Annotated[
    str, typer.Option(help="Backbone when there is no checkpoint: efficientnet-lite0, -lite1 or -lite2.")
]
Variants = Annotated[
    str,
    typer.Option(
        help="Variants of the local network, the default one first, with commas: float32, float16, dynamic_range, int8."
    ),
]
Tails = Annotated[str, typer.Option(help="Variants of the global tail, the default one first; empty for no tail.")]
Selection = Annotated[
    str | None, typer.Option(help="attention or l2norm. Default: attention if there is a checkpoint.")
]
CalibrationPhotos = Annotated[int, typer.Option(help="Photos that set the ranges of int8.")]
Dim = Annotated[int, typer.Option(help="D, dimension of a local descriptor.")]
Projection = Annotated[
    str, typer.Option(help="pca, or matched: learnt from points that RANSAC found in two photos of a place.")
]
Whiten = Annotated[float, typer.Option(help="Exponent of its whitening, 0 to 1.")]
Words = Annotated[
    int, typer.Option(help="K, visual words, at most 65536. 0: as many as the descriptors allow, at most 16384.")
]
CodeSize = Annotated[int, typer.Option(help="M, bytes of a PQ code; divides D.")]
Opq = Annotated[bool, typer.Option("--opq/--pq", help="Learn a rotation before PQ.")]
GlobalDim = Annotated[int, typer.Option(help="G, dimension of the global descriptor.")]
GlobalWhiten = Annotated[float, typer.Option(help="Exponent of the global whitening, 0 to 1.")]
Storage = Annotated[str, typer.Option(help="How centroids are stored: int8 or float16.")]
Licence = Annotated[str, typer.Option(help="Licence of the weights.")]
Seed = Annotated[int, typer.Option(help="Seed of everything random in the fit.")]


@dataclass(frozen=True)
class PhotoOptions:
    """Which photos are read."""

    photos: list[Path]
    root: Path | None = None
    per_place: int = 40

    def read(self) -> list[Photo]:
        """All photos of the folders and CSV files; rows without one are named on stderr."""
        from delf_edge.converters.training.photos import read_photos

        return read_photos(self.photos, self.root, say)

    def balanced(self) -> list[Photo]:
        """At most `per_place` of each place."""
        from delf_edge.converters.training.photos import balanced

        return balanced(self.read(), self.per_place)


@dataclass(frozen=True)
class NetworkOptions:
    """Which PyTorch network is taken."""

    checkpoint: Path | None = None
    backbone: str = "efficientnet-lite0"

    def load(self) -> DelfNetwork:
        """The network of the checkpoint, else ImageNet's, in eval mode."""
        import torch

        from delf_edge.converters.networks.delf import load_checkpoint, load_imagenet

        torch.manual_seed(0)  # the fresh attention head of ImageNet weights: the same command gives the same bytes
        return (
            load_checkpoint(self.checkpoint) if self.checkpoint is not None else load_imagenet(backbone(self.backbone))
        )


@dataclass(frozen=True)
class ExportOptions:
    """What is exported and how int8 is calibrated."""

    variants: str = "float16,int8"
    tails: str = "dynamic_range"
    selection: str | None = None
    calibration: int = 200

    def chosen(self, checkpoint: Path | None) -> str:
        """attention or l2norm; attention needs a trained head."""
        chosen = self.selection or ("attention" if checkpoint else "l2norm")
        if chosen not in ("attention", "l2norm"):
            raise typer.BadParameter(f"selection is {chosen!r}; choose attention or l2norm")
        return chosen


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


def backbone(name: str) -> Any:
    """The geometry of a backbone by its name."""
    from delf_edge.converters.networks.delf import SPECS

    if name not in SPECS:
        raise typer.BadParameter(f"{name!r} is unknown; choose from {', '.join(SPECS)}")
    return SPECS[name]


def names(text: str) -> tuple[str, ...]:
    """The parts of a list with commas."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


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
