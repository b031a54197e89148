"""Variables of a TensorFlow SavedModel, read without TensorFlow.

`variables/variables.index` is a LevelDB table (sorted keys with shared prefixes, in blocks) of BundleEntryProto;
the values lie at the offsets it names in `variables.data-SSSSS-of-NNNNN`::

    block    entries [shared, unshared, value size: varints; key tail; value] ..., restart points, their number
             then one byte (0: not compressed) and a CRC
    footer   handles (offset, size: varints) of the meta block and of the index block, padded to 40 bytes; magic
    entry    1: dtype   2: shape { 2: dim { 1: size } }   3: shard   4: offset   5: size
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from delf_edge.converters.official.protobuf import OfficialFormatError, read_fields, read_varint
from delf_edge.types import Float32Array

_MAGIC = bytes.fromhex("57fb808b247547db")
_FOOTER = 48
ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".zip", ".gz")
_FLOAT32, _FLOAT16 = 1, 19
_DTYPES: dict[int, np.dtype[Any]] = {_FLOAT32: np.dtype("<f4"), _FLOAT16: np.dtype("<f2")}


def _handle(data: bytes, at: int) -> tuple[int, int, int]:
    offset, at = read_varint(data, at)
    size, at = read_varint(data, at)
    return offset, size, at


def _block(data: bytes, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of one block."""
    if size < 8 or offset + size + 1 > len(data):
        raise OfficialFormatError(
            "the index of the variables names a block that is not there; the file is cut off or damaged"
        )
    if data[offset + size] != 0:
        raise OfficialFormatError("the index of the variables is compressed, which TensorFlow does not write")
    block = data[offset : offset + size]
    end = len(block) - 4 - 4 * int.from_bytes(block[-4:], "little")
    at, key = 0, b""
    while at < end:
        shared, at = read_varint(block, at)
        unshared, at = read_varint(block, at)
        length, at = read_varint(block, at)
        key = key[:shared] + block[at : at + unshared]
        at += unshared
        yield key, block[at : at + length]
        at += length


def _entries(data: bytes) -> Iterator[tuple[str, bytes]]:
    if len(data) < _FOOTER or data[-8:] != _MAGIC:
        raise OfficialFormatError("not the index of a TensorFlow checkpoint: its last bytes are not the table's magic")
    footer = data[-_FOOTER:]
    _, _, at = _handle(footer, 0)
    offset, size, _ = _handle(footer, at)
    for _, handle in _block(data, offset, size):
        start, length, _ = _handle(handle, 0)
        for key, value in _block(data, start, length):
            yield key.decode("utf-8", "replace"), value


def _shape(message: bytes) -> list[int]:
    sizes = []
    for number, _, dim in read_fields(message):
        if number == 2 and isinstance(dim, bytes):
            # A size of zero is the default value and is not written.
            sizes.append(next((v for n, _, v in read_fields(dim) if n == 1 and isinstance(v, int)), 0))
    return sizes


def _advice(given: Path, index: Path) -> str:
    """What to name instead of something that is no SavedModel's folder."""
    wanted = "the folder that holds saved_model.pb and variables/"
    if not given.exists():
        return f"{given}: no such folder; name {wanted}"
    if given.name.endswith(ARCHIVES):
        return f"{given} is an archive; unpack it, then name {wanted}"
    if given.is_file():
        beside = given.parent / "variables" / "variables.index"
        where = (
            f"name its folder, {given.parent}"
            if beside.is_file()
            else f"its variables/ are not beside it; name {wanted}"
        )
        return f"{given} is a file; {where}"
    below = sorted({found.parent.parent for found in given.glob("*/variables/variables.index")})
    below += sorted({found.parent.parent for found in given.glob("*/*/variables/variables.index")})
    if below:
        return f"{given} is no SavedModel itself; name {' or '.join(map(str, below[:3]))}"
    return f"{given} is no SavedModel with variables: {index} is missing; name {wanted}"


def read_variables(folder: str | Path) -> dict[str, Float32Array]:
    """All floating-point variables of a SavedModel or of a checkpoint, by name.

    Args:
        folder: the SavedModel (with `variables/`), or the folder of `variables.index`.

    Raises:
        OfficialFormatError: there are none, or the files are damaged.
        OSError: they cannot be read.
    """
    root = Path(folder)
    base = root / "variables" if (root / "variables").is_dir() else root
    index = base / "variables.index"
    if not index.is_file():
        raise OfficialFormatError(_advice(root, index))
    shards = sorted(base.glob("variables.data-*"))
    if not shards:
        raise OfficialFormatError(f"{base} has an index, but no variables.data-*; copy the SavedModel again")
    variables: dict[str, Float32Array] = {}
    for name, value in _entries(index.read_bytes()):
        entry: dict[int, int | bytes] = {number: v for number, _, v in read_fields(value)}
        dtype = _DTYPES.get(int(entry.get(1, 0)))
        if not name or dtype is None:  # the header, counters, and the object graph of TensorFlow 2
            continue
        described = entry.get(2, b"")
        shape = _shape(described) if isinstance(described, bytes) else []
        shard, offset, size = (int(entry.get(n, 0)) for n in (3, 4, 5))
        if shard >= len(shards) or size != dtype.itemsize * int(np.prod(shape)):
            raise OfficialFormatError(f"{index}: {name} has shape {shape} and {size} bytes; the file is damaged")
        flat = np.fromfile(shards[shard], dtype, count=size // dtype.itemsize, offset=offset)
        if flat.size != size // dtype.itemsize:
            raise OfficialFormatError(f"{shards[shard]} ends before {name}; the file is cut off")
        variables[name] = flat.reshape(shape).astype(np.float32)
    if not variables:
        raise OfficialFormatError(f"{index} names no variable of floats")
    return variables
