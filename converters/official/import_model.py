"""Official networks into ours: a SavedModel becomes a bundle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from delf_edge.bundle.bundle import Bundle
from delf_edge.codebooks.fit import CodebookOptions
from delf_edge.codebooks.projections import Projection
from delf_edge.converters.export.pipeline import ExportOptions, Report
from delf_edge.converters.export.pipeline import build as build_bundle
from delf_edge.converters.official import protobuf
from delf_edge.converters.training.photos import Photo

INPUT_MEAN = 128.0  # of the official networks; ours have 127
# The release's own seven scales go up to 2; the largest two cost three quarters of the time.
PRESETS = {
    "fast": {"scales": [0.707, 1.0], "max_features": 500},
    "balanced": {"scales": [0.5, 0.707, 1.0, 1.414], "max_features": 1000},
    "official": {"scales": [0.25, 0.3536, 0.5, 0.7071, 1.0, 1.4142, 2.0], "max_features": 1000},
}


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """How a SavedModel is imported.

    Attributes:
        stride: 32, or 16 for a DELG model exported without strides in block 3.
        variants: TFLite variants, the default one first.
        licence: licence of the weights.
        calibration_photos: photos that set the ranges of int8.
        per_place: photos of one place that are used at most.
        workers: threads of the extraction.
    """

    stride: int = 32
    variants: tuple[str, ...] = ("float16", "int8")
    licence: str = "see the source of the weights"
    calibration_photos: int = 200
    per_place: int = 40
    workers: int = 2


def read_projection(mean: Path | None, matrix: Path | None, dim: int) -> Projection | None:
    """Mean (C,) and the first `dim` rows of the matrix (C, C) of the release's `.datum` files; None without them.

    Raises:
        ValueError: only one of the two is given, or they do not fit together.
    """
    if mean is None and matrix is None:
        return None
    if mean is None or matrix is None:
        raise ValueError("a PCA is a mean and a matrix: give both --pca-mean and --pca-matrix, or neither")
    centre, basis = protobuf.read_datum(mean).reshape(-1), protobuf.read_datum(matrix)
    if basis.ndim != 2 or basis.shape[1] != len(centre) or len(basis) < dim:
        raise ValueError(f"{matrix} has shape {basis.shape}, {mean} {len(centre)} values; expected at least {dim} rows")
    return centre, np.ascontiguousarray(basis[:dim])


def build(
    source: Path,
    out: Path,
    photos: Sequence[Photo],
    options: ImportOptions,
    codebook: CodebookOptions,
    projection: Projection | None,
    work: Path,
    command: str,
    report: Report,
) -> Bundle:
    """Import a DELF v1 or DELG SavedModel as a bundle at `out`.

    Args:
        source: the SavedModel's folder.
        out: the bundle's folder.
        photos: calibration and fitting data.
        options: how to import.
        codebook: what to fit.
        projection: the release's own PCA, or None to fit one.
        work: folder for what takes long.
        command: the command line, for the model card.
        report: called with a line per step.

    Raises:
        OfficialFormatError: not such a SavedModel.
    """
    from delf_edge.converters.export import recipes
    from delf_edge.converters.official.delf_resnet import from_variables
    from delf_edge.converters.official.savedmodel import read_variables

    network = from_variables(read_variables(source), stride=options.stride)
    spec = network.spec
    recipe = recipes.Recipe(
        name=f"{spec.name} imported",
        version="1",
        licence=options.licence,
        training_data=[f"official {spec.name} weights, imported from {source.name}"],
        receptive_field=spec.receptive_field,
        channels=spec.channels,
        tail_channels=spec.head,
        selection="attention",
        default_variant=options.variants[0],
        default_tail="none",
        level_scale=1.0,
        presets=PRESETS,
        stride=spec.stride,
        offset=spec.offset,
        input_mean=INPUT_MEAN,
    )
    exported = ExportOptions(
        variants=options.variants,
        tails=(),
        calibration_photos=options.calibration_photos,
        calibration_scales=(0.5, 0.707, 1.0),
        selection="attention",
        mean=INPUT_MEAN,
    )
    return build_bundle(
        out,
        network,
        photos,
        recipe,
        exported,
        codebook,
        work,
        command,
        report,
        per_place=options.per_place,
        workers=options.workers,
        projection=projection,
    )
