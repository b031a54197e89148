"""Several stores read as one: a device's own database and the packs beside it.

An image of the own database keeps its id; one of pack k (1, 2, ...) has its id there plus k * 2^40. A photo that is
in several of them counts once, in the first that has it when they are opened. Packs do not change while they are open:
another version is another `CombinedStore` (`packs.live`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from delf_edge.errors import OptionError
from delf_edge.quantization.packed_codes import CodeBatch
from delf_edge.storage.records import Landmark, StoredImage
from delf_edge.storage.store import Store
from delf_edge.types import Changes, Codes

_SHIFT = 40  # bits of an image's id in its own store


def join_image_id(number: int, image_id: int) -> int:
    """The id, among several stores, of an image of store `number`."""
    return image_id + (number << _SHIFT)


def split_image_id(image_id: int) -> tuple[int, int]:
    """The number of an image's store, and its id there."""
    return image_id >> _SHIFT, image_id & ((1 << _SHIFT) - 1)


class CombinedStore:
    """The reading side of `Store` over several of them.

    Args:
        own: the database that may be written to.
        packs: opened packs of the same layout.
        numbers: of the packs, ascending, from 1; None: one after the other.

    Raises:
        OptionError: a pack's codes have another layout.
    """

    def __init__(self, own: Store, packs: Sequence[Store] = (), numbers: Sequence[int] | None = None) -> None:
        self.own, self.packs, self.layout = own, tuple(packs), own.layout
        for pack in packs:
            if pack.layout != own.layout:
                raise OptionError(f"{pack.path}: codes of {pack.layout}; {own.path} has {own.layout}")
        given = range(1, len(packs) + 1) if numbers is None else numbers
        self._stores: dict[int, Store] = {0: own, **dict(zip(given, packs, strict=True))}
        self._duplicates = self._find_duplicates() if packs else {}

    @property
    def stores(self) -> tuple[Store, ...]:
        """All of them, the own one first."""
        return tuple(self._stores.values())

    def _find_duplicates(self) -> dict[int, frozenset[int]]:
        """For each store the local ids of photos that an earlier one has."""
        seen: set[bytes] = set()
        duplicates = {}
        for number, store in self._stores.items():
            contents = store.contents()
            duplicates[number] = frozenset(i for i, content in contents.items() if content in seen)
            seen.update(contents.values())
        return duplicates

    def __len__(self) -> int:
        return sum(map(len, self._stores.values())) - sum(map(len, self._duplicates.values()))

    def close(self) -> None:
        """Close all of them."""
        for store in self._stores.values():
            store.close()

    def find(self, image_id: int) -> tuple[Store, int] | None:
        """The store of an image and its id there; None where there is no such store."""
        number, local_id = split_image_id(image_id)
        store = self._stores.get(number)
        return None if store is None else (store, local_id)

    def _by_store(self, image_ids: Sequence[int]) -> Iterator[tuple[int, Store, list[int]]]:
        """(number, store, local ids) of those that are asked for."""
        asked: dict[int, list[int]] = defaultdict(list)
        for image_id in image_ids:
            number, local_id = split_image_id(image_id)
            asked[number].append(local_id)
        for number in sorted(asked):
            if number in self._stores:
                yield number, self._stores[number], asked[number]

    def revision(self) -> int:
        """Revision of the own database; packs do not change."""
        return self.own.revision()

    def changes(self, since: int) -> Changes:
        """What happened to the own database after revision `since`."""
        return self.own.changes(since)

    def code_batches(self, image_ids: Sequence[int] | None = None, *, size: int = 2048) -> Iterator[CodeBatch]:
        """As `Store.code_batches`, over all of them; of the same photo twice, the first."""
        if image_ids is None:
            for number, store in self._stores.items():
                duplicates = self._duplicates.get(number, frozenset())
                ids = None if not duplicates else [i for i in store.contents() if i not in duplicates]
                for batch in store.code_batches(ids, size=size):
                    yield _moved(batch, number)
        else:
            for number, store, ids in self._by_store(image_ids):
                for batch in store.code_batches(ids, size=size):
                    yield _moved(batch, number)

    def fingerprints(self) -> tuple[int, NDArray[np.int64], NDArray[np.uint32]]:
        """As `Store.fingerprints`: the own database's revision, and every image that counts with its row checksum."""
        found = {number: store.fingerprints() for number, store in self._stores.items()}
        ids, checksums = [], []
        for number, (_, own_ids, own_checksums) in found.items():
            duplicates = self._duplicates.get(number, frozenset())
            keep = ~np.isin(own_ids, list(duplicates)) if duplicates else np.ones(len(own_ids), np.bool_)
            ids.append(own_ids[keep] + join_image_id(number, 0))
            checksums.append(own_checksums[keep])
        return found[0][0], np.concatenate(ids), np.concatenate(checksums)

    def codes(self, image_ids: Sequence[int]) -> dict[int, Codes]:
        """As `Store.codes`."""
        return {
            join_image_id(number, i): codes
            for number, store, ids in self._by_store(image_ids)
            for i, codes in store.codes(ids).items()
        }

    def image(self, key: int | str) -> StoredImage:
        """As `Store.image`; a name is looked up in the own database."""
        if isinstance(key, str):
            return self.own.image(key)
        found = self.find(key)
        if found is None:
            return self.own.image(key)  # says that there is none
        return replace(found[0].image(found[1]), image_id=key)

    def images(self) -> Iterator[StoredImage]:
        """All images, the own ones first; of the same photo twice, the first."""
        for number, store in self._stores.items():
            duplicates = self._duplicates.get(number, frozenset())
            for image in store.images():
                if image.image_id not in duplicates:
                    yield replace(image, image_id=join_image_id(number, image.image_id)) if number else image

    def images_by_id(self, image_ids: Sequence[int]) -> list[StoredImage]:
        """As `Store.images_by_id`."""
        return [
            replace(image, image_id=join_image_id(number, image.image_id))
            for number, store, ids in self._by_store(image_ids)
            for image in store.images_by_id(ids)
        ]

    def image_ids(self, landmark: str) -> list[int]:
        """Ids of the images that show a landmark, ascending."""
        return [join_image_id(number, i) for number, s in self._stores.items() for i in s.image_ids(landmark)]

    def n_images(self, landmark: str) -> int:
        """How many images show a landmark, 0 where there is no such; a photo of several stores counts in each."""
        return sum(store.n_images(landmark) for store in self._stores.values())

    def thumbnail(self, image_id: int) -> bytes | None:
        """As `Store.thumbnail`."""
        found = self.find(image_id)
        return None if found is None else found[0].thumbnail(found[1])

    def landmarks(self) -> list[Landmark]:
        """All landmarks by name; one of several stores has the sum of their images and the first known coordinates.

        Its `landmark_id` is that of the first store that has it.
        """
        merged: dict[str, Landmark] = {}
        for store in self._stores.values():
            for place in store.landmarks():
                known = merged.setdefault(place.name, place)
                if known is not place:
                    at = known if known.latitude is not None and known.longitude is not None else place
                    merged[place.name] = replace(
                        known,
                        metadata={**place.metadata, **known.metadata},
                        latitude=at.latitude,
                        longitude=at.longitude,
                        n_images=known.n_images + place.n_images,
                    )
        return [merged[name] for name in sorted(merged)]


def _moved(batch: CodeBatch, number: int) -> CodeBatch:
    return replace(batch, image_ids=batch.image_ids + join_image_id(number, 0)) if number else batch
