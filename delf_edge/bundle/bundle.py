"""The model bundle: a folder that holds a network, its codebook, and a manifest with the SHA-256 of every file.

::

    manifest.json   what the bundle is, how its network wants its input, presets, calibration, SHA-256 of the rest
    *.tflite        the local network (and the tail of the global descriptor) in one or more variants
    codebook.npz    the arrays of `types.Codebook`
    golden.npz      known output for `delf-edge doctor`

Every file is read into memory and checked before anything looks inside: a flipped bit in a network would silently
give wrong descriptors. The bundle's id names the manifest and with it all bytes; a database remembers it.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from delf_edge.errors import BundleError, BundleIntegrityError, BundleVersionError, OptionError
from delf_edge.types import Codebook, Float32Array

FORMAT = "delf-edge-bundle"
FORMAT_VERSION = 1
MANIFEST = "manifest.json"
SELECTIONS = ("attention", "l2norm")

_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_MAX_MANIFEST = 4 * 1024 * 1024  # bytes


@dataclass(frozen=True, slots=True)
class FileEntry:
    """What the manifest says about one file: `sha256` in hexadecimal, size in `bytes`."""

    sha256: str
    bytes: int


@dataclass(frozen=True, slots=True)
class InputSpec:
    """How the local network wants its input: float32 NHWC RGB, (value - `mean`) / `scale`."""

    mean: float
    scale: float


@dataclass(frozen=True, slots=True)
class NetworkSpec:
    """The local network.

    Attributes:
        variants: variant name -> file name.
        default: variant that is loaded when none is named.
        input: normalisation of its input.
        stride: level pixels between neighbouring cells.
        receptive_field: side in level pixels of the square that one cell sees.
        offset: cell i is centred on level pixel stride * i + offset.
        channels: C of its `features` output.
    """

    variants: Mapping[str, str]
    default: str
    input: InputSpec
    stride: int
    receptive_field: int
    offset: float
    channels: int


@dataclass(frozen=True, slots=True)
class TailSpec:
    """The network that turns one level's features into the map of the global descriptor; `channels` is Cg."""

    variants: Mapping[str, str]
    default: str
    channels: int


@dataclass(frozen=True, slots=True)
class GlobalSpec:
    """Global descriptor: GeM exponent, and the pyramid scale whose map is pooled."""

    gem_p: float
    level_scale: float


