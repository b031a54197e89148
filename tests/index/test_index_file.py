"""The file of the index: a start with it answers as one without it, whatever happens to the file or the database."""

from __future__ import annotations

import json
import os
import shutil
import struct
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from delf_edge.index import inverted_index
from delf_edge.index.index_file import MAGIC, index_path, read_index, write_index
from delf_edge.index.inverted_index import InvertedIndex
from delf_edge.index.inverted_lists import IndexSnapshot
from delf_edge.quantization.packed_codes import CodeBatch, CodeLayout
from delf_edge.storage.records import NewImage
from delf_edge.storage.store import Store
from delf_edge.types import Codes

LAYOUT = CodeLayout(code_size=4, global_dim=6, n_words=50)
N = 30


def new_image(i: int, n: int = 20, seed: int | None = None) -> NewImage:
    rng = np.random.default_rng(i if seed is None else seed)
    codes = Codes(
        (rng.random((n, 2)) * 480).astype(np.float32),
        rng.integers(0, LAYOUT.n_words, n).astype(np.uint16),
        rng.integers(0, 256, (n, LAYOUT.code_size)).astype(np.uint8),
        rng.integers(-127, 128, LAYOUT.global_dim).astype(np.int8),
        (640, 480),
    )
    return NewImage(f"{i}.jpg", f"place {i // 4}", i.to_bytes(32), codes)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    monkeypatch.setattr(inverted_index, "WORTH_SAVING", 1)
    with Store.open(tmp_path / "places.db", bundle_id="b", layout=LAYOUT) as store:
        store.add_many(new_image(i) for i in range(N))
        yield store


def start(store: Store) -> InvertedIndex:
    return InvertedIndex.from_store(store, database=store.path, uuid=store.uuid)


def content(index: InvertedIndex) -> dict[int, tuple[object, ...]]:
    """Image id -> its features in no order, and its global code: what a search can see."""
    snapshot = index.snapshot
    features: dict[int, list[bytes]] = {slot: [] for slot in np.flatnonzero(snapshot.alive).tolist()}
    for segment in snapshot.segments:
        words, slots = segment.all_words(), segment.all_slots()
        for word, slot, code in zip(words.tolist(), slots.tolist(), segment.codes, strict=True):
            if slot in features:
                features[slot].append(struct.pack("<H", word) + code.tobytes())
    return {
        int(snapshot.image_ids[slot]): (sorted(rows), snapshot.global_codes[slot].tobytes())
        for slot, rows in features.items()
    }


def without_file(store: Store) -> dict[int, tuple[object, ...]]:
    return content(InvertedIndex.from_store(store))


def read_of(monkeypatch: pytest.MonkeyPatch, store: Store) -> list[int]:
    """Ids of the images whose codes are read from the store from now on."""
    read: list[int] = []
    plain = Store.code_batches

    def noting(self: Store, image_ids: list[int] | None = None, *, size: int = 512) -> object:
        read.extend(image_ids or ())
        return plain(self, image_ids, size=size)

    monkeypatch.setattr(Store, "code_batches", noting)
    return read


