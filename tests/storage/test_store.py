from __future__ import annotations

import multiprocessing
import os
import sqlite3
import threading
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from delf_edge.errors import NotFoundError, OptionError, ReadOnlyError, StoreError
from delf_edge.quantization.packed_codes import CodeLayout
from delf_edge.storage import sqlite, write_transaction
from delf_edge.storage.records import NewImage
from delf_edge.storage.store import Store
from delf_edge.types import Codes
from testing.stores import LAYOUT, make_codes, new_image, open_store


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "places.db"


def same_codes(a: Codes, b: Codes) -> bool:
    assert_allclose(a.keypoints, b.keypoints, atol=0.1)
    return (
        np.array_equal(a.words, b.words)
        and np.array_equal(a.codes, b.codes)
        and np.array_equal(a.global_code, b.global_code)
        and a.image_size == b.image_size
    )


def test_what_is_added_is_there_after_reopening(path: Path) -> None:
    with open_store(path) as store:
        added = store.add(new_image(1, metadata={"by": "Ännchen", "n": [1, 2.5, None]}))
        assert added.status == "added"
        store.add(new_image(2, codes=make_codes(n=0)))  # a black frame
    with Store.open(path, mode="ro") as store:
        assert len(store) == 2
        image = store.image("1.jpg")
        assert image == store.image(added.image_id)
        assert (image.name, image.landmark, image.size) == ("1.jpg", "place 0", (640, 480))
        assert image.metadata == {"by": "Ännchen", "n": [1, 2.5, None]}
        assert image.content_hash == (1).to_bytes(32)
        assert image.added_at > 1.6e9
        codes = store.codes([added.image_id, 2, 77])
        assert [*codes] == [added.image_id, 2]
        assert same_codes(codes[added.image_id], make_codes(1))
        assert len(codes[2]) == 0
        assert store.find_content((1).to_bytes(32)) == added.image_id
        assert store.find_content(b"other") is None
        assert store.verify() == []


def test_the_same_photo_twice_is_one_image(path: Path) -> None:
    with open_store(path) as store:
        first = store.add(new_image(1))
        again = store.add(
            new_image(1, name="renamed.jpg", landmark="elsewhere", codes=make_codes(9), metadata={"a": 1})
        )
        assert (again.image_id, again.status) == (first.image_id, "updated")
        assert len(store) == 1
        assert store.image("renamed.jpg").landmark == "elsewhere"
        assert same_codes(store.codes([first.image_id])[first.image_id], make_codes(9))
        assert [landmark.name for landmark in store.landmarks()] == ["elsewhere"]
        with pytest.raises(NotFoundError, match=r"1\.jpg"):
            store.image("1.jpg")


def test_a_thumbnail_lives_and_goes_with_its_image(path: Path) -> None:
    with open_store(path) as store:
        one = store.add(new_image(1, thumbnail=b"\xff\xd8 small")).image_id
        two = store.add(new_image(2)).image_id
        assert store.thumbnail(one) == b"\xff\xd8 small"
        assert store.thumbnail(two) is None
        store.add(new_image(1, landmark="elsewhere"))  # no thumbnail said: it stays
        assert store.thumbnail(one) == b"\xff\xd8 small"
        store.add(new_image(1, thumbnail=b"another"))
        assert store.thumbnail(one) == b"another"
        store.remove("1.jpg")
        assert store.thumbnail(one) is None
        assert store.verify() == []


def test_a_damaged_thumbnail_costs_only_itself(path: Path) -> None:
    with open_store(path) as store:
        one = store.add(new_image(1, thumbnail=b"small")).image_id
    with sqlite3.connect(path) as db:
        db.execute("UPDATE thumbnails SET jpeg = x'00'")
    db.close()
    with open_store(path) as store:
        assert store.thumbnail(one) is None
        assert [(p.table, p.name) for p in store.verify()] == [("thumbnails", "1.jpg")]
        assert store.remove_damaged() == []
        assert store.verify() == []
        assert store.image_ids("place 0") == [one]
        assert store.image_ids("nowhere") == []


