"""What is done to a whole database file: its facts, verifying, sealing, compacting and copying it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from delf_edge.errors import StoreError
from delf_edge.files import replacing
from delf_edge.quantization.packed_codes import CodeLayout
from delf_edge.storage.catalogue_rows import verify_catalogue
from delf_edge.storage.full_text import rebuild_words
from delf_edge.storage.records import Problem, StoreInfo
from delf_edge.storage.rows import TABLES, CheckedRows, chunks, has_catalogue, put_row
from delf_edge.storage.schema import Value, pragma_value
from delf_edge.storage.sqlite import SharedConnection, as_store_error, file_bytes, is_corruption, transaction
from delf_edge.storage.write_transaction import next_revision


def info(rows: CheckedRows, bundle_id: str, layout: CodeLayout) -> StoreInfo:
    """See `Store.info`."""
    file, meta = rows.file, rows.meta()
    with file.read() as db, transaction(db, "BEGIN"):
        counts = [db.execute(f"SELECT count(*) FROM {t}").fetchone()[0] for t in ("images", "landmarks")]
        (n_features,) = db.execute("SELECT coalesce(sum(n), 0) FROM codes").fetchone()
        version = pragma_value(db, "user_version")
    return StoreInfo(
        path=str(file.path),
        uuid=meta["uuid"],
        schema_version=version,
        bundle_id=bundle_id,
        layout=layout,
        revision=int(meta["revision"]),
        n_images=counts[0],
        n_landmarks=counts[1],
        n_features=n_features,
        bytes=sum(file_bytes(path) or 0 for path in (file.path, Path(f"{file.path}-wal"))),
        sealed=meta["sealed"] == "1",
        read_only=not file.writable,
    )


def verify_database(
    rows: CheckedRows, layout: CodeLayout, progress: Callable[[int, int], None] | None
) -> list[Problem]:
    """See `Store.verify`."""
    problems = _verify_pages(rows.file)
    rows.damaged.clear()
    seen: dict[str, set[Value]] = {}
    for table in ("meta", "landmarks", "tombstones", "images", "thumbnails", "landmark_details", "landmark_texts"):
        seen[table] = {row[0] for row in rows.many(table, rows.keys(table))}
    ids, done, seen["codes"] = rows.keys("codes"), 0, set()
    for chunk in chunks(ids):
        for row in rows.codes(chunk, layout):
            seen["codes"].add(row[0])
            rows.unpack(row, layout)
        done += len(chunk)
        if progress is not None:
            progress(done, len(ids))
    bad = {table: {k for t, k in rows.damaged if t == table} for table in TABLES}
    for key in sorted(seen["images"] - seen["codes"] - bad["codes"], key=str):
        rows.damaged["images", key] = f"image {key!r} has no codes"
    for table in ("codes", "thumbnails"):
        for key in sorted(seen[table] - seen["images"] - bad["images"], key=str):
            rows.damaged[table, key] = f"{table} of image {key!r}, which does not exist"
    problems += verify_catalogue(rows)
    names = _names_of_damaged(rows)
    return problems + [Problem(t, names.get(k, str(k)), what) for (t, k), what in rows.damaged.items()]


def _verify_pages(file: SharedConnection) -> list[Problem]:
    with file.read() as db:
        try:
            lines = [line for (line,) in db.execute("PRAGMA integrity_check(100)") if line != "ok"]
            lines += [f"row {r[1]} of {r[0]} refers to no {r[2]}" for r in db.execute("PRAGMA foreign_key_check")]
        except sqlite3.DatabaseError as e:
            lines = [str(e)]
    return [Problem("file", file.path.name, line) for line in lines]


def _names_of_damaged(rows: CheckedRows) -> dict[Value, str]:
    """Names of the damaged images, as far as they can be read."""
    names: dict[Value, str] = {}
    with rows.file.read() as db:
        for table, key in rows.damaged:
            if table in ("images", "codes", "thumbnails"):
                try:
                    row = db.execute("SELECT name FROM images WHERE id = ?", (key,)).fetchone()
                except sqlite3.DatabaseError:
                    continue
                if row is not None:
                    names[key] = str(row[0])
    return names


def seal(rows: CheckedRows) -> None:
    """See `Store.seal`."""
    rows.file.require_writable("seal")
    with rows.file.read() as db:
        try:
            db.execute("PRAGMA locking_mode=EXCLUSIVE")  # nobody may return to the log in between
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            db.execute("PRAGMA journal_mode=DELETE")
            db.execute("PRAGMA synchronous=EXTRA")  # FULL leaves the end of a journal to the next sync of its folder
        except sqlite3.Error:
            db.execute("PRAGMA locking_mode=NORMAL")
            raise
        with transaction(db):
            next_revision(db, rows)
            if has_catalogue(db):
                rebuild_words(db)
            put_row(db, "meta", ("sealed", "1"))
        db.execute("VACUUM")
    rows.file.close()


def compact(file: SharedConnection) -> None:
    """See `Store.compact`."""
    file.require_writable("compact")
    with file.read() as db:
        db.execute("VACUUM")
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def snapshot(file: SharedConnection, target: Path, *, overwrite: bool, unseal: bool) -> Path:
    """See `Store.snapshot`."""
    if (file_bytes(target) is not None and not overwrite) or file_bytes(Path(f"{target}-wal")):
        raise StoreError(f"{target}: exists already or is in use; choose another name, or overwrite it (--overwrite)")
    with file.read() as db:
        try:
            _copy(db, target, unseal)
        except OSError as e:
            raise StoreError(f"{target}: cannot be written ({e.strerror})") from e
        except sqlite3.Error as e:  # damage is the source's, everything else the target's
            raise as_store_error(e, file.path if is_corruption(e) else target) from e
    return target


def _copy(source: sqlite3.Connection, target: Path, unseal: bool) -> None:
    """A consistent copy as one file without a log, put in place atomically; others may write meanwhile."""
    with replacing(target) as partial, closing(sqlite3.connect(partial, isolation_level=None)) as copy:
        source.backup(copy)
        copy.execute("PRAGMA journal_mode=DELETE")
        if unseal:
            put_row(copy, "meta", ("sealed", "0"))
