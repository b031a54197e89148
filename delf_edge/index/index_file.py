"""The inverted lists as a file beside the database, so that the next start need not make them again.

The database stays the only truth. The file is used where its SHA-256, the database's uuid and the sizes of the codes
match, and every image in it only where the image's row in the database still has the same checksum; whatever does not
match is read from the database. It is read whole, not memory-mapped: a mapped file that somebody cuts short kills the
process. It is written under another name and moved into place; failing to write it is no error.

Layout, little-endian: 16 bytes magic; 32 bytes SHA-256 of all that follows; uint32 length of the head; the head, JSON;
then the arrays that the head names, in order, without gaps.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
import tempfile
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from delf_edge.files import parse_json
from delf_edge.index.inverted_lists import FAR, IndexSnapshot, Segment
from delf_edge.quantization.packed_codes import CodeLayout

MAGIC = b"delf-edge list 2"
_PER_IMAGE = {
    "image_ids": "<i8",
    "counts": "<u4",
    "row_checksums": "<u4",
    "alive": "|b1",
    "global_codes": "|i1",
    "global_scale": "<f4",
}
_PER_SEGMENT = {  # those that it has
    "codes": "|u1",
    "starts": "<u4",
    "steps": "|u1",
    "jump_at": "<u4",
    "jump_by": "<u2",
    "words": "<u2",
    "slots": "<u2",
}
_CHUNK = 1 << 20  # bytes read and hashed at a time, while they are in the processor's cache
_MAX_HEAD = 1 << 20


def index_path(database: Path) -> Path:
    """Where the index of a database file lies."""
    return database.with_name(f"{database.name}-index")


def write_index(file: Path, uuid: str, layout: CodeLayout, snapshot: IndexSnapshot, *, like: Path) -> bool:
    """Write the content of an index, atomically.

    Args:
        file: replaced where it exists.
        uuid: of the database.
        layout: of its codes.
        snapshot: what to write.
        like: a file whose permissions the new one gets: it must not be readable to more people.

    Returns:
        False where the folder cannot be written, or is full.
    """
    arrays = [np.ascontiguousarray(getattr(snapshot, name), dtype) for name, dtype in _PER_IMAGE.items()]
    segments = []
    for s in snapshot.segments:
        jumps = None if s.jump_at is None else len(s.jump_at)
        segments.append({"first_slot": s.first_slot, "last_slot": s.last_slot, "n": len(s), "jumps": jumps})
        parts = [(getattr(s, name), dtype) for name, dtype in _PER_SEGMENT.items()]
        arrays += [np.ascontiguousarray(a, dtype) for a, dtype in parts if a is not None]
    head = json.dumps({"uuid": uuid, "layout": asdict(layout), "n": len(snapshot.image_ids), "segments": segments})
    start = struct.pack("<I", len(head)) + head.encode()
    try:
        handle, partial = tempfile.mkstemp(prefix=f".{file.name}.", dir=file.parent)
    except OSError:
        return False
    try:
        with os.fdopen(handle, "wb") as f:
            f.write(MAGIC + bytes(32))
            digest = hashlib.sha256(start)
            f.write(start)
            for array in arrays:
                digest.update(array.data)
                f.write(array.data)
            f.seek(len(MAGIC))
            f.write(digest.digest())
        Path(partial).chmod(like.stat().st_mode & 0o666)
        Path(partial).replace(file)
    except OSError:
        with suppress(OSError):
            Path(partial).unlink(missing_ok=True)
        return False
    return True


def read_index(file: Path, uuid: str, layout: CodeLayout) -> IndexSnapshot | None:
    """The content that a file holds, or None where it is absent, damaged, or of another database."""
    try:
        with file.open("rb") as f:
            return _read(f, uuid, layout)
    except (OSError, ValueError, KeyError, TypeError, EOFError):
        return None


def _read(f: BinaryIO, uuid: str, layout: CodeLayout) -> IndexSnapshot | None:
    if f.read(len(MAGIC)) != MAGIC:
        return None
    expected, size = f.read(32), os.fstat(f.fileno()).st_size
    digest = hashlib.sha256()
    length = f.read(4)
    head_size = struct.unpack("<I", length)[0] if len(length) == 4 else _MAX_HEAD
    if head_size >= _MAX_HEAD:
        return None
    text = f.read(head_size)
    digest.update(length + text)
    head: dict[str, Any] = parse_json(text)
    if head["uuid"] != uuid or head["layout"] != asdict(layout):
        return None
    n, M, G, K = int(head["n"]), layout.code_size, layout.global_dim, layout.n_words
    shapes = {name: (n, G) if name == "global_codes" else (n,) for name in _PER_IMAGE}
    plan: list[tuple[tuple[int, ...], str]] = [(shapes[name], dtype) for name, dtype in _PER_IMAGE.items()]
    parts = [_segment_plan(s, M, K) for s in head["segments"]]
    plan += [(shape, _PER_SEGMENT[name]) for part in parts for name, shape in part.items()]
    total = sum(int(np.prod(shape)) * np.dtype(dtype).itemsize for shape, dtype in plan)
    if min((m for shape, _ in plan for m in shape), default=0) < 0 or f.tell() + total != size:
        return None
    arrays = [_read_array(f, shape, dtype, digest) for shape, dtype in plan]
    if digest.digest() != expected:
        return None
    segments, rest = [], iter(arrays[len(_PER_IMAGE) :])
    for s, part in zip(head["segments"], parts, strict=True):
        own = {name: next(rest) for name in part}
        segments.append(Segment(own.pop("codes"), int(s["first_slot"]), int(s["last_slot"]), **own))
    snapshot = IndexSnapshot(tuple(segments), *arrays[: len(_PER_IMAGE)])
    return snapshot if _is_sound(snapshot, K) else None


def _segment_plan(head: dict[str, Any], M: int, K: int) -> dict[str, tuple[int, ...]]:
    """Name -> shape of the arrays of a segment."""
    T, jumps = int(head["n"]), head["jumps"]
    if jumps is None:
        return {"codes": (T, M), "words": (T,), "slots": (T,)}
    return {"codes": (T, M), "starts": (K + 1,), "steps": (T,), "jump_at": (int(jumps),), "jump_by": (int(jumps),)}


def _read_array(f: BinaryIO, shape: tuple[int, ...], dtype: str, digest: Any) -> NDArray[Any]:
    array = np.empty(shape, dtype)
    data = array.reshape(-1).view(np.uint8).data
    for i in range(0, len(data), _CHUNK):
        part = data[i : i + _CHUNK]
        if f.readinto(part) != len(part):  # type: ignore[attr-defined]
            raise EOFError("the file became shorter")
        digest.update(part)
    return array


def _is_sound(snapshot: IndexSnapshot, n_words: int) -> bool:
    """Whether no number leads outside of an array: the hash tells of accidents, not of intent."""
    n = len(snapshot.image_ids)
    for s in snapshot.segments:
        if not 0 <= s.first_slot <= s.last_slot < n:
            return False
        if not (_lists_are_sound(s) if s.starts is not None else _rows_are_sound(s, n_words)):
            return False
    return len(np.unique(snapshot.image_ids[snapshot.alive])) == int(snapshot.alive.sum())


def _rows_are_sound(s: Segment, n_words: int) -> bool:
    assert s.words is not None
    assert s.slots is not None
    ascending = bool((s.words[1:] >= s.words[:-1]).all())
    return (
        ascending
        and int(s.words.max(initial=0)) < n_words
        and int(s.slots.max(initial=0)) <= s.last_slot - s.first_slot
    )


def _lists_are_sound(s: Segment) -> bool:
    if s.starts is None or s.steps is None or s.jump_at is None or s.jump_by is None:
        return False
    lengths = np.diff(s.starts.astype(np.int64))
    if s.starts[0] != 0 or s.starts[-1] != len(s) or lengths.min() < 0 or not len(s):
        return False
    if not np.array_equal(np.flatnonzero(s.steps == FAR), s.jump_at) or int(s.jump_by.min(initial=FAR)) < FAR:
        return False
    begins = s.starts[:-1][lengths > 0]
    reached = np.add.reduceat(s.steps, begins, dtype=np.int64)  # the last slot of every list, but for the jumps
    lists = np.searchsorted(begins, s.jump_at, side="right") - 1
    reached += np.bincount(lists, s.jump_by.astype(np.int64) - FAR, minlength=len(begins)).astype(np.int64)
    return int(reached.max()) <= s.last_slot - s.first_slot
