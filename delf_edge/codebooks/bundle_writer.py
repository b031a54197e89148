"""A bundle's folder from its files: manifest with every SHA-256, golden vectors, put in place whole.

The layout is `delf_edge.bundle.bundle`'s.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from delf_edge.bundle.bundle import Bundle
from delf_edge.bundle.calibration import Calibration
from delf_edge.bundle.cohort import Cohort
from delf_edge.bundle.manifest import BUNDLE_FORMAT, MANIFEST, bundle_id
from delf_edge.errors import BundleError
from delf_edge.features.extractor import Extractor
from delf_edge.files import replacing_folder, require_apart, require_own_folder
from delf_edge.quantization.hnsw import HnswGraph
from delf_edge.types import Codebook, Features, Image, UInt8Array

GRAPH = "graph.npz"
GRAPH_FROM = 8192  # words: with fewer, comparing a query with all of them is as fast
NETWORK_CARD = "MODEL_CARD_OF_NETWORKS.md"
_STRANGERS_CARD = "\n## Strangers, probability and threshold\n\n"
GOLDEN_TOLERANCE = 0.02  # 1 - cosine, and share of the keypoints, that may differ between two machines


def read_calibration(path: Path) -> dict[str, Any]:
    """Weights of probability and fusion from a JSON file: the object itself, or what `benchmarks.calibrate` prints.

    Raises:
        BundleError: it is neither, or a name or value is not one of `delf_edge.bundle.calibration.Calibration`.
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


def make_golden_image(width: int = 320, height: int = 240) -> Image:
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


def identity_codebook(channels: int, tail_channels: int) -> Codebook:
    """`identity_arrays` as a codebook."""
    return Codebook(**identity_arrays(channels, tail_channels))


def golden_arrays(features: Features) -> dict[str, NDArray[Any]]:
    """What `doctor` compares: the features of `golden_image` and the stated tolerance."""
    return {
        "keypoints": features.keypoints,
        "scales": features.scales,
        "scores": features.scores,
        "descriptors": features.descriptors,
        "global_descriptor": features.global_descriptor,
        "image": make_golden_image().pixels,
        "tolerance": np.array(GOLDEN_TOLERANCE, np.float32),
    }


def empty_golden() -> bytes:
    """Golden vectors of a bundle that has none."""
    return npz({"tolerance": np.array(GOLDEN_TOLERANCE, np.float32)})


def check_target(out: Path, inputs: Iterable[Path] = ()) -> None:
    """Make sure that a bundle put at `out` takes nothing from anybody. To be called before any work is done.

    Args:
        out: the bundle's folder; what is there will be replaced.
        inputs: files and folders that the bundle is made of: `out` may be none of them, nor lie inside or around one.

    Raises:
        OptionError: `out` is a file, or holds anything but a bundle's own files, or an input is in the way.
    """
    require_apart(out, inputs)
    require_own_folder(out, "a bundle", _own_files)


def _own_files(folder: Path) -> set[str]:
    """Names of the files that a bundle's manifest lists, with the manifest itself; empty where there is no bundle."""
    try:
        read = json.loads((folder / MANIFEST).read_bytes())
    except (OSError, ValueError, RecursionError):
        return set()
    listed = read.get("files") if isinstance(read, dict) and read.get("format") == BUNDLE_FORMAT else None
    return {MANIFEST, *listed} if isinstance(listed, dict) else set()


def complete(out: Path, files: Mapping[str, bytes], head: Mapping[str, Any]) -> Bundle:
    """Put a bundle at `out`, replacing what is there, and load it.

    Args:
        out: the bundle's folder.
        files: all files by name, without `manifest.json`; the golden vectors are made here, and so is the graph over
            many words where the manifest names none.
        head: the manifest without `files` and `id`.

    Raises:
        BundleError: the files do not fit together; nothing was replaced.
        OptionError: `out` holds anything but a bundle (`check_target`).
    """
    golden = str(head["golden"])
    with replacing_folder(out, lambda: check_target(out)) as staging:
        write_folder(staging, {**files, golden: empty_golden()}, head)
        loaded = Bundle.load(staging)
        files, head = _graphed(loaded, files, head)
        features = Extractor(loaded).extract(make_golden_image())
        write_folder(staging, {**files, golden: npz(golden_arrays(features))}, head)
        Bundle.verify(staging)
    return Bundle.load(out)


def _graphed(
    bundle: Bundle, files: Mapping[str, bytes], head: Mapping[str, Any]
) -> tuple[Mapping[str, bytes], Mapping[str, Any]]:
    """Files and manifest with a graph over the words, where there are many and the bundle has none."""
    centroids = bundle.codebook.centroids
    if len(centroids) < GRAPH_FROM or bundle.graph is not None:
        return files, head
    graph = HnswGraph.build(centroids).links(centroids)
    return {**files, GRAPH: npz(graph.arrays())}, {**head, "graph": GRAPH}


