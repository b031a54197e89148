"""Files that are replaced whole, hashed, parsed, and removed with what belongs to them."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from delf_edge.errors import OptionError

_READ = 1 << 20


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for block in iter(lambda: file.read(_READ), b""):
            digest.update(block)
    return digest.hexdigest()


def resolved(path: str | Path) -> Path:
    """The absolute path, links followed.

    Raises:
        OptionError: no file can have this name: it holds a NUL, or half of a surrogate pair.
    """
    try:
        return Path(path).resolve()
    except ValueError as e:
        raise OptionError(f"{str(path)!r}: no file can have this name ({e}); pass the path of one") from e


def require_apart(out: str | Path, inputs: Iterable[str | Path]) -> None:
    """Make sure that what will be written lies neither at, nor inside, nor around what is read.

    Raises:
        OptionError: it does.
    """
    target = resolved(out)
    for given in inputs:
        source = resolved(given)
        if target == source or source in target.parents or target in source.parents:
            how = "is" if target == source else "lies inside" if source in target.parents else "contains"
            raise OptionError(f"{out}: {how} {given}, which is read from; write to another place")


def require_own_folder(out: str | Path, what: str, own: Callable[[Path], Collection[str]]) -> None:
    """Make sure that a folder which will be replaced holds nothing but what the same command wrote before.

    Args:
        out: the folder; absent and empty are fine.
        what: what is written there, for the message: "a bundle".
        own: of a folder, the files in it that may be replaced, as relative paths with slashes.

    Raises:
        OptionError: `out` is a file, or holds something else.
    """
    folder = resolved(out)
    if not folder.exists():
        return
    if not folder.is_dir():
        raise OptionError(f"{out}: is a file; {what} is a folder, choose a name that is free")
    files = set(own(folder))
    folders = {parent.as_posix() for name in files for parent in PurePosixPath(name).parents}
    others: list[str] = []
    for path in sorted(folder.rglob("*")):
        known = folders if path.is_dir() and not path.is_symlink() else files
        name = path.relative_to(folder).as_posix()
        if name not in known and not any(name.startswith(f"{other}/") for other in others):
            others.append(name)
    if others:
        shown = ", ".join(others[:3]) + (f" and {len(others) - 3} more" if len(others) > 3 else "")
        raise OptionError(
            f"{out}: holds what is no part of {what} ({shown}) and would be lost; choose a folder that is absent or "
            f"empty, or one that holds only {what}"
        )


def parse_json(data: bytes | str) -> Any:
    """What JSON from anywhere says.

    Raises:
        ValueError: it is no JSON, or nested deeper than Python's stack: strangers' brackets are no reason to crash.
    """
    try:
        return json.loads(data)
    except RecursionError as e:
        raise ValueError("brackets within brackets without end") from e


def dump_json(value: Any) -> bytes:
    """JSON as this SDK writes it to files: keys in order, one a line, UTF-8; the same value gives the same bytes."""
    return (json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()


def dump_metadata(metadata: Mapping[str, Any]) -> str:
    """Metadata as JSON on one line, keys in order.

    Raises:
        TypeError, ValueError: JSON cannot hold them.
    """
    return json.dumps(dict(metadata), ensure_ascii=False, sort_keys=True, allow_nan=False)


def partial_path(target: Path, what: str = "") -> Path:
    """Where a file is written before it takes its place: beside it, for this call alone.

    Raises:
        OptionError: `target` names no file ("", "." or "..").
    """
    if target.name in ("", ".."):
        raise OptionError(f"{str(target)!r} names no file to write; pass the path of one")
    return target.with_name(f".{target.name}.{os.getpid()}-{os.urandom(3).hex()}.{what}partial")


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """A path to write a file at, which replaces `target` when the block ends without an error.

    After a power cut there is the old file or the new one, never half of it; after an error the old one, and nothing
    beside it.

    Raises:
        OptionError: `target` names no file.
    """
    partial = partial_path(target)
    try:
        yield partial
        sync_path(partial)
        partial.replace(target)
        sync_path(target.parent)
    finally:
        remove_database(partial)


@contextmanager
def replacing_folder(target: Path, check: Callable[[], None]) -> Iterator[Path]:
    """A new folder to write into, which replaces `target` when the block ends without an error.

    A folder cannot be renamed over another: the old one steps aside first, and comes back where the new one cannot take
    its place.

    Args:
        target: the folder.
        check: raises where `target` may not be replaced; called before and after the work, which takes its time.
    """
    check()
    target = resolved(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        yield staging
        staging.chmod(0o755)
        check()
        _swap(staging, target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _swap(new: Path, target: Path) -> None:
    if not target.exists():
        new.rename(target)
        return
    aside = Path(tempfile.mkdtemp(prefix=f".{target.name}.old.", dir=target.parent))
    old = target.rename(aside / "old")
    try:
        new.rename(target)
    except OSError:
        old.rename(target)
        raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def write_atomically(path: Path, data: bytes) -> None:
    """Replace a file so that after a power cut there is the old one or the new one."""
    with replacing(path) as partial:
        partial.write_bytes(data)


def remove_database(path: Path) -> None:
    """Remove a database and what lies beside it; nothing there is fine."""
    for tail in ("", "-journal", "-wal", "-shm"):
        path.with_name(path.name + tail).unlink(missing_ok=True)


def sync_path(path: Path) -> None:
    """fsync of a file or a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
