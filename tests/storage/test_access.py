"""Who may read and write a database file, and what reading and refusing leave behind."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from delf_edge.errors import BundleMismatchError, DelfEdgeError, NotADatabaseError, ReadOnlyError
from delf_edge.quantization.packed_codes import CodeLayout
from delf_edge.storage.records import NewImage
from delf_edge.storage.store import Store
from delf_edge.types import Codes

LAYOUT = CodeLayout(code_size=4, global_dim=8, n_words=64)


def photo(seed: int) -> NewImage:
    codes = Codes(
        np.zeros((2, 2), np.float32),
        np.zeros(2, np.uint16),
        np.zeros((2, 4), np.uint8),
        np.zeros(8, np.int8),
        (640, 480),
    )
    return NewImage(f"{seed}.jpg", "place", hashlib.sha256(str(seed).encode()).digest(), codes)


def open_rw(path: Path, bundle_id: str = "3f2a") -> Store:
    return Store.open(path, bundle_id=bundle_id, layout=LAYOUT)


def state(folder: Path) -> dict[str, tuple[bytes, int, int]]:
    """Bytes, time of change and permissions of every file."""
    return {p.name: (p.read_bytes(), p.stat().st_mtime_ns, p.stat().st_mode) for p in folder.iterdir()}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with open_rw(tmp_path / "places.db") as store:
        store.add_many([photo(1), photo(2)])
        store.set_landmark("place", latitude=1.0, longitude=2.0)
    return tmp_path / "places.db"


def test_a_medium_that_is_mounted_read_only_is_named(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = state(path.parent)
    real = os.statvfs

    def mounted_read_only(where: str | Path) -> object:
        facts = real(where)
        return os.statvfs_result((*facts[:8], facts.f_flag | os.ST_RDONLY, *facts[9:]))

    monkeypatch.setattr(os, "statvfs", mounted_read_only)
    with pytest.raises(ReadOnlyError, match=r"mounted read-only; copy it .*delf-edge snapshot"):
        open_rw(path)
    with Store.open(path, mode="ro") as store:
        assert len(store) == 2
    assert state(path.parent) == before


def test_a_refused_change_leaves_a_sealed_file_as_it_is(path: Path) -> None:
    with open_rw(path) as store:
        store.seal()
    before = state(path.parent)
    for bundle_id in ("3f2a", "other"):
        with pytest.raises((ReadOnlyError, BundleMismatchError)):
            open_rw(path, bundle_id)
    with pytest.raises(ReadOnlyError, match="sealed"):
        Store.open(path)
    assert state(path.parent) == before


def test_a_refused_bundle_leaves_a_copy_as_it_is(path: Path) -> None:
    with open_rw(path) as store:
        copy = store.snapshot(path.with_name("copy.db"))
    before = state(path.parent)
    with pytest.raises(BundleMismatchError):
        open_rw(copy, "other")
    assert state(path.parent) == before


def test_reading_leaves_nothing_behind(path: Path) -> None:
    before = state(path.parent)
    with Store.open(path, mode="ro") as store, Store.open(path, mode="ro") as other:
        assert len(store) == len(other) == 2
    assert state(path.parent) == before


def test_reading_beside_a_writer_leaves_its_log_alone(path: Path) -> None:
    with open_rw(path) as writer:
        with Store.open(path, mode="ro") as reader:
            assert len(reader) == 2
        writer.add(photo(3))
        with Store.open(path, mode="ro") as reader:
            assert len(reader) == 3
        assert len(writer) == 3
    with Store.open(path, mode="ro") as reader:
        assert len(reader) == 3


def test_a_log_that_was_left_behind_is_named(path: Path) -> None:
    """As after `kill -9`, when only the file of the database is copied."""
    home = path.parent / "new"
    home.mkdir()
    with open_rw(home / "killed.db") as store:
        store.add(photo(1))
        for suffix in ("", "-wal"):
            shutil.copy(home / f"killed.db{suffix}", path.parent / f"moved.db{suffix}")
    moved = path.parent / "moved.db"
    log = moved.with_name("moved.db-wal").rename(path.parent / "aside")
    for mode in ("ro", "rw"):
        with pytest.raises(NotADatabaseError, match=r"moved\.db-wal is missing.*move moved\.db away and"):
            Store.open(moved, bundle_id="3f2a", layout=LAYOUT, mode=mode)
    log.rename(moved.with_name("moved.db-wal"))
    with Store.open(moved, mode="ro") as store:
        assert len(store) == 1


@pytest.mark.parametrize("name", [b"\xff\xfe.db", "Köln ?#%41.db".encode(), b"a\nb.db"])
def test_files_of_any_name(tmp_path: Path, name: bytes) -> None:
    path = Path(os.fsdecode(os.path.join(os.fsencode(tmp_path), name)))
    with open_rw(path) as store:
        store.add(photo(1))
        copy = store.snapshot(path.with_name("copy"))
    with Store.open(path, mode="ro") as store, Store.open(copy, mode="ro") as other:
        assert len(store) == len(other) == 1
    assert {p.name for p in tmp_path.iterdir()} == {path.name, "copy"}


def test_two_slashes_in_front_are_one(path: Path) -> None:
    with Store.open(f"/{path}", mode="ro") as store:
        assert len(store) == 2


def test_a_link_is_followed_to_the_log_too(path: Path) -> None:
    (path.parent / "elsewhere").mkdir()
    link = path.parent / "elsewhere" / "link.db"
    link.symlink_to(path)
    with open_rw(path) as writer:
        writer.add(photo(3))
        with Store.open(link, mode="ro") as store:
            assert len(store) == 3
    assert [p.name for p in link.parent.iterdir()] == ["link.db"]


READER = """
import os, sys
from delf_edge.errors import DelfEdgeError
from delf_edge.storage.store import Store
os.setgid(65534)
os.setuid(65534)  # after the imports: this user may not be able to read them
try:
    with Store.open(sys.argv[1], mode="ro") as store:
        print(len(store), flush=True)
        for line in sys.stdin:
            print(len(store), flush=True)
except DelfEdgeError as e:
    print(type(e).__name__, e, flush=True)
"""


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder that everybody can read, and only its owner can write to."""
    if os.geteuid() != 0:
        pytest.skip("only root can be another user")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


def reader(path: Path) -> subprocess.Popen[str]:
    """Reads the database as another user; a line in, a count out."""
    return subprocess.Popen(
        [sys.executable, "-c", READER, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_another_user_sees_what_is_written(shared: Path) -> None:
    with open_rw(shared / "p.db") as store:
        store.add(photo(1))
        with reader(shared / "p.db") as process:
            assert process.stdin is not None
            assert process.stdout is not None
            assert process.stdout.readline() == "1\n"
            store.add_many(photo(i) for i in range(2, 9))
            process.stdin.write("\n")
            process.stdin.flush()
            assert process.stdout.readline() == "8\n"
            process.stdin.close()


def test_another_user_without_permission_is_told_so(shared: Path) -> None:
    with open_rw(shared / "p.db") as store:
        store.add(photo(1))
    with reader(shared / "p.db") as process:
        said, _ = process.communicate("")
    assert said.startswith("ReadOnlyError")
    assert f"no permission to write in {shared}" in said
    with open_rw(shared / "p.db") as store:
        store.seal()
    before = state(shared)
    with reader(shared / "p.db") as process:
        assert process.communicate("")[0] == "1\n"
    assert state(shared) == before


def test_errors_are_of_our_own_tree(path: Path) -> None:
    with pytest.raises(DelfEdgeError):
        Store.open(path.parent, mode="ro")
