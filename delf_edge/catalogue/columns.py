"""From the columns of a table to what they say of a landmark.

Columns are found by their names, in any case::

    slug, name                       which landmark; name is also called landmark or label
    kind, collection                 kind is also called type or category
    latitude, longitude              degrees; also lat, and lon, lng, long
    wikidata, geonames, osm, ids.X   its ids elsewhere; or external_ids, a JSON object
    metadata, metadata.X             whatever has no column of its own
    title.en, summary.en, body.en, audio.en, link.en
                                     its text in a language; also title_en, title:en, title@en; or texts, a JSON object
    language, title, summary, ...    one row for each landmark and language
    picture                          a file beside the table; or media, a JSON list

Whatever else there is comes back as not understood.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from delf_edge.catalogue import media
from delf_edge.catalogue.fields import (
    check_degrees,
    check_external_ids,
    check_line,
    check_link,
    check_media_name,
    check_metadata,
    check_slug,
    check_text,
)
from delf_edge.catalogue.languages import check_language
from delf_edge.catalogue.records import TEXT_FIELDS, LandmarkPatch, NewMedia
from delf_edge.catalogue.tables import TableRow, read_table
from delf_edge.errors import OptionError
from delf_edge.files import parse_json

_ALIASES = {
    "landmark": "name",
    "label": "name",
    "type": "kind",
    "category": "kind",
    "lat": "latitude",
    "lon": "longitude",
    "lng": "longitude",
    "long": "longitude",
    "lang": "language",
    "description": "summary",
    "text": "body",
    "url": "link",
    "external_ids": "ids",
    "image": "picture",
    "photo": "picture",
}
_KNOWN_IDS = ("wikidata", "geonames", "osm", "unesco")
_IGNORED = ("images", "photos", "n_images", "revision", "id")  # what an export says besides
_BY_LANGUAGE = re.compile(rf"({'|'.join(TEXT_FIELDS)}|description|text)([.:@_])(.+)")
_DEGREES = {"latitude": 90.0, "longitude": 180.0}


class _Reader:
    """Reads one row, column by column."""

    def __init__(self, row: TableRow, language: str | None, files: Path, database: Path) -> None:
        self.row, self.files, self.database = row, files, database
        self.identity: dict[str, str | None] = {}
        self.facts: dict[str, Any] = {}
        self.texts: dict[str, dict[str, str | None]] = {}
        self.media: list[NewMedia] = []
        self.columns: dict[str, str] = {}
        self.unknown: list[str] = []
        self._degrees: dict[str, float | None] = {}
        self._language = language
        self._known = {str(column).strip().lower(): column for column in row.values}
        if "language" in self._known or "lang" in self._known:
            column = self._known.get("language", self._known.get("lang"))
            self._language = self._checked(str(column), lambda value: check_language(str(value).strip()))

    def _checked(self, column: str, check: Any) -> Any:
        """A column's value as it is stored, or an error that names row and column."""
        try:
            return check(self.row.values[column])
        except OptionError as e:
            raise OptionError(f"{self.row.where}, column {column}: {e}") from e

    def read(self) -> None:
        for column in self.row.values:
            if not isinstance(column, str) or not self._take(column, column.strip().lower()):
                self.unknown.append(str(column)[:100])
        if self._degrees:
            self._take_position()

    def _take(self, column: str, name: str) -> bool:
        """Understand one column; False where that is not possible."""
        if by_language := _BY_LANGUAGE.fullmatch(name):
            field, separator, tag = by_language.groups()
            if separator == "_" and not _is_language(tag):
                return False
            language = self._checked(column, lambda _: check_language(tag))
            self._take_text(column, _ALIASES.get(field, field), language)
            return True
        name = _ALIASES.get(name, name)
        if name in ("slug", "name"):
            check = check_slug if name == "slug" else lambda value: check_line(value, "name")
            self.identity[name] = self._checked(column, check)
        elif name in ("kind", "collection"):
            self._fact(name, column, lambda value: check_line(value, name))
        elif name in _DEGREES:
            self._degrees[name] = self._checked(column, lambda value: check_degrees(value, _DEGREES[name]))
            self.columns["position"] = column
        elif name in TEXT_FIELDS:
            if self._language is None:
                raise OptionError(
                    f"{self.row.where}, column {column}: in which language? call it {column}.en, add a column "
                    "language, or pass --language"
                )
            self._take_text(column, name, self._language)
        elif name in ("ids", *_KNOWN_IDS) or name.startswith("ids."):
            self._take_ids(column, name)
        elif name == "metadata" or name.startswith("metadata."):
            self._take_metadata(column, name)
        elif name == "texts":
            self._checked(column, self._take_texts)
        elif name == "media":
            self._checked(column, self._take_media)
        elif name == "picture":
            self._checked(column, lambda value: self.media.append(self._file(str(value), None)))
        else:
            return name in (*_IGNORED, "language")
        return True

    def _fact(self, name: str, column: str, check: Any) -> None:
        self.facts[name] = self._checked(column, check)
        self.columns[name] = column

    def _take_position(self) -> None:
        latitude, longitude = self._degrees.get("latitude"), self._degrees.get("longitude")
        if (latitude is None) != (longitude is None):
            missing = "latitude" if latitude is None else "longitude"
            raise OptionError(f"{self.row.where}, column {missing}: empty, but the other coordinate is there")
        self.facts["position"] = None if latitude is None else (latitude, longitude)

    def _take_ids(self, column: str, name: str) -> None:
        key = name.partition(".")[2] or (name if name != "ids" else "")
        ids = self._checked(column, lambda value: check_external_ids({key: value} if key else _object(value)))
        self.facts["external_ids"] = {**(self.facts.get("external_ids") or {}), **ids}

    def _take_metadata(self, column: str, name: str) -> None:
        key = column.strip()[len("metadata.") :]
        found = self._checked(column, lambda value: check_metadata({key: value} if key else _object(value)))
        self.facts["metadata"] = {**(self.facts.get("metadata") or {}), **found}

    def _take_text(self, column: str, field: str, language: str) -> None:
        self._put_text(language, field, self._checked(column, lambda value: self._text(field, value)))
        self.columns[f"{field}.{language}"] = column

    def _put_text(self, language: str, field: str, value: str | None) -> None:
        fields = self.texts.setdefault(language, {})
        if field in fields:
            raise OptionError(f"{self.row.where}: {field} in {language!r} is there twice")
        fields[field] = value

    def _text(self, field: str, value: Any) -> str | None:
        if field == "link":
            return check_link(value)
        if field in ("title", "audio"):
            text = check_line(value, field)
            return self._sound(text) if field == "audio" and text is not None else text
        return check_text(value, field) or None

    def _sound(self, name: str) -> str:
        """The name of a sound; where it is a file beside the table, that comes along."""
        if (self.files / name).is_file():
            self.media.append(self._file(name, None))
            return self.media[-1].name
        return check_media_name(name)

    def _take_texts(self, value: Any) -> None:
        for tag, fields in _object(value).items():
            language = check_language(str(tag))
            if fields is None:
                self.texts[language] = dict.fromkeys(TEXT_FIELDS)
                continue
            if language in self.texts:
                raise OptionError(f"{language!r} is there twice")
            self.texts.setdefault(language, {})
            for field, text in _object(fields).items():
                if field not in TEXT_FIELDS:
                    self.unknown.append(f"texts.{language}.{str(field)[:60]}")
                    continue
                try:
                    self._put_text(language, field, self._text(field, text))
                except OptionError as e:
                    raise OptionError(f"{language}.{field}: {e}") from e

    def _take_media(self, value: Any) -> None:
        items = parse_text(value) if isinstance(value, str) else value
        if not isinstance(items, list):
            raise OptionError('no JSON list of pictures and sounds, such as [{"file": "tower.jpg"}]')
        for item in items:
            self.media.append(self._item(_object(item)))

    def _item(self, item: Mapping[str, Any]) -> NewMedia:
        name, credit = item.get("name"), check_text(item.get("credit"), "credit")
        if item.get("file") is not None:
            return self._file(str(item["file"]), name, credit)
        if item.get("path") is not None:
            shown = str(item["path"])
            name = check_media_name(name or shown.rpartition("/")[2])
            return media.beside(name, shown, self.database, _hash(item.get("sha256")), credit)
        try:
            data = base64.b64decode(str(item["data"]), validate=True)
        except KeyError:
            raise OptionError("a picture or sound needs a file, a path, or data in base64") from None
        except (binascii.Error, ValueError) as e:
            raise OptionError(f"{str(name)[:60]}: its data are no base64 ({e})") from e
        found = media.blob(check_media_name(name), data, credit)
        if item.get("sha256") not in (None, found.sha256):
            raise OptionError(f"{found.name}: its SHA-256 is {found.sha256[:12]}, the row says otherwise")
        return found

    def _file(self, shown: str, name: str | None, credit: str | None = None) -> NewMedia:
        """A file below the table's folder, to be kept in the database."""
        return media.blob(name or shown.rpartition("/")[2], media.read_beside(self.files, shown), credit)