def with_graph(base: Path, out: Path) -> Bundle:
    """A bundle that lacks a graph over its words, with one, put at `out`; nothing else of it changes but its id.

    Raises:
        BundleError: the base is damaged.
        OptionError: `out` holds anything but a bundle (`check_target`).
    """
    check_target(out)
    head = verified_manifest(base)
    head.pop("id", None)
    files = {file: (base / file).read_bytes() for file in head.pop("files")}
    with replacing_folder(out, lambda: check_target(out)) as staging:
        write_folder(staging, *_graphed(Bundle.load(base), files, head))
        Bundle.verify(staging)
    return Bundle.load(out)


def verified_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a bundle whose files have the right hashes.

    Raises:
        BundleError: the bundle is damaged or of another form.
    """
    Bundle.verify(folder)
    head: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    return head


def with_codebook(
    base: Path,
    out: Path,
    arrays: Mapping[str, NDArray[Any]],
    *,
    name: str,
    data: str,
    card: str,
    calibration: Mapping[str, Any] | None = None,
) -> Bundle:
    """A bundle with the networks of another one and a codebook of its own, put at `out`.

    The weights of probability and ranking stay those of the base, which were fitted for its codebook: the manifest
    then names that bundle as `calibration_of`.

    Args:
        base: folder of the bundle that gives networks and presets; its model card becomes `MODEL_CARD_OF_NETWORKS.md`.
        out: the new bundle's folder, replaced where there is one.
        arrays: the stored codebook, `codebooks.Fit.arrays`.
        name: of the new bundle.
        data: a line on what the codebook was fitted on.
        card: text of MODEL_CARD.md.
        calibration: weights that were fitted for this codebook.

    Raises:
        BundleError: the base is damaged, or the codebook does not fit its networks.
    """
    head = verified_manifest(base)
    base_id = head.pop("id", None) or bundle_id(head)
    files = {file: (base / file).read_bytes() for file in head.pop("files")}
    if "MODEL_CARD.md" in files:
        own = files["MODEL_CARD.md"].decode().partition(_STRANGERS_CARD)[0]  # the cohort is left behind
        files.setdefault(NETWORK_CARD, own.encode())
    files |= {head["codebook"]: npz(arrays), "MODEL_CARD.md": card.encode()}
    head |= {"name": name, "training_data": [*head["training_data"], data]}
    for key in ("cohort", "graph"):  # both are of the base's codebook
        files.pop(head.pop(key, ""), None)
    if calibration is None:
        head.setdefault("calibration_of", base_id)
    else:
        head["calibration"] = dict(calibration)
        head.pop("calibration_of", None)
    return complete(out, files, head)


def with_extraction(
    base: Path,
    out: Path,
    *,
    global_scale: float | None = None,
    scales: Mapping[str, Sequence[float]] | None = None,
) -> Bundle:
    """A bundle with the files of another one that looks at other sizes of a photo, put at `out`.

    The golden vectors are made anew. Databases of the base do not fit it; weights and cohort are to be fitted again.

    Args:
        base: folder of the bundle that gives everything else.
        out: the new bundle's folder, replaced where there is one.
        global_scale: pyramid scale of the level that the global descriptor is made of; None: the base's.
        scales: pyramid scales of presets that the base has, by name; the others keep theirs.

    Raises:
        BundleError: the base is damaged, or has no such preset.
    """
    head = verified_manifest(base)
    head.pop("id", None)
    files = {file: (base / file).read_bytes() for file in head.pop("files")}
    if global_scale is not None:
        head["global"] = {**head["global"], "level_scale": global_scale}
    presets = {name: dict(options) for name, options in head["presets"].items()}
    for name, chosen in (scales or {}).items():
        if name not in presets:
            raise BundleError(f"{base} has no preset {name!r}; it has {', '.join(sorted(presets))}")
        presets[name]["scales"] = list(chosen)
    head["presets"] = presets
    return complete(out, files, head)


def with_cohort(
    base: Path, out: Path, cohort: Cohort, *, calibration: Mapping[str, Any], data: str, card: str = ""
) -> Bundle:
    """A bundle with the networks and the codebook of another one, and strangers and weights of its own, put at `out`.

    Args:
        base: folder of the bundle that gives everything else.
        out: the new bundle's folder, replaced where there is one.
        cohort: photos coded with the base's codebook.
        calibration: weights that were fitted with them.
        data: a line on what both were made of.
        card: what the model card says of them, in a section of its own at its end.

    Raises:
        BundleError: the base is damaged, or the cohort does not fit its codebook.
    """
    head = verified_manifest(base)
    head.pop("id", None)
    head.pop("calibration_of", None)
    files = {file: (base / file).read_bytes() for file in head.pop("files")} | {"cohort.npz": npz(cohort.arrays())}
    Calibration.from_mapping(calibration)
    text = files.get("MODEL_CARD.md", b"").decode().partition(_STRANGERS_CARD)[0]
    files["MODEL_CARD.md"] = f"{text}{_STRANGERS_CARD}{card}\n".encode()
    lines = [line for line in head["training_data"] if not line.startswith("Cohort:")]
    head |= {"cohort": "cohort.npz", "calibration": dict(calibration), "training_data": [*lines, data]}
    return complete(out, files, head)
