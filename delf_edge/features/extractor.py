"""Pyramid levels become `Features`: network, scores, selection, locations, projection, global descriptor.

::

    level ── normalise ── local network ──┬── score, NMS, threshold ── top N of all levels ── L2, PCA, L2
                                          └── (one level) ── tail ── GeM ── L2, whitening, L2

Level pixels become image pixels here and nowhere else. A pixel's coordinates are those of its centre, so the left
edge of an image is at x = -0.5; cell i is centred on level pixel stride * i + offset, hence

    x = (stride * i + offset + 0.5) / scale - 0.5        image pixels

Source: Noh et al., ICCV 2017, sections 3 and 4.1; Radenovic et al., TPAMI 2018 (GeM).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from delf_edge.arrays import l2_normalise
from delf_edge.bundle.bundle import Bundle
from delf_edge.errors import BundleError, OptionError
from delf_edge.features.network import Engine
from delf_edge.features.pyramid import BASE_SIZE, MAX_UPSCALE, build_pyramid, working_size
from delf_edge.timing import clock
from delf_edge.types import BoolArray, Codebook, Features, Float32Array, Image, PyramidLevel

_EPS = np.float32(1e-6)  # floor of GeM, as in its paper


@dataclass(frozen=True, slots=True)
class ExtractOptions:
    """How features are extracted. A bundle's presets set some of these.

    Attributes:
        scales: pyramid scales, relative to the working size.
        max_features: N, most features kept.
        score_threshold: least score of a feature; what scores mean depends on the bundle.
        nms_radius: in cells. A cell is dropped where a cell of the same level within this distance scores higher, so
            the radius in image pixels grows with the area that the cell describes. Below 1: off. Levels do not
            suppress each other: the same point at two scales matches photos from two distances.
        base_size: longer side in pixels at scale 1.
        max_upscale: how many times a small photo may be enlarged to reach `base_size`.
        min_contrast: standard deviation of the most varied colour channel (0..255) below which a photo counts as
            showing nothing, such as a covered lens, and gives no features.
    """

    scales: tuple[float, ...] = (0.354, 0.5, 0.707)
    max_features: int = 300
    score_threshold: float = 0.0
    nms_radius: float = 0.0
    base_size: int = BASE_SIZE
    max_upscale: float = MAX_UPSCALE
    min_contrast: float = 3.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "scales", tuple(float(s) for s in self.scales))
        if not 1 <= len(self.scales) <= 16 or not all(0.01 <= s <= 8 for s in self.scales):
            raise OptionError(f"scales are {self.scales}; give 1 to 16 numbers between 0.01 and 8")
        for name, low, high in (
            ("max_features", 1, 65535),
            ("nms_radius", 0, 16),
            ("base_size", 64, 8192),
            ("max_upscale", 1, 16),
            ("min_contrast", 0, 255),
        ):
            if not low <= (value := getattr(self, name)) <= high:
                raise OptionError(f"{name} is {value}; it must be from {low} to {high}")
        if math.isnan(self.score_threshold):
            raise OptionError("score_threshold is not a number; 0 keeps every cell")


def extract_options(bundle: Bundle, preset: str | None = None, **overrides: Any) -> ExtractOptions:
    """The options of a bundle's preset (its default one if not named), with some of them replaced.

    Raises:
        OptionError: no such preset, or a value outside its range.
        BundleError: the preset holds an option that this SDK does not know.
        TypeError: an override that is not an option.
    """
    name = preset or bundle.manifest.default_preset
    if name not in bundle.presets:
        has = ", ".join(sorted(bundle.presets))
        raise OptionError(f"bundle {bundle.manifest.name!r} has no preset {name!r}; it has {has}")
    stored = dict(bundle.presets[name])
    unknown = sorted(set(stored) - set(ExtractOptions.__dataclass_fields__))
    if unknown:
        raise BundleError(f"preset {name!r} sets {', '.join(unknown)}, unknown to this SDK; upgrade delf-edge")
    return ExtractOptions(**{**stored, **overrides})


def project_descriptors(codebook: Codebook, raw: Float32Array) -> Float32Array:
    """Network features to descriptors: L2, minus mean, D directions, L2 (Noh et al., section 4.1).

    Args:
        codebook: of the bundle whose network gave `raw`.
        raw: float32 (N, C).

    Returns:
        float32 (N, D), unit L2.
    """
    centred = l2_normalise(raw) - codebook.pca_mean
    return l2_normalise((centred @ codebook.pca_basis.T).astype(np.float32, copy=False))


def pool_global(codebook: Codebook, global_map: Float32Array, p: float) -> Float32Array:
    """GeM over a map float32 (h, w, Cg), then L2, minus mean, G directions, L2: float32 (G,)."""
    cells = np.maximum(global_map.reshape(-1, global_map.shape[-1]), _EPS)
    powers = cells * cells * cells if p == 3 else cells**p
    pooled = (powers.mean(axis=0) ** (1 / p)).astype(np.float32)
    return l2_normalise(codebook.global_basis @ (l2_normalise(pooled) - codebook.global_mean))


def softplus(x: Float32Array) -> Float32Array:
    """log(1 + exp(x)) without overflow."""
    result: Float32Array = np.log1p(np.exp(-np.abs(x))) + np.maximum(x, 0)
    return result


@dataclass(frozen=True, slots=True, eq=False)
class _LevelMap:
    """What the network said about one level: scores float32 (h, w), map (h, w, C), scale along x and y."""

    scores: Float32Array
    cells: Float32Array
    scale_xy: tuple[float, float]


class Extractor:
    """Extracts features with the networks of a bundle. May be shared between threads.

    Args:
        bundle: the loaded bundle.
        num_threads: threads that one run of a network may use.

    Raises:
        EngineError: no TFLite runtime, or it refuses a network.
        BundleError: a network lacks an output.
    """

    def __init__(self, bundle: Bundle, num_threads: int = 1) -> None:
        self.bundle = bundle
        self._local = Engine(bundle.network, num_threads)
        self._tail = None if bundle.tail is None else Engine(bundle.tail, num_threads)
        wanted = {"features", "attention"} if bundle.manifest.selection == "attention" else {"features"}
        _check_outputs("local network", self._local, wanted)
        if self._tail is not None:
            _check_outputs("tail", self._tail, {"global_map"})

    def extract(
        self, image: Image, options: ExtractOptions | None = None, timings: dict[str, float] | None = None
    ) -> Features:
        """The features of a photo.

        Args:
            image: the photo.
            options: the bundle's default preset if None.
            timings: filled with the milliseconds of "pyramid", "network", "selection", "projection" and "global".

        Returns:
            At most `options.max_features` features, best first. None, and a zero global descriptor, where the photo
            is too small or shows nothing.

        Raises:
            EngineError: the runtime failed.
            BundleError: a network's output is not what the manifest says.
        """
        options = options or extract_options(self.bundle)
        times: dict[str, float] = {} if timings is None else timings
        codebook = self.bundle.codebook
        with clock(times, "pyramid"):
            levels = build_pyramid(image, options.scales, options.base_size, options.max_upscale)
            nothing = not levels or _contrast(levels[-1]) < options.min_contrast
        if nothing:
            return Features.empty(codebook.dim, codebook.global_dim, image.size)
        with clock(times, "network"):
            maps = [self._run(level) for level in levels]
        with clock(times, "selection"):
            keypoints, scales, scores, raw = self._select(maps, image.size, options)
        with clock(times, "projection"):
            descriptors = project_descriptors(codebook, raw)
        with clock(times, "global"):
            target = (
                working_size(image, options.base_size, options.max_upscale)
                * self.bundle.manifest.global_spec.level_scale
            )
            nearest = min(
                zip(levels, maps, strict=True), key=lambda lm: abs(math.log(max(lm[0].pixels.shape) / target))
            )
            global_descriptor = self._global(nearest[1].cells)
        return Features(keypoints, scales, scores, descriptors, global_descriptor, image.size)

    def _run(self, level: PyramidLevel) -> _LevelMap:
        manifest = self.bundle.manifest
        x = np.subtract(level.pixels[None], np.float32(manifest.network.input.mean), dtype=np.float32)
        x *= np.float32(1 / manifest.network.input.scale)
        out = self._local.run(x)
        cells = out["features"][0]
        stride = manifest.network.stride
        expected = (-(-level.pixels.shape[0] // stride), -(-level.pixels.shape[1] // stride), manifest.network.channels)
        if cells.shape != expected:
            raise BundleError(
                f"the network gave a map of shape {cells.shape} for a level of {level.pixels.shape[:2]} pixels; "
                f"by its manifest (stride {stride}) it is {expected}; export and pack it again"
            )
        if manifest.selection == "attention":
            scores = softplus(out["attention"][0, :, :, 0])
        else:
            scores = np.sqrt(np.einsum("hwc,hwc->hw", cells, cells))
        return _LevelMap(scores, cells, (float(level.scale_xy[0]), float(level.scale_xy[1])))

    def _select(
        self, maps: list[_LevelMap], image_size: tuple[int, int], options: ExtractOptions
    ) -> tuple[Float32Array, Float32Array, Float32Array, Float32Array]:
        """Keypoints (N, 2), scales (N,), scores (N,) and raw features (N, C) of the best cells of all levels."""
        network = self.bundle.manifest.network
        parts = []
        for number, m in enumerate(maps):
            keep = m.scores >= options.score_threshold
            if options.nms_radius >= 1:
                keep &= local_maxima(m.scores, options.nms_radius)
            rows, columns = np.nonzero(keep)
            x = (network.stride * columns + network.offset + 0.5) / m.scale_xy[0] - 0.5
            y = (network.stride * rows + network.offset + 0.5) / m.scale_xy[1] - 0.5
            inside = (x >= -0.5) & (x <= image_size[0] - 0.5) & (y >= -0.5) & (y <= image_size[1] - 0.5)
            cell = rows * m.scores.shape[1] + columns
            part = np.stack([x, y, np.full(len(x), number), cell, m.scores[rows, columns]], axis=1)
            parts.append(part[inside])
        table = np.concatenate(parts)
        # Stable, so that ties fall the same way on every machine: larger level first, then row by row.
        table = table[np.argsort(-table[:, 4], kind="stable")[: options.max_features]]
        level, cell = table[:, 2].astype(np.int64), table[:, 3].astype(np.int64)
        raw = np.empty((len(table), network.channels), np.float32)
        for i, m in enumerate(maps):
            mine = level == i
            raw[mine] = m.cells.reshape(-1, network.channels)[cell[mine]]
        scale_of = np.array([math.sqrt(m.scale_xy[0] * m.scale_xy[1]) for m in maps])
        return (
            table[:, :2].astype(np.float32),
            scale_of[level].astype(np.float32),
            table[:, 4].astype(np.float32),
            raw,
        )

    def _global(self, cells: Float32Array) -> Float32Array:
        global_map = cells if self._tail is None else self._tail.run(cells[None])["global_map"][0]
        expected = self.bundle.codebook.global_mean.shape[0]
        if global_map.shape[-1] != expected:
            raise BundleError(
                f"the tail gives {global_map.shape[-1]} channels, the manifest says {expected}; pack it again"
            )
        return pool_global(self.bundle.codebook, global_map, self.bundle.manifest.global_spec.gem_p)


def _contrast(level: PyramidLevel) -> float:
    """Largest standard deviation of a colour channel. All values together would find contrast in a blue wall."""
    import cv2

    return float(cv2.meanStdDev(level.pixels)[1].max())


def local_maxima(scores: Float32Array, radius: float) -> BoolArray:
    """Which cells of float32 (h, w) no cell within `radius` cells exceeds. Of equal neighbours both stay."""
    import cv2

    r = int(radius)
    dy, dx = np.mgrid[-r : r + 1, -r : r + 1]
    disc = (dx * dx + dy * dy <= radius * radius).astype(np.uint8)
    result: BoolArray = scores >= cv2.dilate(scores, disc, borderType=cv2.BORDER_CONSTANT, borderValue=-np.inf)
    return result


def _check_outputs(what: str, engine: Engine, wanted: set[str]) -> None:
    missing = sorted(wanted - set(engine.outputs))
    if missing:
        raise BundleError(
            f"the {what} has outputs {', '.join(engine.outputs)}, but not {', '.join(missing)}; export it again"
        )