def test_a_name_is_taken_over_by_another_photo_unless_forbidden(path: Path) -> None:
    with open_store(path) as store:
        old = store.add(new_image(1))
        with pytest.raises(OptionError, match=r"1\.jpg.*replace"):
            store.add(new_image(2, name="1.jpg"), replace=False)
        assert len(store) == 1
        new = store.add(new_image(2, name="1.jpg"))
        assert new.status == "replaced"
        assert new.image_id != old.image_id
        assert store.codes([old.image_id]) == {}
        store.add(new_image(3))
        swapped = store.add(new_image(3, name="1.jpg"))  # both the photo and the name are known
        assert swapped.status == "replaced"
        assert [image.name for image in store.images()] == ["1.jpg"]
        assert store.verify() == []


def test_remove_and_relabel(path: Path) -> None:
    with open_store(path) as store:
        store.add_many(new_image(i) for i in range(8))
        store.set_landmark("place 0", metadata={"wiki": "x"}, latitude=48.8584, longitude=2.2945)
        removed = store.remove("4.jpg", "5.jpg", "6.jpg", "7.jpg")
        assert len(removed) == 4
        assert [landmark.name for landmark in store.landmarks()] == ["place 0"]
        store.relabel("0.jpg", "new place")
        store.remove("1.jpg", "2.jpg", "3.jpg")
        places = {landmark.name: landmark for landmark in store.landmarks()}
        assert places["place 0"].n_images == 0  # it has coordinates of its own, so it stays
        assert places["place 0"].latitude == 48.8584
        assert places["new place"].n_images == 1
        with pytest.raises(NotFoundError, match=r"4\.jpg"):
            store.remove("0.jpg", "4.jpg")
        assert len(store) == 1
        with pytest.raises(NotFoundError):
            store.relabel("4.jpg", "x")
        assert store.verify() == []


def test_ids_are_never_used_again(path: Path) -> None:
    with open_store(path) as store:
        first = store.add(new_image(1)).image_id
        store.remove("1.jpg")
    with open_store(path) as store:
        assert store.add(new_image(1)).image_id > first


def test_many_in_one_transaction_is_all_or_nothing(path: Path) -> None:
    with open_store(path) as store:
        store.add(new_image(0))
        taken = [new_image(5), new_image(6), new_image(7, name="0.jpg")]
        with pytest.raises(OptionError):
            store.add_many(taken, replace=False)
        assert len(store) == 1
        before = store.revision()
        assert [a.status for a in store.add_many(new_image(i) for i in range(5))] == ["updated"] + ["added"] * 4
        assert store.revision() == before + 1
        assert store.add_many([]) == []


@pytest.mark.parametrize(
    ("kwargs", "what"),
    [
        ({"name": ""}, "name"),
        ({"content_hash": b""}, "hash"),
        ({"landmark": ""}, "landmark"),
        ({"metadata": {"a": object()}}, "JSON"),
        ({"metadata": {"a": float("nan")}}, "JSON"),
    ],
)
def test_what_cannot_be_stored_is_refused(path: Path, kwargs: dict[str, object], what: str) -> None:
    with open_store(path) as store:
        with pytest.raises(OptionError, match=what):
            store.add(new_image(1, **kwargs))
        assert len(store) == 0


def test_codes_of_another_layout_are_refused(path: Path) -> None:
    codes = make_codes()
    wide = Codes(codes.keypoints, codes.words, np.zeros((30, 5), np.uint8), codes.global_code, codes.image_size)
    far = Codes(codes.keypoints, codes.words + np.uint16(1000), codes.codes, codes.global_code, codes.image_size)
    with open_store(path) as store:
        for bad, what in ((wide, "do not fit"), (far, "word")):
            with pytest.raises(OptionError, match=what):
                store.add(new_image(1, codes=bad))
        with pytest.raises(OptionError, match="Earth"):
            store.set_landmark("x", latitude=91)


def test_an_open_reader_sees_changes_at_once(path: Path) -> None:
    with open_store(path) as writer, Store.open(path, mode="ro") as reader:
        a, b = (writer.add(new_image(i)).image_id for i in (1, 2))
        start = reader.revision()
        assert reader.changes(start).updated == ()
        writer.remove("1.jpg")
        c = writer.add(new_image(3)).image_id
        writer.relabel("2.jpg", "moved")
        changes = reader.changes(start)
        assert (changes.revision, changes.complete) == (start + 3, True)
        assert (changes.updated, changes.removed) == ((b, c), (a,))
        assert reader.image("2.jpg").landmark == "moved"
        assert reader.changes(changes.revision).updated == ()


