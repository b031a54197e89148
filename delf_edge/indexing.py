"""Photos of a list go into a database, and nothing that is there is lost by it.

* A photo replaces another one only where it came from the same file and shows the same place. Otherwise it gets a name
  of its own: the folder it lies in is put before its name. A name that a table gives is not changed; that row fails.
* The same photo in two files is one image, of the first file. Where the two say different landmarks, the first stays,
  and the second is told.
* A file that was moved or renamed takes its image along.
* What a person corrected stays: the landmark of an image (`relabel`), the name of a landmark (`rename`).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from delf_edge.errors import CorruptRowError, DelfEdgeError, ImageError, NotFoundError, OptionError
from delf_edge.images.decode import content_hash
from delf_edge.images.photo_source import read_photo
from delf_edge.ingestion import AddError, AddResult
from delf_edge.interchange.photo_entry import PhotoEntry
from delf_edge.interchange.photo_lists import same_elsewhere
from delf_edge.recognizer import Recognizer
from delf_edge.storage.names import ALSO_FROM, BY_PROGRAM, INDEXED_AS, PATH, also_from, clean_name, now_called, numbered
from delf_edge.storage.records import StoredImage
from delf_edge.storage.store import Store

_BAD_PHOTO = (ImageError, OptionError, CorruptRowError, OSError)  # the others are the database's


@dataclass(frozen=True, slots=True)
class Indexed:
    """What became of a photo.

    Attributes:
        added: as `Recognizer.add` says it.
        warning: what a person should know although nothing failed.
        kept: whether a correction by hand was kept against what the list says.
        again: whether a person had removed it from the database.
    """

    added: AddResult
    warning: str | None = None
    kept: bool = False
    again: bool = False


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A photo that stays out of the database, because a person has removed it."""

    name: str


