"""What can happen to a database file, and what must not follow from it."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from delf_edge.errors import (
    BundleMismatchError,
    CorruptRowError,
    NotADatabaseError,
    OptionError,
    ReadOnlyError,
    SchemaVersionError,
    StoreBusyError,
    StoreError,
    StoreFullError,
)
from delf_edge.quantization.packed_codes import CodeLayout, pack_codes
from delf_edge.storage.records import NewImage, StoredImage
from delf_edge.storage.rows import CheckedRows
from delf_edge.storage.schema import row_crc32
from delf_edge.storage.store import Store
from delf_edge.types import Codes
from testing.paths import ROOT

LAYOUT = CodeLayout(code_size=4, global_dim=8, n_words=1000)
N = 40


def new_image(i: int, n: int = 60) -> NewImage:
    rng = np.random.default_rng(i)
    codes = Codes(
        (rng.random((n, 2)) * 480).astype(np.float32),
        rng.integers(0, LAYOUT.n_words, n).astype(np.uint16),
        rng.integers(0, 256, (n, LAYOUT.code_size)).astype(np.uint8),
        rng.integers(-127, 128, LAYOUT.global_dim).astype(np.int8),
        (640, 480),
    )
    return NewImage(f"photo {i}.jpg", f"place {i // 4}", i.to_bytes(32), codes, {"number": i})


def open_rw(path: Path, **kwargs: float) -> Store:
    return Store.open(path, bundle_id="3f2a", layout=LAYOUT, **kwargs)  # type: ignore[arg-type]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A database of N images, closed: one file without a log."""
    path = tmp_path / "places.db"
    with open_rw(path) as store:
        store.add_many(new_image(i) for i in range(N))
    assert not path.with_name("places.db-wal").exists()
    return path


def edit(path: Path, *statements: str) -> None:
    """Change the file behind the SDK's back."""
    db = sqlite3.connect(path)
    with db:
        for statement in statements:
            db.execute(statement)
    db.close()


# ---------------------------------------------------------------------- files that are refused


@pytest.mark.parametrize("content", [b"", b"hello", b"\0" * 5000, b"SQLite format 3\0" + b"\1" * 200])
def test_something_else_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.db"
    path.write_bytes(content)
    with pytest.raises(NotADatabaseError, match=r"x\.db"):
        Store.open(path, mode="ro")
    if content:
        with pytest.raises(NotADatabaseError):
            open_rw(path)
        assert path.read_bytes() == content
    else:  # what a crash between creating and filling a file leaves behind
        with open_rw(path) as store:
            assert len(store) == 0


def test_another_programs_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    edit(path, "CREATE TABLE t (a)", "PRAGMA user_version=1")
    before = path.read_bytes()
    for mode in ("rw", "ro"):
        with pytest.raises(NotADatabaseError, match="another program"):
            Store.open(path, bundle_id="3f2a", layout=LAYOUT, mode=mode)
    assert path.read_bytes() == before


def test_missing_files_and_folders(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no such database"):
        Store.open(tmp_path / "none.db", mode="ro")
    with pytest.raises(StoreError, match="folder"):
        open_rw(tmp_path / "none" / "x.db")
    with pytest.raises(StoreError, match=str(tmp_path)):
        open_rw(tmp_path)
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize("share", [0.01, 0.3, 0.5, 0.9, 0.999])
def test_a_cut_off_file_is_refused(path: Path, share: float) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    for mode in ("rw", "ro"):
        with pytest.raises(NotADatabaseError, match=r"cut off, \d+ of \d+ bytes|not a delf-edge database"):
            Store.open(path, mode=mode)


def test_a_newer_schema_is_refused_by_number(path: Path) -> None:
    edit(path, "PRAGMA user_version=7")
    for mode in ("rw", "ro"):
        with pytest.raises(SchemaVersionError, match="schema version 7; this delf-edge reads up to 2"):
            Store.open(path, mode=mode)


def test_another_bundle_is_refused_naming_both(path: Path) -> None:
    with pytest.raises(BundleMismatchError, match=r"3f2a.*91c0.*--bundle"):
        Store.open(path, bundle_id="91c0", layout=LAYOUT)
    with pytest.raises(BundleMismatchError, match=r"code_size=4.*code_size=5"):
        Store.open(path, bundle_id="3f2a", layout=CodeLayout(5, 8, 1000), mode="ro")
    with Store.open(path, mode="ro") as store:
        assert store.bundle_id == "3f2a"


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TRIGGER t AFTER INSERT ON images BEGIN DELETE FROM codes; END",
        "CREATE VIEW v AS SELECT * FROM images",
        "ALTER TABLE images ADD COLUMN extra",
        "DROP INDEX images_revision",
        "CREATE TABLE stranger (a)",
    ],
)
def test_a_schema_with_strangers_is_refused(path: Path, statement: str) -> None:
    edit(path, statement)
    for mode in ("rw", "ro"):
        with pytest.raises(NotADatabaseError, match="schema differs"):
            Store.open(path, mode=mode)