@dataclass(frozen=True, slots=True)
class Manifest:
    """The content of manifest.json, checked.

    Attributes:
        name, version, licence: what the bundle says of itself.
        training_data: one line per data set its weights or codebook saw.
        files: file name -> size and hash, every file of the bundle except the manifest.
        network, tail, global_spec: the networks; `tail` is None where the local map itself is pooled.
        selection: "attention" (softplus of the network's logit) or "l2norm" (length of the feature).
        codebook, golden: file names.
        presets: preset name -> keyword arguments of `features.ExtractOptions`.
        default_preset: the preset that is used when none is named.
        calibration: read by the recogniser.
        calibration_of: id of the bundle whose codebook the calibration was fitted with; None: of this one.
    """

    name: str
    version: str
    licence: str
    training_data: tuple[str, ...]
    files: Mapping[str, FileEntry]
    network: NetworkSpec
    tail: TailSpec | None
    selection: str
    global_spec: GlobalSpec
    codebook: str
    golden: str
    presets: Mapping[str, Mapping[str, Any]]
    default_preset: str
    calibration: Mapping[str, Any]
    calibration_of: str | None = None


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
    """

    id: str
    manifest: Manifest
    variant: str
    network: bytes
    tail: bytes | None
    codebook: Codebook
    golden: bytes

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
        raw = _read_manifest(folder)
        manifest = _parse(raw)
        chosen = variant or manifest.network.default
        if chosen not in manifest.network.variants:
            has = ", ".join(sorted(manifest.network.variants))
            raise OptionError(f"bundle {manifest.name!r} has no variant {chosen!r}; it has {has}")
        tail = manifest.tail
        tail_file = None if tail is None else tail.variants.get(chosen, tail.variants[tail.default])
        return cls(
            id=bundle_id(raw),
            manifest=manifest,
            variant=chosen,
            network=_read_file(folder, manifest.network.variants[chosen], manifest.files),
            tail=None if tail_file is None else _read_file(folder, tail_file, manifest.files),
            codebook=_codebook(_read_file(folder, manifest.codebook, manifest.files), manifest),
            golden=_read_file(folder, manifest.golden, manifest.files),
        )

    @staticmethod
    def verify(path: str | os.PathLike[str]) -> Manifest:
        """Check every file of a bundle, also those of variants that are not in use.

        Raises:
            BundleError: as `load`.
        """
        folder = Path(path)
        manifest = _parse(_read_manifest(folder))
        for name in manifest.files:
            _read_file(folder, name, manifest.files)
        _codebook(_read_file(folder, manifest.codebook, manifest.files), manifest)
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


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    try:
        if path.stat().st_size > _MAX_MANIFEST:
            raise BundleError(f"{path} has {path.stat().st_size} bytes; a manifest has at most {_MAX_MANIFEST}")
        raw = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise BundleError(f"{folder} is not a model bundle: it has no {MANIFEST}; pass the bundle's folder") from None
    except OSError as e:
        raise BundleError(f"{path} cannot be read: {e}") from e
    except (ValueError, RecursionError) as e:
        raise BundleError(f"{path} is not valid JSON: {e}; copy the bundle again") from e
    if not isinstance(raw, dict) or raw.get("format") != FORMAT:
        found = raw.get("format") if isinstance(raw, dict) else type(raw).__name__
        raise BundleError(f"{path} is not the manifest of a model bundle: format is {found!r}, expected {FORMAT!r}")
    version = raw.get("format_version")
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise BundleError(f"{path}: format_version is {version!r}; expected a number from 1 to {FORMAT_VERSION}")
    if version > FORMAT_VERSION:
        raise BundleVersionError(
            f"{path} has bundle format {version}, this SDK reads up to {FORMAT_VERSION}; upgrade delf-edge"
        )
    if raw.get("id", (found := bundle_id(raw))) != found:  # the hashes of files say nothing about presets and weights
        raise BundleIntegrityError(f"{path} says that it is bundle {raw['id']}, its content is {found}; copy it again")
    return raw


def bundle_id(raw: Mapping[str, Any]) -> str:
    """The id of a manifest's content, without the key "id" that repeats it."""
    content = {key: value for key, value in raw.items() if key != "id"}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


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


# -- manifest ------------------------------------------------------------------------------------------------------


def _get(section: Mapping[str, Any], key: str, kind: type | tuple[type, ...], where: str = "") -> Any:
    """`section[key]`, of the wanted type; a bool is not a number."""
    name = f"{where}.{key}" if where else key
    if key not in section:
        raise BundleError(f"manifest: {name} is missing; pack the bundle again")
    value = section[key]
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise BundleError(f"manifest: {name} is {value!r}, a value of the wrong type; pack the bundle again")
    return value


def _number(section: Mapping[str, Any], key: str, where: str, *, above: float | None = None) -> float:
    value = float(_get(section, key, (int, float), where))
    if not np.isfinite(value) or (above is not None and value <= above):
        raise BundleError(f"manifest: {where}.{key} is {value}; expected a number above {above}; pack the bundle again")
    return value


def _count(section: Mapping[str, Any], key: str, where: str) -> int:
    value: int = _get(section, key, int, where)
    if value < 1:
        raise BundleError(f"manifest: {where}.{key} is {value}; expected at least 1; pack the bundle again")
    return value


