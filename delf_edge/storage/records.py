"""What goes into a store and what comes out: images, landmarks, changes, findings, facts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from delf_edge.quantization.packed_codes import CodeLayout
from delf_edge.types import Codes


@dataclass(frozen=True, slots=True, eq=False)
class NewImage:
    """An image to store.

    Attributes:
        name: what the user calls it; unique in a database.
        landmark: name of the place it shows.
        content_hash: identity of the photo (`images.content_hash`); the same photo twice is one image.
        codes: its features.
        metadata: anything JSON can hold.
        thumbnail: a small JPEG of the photo; None keeps the one that the same photo already has.
    """

    name: str
    landmark: str
    content_hash: bytes
    codes: Codes
    metadata: Mapping[str, Any] = field(default_factory=dict)
    thumbnail: bytes | None = None


@dataclass(frozen=True, slots=True)
class Added:
    """What became of a `NewImage`: its id, and whether it was new, the same photo again, or took over a name."""

    image_id: int
    status: Literal["added", "updated", "replaced"]


@dataclass(frozen=True, slots=True)
class StoredImage:
    """A row of `images` with its landmark's name; `added_at` in seconds since 1970, `size` (width, height)."""

    image_id: int
    name: str
    landmark: str
    metadata: Mapping[str, Any]
    size: tuple[int, int]
    content_hash: bytes
    added_at: float
    revision: int


@dataclass(frozen=True, slots=True)
class Landmark:
    """A place; latitude and longitude in degrees (WGS 84), None where unknown."""

    landmark_id: int
    name: str
    metadata: Mapping[str, Any]
    latitude: float | None
    longitude: float | None
    n_images: int


@dataclass(frozen=True, slots=True)
class Problem:
    """One finding of `Store.verify`: the table, the row's name or key, and what is wrong."""

    table: str
    name: str
    what: str


@dataclass(frozen=True, slots=True)
class StoreInfo:
    """Facts about a database; `bytes` counts the file and its log."""

    path: str
    uuid: str
    schema_version: int
    bundle_id: str
    layout: CodeLayout
    revision: int
    n_images: int
    n_landmarks: int
    n_features: int
    bytes: int
    sealed: bool
    read_only: bool
