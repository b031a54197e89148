"""The catalogue of an open database: reading it, and for the tools that edit, changing it.

::

    with Recognizer.open("places.db") as recognizer:
        recognizer.catalogue.import_file("places.csv")
        recognizer.catalogue.get("eiffel-tower").texts["fr"].summary
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from delf_edge.catalogue.reader import CatalogueReader
from delf_edge.catalogue.records import ImportReport, LandmarkRecord
from delf_edge.errors import OptionError
from delf_edge.storage.store import Store


class Catalogue(CatalogueReader):
    """What is known of landmarks. Changes go to the first database, each method in one transaction.

    Args:
        stores: the device's own database, then packs that are read beside it.
    """

    def __init__(self, stores: Sequence[Store]) -> None:
        super().__init__(stores)
        self._own = stores[0]

    def import_file(
        self,
        path: str | os.PathLike[str],
        *,
        kind: str | None = None,
        language: str | None = None,
        dry_run: bool = False,
        from_export: bool = False,
    ) -> ImportReport:
        """Take in a table of landmarks: new ones are made, others are brought to what it says (`columns`).

        Args:
            path: CSV, TSV, JSON, JSON Lines or GeoJSON.
            kind: its format, if the suffix does not say it.
            language: of columns such as `title` that do not name one.
            dry_run: report what would happen, and keep nothing.
            from_export: the file is part of an export: coordinates by hand, names and slugs of this database stay.

        Raises:
            OptionError: a value cannot be stored; the message names row and column, and nothing is stored.
            StoreError: the database cannot be written.
        """
        from delf_edge.catalogue.columns import read_patches
        from delf_edge.catalogue.editor import apply_patches

        database = Path(self._own.path).resolve().parent
        patches, unknown = read_patches(Path(path), database=database, kind=kind, language=language)
        return apply_patches(self._own, patches, not_understood=unknown, dry_run=dry_run, from_export=from_export)

    def set(self, landmark: str, values: Mapping[str, Any], *, dry_run: bool = False) -> ImportReport:
        """Change one landmark of the database; columns as in a table, such as `title.en`, None clears.

        Raises:
            NotFoundError: no landmark has this slug or name.
            OptionError: a value cannot be stored, or a column is not understood.
        """
        from delf_edge.catalogue.columns import understand
        from delf_edge.catalogue.editor import apply_patches
        from delf_edge.catalogue.tables import TableRow

        own = self._find_own(landmark)
        if values.keys() & {"slug", "name"}:
            raise OptionError("slug and name are changed by rename")
        row = TableRow(own.slug, {"slug": own.slug, **values})
        here = Path.cwd()
        patch, unknown = understand(row, files=here, database=Path(self._own.path).resolve().parent)
        if unknown:
            raise OptionError(f"{unknown[0]!r} is no column of the catalogue; docs/catalogue.md lists them")
        return apply_patches(self._own, [patch], dry_run=dry_run)

    def _find_own(self, landmark: str) -> LandmarkRecord:
        return CatalogueReader([self._own]).find(landmark)

    def export_file(self, path: str | os.PathLike[str], *, kind: str | None = None, media: bool = True) -> int:
        """Write all landmarks to a file, which is replaced whole; returns their number.

        Args:
            path: the file.
            kind: its format, if the suffix does not say it.
            media: with the bytes of pictures and sounds.
        """
        from delf_edge.catalogue.exporter import render
        from delf_edge.catalogue.tables import format_of
        from delf_edge.files import write_atomically

        path = Path(path)
        text = "".join(render(self, format_of(path, kind), media=media))
        write_atomically(path, text.encode())
        return sum(1 for _ in self)

    def rename(self, landmark: str, name: str | None = None, *, slug: str | None = None) -> LandmarkRecord:
        """Give a landmark another name, another slug, or both; photos, texts and position stay with it.

        Raises:
            NotFoundError: there is no such landmark.
            OptionError: another landmark has the name or the slug.
        """
        from delf_edge.catalogue.fields import check_line, check_slug

        own = self._find_own(landmark)
        name = check_line(name, "name")
        if slug is not None:
            check_slug(slug)
            other = self._own.catalogue.landmark_id(slug=slug)
            if other is not None and slug != own.slug:
                raise OptionError(f"another landmark has the slug {slug!r}; to make them one, use merge")
        if name is None and slug is None:
            raise OptionError("neither a name nor a slug is given")
        self._own.rename_landmark(own.name, name or own.name, slug=slug)
        return self._find_own(slug or own.slug)

    def merge(self, landmark: str, into: str, *, prefer: Literal["old", "new"] | None = None) -> LandmarkRecord:
        """Make two landmarks one: photos, texts, media and position of the first go to the second.

        Args:
            landmark: the one that ceases to be.
            into: the one that stays, with its slug and name.
            prefer: whose text stays where both have one in a language, "old" (`landmark`'s) or "new"; None: an error.

        Raises:
            NotFoundError: there is no such landmark.
            OptionError: they are the same, or both have a text in one language.
        """
        old, new = self._find_own(landmark), self._find_own(into)
        if old.slug == new.slug:
            raise OptionError(f"{landmark!r} and {into!r} are the same landmark")
        self._own.rename_landmark(old.name, new.name, merge=True, prefer=prefer)
        return self._find_own(new.slug)

    def prune(self, *, dry_run: bool = False) -> list[str]:
        """Remove the landmarks that no photo shows, with all that is known of them; returns their slugs."""
        bare = [record for record in CatalogueReader([self._own]) if not record.n_images]
        if bare and not dry_run:
            with self._own.edit() as edit:
                for record in bare:
                    edit.remove_landmark(record.name)
        return [record.slug for record in bare]
