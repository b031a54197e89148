"""Pack a bundle: the folder that a device loads.

The folder is written beside its destination and renamed when it is complete, so that nobody ever sees half a
bundle. `manifest.json` names every other file with its SHA-256; the layout is `delf_edge.bundle`'s.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from delf_edge.bundle import FORMAT, FORMAT_VERSION, MANIFEST, Bundle, bundle_id
from delf_edge.decision import Calibration
from delf_edge.errors import BundleError
from delf_edge.features import Extractor
from delf_edge.types import Features, Image, UInt8Array

GOLDEN_TOLERANCE = 0.02  # 1 - cosine, and share of the keypoints, that may differ between two machines

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
        "format": FORMAT,
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


def read_calibration(path: Path) -> dict[str, Any]:
    """Weights of probability and fusion from a JSON file: the object itself, or what `benchmarks.calibrate` prints.

    Raises:
        BundleError: it is neither, or a name or value is not one of `delf_edge.decision.Calibration`.
        OSError: the file cannot be read.
    """
    try:
        read = json.loads(path.read_bytes())
    except ValueError as e:
        raise BundleError(f"{path}: no JSON ({e}); expected the output of benchmarks.calibrate") from e
    values = read.get("calibration", read) if isinstance(read, dict) else read
    if not isinstance(values, dict):
        raise BundleError(f"{path}: a JSON {type(values).__name__}; expected an object of weights")
    Calibration.from_mapping(values)
    return values


def golden_image(width: int = 320, height: int = 240) -> Image:
    """The self-test's photo, drawn by a formula: gratings, boxes and discs, the same bytes everywhere."""
    y, x = np.mgrid[0:height, 0:width].astype(np.int64)
    pixels = np.stack([(x * 3 + y) % 256, (x + 2 * y) // 3 % 256, (x * y // 97) % 256], axis=-1)
    for i in range(24):
        cx, cy, r = (i * 53) % width, (i * 37) % height, 6 + (i * 7) % 23
        inside = (np.abs(x - cx) < r) & (np.abs(y - cy) < r) if i % 2 else (x - cx) ** 2 + (y - cy) ** 2 < r * r
        pixels[inside] = ((i * 91) % 256, (i * 57 + 80) % 256, (i * 23 + 160) % 256)
    rgb: UInt8Array = pixels.astype(np.uint8)
    return Image(pixels=rgb, original_size=(width, height))


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def write_folder(folder: Path, files: Mapping[str, bytes], head: Mapping[str, Any]) -> None:
    """Write `files` and a manifest that names each with its SHA-256 and size."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    listed = {n: {"sha256": _sha256(d), "bytes": len(d)} for n, d in sorted(files.items())}
    content = {**head, "files": listed}
    text = json.dumps({**content, "id": bundle_id(content)}, indent=2, sort_keys=True) + "\n"
    (folder / MANIFEST).write_text(text, encoding="utf-8")


def npz(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """An uncompressed npz without pickles and without a time stamp: the same arrays give the same bytes."""
    import io
    import zipfile

    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(arrays):
            entry = io.BytesIO()
            np.lib.format.write_array(entry, np.ascontiguousarray(arrays[name]), allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0)), entry.getvalue())
    return out.getvalue()


def identity_arrays(channels: int, tail_channels: int) -> dict[str, NDArray[Any]]:
    """A codebook that leaves everything as it is: what raw features are extracted with."""
    return {
        "pca_mean": np.zeros(channels, np.float32),
        "pca_basis": np.eye(channels, dtype=np.float32),
        "centroids": np.zeros((1, channels), np.float32),
        "pq": np.zeros((1, 256, channels), np.float32),
        "rotation": np.eye(channels, dtype=np.float32),
        "global_mean": np.zeros(tail_channels, np.float32),
        "global_basis": np.eye(tail_channels, dtype=np.float32),
    }


def golden_arrays(features: Features) -> dict[str, NDArray[Any]]:
    """What `doctor` compares: the features of `golden_image` and the stated tolerance."""
    return {
        "keypoints": features.keypoints,
        "scales": features.scales,
        "scores": features.scores,
        "descriptors": features.descriptors,
        "global_descriptor": features.global_descriptor,
        "image": golden_image().pixels,
        "tolerance": np.array(GOLDEN_TOLERANCE, np.float32),
    }


def _empty_golden() -> bytes:
    return npz({"tolerance": np.array(GOLDEN_TOLERANCE, np.float32)})


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
    files = {"local.tflite": local, "codebook.npz": npz(arrays), "golden.npz": _empty_golden()}
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
    files |= {"codebook.npz": npz(arrays), "MODEL_CARD.md": card.encode(), "golden.npz": _empty_golden()}
    out.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        write_folder(staging, files, head)
        features = Extractor(Bundle.load(staging)).extract(golden_image())
        files["golden.npz"] = npz(golden_arrays(features))
        write_folder(staging, files, head)
        Bundle.verify(staging)
        staging.chmod(0o755)
        _swap(staging, out)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return Bundle.load(out)


def _swap(new: Path, out: Path) -> None:
    """Put `new` at `out`. A folder cannot be renamed over another: the old one steps aside first."""
    if not out.exists():
        new.rename(out)
        return
    aside = Path(tempfile.mkdtemp(prefix=f".{out.name}.old.", dir=out.parent))
    old = out.rename(aside / "old")
    try:
        new.rename(out)
    except OSError:
        old.rename(out)
        raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def model_card(recipe: Recipe, figures: Mapping[str, Any], command: str) -> str:
    """MODEL_CARD.md: what the model is, what it saw, what it costs, where it ends.

    Args:
        recipe: the bundle's own words.
        figures: "parity" (list of dicts), "tail_parity" (the same), "codebook" (dict), "photos", "places".
        command: the command that made all of it.

    Times are left out: the same input gives the same bundle, on a busy machine too.
    """
    lines = [f"# {recipe.name} {recipe.version}", "", f"Licence of the weights: {recipe.licence}.", "", "## Data", ""]
    lines += [f"* {line}" for line in recipe.training_data]
    lines += [
        f"* Codebooks and quantisation: {figures['photos']} photos of {figures['places']} places.",
        "",
        "## Recipe",
        "",
        "Made by",
        "",
        "    " + command,
        "",
        f"Selection: {recipe.selection}. Global: GeM (p = {recipe.gem_p:g}) of level {recipe.level_scale:g}.",
        f"One cell sees {recipe.receptive_field} px. Presets: `{json.dumps(dict(recipe.presets), default=list)}`.",
        "",
        "## Figures",
        "",
        "The same command prints them. Parity compares each TFLite network with PyTorch on photos of the fitting data",
        "that int8 was not calibrated on.",
        "",
        *_table("Local network", figures["parity"]),
        *_table("Tail", figures["tail_parity"]),
        "Codebook:",
        "",
        *[f"* {name.replace('_', ' ')}: {value:.6g}" for name, value in figures["codebook"].items()],
        "",
        "## Limits",
        "",
        "* Rigid scenes seen again: buildings, statues, rock. Not people, not animals, not plain walls.",
        "* Day and night, and very different sides of one building, are different places to it.",
        "* The probability is calibrated on the data named above and holds for photos like those.",
    ]
    return "\n".join(lines) + "\n"


def _table(title: str, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    if not rows:
        return []
    head = f"| {title} | bytes | cosine, mean | cosine, 5th percentile | same keypoints |"
    body = [
        f"| {r['variant']} | {r['bytes']} | {r['cosine_mean']:.4f} | {r['cosine_worst5']:.4f} "
        f"| {r['keypoint_agreement']:.3f} |"
        for r in rows
    ]
    return [head, "|---|---|---|---|---|", *body, ""]


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a bundle whose files have the right hashes.

    Raises:
        BundleError: the bundle is damaged or of another form.
    """
    Bundle.verify(folder)
    head: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    return head


def read_networks(folder: Path) -> tuple[dict[str, Any], bytes, bytes | None]:
    """Manifest without files, default local network and default tail of a bundle.

    Raises:
        BundleError: the bundle is damaged or of another form.
    """
    head = read_manifest(folder)
    del head["files"]
    local = (folder / head["network"]["variants"][head["network"]["default"]]).read_bytes()
    tail = head["tail"]
    return head, local, (folder / tail["variants"][tail["default"]]).read_bytes() if tail else None
