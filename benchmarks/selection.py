"""Where the network looks: `python -m benchmarks.selection PHOTO [--plain DIR] --out heat.png` (the paper's Figure 9).

The photo and, side by side, the heat of every cell at one scale: the features' L2 norm without fine-tuning (the bundle
`--plain`, or the ImageNet weights where PyTorch is installed), the L2 norm of the bundle, and its attention. Each is
stretched between its own 1 % and 99 % quantile: the three have different units, what counts is the order of the cells.

Photos of research sets must not be published; make pictures for documents from `assets/demo` only.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from benchmarks.lab import plots
from benchmarks.lab.runner import load
from benchmarks.metrics.protocols import Floats
from benchmarks.systems.base import NotInstalledError
from delf_edge.bundle.bundle import Bundle, default_bundle_path
from delf_edge.errors import DelfEdgeError
from delf_edge.features.extractor import softplus
from delf_edge.features.network import Engine
from delf_edge.features.pyramid import build_pyramid
from delf_edge.types import Float32Array, Image, UInt8Array

SCALE = 1.0


def level_of(pixels: UInt8Array, scale: float = SCALE) -> UInt8Array:
    """The photo at one scale: uint8 (h, w, 3).

    Raises:
        DelfEdgeError: the photo is too small to be shown to the network.
    """
    levels = build_pyramid(Image(pixels, (pixels.shape[1], pixels.shape[0])), [scale])
    if not levels:
        raise DelfEdgeError(f"a photo of {pixels.shape[1]} x {pixels.shape[0]} pixels is too small for the network")
    return levels[0].pixels


def l2_norm(cells: Float32Array) -> Floats:
    """L2 norm of every cell: (h, w, C) to (h, w)."""
    return np.asarray(np.linalg.norm(cells, axis=2), np.float64)


def bundle_heat(bundle: Bundle, level: UInt8Array) -> tuple[Floats, Floats | None]:
    """L2 norm and attention of a bundle: float64 (h, w) each; the attention is None where the bundle has none."""
    spec = bundle.manifest.network.input
    x = (level[None].astype(np.float32) - np.float32(spec.mean)) / np.float32(spec.scale)
    out = Engine(bundle.network).run(x)
    attention = None
    if bundle.manifest.selection == "attention":
        attention = np.asarray(softplus(out["attention"][0, :, :, 0]), np.float64)
    return l2_norm(out["features"][0]), attention


def imagenet_heat(level: UInt8Array) -> Floats:
    """L2 norm of the ImageNet network's cells: float64 (h, w).

    Raises:
        NotInstalledError: PyTorch or the weights are missing.
    """
    from benchmarks.systems.backbones import torch_cells

    return l2_norm(torch_cells(level))


def heats(pixels: UInt8Array, bundle: Bundle, plain: Bundle | None = None) -> tuple[UInt8Array, dict[str, Floats]]:
    """The level that was looked at, and the heat maps by title. What cannot be had is left out."""
    level = level_of(pixels)
    norm, attention = bundle_heat(bundle, level)
    out: dict[str, Floats] = {}
    if plain is not None:
        out["L2 norm, not fine-tuned"] = bundle_heat(plain, level)[0]
    else:
        try:
            out["L2 norm, not fine-tuned"] = imagenet_heat(level)
        except NotInstalledError as e:
            print(f"L2 norm, not fine-tuned: {e}", file=sys.stderr)
    out["L2 norm"] = norm
    if attention is not None:
        out["attention"] = attention
    return level, out


def stretched(heat: Floats) -> Floats:
    """Between the 1 % and 99 % quantile, clipped to 0..1; a flat map is 0."""
    low, high = np.quantile(heat, [0.01, 0.99])
    return np.asarray(np.clip((heat - low) / max(float(high - low), 1e-12), 0, 1), np.float64)


def draw(level: UInt8Array, maps: Mapping[str, Floats], path: Path, stride: int = 16) -> Path:
    """Photo and heat maps in a row, each heat laid over the grey photo where its cells are."""
    drawn, _ = plots.figure(3.6 * (1 + len(maps)), 3.9 * level.shape[0] / level.shape[1] + 0.4)
    drawn.clear()
    axes = drawn.subplots(1, 1 + len(maps))
    height, width = level.shape[:2]
    grey = level.mean(axis=2)
    for axis in axes:
        axis.set_axis_off()
    axes[0].imshow(level)
    axes[0].set_title("photo", fontsize=9)
    for axis, (title, heat) in zip(axes[1:], maps.items(), strict=True):
        rows, columns = heat.shape
        half = stride / 2  # cell i is centred on pixel stride * i
        extent = (-half, stride * columns - half, stride * rows - half, -half)
        axis.imshow(grey, cmap="gray", vmin=0, vmax=255)
        axis.imshow(
            stretched(heat), cmap="inferno", alpha=0.65, extent=extent, interpolation="bilinear", vmin=0, vmax=1
        )
        axis.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
        axis.set_title(title, fontsize=9)
    return plots.save(drawn, path)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns 0, or 2 for a bad photo or bundle."""
    p = argparse.ArgumentParser(prog="python -m benchmarks.selection", description=(__doc__ or "").splitlines()[0])
    p.add_argument("photo", type=Path)
    p.add_argument("--bundle", type=Path, help="bundle folder, default: the one in assets/")
    p.add_argument("--plain", type=Path, help="bundle that was not fine-tuned, default: the ImageNet weights")
    p.add_argument("--out", type=Path, default=Path("selection.png"), help="picture to write")
    a = p.parse_args(arguments)
    if not plots.can_draw():
        return 2
    try:
        bundle = Bundle.load(a.bundle or default_bundle_path())
        plain = Bundle.load(a.plain) if a.plain else None
        level, maps = heats(load(a.photo), bundle, plain)
    except (DelfEdgeError, OSError) as e:
        print(e, file=sys.stderr)
        return 2
    print(draw(level, maps, a.out, bundle.manifest.network.stride))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