def test_old_tombstones_are_forgotten_and_said_to_be(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write_transaction, "MAX_TOMBSTONES", 10)
    with open_store(path) as store:
        start = store.revision()
        for i in range(40):
            store.add(new_image(i))
            store.remove(f"{i}.jpg")
        assert not store.changes(start).complete
        late = store.revision() - 4
        assert store.changes(late).complete
        assert len(store.changes(late).removed) == 2
        assert len(store.changes(start).removed) <= 12
        assert store.verify() == []


def test_iteration_is_complete_and_by_id(path: Path) -> None:
    with open_store(path) as store:
        store.add_many(new_image(i) for i in range(1200))  # more than two chunks
        assert [image.name for image in store.images()] == [f"{i}.jpg" for i in range(1200)]
        assert sorted(image.name for image in store.images_by_id([3, 99_999, 1])) == ["0.jpg", "2.jpg"]
        batches = list(store.code_batches(size=500))
        assert [len(b.image_ids) for b in batches] == [500, 500, 200]
        assert_array_equal(batches[2].words[-30:], make_codes(1199).words)
        some = list(store.code_batches([7, 3, 99_999]))
        assert_array_equal(some[0].image_ids, [3, 7])


def test_info(path: Path) -> None:
    with open_store(path) as store:
        store.add_many(new_image(i) for i in range(10))
        info = store.info()
    assert (info.n_images, info.n_landmarks, info.n_features) == (10, 3, 300)
    assert (info.bundle_id, info.layout, info.schema_version) == ("3f2a", LAYOUT, 2)
    assert info.bytes > 4096
    assert not info.sealed


def test_disk_size_of_a_realistic_database(path: Path) -> None:
    """12-byte codes, 300 features, 256-D global descriptor: at most 20 bytes a feature, everything included."""
    layout = CodeLayout(12, 256, 16384)
    rng = np.random.default_rng(0)
    with Store.open(path, bundle_id="x", layout=layout) as store:
        for start in range(0, 400, 100):
            store.add_many(
                NewImage(
                    f"tour_eiffel/photo_{i:05}.jpg",
                    f"landmark {i // 10}",
                    rng.bytes(32),
                    Codes(
                        (rng.random((300, 2)) * 640).astype(np.float32),
                        rng.integers(0, 16384, 300).astype(np.uint16),
                        rng.integers(0, 256, (300, 12)).astype(np.uint8),
                        rng.integers(-127, 128, 256).astype(np.int8),
                        (640, 480),
                    ),
                )
                for i in range(start, start + 100)
            )
    assert path.stat().st_size / (400 * 300) <= 20


def test_seal_makes_one_file_for_read_only_media(path: Path) -> None:
    with open_store(path) as store:
        store.add_many(new_image(i) for i in range(50))
        store.remove(*(f"{i}.jpg" for i in range(40)))
        store.seal()
        with pytest.raises(StoreError, match="closed"):
            len(store)
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    path.chmod(0o444)
    with Store.open(path, mode="ro", bundle_id="3f2a", layout=LAYOUT) as store:
        assert len(store) == 10
        assert store.verify() == []
        assert store.info().sealed
        with pytest.raises(ReadOnlyError, match="opened read-only; open it for writing"):
            store.add(new_image(99))
        copy = store.snapshot(path.with_name("copy.db"))
    assert sorted(p.name for p in path.parent.iterdir()) == ["copy.db", path.name]
    path.chmod(0o644)
    with pytest.raises(ReadOnlyError, match=r"sealed.*snapshot"):
        open_store(path)
    with open_store(copy) as store:  # the copy can be written again
        store.add(new_image(99))
        assert len(store) == 11


def test_seal_is_refused_while_others_read(path: Path) -> None:
    with open_store(path) as store, Store.open(path, mode="ro") as reader:
        store.add(new_image(1))
        assert len(reader) == 1
        with pytest.raises(StoreError, match="using the database"):
            store.seal()
        store.add(new_image(2))
        assert len(reader) == 2
        assert not reader.info().sealed