def _files(raw: Mapping[str, Any]) -> dict[str, FileEntry]:
    files = {}
    section = _get(raw, "files", dict)
    for name in section:
        if not _PLAIN_NAME.fullmatch(name) or name == MANIFEST:
            raise BundleError(f"manifest: file name {name!r} is not allowed; names are plain, without folders")
        entry = _get(section, name, dict, "files")
        size, digest = _get(entry, "bytes", int, name), _get(entry, "sha256", str, name)
        if size < 0 or not re.fullmatch("[0-9a-f]{64}", digest):
            raise BundleError(f"manifest: files.{name} has no valid size and SHA-256; pack the bundle again")
        files[name] = FileEntry(digest, size)
    return files


def _named_file(section: Mapping[str, Any], key: str, files: Mapping[str, FileEntry], where: str = "") -> str:
    name: str = _get(section, key, str, where)
    if name not in files:
        raise BundleError(f"manifest: {where}{key} names {name!r}, which is not in files; pack the bundle again")
    return name


def _variants(section: Mapping[str, Any], files: Mapping[str, FileEntry], where: str) -> tuple[Mapping[str, str], str]:
    variants = _get(section, "variants", dict, where)
    named = {v: _named_file(variants, v, files, f"{where}.variants.") for v in variants}
    default = _get(section, "default", str, where)
    if default not in named:
        raise BundleError(f"manifest: {where}.default is {default!r}, but there is only {', '.join(sorted(named))}")
    return MappingProxyType(named), default


def _network(raw: Mapping[str, Any], files: Mapping[str, FileEntry]) -> NetworkSpec:
    section = _get(raw, "network", dict)
    spec = _get(section, "input", dict, "network")
    for key, only in (("layout", "NHWC"), ("dtype", "float32"), ("channels", "RGB")):
        if (found := _get(spec, key, str, "network.input")) != only:
            raise BundleError(f"manifest: network.input.{key} is {found!r}; this SDK knows {only!r}; upgrade delf-edge")
    variants, default = _variants(section, files, "network")
    return NetworkSpec(
        variants=variants,
        default=default,
        input=InputSpec(_number(spec, "mean", "network.input"), _number(spec, "scale", "network.input", above=0)),
        stride=_count(section, "stride", "network"),
        receptive_field=_count(section, "receptive_field", "network"),
        offset=_number(section, "offset", "network"),
        channels=_count(section, "channels", "network"),
    )


def _presets(raw: Mapping[str, Any]) -> tuple[Mapping[str, Mapping[str, Any]], str]:
    section = _get(raw, "presets", dict)
    presets = {name: MappingProxyType(_get(section, name, dict, "presets")) for name in section}
    default = _get(raw, "default_preset", str)
    if default not in presets:
        raise BundleError(f"manifest: default_preset is {default!r}, but there is only {', '.join(sorted(presets))}")
    return MappingProxyType(presets), default


def _parse(raw: Mapping[str, Any]) -> Manifest:
    files = _files(raw)
    tail_section = _get(raw, "tail", (dict, type(None)))
    tail = None
    if tail_section is not None:
        variants, default = _variants(tail_section, files, "tail")
        tail = TailSpec(variants, default, _count(tail_section, "channels", "tail"))
    selection = _get(raw, "selection", str)
    if selection not in SELECTIONS:
        raise BundleError(f"manifest: selection is {selection!r}; this SDK knows {' and '.join(SELECTIONS)}")
    pooling = _get(raw, "global", dict)
    presets, default_preset = _presets(raw)
    return Manifest(
        name=_get(raw, "name", str),
        version=_get(raw, "version", str),
        licence=_get(raw, "licence", str),
        training_data=tuple(str(line) for line in _get(raw, "training_data", list)),
        files=MappingProxyType(files),
        network=_network(raw, files),
        tail=tail,
        selection=selection,
        global_spec=GlobalSpec(
            _number(pooling, "gem_p", "global", above=0), _number(pooling, "level_scale", "global", above=0)
        ),
        codebook=_named_file(raw, "codebook", files),
        golden=_named_file(raw, "golden", files),
        presets=presets,
        default_preset=default_preset,
        calibration=MappingProxyType(_get(raw, "calibration", dict)),
        calibration_of=_get({"calibration_of": None, **raw}, "calibration_of", (str, type(None))),
    )


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