class Indexer:
    """One run of `delf-edge index`.

    Args:
        recognizer: the open database.
        thumbnails: keep a small JPEG of each photo.
        stated: a table says the landmark of each photo. What it says anew counts more than a correction that was made
            before; what folders say, or one name for all of them, does not.
        skip_removed: leave out photos that a person has removed from the database.
    """

    def __init__(
        self, recognizer: Recognizer, *, thumbnails: bool = False, stated: bool = False, skip_removed: bool = False
    ) -> None:
        self._recognizer, self._store = recognizer, recognizer.store
        self._thumbnails, self._stated, self._skip_removed = thumbnails, stated, skip_removed
        self._removed = self._store.removed_by_hand()
        landmarks = self._store.landmarks()
        self._before = {landmark.name for landmark in landmarks}
        self._now_called = now_called((landmark.name, landmark.metadata) for landmark in landmarks)
        self._seen: set[int] = set()  # images of this run
        self._moved: dict[str, set[str]] = {}  # landmark -> those that its images went to

    def landmark(self, name: str) -> str:
        """What a landmark of the list is called in the database."""
        name = clean_name(name, "landmark")
        return self._now_called.get(name, name)

    def add(self, entries: Iterable[PhotoEntry]) -> Iterator[Indexed | AddError | LeftOut]:
        """Index photos, each durably when it is told of.

        Raises:
            StoreError: the database cannot be read or written.
        """
        postponed = []
        for entry in entries:
            result = self._checked(entry, may_replace=False)
            if result is None:
                postponed.append(entry)
            else:
                yield result
        # Last, because an image whose file has new content may belong to a file that was renamed.
        for entry in postponed:
            result = self._checked(entry, may_replace=True)
            if result is not None:
                yield result

    def locate(self, entries: Iterable[PhotoEntry]) -> list[str]:
        """Give landmarks the coordinates of a table; those that a person gave by hand stay.

        Returns:
            Warnings: landmarks that are in two places, or elsewhere by hand.
        """
        wanted: dict[str, tuple[float, float]] = {}
        warnings = {}
        for entry in entries:
            if entry.position is not None:
                name = self.landmark(entry.landmark)
                first = wanted.setdefault(name, entry.position)
                if first != entry.position:
                    warnings[name] = f"{name}: at {first} and at {entry.position}; the first counts"
        by_hand = self._store.located_by_hand()
        for landmark in self._store.landmarks():
            at = wanted.get(clean_name(landmark.name, "landmark"))
            if at is None or at == (landmark.latitude, landmark.longitude):
                continue
            if landmark.landmark_id in by_hand:
                warnings[landmark.name] = f"{landmark.name}: stays where `locate` put it, and not at {at}"
            else:
                self._store.set_landmark(landmark.name, metadata=landmark.metadata, latitude=at[0], longitude=at[1])
        return list(warnings.values())

    def finish(self) -> list[str]:
        """Let coordinates and metadata follow the photos of folders that were renamed.

        Returns:
            Landmarks that have no photo left, and stay because somebody said where they are or what they are.
        """
        empty = []
        for old, new in sorted(self._moved.items()):
            try:
                if self._store.landmark(old).n_images:
                    continue
            except (NotFoundError, CorruptRowError):
                continue
            (follower, *others) = sorted(new)
            if others or follower in self._before or self._store.landmark(follower).latitude is not None:
                empty.append(old)
            else:
                self._store.rename_landmark(old, follower, merge=True, remember=False)
        return empty

    def _checked(self, entry: PhotoEntry, *, may_replace: bool) -> Indexed | AddError | LeftOut | None:
        """What became of a photo; None where it would replace another one and may not yet."""
        try:
            return self._one(entry, may_replace=may_replace)
        except _BAD_PHOTO as e:
            error = e if isinstance(e, DelfEdgeError) else ImageError(f"{entry.url}: cannot be read ({e.strerror})")
            return AddError(entry.name, error)

    def _one(self, entry: PhotoEntry, *, may_replace: bool) -> Indexed | LeftOut | None:
        path = os.path.realpath(entry.url)
        data = read_photo(entry.url, limits=self._recognizer.limits)
        digest = content_hash(data)
        known = self._store.find_content(digest)
        if known is None:
            if self._skip_removed and digest in self._removed:
                return LeftOut(entry.name)
            result = self._new(entry, data, path, may_replace=may_replace)
            return None if result is None else replace(result, again=digest in self._removed)
        return self._known(entry, data, path, self._store.image(known))

    # ------------------------------------------------------------------ a photo that is stored already

    def _known(self, entry: PhotoEntry, data: bytes, path: str, stored: StoredImage) -> Indexed:
        landmark = self.landmark(entry.landmark)
        origin = _origin(stored)
        corrected = self._corrected(stored)
        if stored.image_id in self._seen or (origin != path and self._stays(stored, origin, landmark)):
            self._seen.add(stored.image_id)
            self._note_copy(data, path, stored, origin)
            warning = None
            if landmark not in (stored.landmark, corrected):
                warning = (
                    f"{entry.name} ({landmark}): the same photo as {stored.name}, which shows {stored.landmark}; that "
                    "stays so, `relabel` changes it"
                )
            elif _is_named(entry) and clean_name(entry.name, "name") != stored.name:
                warning = f"{entry.name}: the same photo as {stored.name}; one name is enough"
            return Indexed(self._unchanged(stored), warning)
        self._seen.add(stored.image_id)
        kept = corrected is not None and (not self._stated or landmark in (corrected, stored.landmark))
        shown = stored.landmark if kept else landmark
        metadata = {**stored.metadata, **entry.metadata, PATH: path}
        elsewhere = [BY_PROGRAM] if origin is None else also_from(stored.metadata)
        if elsewhere:
            metadata[ALSO_FROM] = [known for known in elsewhere if known != path]
        if not kept:
            metadata.pop(INDEXED_AS, None)
        name = self._name_of_known(entry, stored, origin, path)
        kept = kept and shown != landmark
        if (name, shown, metadata) == (stored.name, stored.landmark, stored.metadata):
            pictured = not self._thumbnails or self._store.thumbnail(stored.image_id) is not None
            codes = self._store.codes([stored.image_id]).get(stored.image_id)
            if pictured and codes is not None:
                return Indexed(AddResult(stored.image_id, name, shown, "unchanged", len(codes)), kept=kept)
        result = self._recognizer.add(data, landmark=shown, name=name, metadata=metadata, thumbnail=self._thumbnails)
        warning = None
        if shown != stored.landmark:
            self._moved.setdefault(stored.landmark, set()).add(shown)
            if corrected is not None:
                warning = f"{name}: the table says {shown} now, which replaces the {stored.landmark} of `relabel`"
        return Indexed(result, warning, kept=kept)

    def _note_copy(self, data: bytes, path: str, stored: StoredImage, origin: str | None) -> None:
        """Remember that a stored photo lies at `path`, too: `--prune` asks before it removes the image."""
        known = also_from(stored.metadata)
        if origin in (None, path) or path in known:
            return
        metadata = {**stored.metadata, ALSO_FROM: [*known, path]}
        self._recognizer.add(data, landmark=stored.landmark, name=stored.name, metadata=metadata)

    def _stays(self, stored: StoredImage, origin: str | None, landmark: str) -> bool:
        """Whether a stored photo belongs to another file than this one."""
        if origin is None:  # added by hand: its landmark is no folder's to change
            return stored.landmark != landmark
        try:
            return content_hash(read_photo(origin, limits=self._recognizer.limits)) == stored.content_hash
        except ImageError:
            return False  # moved or renamed

    def _unchanged(self, stored: StoredImage) -> AddResult:
        codes = self._store.codes([stored.image_id]).get(stored.image_id, ())
        return AddResult(stored.image_id, stored.name, stored.landmark, "unchanged", len(codes))

    def _name_of_known(self, entry: PhotoEntry, stored: StoredImage, origin: str | None, path: str) -> str:
        wanted = clean_name(entry.name, "name")
        if _is_named(entry):
            holder = self._holder(wanted)
            if holder is not None and holder.image_id != stored.image_id:
                raise OptionError(_taken(wanted, holder))
            return wanted
        if origin is None or origin == path:
            return stored.name
        for name in _own_names(wanted, path):
            holder = self._holder(name)
            if holder is None or holder.image_id == stored.image_id:
                return name
        raise AssertionError("unreachable")

    # ------------------------------------------------------------------ a new photo

    def _new(self, entry: PhotoEntry, data: bytes, path: str, *, may_replace: bool) -> Indexed | None:
        landmark, wanted = self.landmark(entry.landmark), clean_name(entry.name, "name")
        metadata: dict[str, Any] = {**entry.metadata, PATH: path}
        named = _is_named(entry)
        for name in [wanted] if named else _own_names(wanted, path):
            holder = self._holder(name)
            if holder is not None:
                corrected = self._corrected(holder)
                shows = landmark in (holder.landmark, corrected) or (corrected is not None and not self._stated)
                if _origin(holder) != path or holder.image_id in self._seen or not shows:
                    continue
                if not may_replace:
                    return None
                landmark = landmark if corrected is None else holder.landmark
                metadata = {**holder.metadata, **metadata}
                metadata.pop(ALSO_FROM, None)  # of the photo before
            result = self._recognizer.add(
                data,
                landmark=landmark,
                name=name,
                metadata=metadata,
                thumbnail=self._thumbnails,
                replace=holder is not None,
            )
            self._seen.add(result.image_id)
            return Indexed(result, kept=landmark != self.landmark(entry.landmark))
        raise OptionError(_taken(wanted, holder))

    def _corrected(self, stored: StoredImage) -> str | None:
        """The landmark that an image had before a person gave it another one; None where nobody did."""
        name = stored.metadata.get(INDEXED_AS)
        return self.landmark(name) if isinstance(name, str) and name.strip() else None

    def _holder(self, name: str) -> StoredImage | None:
        return self._store.image(name) if self._store.has_name(name) else None


