"""The packs that `delf-edge update` keeps in a folder of a device, and which of them is in use.

::

    packs/poland/3-7d1f0c.pack, 3-7d1f0c.pack.json    a version
    packs/poland/4-a03b55.pack, ...                   the one after it
    packs/poland/current.json                         {"current": "4-a03b55.pack", "previous": "3-7d1f0c.pack"}

`current.json` is replaced atomically, so there is always one version in use: the old one or the new one. A version
that cannot be opened, whatever has happened to it, gives way to the one before.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from delf_edge.errors import PackError, StoreError
from delf_edge.files import parse_json, remove_database, sync_path, write_atomically
from delf_edge.packs.manifest import PackManifest, check_name, check_pack, manifest_path, open_pack
from delf_edge.quantization.packed_codes import CodeLayout
from delf_edge.storage.store import Store

POINTER = "current.json"
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Installed:
    """A version of a pack on a device."""

    path: Path
    manifest: PackManifest


def open_packs(
    path: str | os.PathLike[str], *, bundle_id: str | None = None, layout: CodeLayout | None = None
) -> list[Store]:
    """Open a pack, or every pack that is installed in a folder.

    Args:
        path: the file of a pack, or the folder.
        bundle_id: the bundle the caller works with.
        layout: its layout.

    Raises:
        PackError, StoreError: the pack, or the last version that could be tried, cannot be used.
    """
    path = Path(path)
    if not path.is_dir():
        return [open_pack(path, bundle_id=bundle_id, layout=layout)]
    opened: list[Store] = []
    try:
        for name in names(path):
            opened.append(open_installed(path, name, bundle_id=bundle_id, layout=layout))
    except BaseException:
        for store in opened:
            store.close()
        raise
    return opened


def names(folder: Path) -> list[str]:
    """Names of the packs that have a version in a folder."""
    return sorted({path.parent.name for path in folder.glob("*/*.pack") if not path.name.startswith(".")})


def open_installed(folder: Path, name: str, *, bundle_id: str | None = None, layout: CodeLayout | None = None) -> Store:
    """Open the version in use, or where that fails the one before it.

    Raises:
        PackError: none can be opened; the message says what is wrong with the one in use.
    """
    errors: list[PackError | StoreError] = []
    for path in versions(folder, name):
        try:
            store = open_pack(path, bundle_id=bundle_id, layout=layout)
        except (PackError, StoreError) as e:
            _log.warning("%s: going back to the version before: %s", name, e)
            errors.append(e)
        else:
            return store
    if len(errors) == 1:
        raise errors[0]
    raise PackError(
        f"{folder}: no version of the pack {name!r} can be used: {'; '.join(map(str, errors)) or 'none is there'}"
    )


def versions(folder: Path, name: str) -> list[Path]:
    """The files of a pack, the one in use first, then the one before it, then whatever else is there, newest first."""
    home = folder / check_name(name)
    current, previous = _pointer(home)
    others = sorted((p for p in home.glob("*.pack") if not p.name.startswith(".")), key=_age, reverse=True)
    chosen = [home / file for file in (current, previous) if file and (home / file).exists()]
    # With a pointer nothing else was ever answered with: what lies beside it is from an update that was cut off.
    return chosen or others


def _age(path: Path) -> tuple[int, str]:
    number = path.name.partition("-")[0]
    return (int(number) if number.isascii() and number.isdigit() else -1, path.name)


def _pointer(home: Path) -> tuple[str | None, str | None]:
    try:
        facts = parse_json((home / POINTER).read_bytes())
        files = [facts[key] for key in ("current", "previous")]
    except (OSError, ValueError, KeyError, TypeError):
        return None, None
    sound = [f if isinstance(f, str) and Path(f).name == f and f.endswith(".pack") else None for f in files]
    return sound[0], sound[1]


def _point(home: Path, current: str, previous: str | None) -> None:
    """Write the pointer of a pack."""
    pointer = {"current": current, "previous": previous}
    write_atomically(home / POINTER, (json.dumps(pointer, sort_keys=True) + "\n").encode())


def in_use(folder: Path, name: str) -> Installed | None:
    """The newest version of a pack that is what its manifest says; None where there is none."""
    for path in versions(folder, name):
        try:
            return Installed(path, check_pack(path))
        except PackError as e:
            _log.warning("%s: passed over: %s", name, e)
    return None


def switch(folder: Path, name: str, path: Path) -> None:
    """Put a version into use, durably and at once; the one that was in use until now is kept, older ones go.

    Args:
        folder: folder of all packs.
        name: the pack.
        path: the new version, in the pack's own folder.
    """
    home = folder / check_name(name)
    before = in_use(folder, name)
    previous = before.path.name if before is not None and before.path != path else None
    sync_path(home)
    _point(home, path.name, previous)
    tidy(folder, name)


def go_back(folder: Path, name: str) -> Path | None:
    """Put the version before the present one into use again, and forget the present one; None where there is none."""
    home = folder / check_name(name)
    current, previous = _pointer(home)
    if current is None or previous is None or not (home / previous).exists():
        return None
    _point(home, previous, None)
    tidy(folder, name)
    return home / previous


def tidy(folder: Path, name: str) -> None:
    """Remove what an interrupted update has left, and versions that are neither in use nor the one before."""
    home = folder / check_name(name)
    kept = set(_pointer(home))
    if kept == {None}:
        return
    for path in list(_leftovers(home, kept)):
        if path.suffix == ".pack" or path.name.endswith(".partial"):
            remove_database(path)
            manifest_path(path).unlink(missing_ok=True)
        path.unlink(missing_ok=True)


def _leftovers(home: Path, kept: set[str | None]) -> Iterator[Path]:
    beside = {f"{file}{tail}" for file in kept if file for tail in ("", ".json", "-journal")} | {POINTER}
    for path in home.iterdir():
        if path.is_file() and path.name not in beside:
            yield path
