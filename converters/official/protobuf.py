"""Files of the official DELF release: `.datum` (DatumProto) and `.delf` (DelfFeatures), read and written.

The protocol-buffer wire format is spoken directly (a handful of varints and little-endian floats), so that neither
TensorFlow nor protobuf is needed::

    DatumProto    1: shape { 1: dim, packed int64 }   2: float_list { 1: value, packed float }
    DelfFeature   1: descriptor (DatumProto)   2: x   3: y   4: scale   5: orientation   6: strength   (floats)
    DelfFeatures  1: feature, repeated

Two conventions are turned here. Official arrays of locations are (y, x); the proto names its fields, and we use
(x, y). The file's `scale` is image pixels per level pixel (0.5 for the level enlarged twice), ours the inverse.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from delf_edge.types import Features, Float32Array

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
Field = tuple[int, int, int | bytes]  # number, wire type, value


class OfficialFormatError(ValueError):
    """The bytes are not the protocol buffer they should be."""


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    """Value, and the position after it."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            break
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & (1 << 64) - 1, at
    raise OfficialFormatError(f"a number at byte {at} of {len(data)} does not end; the file is cut off or damaged")


def read_fields(data: bytes) -> Iterator[Field]:
    """The fields of one message, in order."""
    at = 0
    while at < len(data):
        tag, at = read_varint(data, at)
        number, kind = tag >> 3, tag & 7
        if kind == _VARINT:
            value, at = read_varint(data, at)
            yield number, kind, value
            continue
        if kind == _BYTES:
            size, at = read_varint(data, at)
        elif kind in (_FIXED32, _FIXED64):
            size = 4 if kind == _FIXED32 else 8
        else:
            raise OfficialFormatError(f"wire type {kind} at byte {at} is none of this format; not a DELF file")
        if at + size > len(data):
            raise OfficialFormatError(
                f"a field of {size} bytes starts at byte {at} of {len(data)}; the file is cut off or damaged"
            )
        yield number, kind, data[at : at + size]
        at += size


def _floats(value: int | bytes, kind: int) -> Float32Array:
    """Floats of one field: packed, or a single one."""
    if kind not in (_BYTES, _FIXED32) or not isinstance(value, bytes) or len(value) % 4:
        raise OfficialFormatError("a list of floats is not a whole number of 4-byte values; not a DELF file")
    return np.frombuffer(value, "<f4").astype(np.float32)


def parse_datum(data: bytes) -> Float32Array:
    """The tensor of a serialised DatumProto.

    Raises:
        OfficialFormatError: not a DatumProto, or its values do not fill its shape.
    """
    shape: list[int] = []
    values: list[Float32Array] = []
    for number, _, message in read_fields(data):
        if number not in (1, 2) or not isinstance(message, bytes):
            raise OfficialFormatError(f"field {number} is none of a DatumProto of floats; is this a .datum file?")
        for inner, kind, value in read_fields(message):
            if inner != 1:
                raise OfficialFormatError(f"field {inner} within field {number} is none of a DatumProto")
            if number == 2:
                values.append(_floats(value, kind))
            elif isinstance(value, int):
                shape.append(value)
            else:
                at = 0
                while at < len(value):
                    dim, at = read_varint(value, at)
                    shape.append(dim)
    flat = np.concatenate([np.zeros(0, np.float32), *values])
    if math.prod(shape) != len(flat):
        raise OfficialFormatError(f"the datum has shape {shape}, but {len(flat)} values; the file is damaged")
    return flat.reshape(shape)