def understand(
    row: TableRow, *, files: Path, database: Path, language: str | None = None
) -> tuple[LandmarkPatch, list[str]]:
    """What a row says of a landmark, and the columns that were not understood.

    Args:
        row: as it was read.
        files: folder that files named in the row are below.
        database: folder of the database, which paths of media are below.
        language: of the columns title, summary, ... where the row has no column language.

    Raises:
        OptionError: a value cannot be stored, or it is not said which landmark; the message names row and column.
    """
    reader = _Reader(row, language, files, database)
    reader.read()
    slug, name = reader.identity.get("slug"), reader.identity.get("name")
    if slug is None and name is None:
        raise OptionError(f"{row.where}: neither slug nor name says which landmark this is")
    names = [item.name for item in reader.media]
    if len(set(names)) != len(names):
        raise OptionError(f"{row.where}, column media: two of them are called {max(names, key=names.count)!r}")
    patch = LandmarkPatch(row.where, slug, name, reader.facts, reader.texts, tuple(reader.media), reader.columns)
    return patch, reader.unknown


def read_patches(
    path: Path, *, database: Path, kind: str | None = None, language: str | None = None
) -> tuple[list[LandmarkPatch], list[str]]:
    """What a table says of landmarks, a patch a row, and the columns that were not understood.

    Args:
        path: CSV, TSV, JSON, JSON Lines or GeoJSON; files that it names lie below its folder.
        database: folder of the database, which paths of media are below.
        kind: the table's format, if the suffix does not say it.
        language: of columns such as `title` that do not name one.

    Raises:
        OptionError: the table cannot be read, or a value cannot be stored; the message names row and column.
    """
    language = None if language is None else check_language(language)
    patches: list[LandmarkPatch] = []
    unknown: list[str] = []
    for row in read_table(path, kind):
        patch, more = understand(row, files=path.resolve().parent, database=database, language=language)
        patches.append(patch)
        unknown += more
    return patches, list(dict.fromkeys(unknown))


def parse_text(text: str) -> Any:
    """JSON in a cell.

    Raises:
        OptionError: it is none.
    """
    try:
        return parse_json(text)
    except ValueError as e:
        raise OptionError(f"{text[:40]!r} is no JSON ({e})") from e


def _object(value: Any) -> Mapping[str, Any]:
    found = parse_text(value) if isinstance(value, str) else value
    if not isinstance(found, Mapping):
        raise OptionError(f"{str(found)[:40]!r} is no JSON object")
    return found


def _hash(value: Any) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or not re.fullmatch(r"[0-9a-f]{64}", value):
        raise OptionError(f"{str(value)[:40]!r} is no SHA-256 in hexadecimal digits")
    return value


def _is_language(tag: str) -> bool:
    try:
        check_language(tag.replace("_", "-"))
    except OptionError:
        return False
    return "_" not in tag