def gone_photos(store: Store, folder: Path | None = None) -> list[StoredImage]:
    """The stored images whose file is no longer there.

    Args:
        store: the database.
        folder: only those that were indexed from below it; None: all.

    Returns:
        By id. Images that a program added, images whose photo was also indexed from another file that still holds it,
        and files that may not be looked at are not among them.
    """
    root = None if folder is None else os.path.join(os.path.realpath(folder), "")
    return [
        image
        for image in store.images()
        if isinstance(path := image.metadata.get(PATH), str)
        and os.path.isabs(path)
        and (root is None or path.startswith(root))
        and _is_gone(path)
        and not any(known == BY_PROGRAM or _holds(known, image) for known in also_from(image.metadata))
    ]


def _holds(path: str, image: StoredImage) -> bool:
    """Whether the photo of an image lies at a path, or may: a file that cannot be looked at speaks for it."""
    try:
        return content_hash(Path(path).read_bytes()) == image.content_hash
    except OSError:
        return not _is_gone(path)


def _is_gone(path: str) -> bool:
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False


def _origin(image: StoredImage) -> str | None:
    """The file that an image was indexed from, as far as it is known."""
    path = image.metadata.get(PATH)
    return os.path.realpath(path) if isinstance(path, str) else None


def _is_named(entry: PhotoEntry) -> bool:
    """Whether a table names the image; else its name is the end of its path."""
    return not same_elsewhere(entry.url).endswith("/" + same_elsewhere(entry.name))


def _own_names(name: str, path: str) -> Iterator[str]:
    """Names for a file, the best first, without end: its own, with the folder above before it, and numbered."""
    yield name
    above = Path(path).parts[: -len(Path(name).parts)]
    if above and above[-1] != "/":
        name = f"{above[-1]}/{name}"
        yield name
    yield from numbered(name)


def _taken(name: str, holder: StoredImage | None) -> str:
    whose = "" if holder is None else f", of {_origin(holder) or 'a photo that was added by hand'}"
    return f"{name}: another photo is called so{whose}; give this one a name of its own"
