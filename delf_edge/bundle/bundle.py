"""The model bundle: a folder that holds a network, its codebook, and a manifest with the SHA-256 of every file.

::

    manifest.json   what the bundle is, how its network wants its input, presets, calibration, SHA-256 of the rest
    *.tflite        the local network (and the tail of the global descriptor) in one or more variants
    codebook.npz    the arrays of `types.Codebook`
    golden.npz      known output for `delf-edge doctor`
    cohort.npz      coded photos of strangers (`cohort`), where there are any
    graph.npz       the graph over the words (`word_graph`), where there are many

Every file is read into memory and checked before anything looks inside: a flipped bit in a network would silently
give wrong descriptors. The bundle's id names the manifest and with it all bytes; a database remembers it.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from delf_edge.bundle.cohort import Cohort
from delf_edge.bundle.manifest import MANIFEST, FileEntry, Manifest, bundle_id, load_manifest, parse_manifest
from delf_edge.bundle.word_graph import WordGraph
from delf_edge.errors import BundleError, BundleIntegrityError, OptionError
from delf_edge.types import Codebook, Float32Array


@dataclass(frozen=True, slots=True, eq=False)
class Bundle:
    """A loaded and verified bundle.

    Attributes:
        id: first 12 hexadecimal digits of the SHA-256 of the manifest (sorted keys, compact separators) without its
            own "id", which must be the same where there is one.
        manifest: its content.
        variant: the loaded variant of the local network.
        network: content of the local .tflite file.
        tail: content of the tail's .tflite file, or None.
        codebook: PCA, words, product quantiser, float32.
        golden: content of the golden .npz file.
        cohort: coded photos of strangers; None where the bundle has none.
        graph: links between words, for their search; None where the bundle has none.
    """

    id: str
    manifest: Manifest
    variant: str
    network: bytes
    tail: bytes | None
    codebook: Codebook
    golden: bytes
    cohort: Cohort | None = None
    graph: WordGraph | None = None

    @property
    def presets(self) -> Mapping[str, Mapping[str, Any]]:
        """Preset name -> keyword arguments of `features.ExtractOptions`."""
        return self.manifest.presets

    @property
    def calibration(self) -> Mapping[str, Any]:
        """Weights of the probability and of the ranking."""
        return self.manifest.calibration

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, variant: str | None = None) -> Bundle:
        """Load a bundle. Of the networks only the chosen variant is read; what is read is verified.

        Args:
            path: the bundle's folder.
            variant: variant of the local network, e.g. "int8"; the tail follows where it has the same variant.

        Raises:
            BundleError: not a bundle, or its content does not fit together.
            BundleVersionError: its format is newer than this SDK.
            BundleIntegrityError: a file is missing or differs from the manifest.
            OptionError: it has no such variant.
        """
        folder = Path(path)
        raw = load_manifest(folder)
        manifest = parse_manifest(raw)
        chosen = variant or manifest.network.default
        if chosen not in manifest.network.variants:
            has = ", ".join(sorted(manifest.network.variants))
            raise OptionError(f"bundle {manifest.name!r} has no variant {chosen!r}; it has {has}")
        tail = manifest.tail
        tail_file = None if tail is None else tail.variants.get(chosen, tail.variants[tail.default])
        codebook = _codebook(_read_file(folder, manifest.codebook, manifest.files), manifest)
        return cls(
            id=bundle_id(raw),
            manifest=manifest,
            variant=chosen,
            network=_read_file(folder, manifest.network.variants[chosen], manifest.files),
            tail=None if tail_file is None else _read_file(folder, tail_file, manifest.files),
            codebook=codebook,
            golden=_read_file(folder, manifest.golden, manifest.files),
            cohort=_cohort(folder, manifest, codebook),
            graph=_graph(folder, manifest, codebook),
        )

    @staticmethod
    def verify(path: str | os.PathLike[str]) -> Manifest:
        """Check every file of a bundle, also those of variants that are not in use.

        Raises:
            BundleError: as `load`.
        """
        folder = Path(path)
        manifest = parse_manifest(load_manifest(folder))
        for name in manifest.files:
            _read_file(folder, name, manifest.files)
        codebook = _codebook(_read_file(folder, manifest.codebook, manifest.files), manifest)
        _cohort(folder, manifest, codebook)
        _graph(folder, manifest, codebook)
        return manifest


def default_bundle_path() -> Path:
    """Folder of the bundle that comes with delf-edge.

    Raises:
        BundleError: this installation has none.
    """
    folder = Path(__file__).resolve().parents[1] / "assets" / "default"
    if (folder / MANIFEST).is_file():
        return folder
    raise BundleError(f"no default bundle in {folder}; install delf-edge again, or name one: --bundle")


# -- files ---------------------------------------------------------------------------------------------------------


def _read_file(folder: Path, name: str, files: Mapping[str, FileEntry]) -> bytes:
    path, entry = folder / name, files[name]
    try:
        size = path.stat().st_size
        # The size first: a wrong one needs no reading, however large the file is.
        data = path.read_bytes() if size == entry.bytes and path.is_file() else b""
    except OSError as e:
        raise BundleIntegrityError(f"{path} is named in the manifest but cannot be read: {e}") from e
    if size != entry.bytes:
        raise BundleIntegrityError(f"{path} has {size} bytes, the manifest says {entry.bytes}; copy the bundle again")
    digest = hashlib.sha256(data).hexdigest()
    if digest != entry.sha256:
        raise BundleIntegrityError(
            f"{path} has SHA-256 {digest[:12]}..., the manifest says {entry.sha256[:12]}...; copy the bundle again"
        )
    return data


# -- codebook ------------------------------------------------------------------------------------------------------


def read_arrays(data: bytes, what: str) -> dict[str, NDArray[Any]]:
    """The arrays of an npz file, by name.

    Raises:
        BundleError: it is none, or holds objects; `what` names it.
    """
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except MemoryError:
        raise
    except Exception as e:  # of damaged data NumPy, zipfile, zlib and tokenize raise what they like
        raise BundleError(f"{what} is not an npz of plain arrays: {e}") from e


def _array(arrays: Mapping[str, NDArray[Any]], name: str) -> Float32Array:
    """One array as float32. On disk it is float32, float16, or int8 with `<name>_scale`, one factor per row."""
    if name not in arrays:
        raise BundleError(f"codebook: array {name} is missing; it has {', '.join(sorted(arrays))}")
    array = arrays[name]
    if array.dtype == np.int8:
        if f"{name}_scale" not in arrays:
            raise BundleError(f"codebook: {name} is int8 without {name}_scale; pack the bundle again")
        scale = arrays[f"{name}_scale"].astype(np.float32)
        rows = array.shape[:-1]
        if scale.size != int(np.prod(rows)):
            raise BundleError(f"codebook: {name}_scale has shape {scale.shape}, expected {rows}; pack the bundle again")
        array = array * scale.reshape(*rows, 1)
    elif array.dtype not in (np.float32, np.float16):
        raise BundleError(f"codebook: {name} is {array.dtype}; expected float32, float16 or int8")
    result: Float32Array = np.ascontiguousarray(array, np.float32)
    if not np.isfinite(result).all():
        raise BundleError(f"codebook: {name} contains values that are not finite; fit the codebook again")
    return result


def _codebook(data: bytes, manifest: Manifest) -> Codebook:
    arrays = read_arrays(data, f"codebook: {manifest.codebook}")
    codebook = Codebook(**{name: _array(arrays, name) for name in Codebook.__dataclass_fields__})
    _check_shapes(codebook, manifest)
    return codebook


def _cohort(folder: Path, manifest: Manifest, codebook: Codebook) -> Cohort | None:
    if manifest.cohort is None:
        return None
    data = _read_file(folder, manifest.cohort, manifest.files)
    return Cohort.from_arrays(read_arrays(data, f"cohort: {manifest.cohort}"), codebook)


def _graph(folder: Path, manifest: Manifest, codebook: Codebook) -> WordGraph | None:
    if manifest.graph is None:
        return None
    data = _read_file(folder, manifest.graph, manifest.files)
    return WordGraph.from_arrays(read_arrays(data, f"graph: {manifest.graph}"), codebook.n_words)


def _check_shapes(codebook: Codebook, manifest: Manifest) -> None:
    """Every shape against the network and against each other; all sizes in the message."""
    C = manifest.network.channels
    Cg = C if manifest.tail is None else manifest.tail.channels
    D = codebook.pca_basis.shape[0]
    K = codebook.centroids.shape[0]
    M = codebook.pq.shape[0]
    G = codebook.global_basis.shape[0]
    expected = {
        "pca_mean": (C,),
        "pca_basis": (D, C),
        "centroids": (K, D),
        "pq": (M, 256, D // max(M, 1)),
        "rotation": (D, D),
        "global_mean": (Cg,),
        "global_basis": (G, Cg),
    }
    for name, shape in expected.items():
        if (found := getattr(codebook, name).shape) != shape:
            raise BundleError(
                f"codebook: {name} has shape {found}, expected {shape} "
                f"(C={C}, D={D}, K={K}, M={M}, Cg={Cg}, G={G}); fit the codebook for this network"
            )
    if D == 0 or M == 0 or D % M or not 1 <= K <= 65536:
        raise BundleError(f"codebook: D={D} must be a multiple of M={M}, and K={K} between 1 and 65536")