def test_a_view_in_place_of_a_table_is_refused(path: Path) -> None:
    edit(path, "DROP TABLE tombstones", "CREATE VIEW tombstones AS SELECT 1 AS image_id")
    with pytest.raises(NotADatabaseError, match="view tombstones"):
        Store.open(path, mode="ro")


def interrupted(path: Path) -> Path:
    """The file as a power cut in the middle of `seal` leaves it: half a change, and the journal that undoes it."""
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA journal_mode=DELETE")
    db.execute("PRAGMA cache_size=2")  # so that pages go to the file before the end
    db.execute("BEGIN IMMEDIATE")
    db.execute("UPDATE codes SET n = n + 1")
    db.execute("UPDATE images SET width = width + 1")
    cut = path.with_name("cut.db")
    for suffix in ("", "-journal"):
        cut.with_name(f"cut.db{suffix}").write_bytes(path.with_name(path.name + suffix).read_bytes())
    db.execute("ROLLBACK")
    db.close()
    return cut


def test_an_interrupted_seal_is_undone_by_a_reader_too(path: Path) -> None:
    cut = interrupted(path)
    assert cut.with_name("cut.db-journal").stat().st_size
    with Store.open(cut, mode="ro") as store:
        assert len(store) == N
        assert store.verify() == []


def test_an_interrupted_seal_is_refused_where_it_cannot_be_undone(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cut = interrupted(path)
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(ReadOnlyError, match="interrupted"):
        Store.open(cut, mode="ro")


# ---------------------------------------------------------------------- damaged rows


DAMAGE = {
    "images": "UPDATE images SET name = 'photo X.jpg' WHERE id = 8",
    "images, a type": "UPDATE images SET width = 'wide' WHERE id = 8",
    "images, text that is not UTF-8": "UPDATE images SET metadata = CAST(x'ff00fe' AS TEXT) WHERE id = 8",
    "codes": "UPDATE codes SET blob = zeroblob(length(blob)) WHERE image_id = 8",
    "codes, length": "UPDATE codes SET blob = x'00' WHERE image_id = 8",
    "codes, count": "UPDATE codes SET n = 3 WHERE image_id = 8",
    "codes, a type": "UPDATE codes SET blob = 5 WHERE image_id = 8",
    "codes of another image": "UPDATE codes SET (n, blob, crc32) = "
    "(SELECT n, blob, crc32 FROM codes WHERE image_id = 9) WHERE image_id = 8",
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_row_is_named_and_the_rest_stays_readable(path: Path, kind: str) -> None:
    edit(path, DAMAGE[kind])
    with open_rw(path) as store:
        images = [image.image_id for image in store.images()]
        batches = np.concatenate([b.image_ids for b in store.code_batches()])
        everything, without = [*range(1, N + 1)], [i for i in range(1, N + 1) if i != 8]
        assert images == (without if kind.startswith("images") else everything)
        assert batches.tolist() == (everything if kind.startswith("images") else without)
        (table, key) = next(iter(store.damaged))
        assert (table, key) == (kind.split(" ")[0].strip(","), 8)
        problems = store.verify()
        assert len(problems) == 1 or "type" in kind
        assert any(p.table == table and p.name in ("photo 7.jpg", "photo X.jpg") for p in problems)
        if kind.startswith("images"):
            with pytest.raises(CorruptRowError, match="damaged"):
                store.image(8)
        assert store.remove_damaged() == [8]
        assert store.verify() == []
        store.add(new_image(7))
        assert len(store) == N


def test_a_damaged_landmark_is_named(path: Path) -> None:
    edit(path, "UPDATE landmarks SET latitude = 1.5 WHERE id = 2")
    with Store.open(path, mode="ro") as store:
        assert len(list(store.images())) == N - 4
        assert len(store.landmarks()) == N // 4 - 1
        assert any(p.table == "landmarks" for p in store.verify())
        with pytest.raises(CorruptRowError, match="landmarks 2"):
            store.image("photo 4.jpg")


def test_damaged_meta_is_refused(path: Path) -> None:
    edit(path, "UPDATE meta SET value = '91c0' WHERE key = 'bundle_id'")
    with pytest.raises(CorruptRowError, match="bundle_id"):
        Store.open(path, mode="ro")


@pytest.mark.parametrize("statement", ["DELETE FROM codes WHERE image_id = 8", "DELETE FROM images WHERE id = 8"])
def test_orphans_are_reported(path: Path, statement: str) -> None:
    edit(path, statement)
    with Store.open(path, mode="ro") as store:
        assert any("8" in p.what for p in store.verify())


def test_valid_checksums_do_not_make_hostile_codes_valid(path: Path) -> None:
    """Whoever writes a file on purpose writes the right CRC-32 too."""
    codes = new_image(7).codes
    far = Codes(codes.keypoints, np.full(60, 999, np.uint16), codes.codes, codes.global_code, codes.image_size)
    blob = pack_codes(far).replace((999).to_bytes(2, "little"), (1000).to_bytes(2, "little"))
    db = sqlite3.connect(path)
    with db:
        db.execute("UPDATE codes SET blob = ?, crc32 = ? WHERE image_id = 8", (blob, row_crc32("codes", (8, 60, blob))))
    db.close()
    with Store.open(path, mode="ro") as store:
        assert any("word 1000" in p.what for p in store.verify())
        assert 8 not in store.codes([8])
        assert 8 not in np.concatenate([b.image_ids for b in store.code_batches()])


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE images SET metadata = '[[[[' WHERE id = 8",
        "UPDATE images SET width = 'wide' WHERE id = 8",
        "UPDATE landmarks SET latitude = 'north' WHERE id = 2",
    ],
)
def test_valid_checksums_do_not_make_hostile_rows_valid(path: Path, statement: str) -> None:
    db = sqlite3.connect(path)
    with db:
        db.execute(statement)
        for table, n in (("images", 9), ("landmarks", 6)):
            for row in db.execute(f"SELECT * FROM {table}").fetchall():
                db.execute(f"UPDATE {table} SET crc32 = ? WHERE id = ?", (row_crc32(table, row[:n]), row[0]))
    db.close()
    with Store.open(path, mode="ro") as store:
        assert len(list(store.images())) in (N - 1, N - 4)
        assert any("of another kind" in p.what for p in store.verify())
        store.landmarks()


