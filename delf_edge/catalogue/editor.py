"""Changes of the catalogue: what rows say of landmarks is written in one transaction, by sqlite-utils."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from delf_edge.catalogue.fields import check_external_ids, check_metadata
from delf_edge.catalogue.records import TEXT_FIELDS, ImportReport, LandmarkPatch, NewMedia
from delf_edge.errors import OptionError
from delf_edge.files import dump_metadata
from delf_edge.storage.full_text import words_follow
from delf_edge.storage.names import Known, merged_metadata, renamed_since
from delf_edge.storage.rows import TABLES, Row, delete_rows, next_id, with_checksum
from delf_edge.storage.store import Store
from delf_edge.storage.write_transaction import WriteTransaction, put_details

MAX_LANGUAGES, MAX_MEDIA = 100, 50  # of one landmark


class _DryRun(Exception):  # noqa: N818  (no error: it ends a transaction that nothing is kept of)
    pass


def apply_patches(
    store: Store,
    patches: Sequence[LandmarkPatch],
    *,
    not_understood: Iterable[str] = (),
    dry_run: bool = False,
    from_export: bool = False,
) -> ImportReport:
    """Write what rows say of landmarks: all of it, or after an error nothing.

    Args:
        store: a writable database.
        patches: one for each row.
        not_understood: columns, for the report.
        dry_run: find out what would happen, and keep nothing.
        from_export: the rows are those of an export: coordinates that a person has set or taken away stay, and so do
            other names and slugs that landmarks have been given. Otherwise the rows are a person's word: what they say
            of coordinates stays until a person says otherwise.

    Raises:
        OptionError: two rows speak of one landmark in one language, or a row contradicts what is stored.
        StoreError: the database cannot be written.
    """
    check_twice(patches)
    report = ImportReport(not_understood=tuple(dict.fromkeys(not_understood)), dry_run=dry_run)
    try:
        with store.edit() as edit:
            edit.db.execute("PRAGMA defer_foreign_keys=1")
            editor = _Editor(store, edit, patches if from_export else None)
            for patch in patches:
                editor.apply(patch)
            editor.flush()
            report = editor.report(report)
            if dry_run:
                raise _DryRun
    except _DryRun:
        pass
    return report


def names_of(patches: Iterable[LandmarkPatch]) -> Iterator[Known]:
    """Names and metadata of the landmarks of an export."""
    return ((p.name, p.facts.get("metadata") or {}) for p in patches if p.name is not None)


def check_twice(patches: Sequence[LandmarkPatch]) -> None:
    """Two rows may speak of one landmark only in different languages, and then of nothing else that differs."""
    seen: dict[str, LandmarkPatch] = {}
    for patch in patches:
        key = patch.slug if patch.slug is not None else f"name {patch.name}"
        before = seen.setdefault(key, patch)
        if before is patch:
            continue
        common = set(before.texts) & set(patch.texts)
        if common or not patch.texts or not before.texts:
            what = f" in {min(common)!r}" if common else ""
            raise OptionError(f"{patch.where}: {key!r}{what} was in {before.where.rpartition(', ')[2]} already")
        other = [name for name, value in patch.facts.items() if name in before.facts and before.facts[name] != value]
        if other or (patch.name and before.name and patch.name != before.name):
            where = before.where.rpartition(", ")[2]
            raise OptionError(f"{patch.where}, column {(other or ['name'])[0]}: not what {where} says of {key!r}")


class _Editor:
    """Applies patches one after the other; rows are written when it is flushed."""

    def __init__(self, store: Store, edit: WriteTransaction, export: Sequence[LandmarkPatch] | None) -> None:
        import sqlite_utils

        self._store, self._edit, self._db = store, edit, edit.db
        self._located = store.located_by_hand() if export is not None else None
        self._renamed: dict[str, str] | None = None  # of an export: what its landmarks are called now
        if export is not None:
            here = ((x.name, x.metadata) for x in store.landmarks())
            self._renamed = renamed_since(here, names_of(export))
        self._tables = sqlite_utils.Database(edit.db, recursive_triggers=False, execute_plugins=False)
        self._put: dict[str, dict[Any, Row]] = defaultdict(dict)
        self._gone: dict[str, list[Any]] = defaultdict(list)
        self._next = {table: next_id(edit.db, table) for table in ("landmark_texts", "media")}
        self._new: dict[tuple[str, int], dict[int, None]] = defaultdict(dict)  # keys by table and landmark
        self._touched: dict[int, str] = {}
        self._counts = {"texts": 0, "media": 0}

    def apply(self, patch: LandmarkPatch) -> None:
        """Take in what a row says."""
        try:
            landmark_id, created = self._landmark(patch)
            changed = self._facts(landmark_id, patch)
            changed |= self._media(landmark_id, patch.media)
            changed |= self._texts(landmark_id, patch)
        except OptionError as e:
            raise e if str(e).startswith(patch.where) else OptionError(f"{patch.where}: {e}") from e
        status = "created" if created else "updated" if changed else "unchanged"
        if self._touched.get(landmark_id, "unchanged") == "unchanged":
            self._touched[landmark_id] = status

    def _landmark(self, patch: LandmarkPatch) -> tuple[int, bool]:
        """The landmark of a row, which is made where there is none, and whether it was."""
        if self._renamed is not None and patch.name is not None:
            return self._exported_landmark(self._renamed.get(patch.name, patch.name), patch.slug)
        by_slug = None if patch.slug is None else self._find("landmark_details", "landmark_id", "slug", patch.slug)
        by_name = None if patch.name is None else self._edit.find_landmark(patch.name)
        if patch.slug is None:
            assert patch.name is not None
            return (by_name, False) if by_name is not None else (self._edit.landmark_id(patch.name), True)
        if by_slug is not None:
            if by_name is not None and by_name != by_slug:
                raise OptionError(
                    f"{patch.where}, column name: {patch.name!r} is another landmark, with the slug "
                    f"{self._slug(by_name)!r}; to make them one, use `delf-edge catalogue merge`"
                )
            if patch.name is not None and by_name is None:
                _, _, *rest, _ = self._edit.rows.one(self._db, "landmarks", by_slug)
                self._write("landmarks", (by_slug, patch.name, *rest, self._edit.revision))
                self._touched[by_slug] = "updated"
            return by_slug, False
        if by_name is not None:
            own = self._slug(by_name)
            if own is None:
                put_details(self._db, by_name, str(patch.name), self._edit.revision, patch.slug)
                return by_name, False
            raise OptionError(
                f"{patch.where}, column slug: {patch.name!r} has the slug {own!r}, not {patch.slug!r}; leave the slug "
                f"out, or change it first: `delf-edge catalogue rename DB {own} --slug {patch.slug}`"
            )
        if patch.name is None:
            raise OptionError(
                f"{patch.where}, column slug: no landmark has the slug {patch.slug!r}, and no name makes a new one"
            )
        return self._edit.landmark_id(patch.name, patch.slug), True

    def _exported_landmark(self, name: str, slug: str | None) -> tuple[int, bool]:
        """As `_landmark`, of a row of an export: only a new landmark takes its slug, if that is free."""
        known = self._edit.find_landmark(name)
        if known is None:
            taken = slug is None or self._find("landmark_details", "landmark_id", "slug", slug) is not None
            return self._edit.landmark_id(name, None if taken else slug), True
        if self._slug(known) is None:
            put_details(self._db, known, name, self._edit.revision)
        return known, False

    def _find(self, table: str, wanted: str, column: str, value: Any) -> int | None:
        row = self._db.execute(f"SELECT {wanted} FROM {table} WHERE {column} = ?", (value,)).fetchone()
        return None if row is None else int(row[0])

    def _slug(self, landmark_id: int) -> str | None:
        sql = "SELECT slug FROM landmark_details WHERE landmark_id = ?"
        row = self._db.execute(sql, (landmark_id,)).fetchone()
        return None if row is None else str(row[0])

    def _one(self, table: str, key: Any) -> Row:
        """A row as it will be."""
        return self._put[table].get(key) or self._edit.rows.one(self._db, table, key)

    def _write(self, table: str, row: Row) -> bool:
        """Note a row to be written, unless it is stored like that but for its revision."""
        sql = f"SELECT 1 FROM {table} WHERE {TABLES[table][0]} = ?"
        if self._db.execute(sql, (row[0],)).fetchone() and self._one(table, row[0])[:-1] == row[:-1]:
            return False
        self._put[table][row[0]] = row
        if table in self._next:
            self._new[table, row[1]][row[0]] = None
        return True

    def _facts(self, landmark_id: int, patch: LandmarkPatch) -> bool:
        facts, revision = patch.facts, self._edit.revision
        key, name, text, latitude, longitude, _ = self._one("landmarks", landmark_id)
        if "position" in facts and landmark_id not in (self._located or ()):
            said = facts["position"] or (None, None)
            if self._located is None and said != (latitude, longitude):
                self._edit.note_located(landmark_id)
            latitude, longitude = said
        if "metadata" in facts:
            stored, given = json.loads(text), facts["metadata"]
            if self._renamed is not None and given is not None:
                given = merged_metadata(stored, given)
            known = check_metadata(_changed(stored, given))
            text = dump_metadata(known)
        changed = self._write("landmarks", (key, name, text, latitude, longitude, revision))
        if facts.keys() & {"kind", "collection", "external_ids"}:
            _, slug, kind, collection, ids, _ = self._one("landmark_details", landmark_id)
            known = _changed(json.loads(ids), check_external_ids(facts.get("external_ids") or {}))
            kind, collection = facts.get("kind", kind), facts.get("collection", collection)
            row = (landmark_id, slug, kind, collection, dump_metadata(known), revision)
            changed |= self._write("landmark_details", row)
        return changed

    def _texts(self, landmark_id: int, patch: LandmarkPatch) -> bool:
        if not patch.texts:
            return False
        keys = self._keys("landmark_texts", landmark_id)
        known = {row[2]: row for row in keys}
        changed = False
        for language, fields in patch.texts.items():
            before = known.get(language)
            said = dict(zip(TEXT_FIELDS, before[3:8] if before else (None,) * len(TEXT_FIELDS), strict=True))
            said |= dict(fields)
            if said["audio"] is not None and said["audio"] not in {r[2] for r in self._keys("media", landmark_id)}:
                column = patch.columns.get(f"audio.{language}", f"texts.{language}.audio")
                raise OptionError(
                    f"{patch.where}, column {column}: {said['audio']!r} is neither a file beside the table nor one of "
                    "the landmark's pictures and sounds"
                )
            if all(value is None for value in said.values()):
                if before is not None:
                    self._put["landmark_texts"].pop(before[0], None)
                    self._gone["landmark_texts"].append(before[0])
                    changed = True
                continue
            if before is None and len(known) >= MAX_LANGUAGES:
                raise OptionError(f"{patch.where}: more than {MAX_LANGUAGES} languages")
            key = before[0] if before else self._number("landmark_texts")
            row = (key, landmark_id, language, *(said[f] for f in TEXT_FIELDS), self._edit.revision)
            known[language] = row
            if self._write("landmark_texts", row):
                self._counts["texts"] += 1
                changed = True
        return changed

    def _media(self, landmark_id: int, items: Sequence[NewMedia]) -> bool:
        if not items:
            return False
        known = {row[2]: row for row in self._keys("media", landmark_id)}
        changed = False
        for item in items:
            if item.name not in known and len(known) >= MAX_MEDIA:
                raise OptionError(f"column media: more than {MAX_MEDIA} pictures and sounds")
            key = known[item.name][0] if item.name in known else self._number("media")
            hashed = bytes.fromhex(item.sha256)
            row = (key, landmark_id, item.name, item.type, hashed, item.path, item.credit, self._edit.revision)
            known[item.name] = row
            if self._write("media", row):
                if item.data is not None:
                    self._put["media_data"][key] = (key, item.data)
                else:
                    self._gone["media_data"].append(key)
                self._counts["media"] += 1
                changed = True
        return changed

    def _keys(self, table: str, landmark_id: int) -> list[Row]:
        """Rows of a landmark, as they will be."""
        keys = self._db.execute(f"SELECT id FROM {table} WHERE landmark_id = ?", (landmark_id,)).fetchall()
        wanted = dict.fromkeys([*(key for (key,) in keys), *self._new[table, landmark_id]])
        return [self._one(table, key) for key in wanted if key not in self._gone[table]]

    def _number(self, table: str) -> int:
        self._next[table] += 1
        return self._next[table] - 1

    def flush(self) -> None:
        """Write all that was noted."""
        for table in ("media_data", "media", "landmark_texts"):
            delete_rows(self._db, table, self._gone[table])
        for table in ("landmarks", "landmark_details", "media", "media_data"):
            self._upsert(table)
        with words_follow(self._db, list(self._put["landmark_texts"])):
            self._upsert("landmark_texts")

    def _upsert(self, table: str) -> None:
        rows = [with_checksum(table, row) for row in self._put[table].values()]
        if rows:
            self._tables.table(table).upsert_all(rows, pk=TABLES[table][0])

    def report(self, report: ImportReport) -> ImportReport:
        """The counts."""
        found = list(self._touched.values())
        return ImportReport(
            created=found.count("created"),
            updated=found.count("updated"),
            unchanged=found.count("unchanged"),
            texts=self._counts["texts"],
            media=self._counts["media"],
            not_understood=report.not_understood,
            dry_run=report.dry_run,
        )


def _changed(before: Mapping[str, Any], change: Mapping[str, Any] | None) -> dict[str, Any]:
    """An object with new values; None for the whole empties it, None for a key takes that away."""
    if change is None:
        return {}
    return {key: value for key, value in {**before, **change}.items() if value is not None}
