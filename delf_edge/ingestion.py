"""A photo into a store: it is read once, hashed, turned into codes where the store has none of it, and written.

A photo is known again by the hash of its content, whatever its name. So adding it twice changes its name, landmark and
metadata, and the network does not run.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from delf_edge.errors import DelfEdgeError, ImageError, NameTakenError, OptionError
from delf_edge.images.decode import content_hash, load_image, make_thumbnail
from delf_edge.images.limits import ImageLimits
from delf_edge.images.photo_source import ChannelOrder, PhotoSource, name_of, read_source
from delf_edge.quantization.packed_codes import tiny as shortened
from delf_edge.storage.names import PATH, clean_name, corrected_metadata
from delf_edge.storage.records import NewImage
from delf_edge.storage.store import Store
from delf_edge.storage.write_transaction import stored_metadata
from delf_edge.types import Codes, Image


@dataclass(frozen=True, slots=True, eq=False)
class AddItem:
    """A photo to add with `Recognizer.add_many`."""

    photo: PhotoSource
    landmark: str
    name: str | None = None
    metadata: Mapping[str, Any] | None = None
    channel_order: ChannelOrder | None = None
    thumbnail: bool = False
    tiny: bool = False
    replace: bool = False


@dataclass(frozen=True, slots=True)
class AddResult:
    """What became of an added photo.

    Attributes:
        image_id: its id in the store.
        name, landmark: as stored.
        status: "added"; "unchanged", the same photo was there with the same landmark; "updated", the same photo got a
            new name or landmark; "replaced", another photo had this name, of the same file or with `replace`.
        n_features: features stored.
    """

    image_id: int
    name: str
    landmark: str
    status: Literal["added", "unchanged", "updated", "replaced"]
    n_features: int


@dataclass(frozen=True, slots=True, eq=False)
class AddError:
    """A photo that could not be added: its name and why."""

    name: str
    error: DelfEdgeError


class Ingestion:
    """Puts photos into a store.

    Args:
        store: where they go.
        encode: gives the codes of an image; called only where the store has none.
        limits: how large a photo may be.
    """

    def __init__(self, store: Store, encode: Callable[[Image], Codes], limits: ImageLimits) -> None:
        self._store, self._encode, self._limits = store, encode, limits

    def add(self, item: AddItem) -> AddResult:
        """Store one photo; see `Recognizer.add`."""
        if not isinstance(item, AddItem):
            raise OptionError(f"{item!r:.60} is of type {type(item).__name__}; pass AddItem(photo, landmark)")
        landmark = clean_name(item.landmark, "landmark")
        given = None if item.name is None else clean_name(item.name, "name")
        given_metadata = None if item.metadata is None else stored_metadata(item.metadata, given or landmark)
        # Read once, so that what is hashed is what is stored.
        photo, order = read_source(item.photo, channel_order=item.channel_order, limits=self._limits)
        digest = content_hash(photo, channel_order=order, limits=self._limits)
        name = given or clean_name(_name_of(item.photo, digest), "name")
        known = self._store.find_content(digest)
        codes: Codes | None = None
        if known is not None:
            stored = self._store.image(known)
            codes = self._store.codes([known]).get(known)
            metadata = dict(stored.metadata) if given_metadata is None else given_metadata
            if given_metadata is None and PATH in metadata:  # a person says it otherwise than the folder
                metadata = corrected_metadata(metadata, stored.landmark, landmark)
            same = (stored.name, stored.landmark, stored.metadata) == (name, landmark, metadata)
            pictured = not item.thumbnail or self._store.thumbnail(known) is not None
            if codes is not None and same and pictured:
                return AddResult(known, name, landmark, "unchanged", len(codes))
        else:
            metadata = given_metadata or {}
        replace = item.replace or self._may_replace(item, name, digest)
        small: bytes | None = None
        if codes is None or item.thumbnail:
            image = load_image(photo, channel_order=order, limits=self._limits, name=name_of(item.photo))
            small = make_thumbnail(image) if item.thumbnail else None
            if codes is None:
                codes = self._encode(image)
                codes = shortened(codes) if item.tiny else codes
        added = self._store.add(NewImage(name, landmark, digest, codes, metadata, small), replace=replace)
        return AddResult(added.image_id, name, landmark, added.status, len(codes))

    def _may_replace(self, item: AddItem, name: str, digest: bytes) -> bool:
        """Whether a name may go to this photo; `NameTakenError` where another photo has it, before any work."""
        if not self._store.has_name(name):
            return False
        holder = self._store.image(name)
        if holder.content_hash == digest:
            return False
        if item.name is None and isinstance(item.photo, str | os.PathLike):
            origin = holder.metadata.get(PATH)
            if not isinstance(origin, str) or os.path.realpath(origin) == os.path.realpath(item.photo):
                return True
        raise NameTakenError(
            f"{name}: another photo has this name, of {holder.landmark}; give this one another, or replace that with "
            "replace=True"
        )

    def add_many(
        self, items: Iterable[AddItem], on_error: Literal["raise", "collect"]
    ) -> Iterator[AddResult | AddError]:
        """Store photos one after the other; see `Recognizer.add_many`."""
        if on_error not in ("raise", "collect"):
            raise OptionError(f"on_error={on_error!r}: must be 'raise' or 'collect'")
        for item in items:
            try:
                result: AddResult | AddError = self.add(item)
            except (ImageError, OptionError) as e:
                if on_error == "raise":
                    raise
                name = item.name or _name_of(item.photo, b"") if isinstance(item, AddItem) else item
                result = AddError(f"{name!s:.200}", e)
            yield result


def _name_of(photo: PhotoSource, digest: bytes) -> str:
    return name_of(photo) if isinstance(photo, str | os.PathLike) else f"photo-{digest.hex()[:12]}"
