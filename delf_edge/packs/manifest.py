"""Packs: read-only parts of a database, one sealed SQLite file each, with a manifest beside it.

`poland.pack` is a database like any other (`storage.schema`), sealed; `poland.pack.json` says what it is::

    format            1
    name, version     what it is called, and a number that only grows
    bundle_id, layout the bundle its codes were made with, and their sizes
    schema_version    of the database
    images, landmarks, features
    bytes, sha256     of the file
    content_sha256    of its rows (`content_digest`): the same for two files with the same content
    selection         how it was cut
    manifest_sha256   of the manifest without this line, against accidents; against forgers packs are shipped through a
                      signed channel (`updates`)

Image ids, revisions and times are those of the database it was cut from, so that two packs of the same name differ in
just the rows that changed.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from delf_edge.errors import DelfEdgeError, OptionError, PackError, PackIntegrityError
from delf_edge.files import dump_json, file_sha256, parse_json, write_atomically
from delf_edge.quantization.packed_codes import CodeLayout
from delf_edge.storage.store import Store

PACK_FORMAT = 1
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_MAX_MANIFEST = 1 << 20  # bytes


@dataclass(frozen=True, slots=True)
class PackManifest:
    """What a pack is; see the head of this module for the fields."""

    name: str
    version: int
    bundle_id: str
    layout: CodeLayout
    schema_version: int
    images: int
    landmarks: int
    features: int
    bytes: int
    sha256: str
    content_sha256: str
    selection: dict[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """What is written to the manifest."""
        facts = {"format": PACK_FORMAT, **dataclasses.asdict(self)}
        return facts | {"manifest_sha256": hashlib.sha256(dump_json(facts)).hexdigest()}

    def write(self, path: Path) -> None:
        """Put the manifest at `path`, atomically and durably."""
        write_atomically(path, dump_json(self.as_json()))

    @classmethod
    def from_json(cls, facts: Any, where: str) -> Self:
        """A manifest from its JSON form.

        Args:
            facts: the parsed JSON.
            where: what to call it in messages.

        Raises:
            PackError: it is of a newer format.
            PackIntegrityError: it is not a manifest.
        """
        if not isinstance(facts, dict) or not isinstance(facts.get("format"), int):
            raise PackIntegrityError(f"{where}: not the manifest of a pack; fetch the pack again")
        if facts["format"] != PACK_FORMAT:
            raise PackError(
                f"{where}: manifest of format {facts['format']}, this delf-edge reads {PACK_FORMAT}; "
                "install a newer one"
            )
        names = [f.name for f in dataclasses.fields(cls)]
        try:
            if set(facts) != {"format", "manifest_sha256", *names}:
                raise ValueError(f"its fields are {sorted(facts)}")
            values = {n: facts[n] for n in names} | {"layout": CodeLayout(**facts["layout"])}
            for name in names:
                kind = (
                    int if name in _COUNTS else dict if name == "selection" else CodeLayout if name == "layout" else str
                )
                if type(values[name]) is not kind or (kind is int and values[name] < 0):
                    raise ValueError(f"{name} is {values[name]!r}")
            check_name(values["name"])
            manifest = cls(**values)
            if manifest.as_json() != facts:
                raise ValueError("it was changed: its own SHA-256 differs")
        except (TypeError, ValueError) as e:
            raise PackIntegrityError(f"{where}: not a sound manifest ({e}); fetch the pack again") from e
        return manifest

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a manifest.

        Raises:
            PackError: there is none, or it is of a newer format.
            PackIntegrityError: it is damaged.
        """
        try:
            with path.open("rb") as file:
                data = file.read(_MAX_MANIFEST + 1)
        except OSError as e:
            raise PackError(f"{path}: the manifest of the pack cannot be read ({e.strerror})") from e
        try:
            facts = parse_json(data) if len(data) <= _MAX_MANIFEST else None
        except ValueError as e:
            raise PackIntegrityError(f"{path}: damaged, no JSON ({e}); fetch the pack again") from e
        manifest = cls.from_json(facts, str(path))
        if data != dump_json(facts):
            raise PackIntegrityError(f"{path}: changed since it was written; fetch the pack again")
        return manifest


_COUNTS = frozenset({"version", "schema_version", "images", "landmarks", "features", "bytes"})


def manifest_path(pack: Path) -> Path:
    """Where the manifest of a pack lies."""
    return pack.parent / f"{pack.name}.json"


def check_name(name: str) -> str:
    """The name of a pack, if it is one.

    Raises:
        OptionError: it is not.
    """
    if not _NAME.fullmatch(name) or name.endswith("."):
        raise OptionError(
            f"pack name {name!r}: use 1 to 64 of a-z, 0-9, '.', '_', '-', beginning with a letter or digit"
        )
    return name


def check_pack(path: str | os.PathLike[str]) -> PackManifest:
    """Compare a pack's bytes with its manifest.

    Returns:
        The manifest.

    Raises:
        PackError: there is no such pack.
        PackIntegrityError: the file is cut off or changed; the message names it.
    """
    path = Path(path)
    manifest = PackManifest.read(manifest_path(path))
    try:
        size = path.stat().st_size
        if size != manifest.bytes:
            raise PackIntegrityError(
                f"{path}: {size} bytes, by its manifest {manifest.name} version {manifest.version} has "
                f"{manifest.bytes}; fetch the pack again"
            )
        found = file_sha256(path)
    except OSError as e:
        raise PackError(f"{path}: the pack cannot be read ({e.strerror})") from e
    if found != manifest.sha256:
        raise PackIntegrityError(
            f"{path}: changed; its SHA-256 is {found[:12]}, not {manifest.sha256[:12]}; fetch the pack again"
        )
    return manifest


def open_pack(path: str | os.PathLike[str], *, bundle_id: str | None = None, layout: CodeLayout | None = None) -> Store:
    """Open a pack for reading, after comparing its bytes with its manifest.

    Args:
        path: the pack's file.
        bundle_id: the bundle the caller works with; None accepts any.
        layout: its layout.

    Raises:
        PackError, PackIntegrityError: as `check_pack`; or the file is not what its manifest says.
        BundleMismatchError: it was made with another bundle.
        StoreError: it cannot be opened.
    """
    manifest = check_pack(path)
    store = Store.open(path, bundle_id=bundle_id, layout=layout, mode="ro")
    try:
        info = store.info()
        found = (info.bundle_id, info.layout, info.n_images, info.n_features, info.sealed)
        said = (manifest.bundle_id, manifest.layout, manifest.images, manifest.features, True)
        if found != said:
            raise PackIntegrityError(f"{path}: holds {found}, by its manifest {said}; fetch the pack again")
    except DelfEdgeError:
        store.close()
        raise
    return store