def test_rows_without_a_checksum_are_no_rows(path: Path) -> None:
    db = sqlite3.connect(path)
    with db:
        db.execute("UPDATE images SET crc32 = 'none' WHERE id = 8")
    db.close()
    with Store.open(path, mode="ro") as store:
        assert 8 not in store.fingerprints()[1]
        assert len(store.fingerprints()[1]) == N - 1


def test_an_image_and_its_landmark_are_read_from_one_state(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process may take the last image from a landmark, and with it the landmark, between two reads."""
    with Store.open(path, mode="ro") as reader, open_rw(path) as writer:
        many = CheckedRows.many

        def meddled(rows: CheckedRows, table: str, keys: Any) -> Any:
            if table == "landmarks":
                for i in range(4):
                    writer.relabel(f"photo {i}.jpg", "elsewhere")
            return many(rows, table, keys)

        monkeypatch.setattr(CheckedRows, "many", meddled)
        assert [image.landmark for image in reader.images_by_id([1, 2])] == ["place 0", "place 0"]
        assert reader.damaged == {}


def test_a_number_that_is_no_id_is_refused(path: Path) -> None:
    with Store.open(path, mode="ro") as store, pytest.raises(OptionError, match="64 bits"):
        store.image(10**20)


def test_a_name_that_is_no_text_is_refused(path: Path) -> None:
    with open_rw(path) as store, pytest.raises(OptionError, match="no text"):
        store.remove("\udcff")


def contents(store: Store) -> tuple[dict[int, StoredImage], dict[int, bytes]]:
    images = {image.image_id: image for image in store.images()}
    codes = {i: pack_codes(c) for i, c in store.codes(range(1, N + 1)).items()}
    return images, codes


def test_no_flipped_bit_changes_what_is_read(path: Path) -> None:
    """Whatever differs from the original is missing, and `verify` or the opening says so."""
    data = path.read_bytes()
    with Store.open(path, mode="ro") as store:
        true_images, true_codes = contents(store)
    rng = np.random.default_rng(0)
    outcomes = {"refused": 0, "reported": 0, "harmless": 0}
    for at in rng.integers(0, len(data), 250):
        damaged = bytearray(data)
        damaged[at] ^= 1 << rng.integers(8)
        path.write_bytes(damaged)
        try:
            with Store.open(path, mode="ro") as store:
                images, codes = contents(store)
                problems = store.verify()
        except StoreError:
            outcomes["refused"] += 1
            continue
        assert all(true_images[i] == image for i, image in images.items())
        assert all(true_codes[i] == blob for i, blob in codes.items())
        whole = len(images) == len(codes) == N
        assert whole or problems
        outcomes["reported" if problems else "harmless"] += 1
        assert len(images) + len(codes) >= N  # one page at most is lost
    assert outcomes["reported"] > 100


# ---------------------------------------------------------------------- trouble while writing


def test_a_lock_is_waited_for_and_then_reported(path: Path) -> None:
    blocker = sqlite3.connect(path, isolation_level=None)
    with open_rw(path, busy_timeout=0.1) as store:
        blocker.execute("BEGIN IMMEDIATE")
        start = time.monotonic()
        with pytest.raises(StoreBusyError, match="try again"):
            store.add(new_image(100))
        assert time.monotonic() - start >= 0.1
        assert len(store) == N  # reading goes on
        blocker.execute("ROLLBACK")
        store.add(new_image(100))
        assert len(store) == N + 1
    blocker.close()


def test_a_full_disk_loses_nothing(path: Path, connections: list[sqlite3.Connection]) -> None:
    with open_rw(path) as store:
        db = connections[-1]
        (pages,) = db.execute("PRAGMA page_count").fetchone()
        db.execute(f"PRAGMA max_page_count={pages + 2}")
        with pytest.raises(StoreFullError, match="disk is full"):
            store.add_many(new_image(i) for i in range(100, 140))
        assert len(store) == N
        assert store.verify() == []
        db.execute("PRAGMA max_page_count=1000000")
        store.add_many(new_image(i) for i in range(100, 140))
        assert len(store) == N + 40


PRELUDE = """
import importlib.util, resource, signal, subprocess, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
spec = importlib.util.spec_from_file_location("faults", sys.argv[1])
faults = importlib.util.module_from_spec(spec)
spec.loader.exec_module(faults)
path = Path(sys.argv[3])
"""


def script(code: str, *args: object, prefix: tuple[str, ...] = ()) -> list[str]:
    """The command that runs `code` in a process of its own, with this module as `faults`."""
    return [*prefix, sys.executable, "-c", PRELUDE + code, __file__, str(ROOT), *map(str, args)]


LIMITED = """
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
with faults.open_rw(path) as store:
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 3000, resource.RLIM_INFINITY))
    try:
        store.add_many(faults.new_image(i, n=3000) for i in range(100, 120))
    except faults.StoreError as e:
        print(type(e).__name__)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert len(store) == faults.N, len(store)
    store.add(faults.new_image(100))
    assert store.verify() == []
