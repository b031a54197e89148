"""`delf-edge-convert check`: is every network of a bundle as good as the one it was made of."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from delf_edge.converters import cli_options


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
