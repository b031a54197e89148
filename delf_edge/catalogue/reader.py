"""The catalogue as a device reads it: by slug, by name, by words; texts in the language that somebody wants.

Only the standard library is used here: this is on the way of every answer.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from delf_edge.catalogue.languages import choose_language
from delf_edge.catalogue.records import LandmarkRecord, LandmarkText, MediaItem
from delf_edge.errors import NotFoundError, OptionError
from delf_edge.storage.rows import Row
from delf_edge.storage.slugs import slugify
from delf_edge.storage.store import Store
from delf_edge.types import LandmarkInfo

MEDIA_TYPES = frozenset(
    {
        "image/jpeg",
        "image/png",
        "image/webp",
        "audio/mpeg",
        "audio/ogg",
        "audio/flac",
        "audio/wav",
        "audio/mp4",
    }
)
_MAX_FILE = 64 << 20  # bytes of a file beside the database
_AT_ONCE = 500


class MediaBytes(NamedTuple):
    """A picture or sound with its bytes."""

    item: MediaItem
    data: bytes


class CatalogueReader:
    """What is known of the landmarks of one or several databases; of several, the first that knows a landmark says it.

    Args:
        stores: the device's own database, then its packs.
    """

    def __init__(self, stores: Sequence[Store]) -> None:
        self._stores = tuple(stores)

    def __iter__(self) -> Iterator[LandmarkRecord]:
        """All landmarks, those of the first database first, by name within each; a name comes once."""
        seen: set[str] = set()
        for store in self._stores:
            places = [place for place in store.landmarks() if place.name not in seen]
            seen |= {place.name for place in places}
            for i in range(0, len(places), _AT_ONCE):
                yield from self._records(store, [place.landmark_id for place in places[i : i + _AT_ONCE]])

    def slugs(self) -> dict[str, str]:
        """Slugs by name, of all landmarks."""
        found: dict[str, str] = {}
        for store in self._stores:
            names = {place.landmark_id: place.name for place in store.landmarks()}
            for key, slug in store.catalogue.slugs(list(names)).items():
                found.setdefault(names[key], slug)
        return found

    def get(self, slug: str) -> LandmarkRecord:
        """The landmark with this slug.

        Raises:
            NotFoundError: there is none.
        """
        for store in self._stores:
            key = store.catalogue.landmark_id(slug=slug)
            if key is not None and (found := self._records(store, [key])):
                return found[0]
        raise NotFoundError(f"no landmark has the slug {slug!r}; `delf-edge catalogue list` shows them")

    def find(self, text: str) -> LandmarkRecord:
        """The landmark with this slug or name.

        Raises:
            NotFoundError: there is none.
        """
        for store in self._stores:
            for key in (store.catalogue.landmark_id(slug=text), store.catalogue.landmark_id(name=text)):
                if key is not None and (found := self._records(store, [key])):
                    return found[0]
        raise NotFoundError(f"no landmark has the slug or name {text!r}; `delf-edge catalogue list` shows them")

    def search(self, query: str, limit: int = 20) -> list[LandmarkRecord]:
        """Landmarks whose texts in any language hold all words of a query, the best first; then those named like it.

        Diacritics and capitals do not matter, the last word may be unfinished, and "several words" stand together.
        """
        if limit < 1:
            raise OptionError(f"limit {limit}: at least one landmark must be asked for")
        scored: list[tuple[float, LandmarkRecord]] = []
        for store in self._stores:
            hits = store.catalogue.search(query, limit)
            named = slugify(query) if any(c.isalnum() for c in query) else ""
            more = store.catalogue.named(named, limit) if named else []
            scores = dict(hits) | {key: 0.0 for key in more if key not in dict(hits)}
            by_slug = {record.slug: record for record in self._records(store, list(scores))}
            slugs = store.catalogue.slugs(list(scores))
            scored += [(score, by_slug[slugs[k]]) for k, score in scores.items() if slugs.get(k) in by_slug]
        scored.sort(key=lambda pair: pair[0])
        best: dict[str, LandmarkRecord] = {}
        for _, record in scored:
            best.setdefault(record.name, record)
        return list(best.values())[:limit]

    def info(self, name: str, languages: Sequence[str] = ()) -> LandmarkInfo | None:
        """What an answer says of a landmark; None where it is not there.

        Args:
            name: its name in the database.
            languages: tags, the most wanted first; see `languages.choose_language`.
        """
        for store in self._stores:
            key = store.catalogue.landmark_id(name=name)
            if key is not None and (found := self._records(store, [key], count=False)):
                return describe(found[0], languages)
        return None

    def media(self, slug: str, name: str) -> MediaBytes:
        """A picture or sound of a landmark.

        Raises:
            NotFoundError: there is none of this name, or its file is gone or was changed.
        """
        for store in self._stores:
            key = store.catalogue.landmark_id(slug=slug)
            rows = [] if key is None else store.catalogue.of("media", [key])
            for row in rows:
                if row[2] == name and row[3] in MEDIA_TYPES:
                    data = _bytes_of(store, row)
                    if data is not None and hashlib.sha256(data).digest() == row[4]:
                        return MediaBytes(_media_item(row), data)
        raise NotFoundError(f"landmark {slug!r} has no picture or sound called {name!r}, or its bytes are gone")

    def _records(self, store: Store, landmark_ids: Sequence[int], *, count: bool = True) -> list[LandmarkRecord]:
        """Records in the order of `landmark_ids`; damaged landmarks are left out."""
        places = {row[0]: row for row in store.rows("landmarks", sorted(landmark_ids))}
        details = {row[0]: row for row in store.rows("landmark_details", sorted(landmark_ids))}
        old = store.catalogue.slugs([key for key in places if key not in details])
        texts: dict[int, dict[str, LandmarkText]] = {}
        for row in store.catalogue.of("landmark_texts", landmark_ids):
            link = row[7] if row[7] is None or str(row[7]).startswith(("https://", "http://")) else None
            texts.setdefault(row[1], {})[row[2]] = LandmarkText(row[2], row[3], row[4], row[5], row[6], link)
        media: dict[int, list[MediaItem]] = {}
        for row in store.catalogue.of("media", landmark_ids):
            if row[3] in MEDIA_TYPES:
                media.setdefault(row[1], []).append(_media_item(row))
        counts = store.catalogue.n_images(landmark_ids) if count else {}
        records = []
        for key in landmark_ids:
            if key not in places:
                continue
            _, name, metadata, latitude, longitude, _ = places[key]
            _, slug, kind, collection, ids, _ = details.get(key, (0, old.get(key, slugify(name)), None, None, "{}", 0))
            records.append(
                LandmarkRecord(
                    slug,
                    name,
                    kind,
                    collection,
                    latitude,
                    longitude,
                    json.loads(ids),
                    json.loads(metadata),
                    dict(sorted(texts.get(key, {}).items())),
                    tuple(sorted(media.get(key, []), key=lambda item: item.name)),
                    counts.get(key, 0),
                )
            )
        return records


def describe(record: LandmarkRecord, languages: Sequence[str] = ()) -> LandmarkInfo:
    """A landmark in one language: the best of `languages` that it has a text in; each field with the same fallback."""
    order = list(record.texts)
    first = choose_language(order, languages)
    ranked = [first, *(tag for tag in order if tag != first)] if first is not None else []

    def said(field: str) -> str | None:
        return next((value for tag in ranked if (value := getattr(record.texts[tag], field)) is not None), None)

    own = record.texts[first] if first is not None else LandmarkText("")
    return LandmarkInfo(
        slug=record.slug,
        name=record.name,
        title=said("title") or record.name,
        language=first,
        summary=own.summary or said("summary"),
        link=own.link or said("link"),
        audio=own.audio,
        kind=record.kind,
        collection=record.collection,
        latitude=record.latitude,
        longitude=record.longitude,
        external_ids=dict(record.external_ids),
        media=tuple(item.name for item in record.media),
    )


def _media_item(row: Row) -> MediaItem:
    key, _, name, kind, sha256, path, credit, _ = row
    return MediaItem(key, name, kind, bytes(sha256).hex(), path, credit)


def _bytes_of(store: Store, row: Row) -> bytes | None:
    """Bytes out of the database, or of the file beside it; its hash says later whether it is the right one."""
    if row[5] is None:
        return store.catalogue.data(int(row[0]))
    folder: Path = Path(store.path).resolve().parent
    try:
        file = (folder / row[5]).resolve(strict=True)
        if not file.is_relative_to(folder) or not file.is_file() or file.stat().st_size > _MAX_FILE:
            return None
        data: bytes = file.read_bytes()
    except (OSError, ValueError):
        return None
    return data