def parse_features(data: bytes) -> Features:
    """The features of a serialised DelfFeatures, in the order of the file.

    Orientation is left out (the official extractor writes 0). The file does not say the size of the image, so
    `image_size` is (0, 0), and it has no global descriptor.

    Raises:
        OfficialFormatError: not a DelfFeatures, or descriptors of different lengths.
    """
    descriptors: list[Float32Array] = []
    rows: list[list[float]] = []  # x, y, scale, strength
    columns = {2: 0, 3: 1, 4: 2, 6: 3}
    for number, _, message in read_fields(data):
        if number != 1 or not isinstance(message, bytes):
            raise OfficialFormatError(f"field {number} is none of a DelfFeatures; is this a .delf file?")
        row, descriptor = [0.0, 0.0, 1.0, 0.0], np.zeros(0, np.float32)
        for inner, kind, value in read_fields(message):
            if inner == 1 and isinstance(value, bytes):
                descriptor = parse_datum(value).reshape(-1)
            elif inner in columns and kind == _FIXED32 and isinstance(value, bytes):
                row[columns[inner]] = struct.unpack("<f", value)[0]
            elif inner != 5:
                raise OfficialFormatError(f"field {inner} is none of a DelfFeature; is this a .delf file?")
        descriptors.append(descriptor)
        rows.append(row)
    if not rows:
        return Features.empty(0)
    if not all(row[2] > 0 for row in rows):
        raise OfficialFormatError("a feature has a scale that is not above 0; the file is damaged")
    if len({len(d) for d in descriptors}) != 1:
        raise OfficialFormatError(f"descriptors have {sorted({len(d) for d in descriptors})} values; all must agree")
    table = np.array(rows, np.float32)
    return Features(
        keypoints=np.ascontiguousarray(table[:, :2]),
        scales=np.reciprocal(table[:, 2]),
        scores=np.ascontiguousarray(table[:, 3]),
        descriptors=np.stack(descriptors),
        global_descriptor=np.zeros(0, np.float32),
        image_size=(0, 0),
    )


def _encode_varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _encode_message(number: int, content: bytes) -> bytes:
    return _encode_varint(number << 3 | _BYTES) + _encode_varint(len(content)) + content


def serialise_datum(array: Float32Array) -> bytes:
    """A DatumProto of a float32 tensor of any shape, as the official writer lays it out."""
    shape = b"".join(_encode_varint(n) for n in array.shape)
    values = np.ascontiguousarray(array, "<f4").tobytes()
    # An empty packed list is not written at all, as in protobuf's own serialiser.
    lists = [_encode_message(1, part) if part else b"" for part in (shape, values)]
    return _encode_message(1, lists[0]) + _encode_message(2, lists[1])


def serialise_features(features: Features) -> bytes:
    """A DelfFeatures of local features; the global descriptor and the image size have no place in it."""
    out = []
    columns = (features.keypoints[:, 0], features.keypoints[:, 1], 1 / features.scales, features.scores)
    for descriptor, x, y, scale, score in zip(features.descriptors, *columns, strict=True):
        content = _encode_message(1, serialise_datum(descriptor))
        for number, value in ((2, x), (3, y), (4, scale), (5, 0.0), (6, score)):
            content += bytes([number << 3 | _FIXED32]) + struct.pack("<f", value)
        out.append(_encode_message(1, content))
    return b"".join(out)


def read_datum(path: str | Path) -> Float32Array:
    """The tensor of a `.datum` file.

    Raises:
        OfficialFormatError: not such a file; the message names it.
        OSError: it cannot be read.
    """
    try:
        return parse_datum(Path(path).read_bytes())
    except OfficialFormatError as e:
        raise OfficialFormatError(f"{path}: {e}") from e


def read_features(path: str | Path) -> Features:
    """The features of a `.delf` file; see `parse_features`.

    Raises:
        OfficialFormatError: not such a file; the message names it.
        OSError: it cannot be read.
    """
    try:
        return parse_features(Path(path).read_bytes())
    except OfficialFormatError as e:
        raise OfficialFormatError(f"{path}: {e}") from e


def write_datum(array: Float32Array, path: str | Path) -> None:
    """Write a `.datum` file."""
    Path(path).write_bytes(serialise_datum(array))


def write_features(features: Features, path: str | Path) -> None:
    """Write a `.delf` file."""
    Path(path).write_bytes(serialise_features(features))
