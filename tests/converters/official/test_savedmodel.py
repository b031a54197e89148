"""Variables of a SavedModel are read without TensorFlow; the table is written here by hand, from its description."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from delf_edge.converters.official.protobuf import OfficialFormatError
from delf_edge.converters.official.savedmodel import read_variables

MAGIC = struct.pack("<Q", 0xDB4775248B80FB57)


def varint(value: int) -> bytes:
    return bytes([value]) if value < 128 else bytes([value & 127 | 128]) + varint(value >> 7)


def block(entries: list[tuple[bytes, bytes]]) -> bytes:
    """Keys share their beginning with the one before, as TensorFlow writes them."""
    out, before = b"", b""
    for key, value in entries:
        shared = next(
            (i for i, (a, b) in enumerate(zip(before, key, strict=False)) if a != b), min(len(before), len(key))
        )
        out += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        before = key
    return out + struct.pack("<II", 0, 1)


def entry(array: np.ndarray, offset: int, dtype: int = 1) -> bytes:
    dims = b"".join(b"\x12" + varint(len(d)) + d for d in (b"\x08" + varint(n) if n else b"" for n in array.shape))
    numbers = b"\x20" + varint(offset) + b"\x28" + varint(array.nbytes)
    return b"\x08" + varint(dtype) + b"\x12" + varint(len(dims)) + dims + numbers


def write(folder: Path, arrays: dict[str, np.ndarray]) -> Path:
    (folder / "variables").mkdir(parents=True)
    data, entries = b"", [(b"", b"\x08\x01")]  # the header: one shard
    for name in sorted(arrays):
        entries.append((name.encode(), entry(arrays[name], len(data), 3 if arrays[name].dtype == np.int32 else 1)))
        data += arrays[name].tobytes()
    half = len(entries) // 2
    blocks = [block(entries[:half]), block(entries[half:]), block([])]
    table, handles = b"", []
    for content in blocks:
        handles.append(varint(len(table)) + varint(len(content)))
        table += content + b"\x00" + b"crc "
    index = block([(entries[half - 1][0] + b"\x00", handles[0]), (b"\xff", handles[1])])
    index_handle = varint(len(table)) + varint(len(index))
    table += index + b"\x00" + b"crc "
    table += (handles[2] + index_handle).ljust(40, b"\x00") + MAGIC
    (folder / "variables" / "variables.index").write_bytes(table)
    (folder / "variables" / "variables.data-00000-of-00001").write_bytes(data)
    return folder


ARRAYS = {
    "resnet_v1_50/conv1/weights": np.arange(300, dtype=np.float32).reshape(3, 5, 20),
    "resnet_v1_50/conv1/BatchNorm/beta": np.array([1.5, -2.0], np.float32),
    "resnet_v1_50/conv2/scalar": np.array(7.0, np.float32),
    "attention/nothing": np.zeros((0, 4), np.float32),
    "global_step": np.array([3], np.int32),
}


def test_floats_are_read_by_name_and_shape_and_counters_left_out(tmp_path: Path) -> None:
    found = read_variables(write(tmp_path / "model", ARRAYS))
    assert sorted(found) == sorted(set(ARRAYS) - {"global_step"})
    for name, array in found.items():
        np.testing.assert_array_equal(array, ARRAYS[name], err_msg=name)
        assert array.shape == ARRAYS[name].shape


def test_what_is_no_savedmodel_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OfficialFormatError, match=r"variables\.index is missing"):
        read_variables(tmp_path)
    folder = write(tmp_path / "model", ARRAYS)
    index = folder / "variables" / "variables.index"
    whole = index.read_bytes()
    for damaged in (b"", whole[:-1], whole[:20] + MAGIC, b"\x00" * 40 + MAGIC):
        index.write_bytes(damaged)
        with pytest.raises(OfficialFormatError):
            read_variables(folder)


def test_missing_values_are_noticed(tmp_path: Path) -> None:
    folder = write(tmp_path / "model", ARRAYS)
    data = folder / "variables" / "variables.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:-100])
    with pytest.raises(OfficialFormatError, match="ends before"):
        read_variables(folder)
    data.unlink()
    with pytest.raises(OfficialFormatError, match=r"no variables\.data"):
        read_variables(folder)


@pytest.mark.parametrize(
    ("given", "advice"),
    [
        ("release", r"name .*release/model"),
        ("release/model/saved_model.pb", r"name its folder, .*release/model"),
        ("release.tar.gz", "unpack it"),
        ("lonely.pb", "not beside it"),
        ("absent", "no such folder"),
        ("empty", "variables.index is missing"),
    ],
)
def test_what_is_no_savedmodel_says_which_folder_is_wanted(tmp_path: Path, given: str, advice: str) -> None:
    write(tmp_path / "release" / "model", ARRAYS)
    (tmp_path / "empty").mkdir()
    for name in ("release/model/saved_model.pb", "release.tar.gz", "lonely.pb"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(OfficialFormatError, match=advice):
        read_variables(tmp_path / given)
