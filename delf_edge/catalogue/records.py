"""The catalogue's values: what is read from it, and what is to be changed in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

TEXT_FIELDS = ("title", "summary", "body", "audio", "link")


@dataclass(frozen=True, slots=True)
class LandmarkText:
    """What is said of a landmark in one language.

    Attributes:
        language: BCP 47 tag, such as "pt-BR".
        title: its name in this language.
        summary: a sentence or two, plain text.
        body: all of it, Markdown as it was given; nobody has made it safe to be shown as HTML.
        audio: name of one of the landmark's media.
        link: where more can be read, http or https.
    """

    language: str
    title: str | None = None
    summary: str | None = None
    body: str | None = None
    audio: str | None = None
    link: str | None = None

    def as_json(self) -> dict[str, str]:
        """The fields that are there, without the language."""
        return {name: value for name in TEXT_FIELDS if (value := getattr(self, name)) is not None}


@dataclass(frozen=True, slots=True)
class MediaItem:
    """A picture or a sound of a landmark, without its bytes.

    Attributes:
        media_id: its id in its database.
        name: what it is called, unique for its landmark.
        type: media type, found out from the bytes: "image/jpeg", "audio/mpeg", ...
        sha256: of its bytes, hexadecimal.
        path: where the bytes are, below the database's folder; None where the database holds them.
        credit: whom to name when it is shown.
    """

    media_id: int
    name: str
    type: str
    sha256: str
    path: str | None = None
    credit: str | None = None

    def as_json(self) -> dict[str, Any]:
        """What a client may know of it."""
        shown = {"id": self.media_id, "name": self.name, "type": self.type, "sha256": self.sha256}
        return shown | {k: v for k, v in (("path", self.path), ("credit", self.credit)) if v is not None}


@dataclass(frozen=True, slots=True)
class LandmarkRecord:
    """All that is known of a landmark.

    Attributes:
        slug: its stable name in URLs and tables.
        name: its name in the database, which answers carry.
        kind: what it is, such as "castle".
        collection: what it belongs to; packs can be cut by it.
        latitude, longitude: degrees (WGS 84), None where unknown.
        external_ids: its ids elsewhere, such as {"wikidata": "Q243"}.
        metadata: whatever has no column of its own.
        texts: by language.
        media: pictures and sounds.
        n_images: photos that show it.
    """

    slug: str
    name: str
    kind: str | None = None
    collection: str | None = None
    latitude: float | None = None
    longitude: float | None = None
    external_ids: Mapping[str, str] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)
    texts: Mapping[str, LandmarkText] = field(default_factory=dict)
    media: tuple[MediaItem, ...] = ()
    n_images: int = 0

    def as_json(self) -> dict[str, Any]:
        """Everything but the bytes of media; `images` is the number of photos."""
        return {
            "slug": self.slug,
            "name": self.name,
            "kind": self.kind,
            "collection": self.collection,
            "latitude": self.latitude,
            "longitude": self.longitude,
            "external_ids": dict(self.external_ids),
            "metadata": dict(self.metadata),
            "texts": {language: text.as_json() for language, text in self.texts.items()},
            "media": [item.as_json() for item in self.media],
            "images": self.n_images,
        }


@dataclass(frozen=True, slots=True)
class NewMedia:
    """A picture or sound to store: its bytes, or a path below the database's folder with their hash."""

    name: str
    type: str
    sha256: str
    data: bytes | None = None
    path: str | None = None
    credit: str | None = None


@dataclass(frozen=True, slots=True)
class LandmarkPatch:
    """What a row says of a landmark; what it does not say stays as it is.

    Attributes:
        where: the row, for messages.
        slug, name: which landmark; one of them is there. Where both are, the slug decides and the name is set.
        facts: of kind, collection, position, external_ids, metadata: new values. None clears; in `external_ids` and
            `metadata` a key with None goes and the other keys stay.
        texts: language -> field -> value; None clears. A language without a field goes.
        media: to add, or to replace those of the same name.
        columns: field of a text or fact -> the column it came from, for messages.
    """

    where: str
    slug: str | None = None
    name: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    texts: Mapping[str, Mapping[str, str | None]] = field(default_factory=dict)
    media: tuple[NewMedia, ...] = ()
    columns: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ImportReport:
    """What became of a table of landmarks.

    Attributes:
        created, updated, unchanged: numbers of landmarks.
        texts, media: numbers of those that were written.
        not_understood: columns that were passed over.
        dry_run: whether nothing was kept.
    """

    created: int = 0
    updated: int = 0
    unchanged: int = 0
    texts: int = 0
    media: int = 0
    not_understood: tuple[str, ...] = ()
    dry_run: bool = False
