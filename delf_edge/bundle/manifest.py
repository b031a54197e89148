"""manifest.json of a model bundle: what it may say, and how it becomes typed values.

It is read with the errors of a person who packs a bundle in mind: each message names the key, what it is, and what was
expected.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from delf_edge.errors import BundleError, BundleIntegrityError, BundleVersionError

BUNDLE_FORMAT = "delf-edge-bundle"
FORMAT_VERSION = 1
MANIFEST = "manifest.json"
SELECTIONS = ("attention", "l2norm")

_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_MAX_MANIFEST = 4 * 1024 * 1024  # bytes


@dataclass(frozen=True, slots=True, eq=False)
class FileEntry:
    """What the manifest says about one file: `sha256` in hexadecimal, size in `bytes`."""

    sha256: str
    bytes: int


@dataclass(frozen=True, slots=True, eq=False)
class InputSpec:
    """How the local network wants its input: float32 NHWC RGB, (value - `mean`) / `scale`."""

    mean: float
    scale: float


@dataclass(frozen=True, slots=True, eq=False)
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


@dataclass(frozen=True, slots=True, eq=False)
class TailSpec:
    """The network that turns one level's features into the map of the global descriptor; `channels` is Cg."""

    variants: Mapping[str, str]
    default: str
    channels: int


@dataclass(frozen=True, slots=True, eq=False)
class GlobalSpec:
    """Global descriptor: GeM exponent, and the pyramid scale whose map is pooled."""

    gem_p: float
    level_scale: float


@dataclass(frozen=True, slots=True, eq=False)
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
        cohort: file name, None where there is no cohort.
        graph: file name, None where there is no graph over the words.
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
    cohort: str | None = None
    graph: str | None = None


def load_manifest(folder: Path) -> dict[str, Any]:
    """The content of a bundle's manifest.json, of a format that this SDK knows; `parse_manifest` checks the rest.

    Raises:
        BundleError: there is none, or it is no manifest of a bundle.
        BundleVersionError: its format is newer than this SDK.
        BundleIntegrityError: it says another id than its content has.
    """
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
    if not isinstance(raw, dict) or raw.get("format") != BUNDLE_FORMAT:
        found = raw.get("format") if isinstance(raw, dict) else type(raw).__name__
        raise BundleError(
            f"{path} is not the manifest of a model bundle: format is {found!r}, expected {BUNDLE_FORMAT!r}"
        )
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


def parse_manifest(raw: Mapping[str, Any]) -> Manifest:
    """A manifest as typed values, each checked.

    Raises:
        BundleError: a key is missing, or has a value of the wrong type or outside its range; the message names it.
    """
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
        cohort=_named_file(raw, "cohort", files) if "cohort" in raw else None,
        graph=_named_file(raw, "graph", files) if "graph" in raw else None,
    )


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
