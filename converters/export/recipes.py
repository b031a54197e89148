"""What a converted bundle says about itself: its recipe and manifest (`codebooks.bundle_writer` puts it in place)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from delf_edge.bundle.bundle import Bundle
from delf_edge.bundle.manifest import BUNDLE_FORMAT, FORMAT_VERSION
from delf_edge.codebooks.bundle_writer import (
    complete,
    empty_golden,
    identity_arrays,
    npz,
    verified_manifest,
    write_folder,
)

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "fast": {"scales": [0.354, 0.5], "max_features": 300},
    "balanced": {"scales": [0.354, 0.5, 0.707], "max_features": 300},
    "accurate": {"scales": [0.354, 0.5, 0.707, 1.0], "max_features": 500},
}
DEFAULT_PRESET = "balanced"


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a bundle says about itself, apart from its files.

    Attributes:
        name: name of the bundle.
        version: version of the bundle.
        licence: licence of the weights.
        training_data: one line per data set that weights or codebooks saw.
        receptive_field: pixels one cell sees.
        channels: C of the local map.
        tail_channels: Cg, channels of the map that is pooled: the tail's, or the local one where there is no tail.
        selection: "attention" or "l2norm".
        default_variant: local variant that is loaded when none is named.
        default_tail: tail variant that is loaded when none is named.
        gem_p: exponent of the GeM pooling.
        level_scale: pyramid scale whose map the global descriptor pools.
        presets: name -> extraction options.
        default_preset: the preset used when none is named.
        calibration: weights of probability and ranking fusion, read by the recogniser.
        stride: level pixels between neighbouring cells.
        offset: cell i is centred on level pixel stride * i + offset.
        input_mean: the network's input is (RGB - input_mean) / input_scale.
        input_scale: see `input_mean`.
    """

    name: str
    version: str
    licence: str
    training_data: Sequence[str]
    receptive_field: int
    channels: int
    tail_channels: int
    selection: str = "l2norm"
    default_variant: str = "float16"
    default_tail: str = "float16"
    gem_p: float = 3.0
    level_scale: float = 0.5
    presets: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: dict(PRESETS))
    default_preset: str = DEFAULT_PRESET
    calibration: Mapping[str, Any] = field(default_factory=dict)
    stride: int = 16
    offset: float = 0.0
    input_mean: float = 127.0
    input_scale: float = 128.0


def manifest(recipe: Recipe, variants: Sequence[str], tails: Sequence[str]) -> dict[str, Any]:
    """The manifest without its files.

    Raises:
        ValueError: a default is not among what there is.
    """
    for what, default, existing in (
        ("default variant", recipe.default_variant, variants),
        ("default tail", recipe.default_tail, tails or (recipe.default_tail,)),
        ("default preset", recipe.default_preset, tuple(recipe.presets)),
    ):
        if default not in existing:
            raise ValueError(f"{what} is {default!r}, but there is only {', '.join(existing)}")
    return {
        "format": BUNDLE_FORMAT,
        "format_version": FORMAT_VERSION,
        "name": recipe.name,
        "version": recipe.version,
        "licence": recipe.licence,
        "training_data": list(recipe.training_data),
        "network": {
            "variants": {v: f"local_{v}.tflite" for v in variants},
            "default": recipe.default_variant,
            "input": {
                "mean": recipe.input_mean,
                "scale": recipe.input_scale,
                "layout": "NHWC",
                "dtype": "float32",
                "channels": "RGB",
            },
            "stride": recipe.stride,
            "receptive_field": recipe.receptive_field,
            "offset": recipe.offset,
            "channels": recipe.channels,
        },
        "tail": {
            "variants": {v: f"tail_{v}.tflite" for v in tails},
            "default": recipe.default_tail,
            "channels": recipe.tail_channels,
        }
        if tails
        else None,
        "selection": recipe.selection,
        "global": {"gem_p": recipe.gem_p, "level_scale": recipe.level_scale},
        "codebook": "codebook.npz",
        "presets": {name: dict(preset) for name, preset in recipe.presets.items()},
        "default_preset": recipe.default_preset,
        "calibration": dict(recipe.calibration),
        "golden": "golden.npz",
    }


def provisional_bundle(folder: Path, local: bytes, tail: bytes | None, head: Mapping[str, Any]) -> Bundle:
    """Write and load a bundle that gives raw descriptors: one variant, identity codebook.

    Args:
        folder: where to write it.
        local: the local TFLite network.
        tail: the tail, or None.
        head: a manifest without files, as `manifest` gives it.
    """
    arrays = identity_arrays(head["network"]["channels"], (head["tail"] or head["network"])["channels"])
    variant = head["network"]["default"]
    head = {**head, "network": {**head["network"], "variants": {variant: "local.tflite"}}}
    files = {"local.tflite": local, "codebook.npz": npz(arrays), "golden.npz": empty_golden()}
    if tail is not None:
        default = head["tail"]["default"]
        head = {**head, "tail": {**head["tail"], "variants": {default: "tail.tflite"}}}
        files["tail.tflite"] = tail
    write_folder(folder, files, head)
    return Bundle.load(folder)


def pack(
    out: Path,
    recipe: Recipe,
    local: Mapping[str, bytes],
    tail: Mapping[str, bytes],
    arrays: Mapping[str, NDArray[Any]],
    card: str,
) -> Bundle:
    """Write a complete bundle to `out`, replacing what is there, and load it.

    Args:
        out: the bundle's folder.
        recipe: what it says about itself.
        local: variant -> local TFLite network.
        tail: variant -> tail; may be empty.
        arrays: the stored codebook, `codebooks.Fit.arrays`.
        card: text of MODEL_CARD.md.
    """
    head = manifest(recipe, tuple(local), tuple(tail))
    files = {f"local_{v}.tflite": data for v, data in local.items()}
    files |= {f"tail_{v}.tflite": data for v, data in tail.items()}
    files |= {"codebook.npz": npz(arrays), "MODEL_CARD.md": card.encode()}
    return complete(out, files, head)


def read_networks(folder: Path) -> tuple[dict[str, Any], bytes, bytes | None]:
    """Manifest without files, default local network and default tail of a bundle.

    Raises:
        BundleError: the bundle is damaged or of another form.
    """
    head = verified_manifest(folder)
    del head["files"]
    local = (folder / head["network"]["variants"][head["network"]["default"]]).read_bytes()
    tail = head["tail"]
    return head, local, (folder / tail["variants"][tail["default"]]).read_bytes() if tail else None