def test_a_second_start_reads_no_codes(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    first = start(store)
    assert index_path(store.path).exists()
    read = read_of(monkeypatch, store)
    second = start(store)
    assert read == []
    assert content(second) == content(first)
    assert len(content(second)) == N
    assert second.revision == store.revision()
    assert not second.refresh(store)


def test_what_changed_since_is_read_and_nothing_else(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    start(store)
    store.remove("3.jpg")
    store.add(new_image(5, seed=1005))  # other codes of the same photo
    store.relabel("7.jpg", "elsewhere")
    new = store.add(new_image(77)).image_id
    read = read_of(monkeypatch, store)
    index = start(store)
    assert sorted(read) == [6, 8, new]
    monkeypatch.undo()
    assert content(index) == without_file(store)


def test_a_backup_put_back_does_not_bring_answers_of_the_lost_future(store: Store, tmp_path: Path) -> None:
    """Two histories with equal ids and equal revisions, but other photos."""
    backup = store.snapshot(tmp_path / "backup.db")
    store.add(new_image(100))
    index_path(store.path).unlink(missing_ok=True)
    start(store)
    revision = store.revision()
    store.close()
    shutil.copy(backup, store.path)
    with Store.open(store.path) as other:
        other.add(new_image(200))
        assert other.revision() == revision
        assert content(start(other)) == without_file(other)


def test_another_databases_file_is_ignored(store: Store, tmp_path: Path) -> None:
    start(store)
    with Store.open(tmp_path / "other.db", bundle_id="b", layout=LAYOUT) as other:
        other.add_many(new_image(i, seed=500 + i) for i in range(N))
        shutil.copy(index_path(store.path), index_path(other.path))
        assert read_index(index_path(other.path), other.uuid, LAYOUT) is None
        assert content(start(other)) == without_file(other)


def test_every_flipped_bit_and_every_cut_is_noticed(store: Store) -> None:
    start(store)
    file = index_path(store.path)
    whole = file.read_bytes()
    assert read_index(file, store.uuid, LAYOUT) is not None
    rng = np.random.default_rng(0)
    places = [*range(60), *rng.integers(60, len(whole), 150).tolist()]
    for at in places:
        damaged = bytearray(whole)
        damaged[at] ^= 1 << int(rng.integers(8))
        file.write_bytes(damaged)
        assert read_index(file, store.uuid, LAYOUT) is None, at
    for length in (0, 1, 16, 40, 52, 53, 300, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:length])
        assert read_index(file, store.uuid, LAYOUT) is None, length
    file.write_bytes(whole + b"\0")
    assert read_index(file, store.uuid, LAYOUT) is None
    assert content(start(store)) == without_file(store)
    assert file.read_bytes() != whole + b"\0"  # written anew


@pytest.mark.parametrize(
    "edit",
    [
        lambda head: head | {"n": -1},
        lambda head: head | {"n": 10**12},
        lambda head: head | {"segments": [head["segments"][0] | {"n": 2**40}]},
        lambda head: head | {"segments": [head["segments"][0] | {"last_slot": 10**6}]},
        lambda head: head | {"segments": [head["segments"][0] | {"first_slot": 5}]},
        lambda head: head | {"layout": head["layout"] | {"n_words": 49}},
        lambda head: {"uuid": head["uuid"]},
        lambda head: [],
    ],
)
def test_a_head_that_leads_astray_is_refused_even_with_the_right_hash(
    store: Store, edit: Callable[[dict[str, object]], object]
) -> None:
    start(store)
    file = index_path(store.path)
    whole = file.read_bytes()
    (length,) = struct.unpack("<I", whole[48:52])
    head = json.dumps(edit(json.loads(whole[52 : 52 + length]))).encode()
    rest = struct.pack("<I", len(head)) + head + whole[52 + length :]
    file.write_bytes(MAGIC + sha256(rest).digest() + rest)
    assert read_index(file, store.uuid, LAYOUT) is None


def test_numbers_that_lead_astray_are_refused(tmp_path: Path) -> None:
    n = 320  # images; only the first and the last have features
    batch = CodeBatch(
        np.arange(n),
        np.where(np.isin(np.arange(n), [0, n - 1]), 100, 0),
        (np.arange(200) % 50).astype(np.uint16),
        np.zeros((200, 4), np.uint8),
        np.zeros((n, 6), np.int8),
        np.zeros(n, np.uint32),
    )
    snapshot = IndexSnapshot.empty(LAYOUT).extended(batch, 50)
    file, like = tmp_path / "index", tmp_path / "db"
    like.touch()
    (segment,) = snapshot.segments
    assert segment.starts is not None
    assert segment.steps is not None
    assert segment.jump_at is not None
    assert segment.jump_by is not None
    assert len(segment.jump_at) > 0
    assert write_index(file, "u", LAYOUT, snapshot, like=like)
    assert read_index(file, "u", LAYOUT) is not None
    wrong: list[tuple[np.ndarray, int, int]] = [
        (segment.starts, 3, 9999),
        (segment.starts, 0, 1),
        (segment.steps, 3, 254),  # beyond the last slot
        (segment.steps, 5, 255),  # a jump that is nowhere
        (segment.jump_at, 0, 1),
        (segment.jump_by, 0, 60000),
        (segment.jump_by, 0, 3),
    ]
    for array, at, value in wrong:
        before = int(array[at])
        array[at] = value
        assert write_index(file, "u", LAYOUT, snapshot, like=like)
        assert read_index(file, "u", LAYOUT) is None
        array[at] = before
    snapshot.image_ids[1] = snapshot.image_ids[0]
    assert write_index(file, "u", LAYOUT, snapshot, like=like)
    assert read_index(file, "u", LAYOUT) is None


def test_a_folder_that_cannot_be_written_is_done_without(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise PermissionError(13, "read-only")

    monkeypatch.setattr("delf_edge.index.index_file.tempfile.mkstemp", refuse)
    assert len(content(start(store))) == N
    assert not index_path(store.path).exists()


def test_a_full_disk_leaves_nothing_behind(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, target: Path) -> Path:
        raise OSError(28, "no space left")

    monkeypatch.setattr(Path, "replace", full)
    assert len(content(start(store))) == N
    names = {p.name for p in store.path.parent.iterdir()}
    assert not [n for n in names if "index" in n]


def test_the_file_is_readable_to_no_more_people_than_the_database(store: Store) -> None:
    store.path.chmod(0o640)
    start(store)
    assert os.stat(index_path(store.path)).st_mode & 0o777 == 0o640


def test_damaged_and_removed_images_do_not_come_back(store: Store) -> None:
    import sqlite3

    start(store)
    db = sqlite3.connect(store.path)
    with db:
        db.execute("UPDATE images SET crc32 = crc32 + 1 WHERE id = 4")
        db.execute("DELETE FROM codes WHERE image_id = 9")
        db.execute("DELETE FROM images WHERE id = 9")
    db.close()
    index = start(store)
    assert 9 not in content(index)
    assert content(index) == without_file(store)


def test_segments_of_every_kind_survive_the_round_trip(tmp_path: Path) -> None:
    like = tmp_path / "db"
    like.touch()
    index = InvertedIndex(LAYOUT)
    rng = np.random.default_rng(1)
    for i in range(40):
        n = int(rng.integers(0, 60)) if i < 39 else 3
        codes = Codes(
            np.zeros((n, 2), np.float32),
            rng.integers(0, 50, n).astype(np.uint16),
            rng.integers(0, 256, (n, 4)).astype(np.uint8),
            rng.integers(-9, 9, 6).astype(np.int8),
            (1, 1),
        )
        index.apply(CodeBatch.of([(i, codes)], LAYOUT), removed=[i - 11] if i % 3 == 0 else [])
    assert {s.words is None for s in index.snapshot.segments} == {True, False}
    assert {s.slots is None for s in index.snapshot.segments} == {True, False}
    assert write_index(tmp_path / "f", "u", LAYOUT, index.snapshot, like=like)
    snapshot = read_index(tmp_path / "f", "u", LAYOUT)
    assert snapshot is not None
    for name in ("image_ids", "counts", "row_checksums", "alive", "global_codes", "global_scale"):
        assert_array_equal(getattr(snapshot, name), getattr(index.snapshot, name))
    again = InvertedIndex(LAYOUT, snapshot)
    assert content(again) == content(index)