"""


def test_writes_that_the_system_refuses_lose_nothing(path: Path) -> None:
    result = subprocess.run(script(LIMITED, path), capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() in ("StoreError", "StoreFullError")
    with Store.open(path, mode="ro") as store:
        assert len(store) == N + 1


def test_a_read_only_file_is_read_and_not_written(path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    path.chmod(0o444)
    path.parent.chmod(0o555)
    try:
        with Store.open(path, mode="ro") as store:
            assert store.verify() == []
        with pytest.raises(ReadOnlyError):
            open_rw(path)
    finally:
        path.parent.chmod(0o755)


MOUNTED = """
def mount(*options):
    subprocess.run(["mount", "-t", "tmpfs", *options, "none", str(media)], check=True)

media = path.parent / "media"
media.mkdir()
mount("-o", "size=1m")
"""
READ_ONLY = """
(media / "a.db").write_bytes(path.read_bytes())
with faults.open_rw(media / "logged.db") as store:
    store.add(faults.new_image(1))
    for name in ("logged.db", "logged.db-wal"):  # as if the power had gone now
        (media / f"cut-{name}").write_bytes((media / name).read_bytes())
mount("-o", "remount,ro")
with faults.Store.open(media / "a.db", mode="ro") as store:
    assert len(store) == faults.N
    assert store.verify() == []
with faults.pytest.raises(faults.StoreError, match="read-only"):
    faults.open_rw(media / "a.db")