def test_snapshot_of_a_database_in_use(path: Path) -> None:
    target = path.with_name("copy.db")
    with open_store(path) as store, Store.open(path, mode="ro") as reader:
        store.add_many(new_image(i) for i in range(100))
        reader.snapshot(target)
        store.add(new_image(100))
        with pytest.raises(StoreError, match="exists"):
            store.snapshot(target)
        with Store.open(target, mode="ro") as copy:
            assert len(copy) == 100
            assert copy.verify() == []
            assert copy.uuid == store.uuid
        store.snapshot(target, overwrite=True)
        with Store.open(target, mode="ro") as copy:
            assert len(copy) == 101
        with pytest.raises(StoreError, match="nowhere"):
            store.snapshot(path.parent / "nowhere" / "copy.db")


def test_compact_gives_space_back(path: Path) -> None:
    with open_store(path) as store:
        store.add_many(new_image(i, codes=make_codes(i, n=300)) for i in range(200))
        store.remove(*(f"{i}.jpg" for i in range(190)))
        store.compact()
        assert store.verify() == []
        assert len(list(store.images())) == 10
        assert path.stat().st_size < 150_000


def test_threads_share_a_store(path: Path) -> None:
    errors: list[BaseException] = []

    def work(k: int) -> None:
        try:
            for i in range(k * 100, k * 100 + 25):
                image_id = store.add(new_image(i)).image_id
                assert same_codes(store.codes([image_id])[image_id], make_codes(i))
                if i % 5 == 0:
                    store.remove(f"{i}.jpg")
        except BaseException as e:
            errors.append(e)

    with open_store(path) as store:
        threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []
        assert len(store) == 80
        assert store.verify() == []


def _add_from_process(path: Path, start: int) -> None:
    with open_store(path) as store:
        for i in range(start, start + 20):
            store.add(new_image(i))


def test_processes_share_a_file(path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    with open_store(path) as store:
        workers = [context.Process(target=_add_from_process, args=(path, k * 100)) for k in range(2)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert [worker.exitcode for worker in workers] == [0, 0]
        assert len(store) == 40
        assert store.verify() == []


def test_a_store_opened_before_fork_works_in_both(path: Path) -> None:
    with open_store(path) as store:
        store.add(new_image(1))
        pid = os.fork()
        if pid == 0:
            try:
                store.add(new_image(2))
                store.close()
                os._exit(0 if len(open_store(path)) == 2 else 1)
            except BaseException:
                os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        store.add(new_image(3))
        assert len(store) == 3
        assert store.verify() == []


def test_the_log_stays_small(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "WAL_HIGH", 200_000)
    with open_store(path) as store:
        largest = 0
        for i in range(100):
            store.add(new_image(i, codes=make_codes(i, n=300)))
            largest = max(largest, path.with_name("places.db-wal").stat().st_size)
        assert largest < 400_000


def test_durability_settings(path: Path, connections: list[sqlite3.Connection]) -> None:
    with open_store(path):
        db = connections[-1]
        values = {p: db.execute(f"PRAGMA {p}").fetchone()[0] for p in ("journal_mode", "synchronous", "trusted_schema")}
        assert values == {"journal_mode": "wal", "synchronous": 2, "trusted_schema": 0}
        assert db.execute("PRAGMA cell_size_check").fetchone()[0] == 1
        assert db.execute("PRAGMA mmap_size").fetchone()[0] == 0


def test_closing_twice_and_using_after_closing(path: Path) -> None:
    store = open_store(path)
    store.close()
    store.close()
    with pytest.raises(StoreError, match="closed"):
        store.add(new_image(1))
    sqlite3.connect(path).close()  # the file is a plain SQLite file


def test_changes_are_looked_up_not_searched_for(path: Path, connections: list[sqlite3.Connection]) -> None:
    """What an open reader asks before every query must not read a row for each image."""
    with open_store(path) as store:
        db = connections[-1]
        asked: list[str] = []
        db.set_trace_callback(asked.append)
        store.changes(-1)
        db.set_trace_callback(None)
        queries = [sql for sql in asked if "revision >" in sql]
        assert len(queries) == 2
        for sql in queries:
            (plan, *_) = db.execute(f"EXPLAIN QUERY PLAN {sql}").fetchall()
            assert plan[3].startswith("SEARCH"), plan
            assert "INDEX" in plan[3], plan