with faults.pytest.raises(faults.ReadOnlyError, match="seal"):
    faults.Store.open(media / "cut-logged.db", mode="ro")
"""
FULL = """
acknowledged = 0
with faults.open_rw(media / "a.db") as store:
    try:
        for i in range(10_000):
            store.add(faults.new_image(i))
            acknowledged += 1
    except faults.StoreError as e:
        assert "full" in str(e) or "medium" in str(e), e
    assert 10 < acknowledged == len(store)
    assert store.verify() == []
    with faults.pytest.raises(faults.StoreError):
        store.snapshot(media / "copy.db")
    assert not list(media.glob("*partial*"))
mount("-o", "remount,size=4m")
with faults.open_rw(media / "a.db") as store:
    store.add(faults.new_image(acknowledged))
    assert len(store) == acknowledged + 1
    assert store.verify() == []
"""


@pytest.mark.parametrize("code", [READ_ONLY, FULL], ids=["read-only", "full"])
def test_real_media(path: Path, code: str) -> None:
    """On a small file system of its own, in a private mount namespace that goes with the process."""
    private = ("unshare", "--mount")
    if (
        shutil.which("unshare") is None
        or subprocess.run([*private, "true"], capture_output=True, check=False).returncode
    ):
        pytest.skip("needs the right to mount a file system")
    result = subprocess.run(script(MOUNTED + code, path, prefix=private), capture_output=True, text=True, check=False)
    if "permission denied" in result.stderr and "mount" in result.stderr:
        pytest.skip("needs the right to mount a file system")
    assert result.returncode == 0, result.stderr


KILLED = """
with faults.open_rw(path) as store:
    for i in range(int(sys.argv[4]), 10**6):
        store.add(faults.new_image(i))
        if i % 7 == 0:
            store.compact()
        print(i, flush=True)
"""


def test_kill_9_loses_nothing_that_was_acknowledged(path: Path) -> None:
    last = N - 1
    rng = np.random.default_rng(0)
    for _ in range(4):
        process = subprocess.Popen(script(KILLED, path, last + 1), stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        first = process.stdout.readline()
        assert first
        time.sleep(float(rng.uniform(0, 0.2)))
        process.send_signal(signal.SIGKILL)
        lines = [first, *process.stdout.read().splitlines(keepends=True)]
        process.wait()
        process.stdout.close()
        last = max(int(line) for line in lines if line.endswith("\n"))
        with open_rw(path) as store:
            assert store.verify() == []
            assert last + 1 <= len(store) <= last + 2
            last = len(store) - 1


@pytest.mark.parametrize("act", [lambda s: s.remove("photo 1.jpg"), lambda s: s.relabel("photo 1.jpg", "x")])
def test_read_only_opening_refuses_changes(path: Path, act: Callable[[Store], object]) -> None:
    with Store.open(path, mode="ro") as store:
        for change in (act, lambda s: s.compact(), lambda s: s.seal(), lambda s: s.add(new_image(99))):
            with pytest.raises(ReadOnlyError, match="opened read-only"):
                change(store)


def test_a_file_that_cannot_be_looked_at_is_our_error(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    look = Path.stat

    def refuse(self: Path, *, follow_symlinks: bool = True) -> os.stat_result:
        if self.name.startswith(path.name):
            raise PermissionError(13, "Permission denied")
        return look(self, follow_symlinks=follow_symlinks)

    with open_rw(path) as store:
        monkeypatch.setattr(Path, "stat", refuse)
        with pytest.raises(StoreError, match="cannot be reached"):
            store.snapshot(path)
        with pytest.raises(StoreError, match="cannot be reached"):
            store.info()
        with pytest.raises(StoreError, match="cannot be reached"):
            open_rw(path)
        monkeypatch.undo()
        assert store.info().n_images == N


def test_a_checksum_of_64_bits_disturbs_no_other_image(path: Path) -> None:
    other = sqlite3.connect(path)
    with other:
        other.execute("UPDATE images SET crc32 = ? WHERE id = 3", (422843805550,))  # as a damaged page had it
    other.close()
    with Store.open(path, mode="ro") as store:
        (batch,) = store.code_batches(size=1000)
        _, ids, checksums = store.fingerprints()
        assert len(batch.image_ids) == N
        assert batch.row_checksums[2] == checksums[ids == 3][0]
        assert [p.what for p in store.verify()] == [next(iter(store.damaged.values()))]
