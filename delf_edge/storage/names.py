"""Names of images and landmarks: text, in one Unicode form.

An accent is either part of a letter (NFC) or follows it (NFD, which some systems write to their file names): the same
name to every reader. Inside it is NFC; a name of an older database in the other form is found by either.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from itertools import count
from typing import Any

from delf_edge.errors import OptionError

# What `index` reads, so that it leaves alone what a person corrected.
INDEXED_AS = "indexed_as"  # metadata of an image: the landmark it had before; of a landmark: the names it had before
LOCATED = "located:"  # meta, with the landmark's id: a person said where it is, or that this is not known


PATH = "path"  # metadata of an image: where its file lies
ALSO_FROM = "also_from"  # the same: where else the same photo lies, and BY_PROGRAM
BY_PROGRAM = "program"  # in ALSO_FROM: a program had added the photo before `index` found its file
REMOVED = "removed:"  # meta, with a photo's SHA-256: a person removed it although its file may still be there

Known = tuple[str, Mapping[str, Any]]  # a landmark's name and metadata


def without_path(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Metadata of an image for other machines: without the paths of its file, which name folders and people."""
    return {key: value for key, value in metadata.items() if key not in (PATH, ALSO_FROM)}


def also_from(metadata: Mapping[str, Any]) -> list[str]:
    """Where else an image came from than from the file at `PATH`: paths, and `BY_PROGRAM`."""
    return _texts(metadata.get(ALSO_FROM))


def corrected_metadata(metadata: Mapping[str, Any], old: str, new: str) -> dict[str, Any]:
    """Metadata of an image whose landmark a person changes: `index` is told to leave the new one.

    Args:
        metadata: those that it has.
        old: its landmark until now.
        new: its landmark from now on.
    """
    return dict(metadata) if new == old else {INDEXED_AS: old, **metadata}


def merged_metadata(stored: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Metadata of a landmark with those of another database: the latter count, and no earlier name is forgotten."""
    names = {name for known in (stored, given) for name in _texts(known.get(INDEXED_AS))}
    return {**stored, **given} | ({INDEXED_AS: sorted(names)} if names else {})


def _texts(value: object) -> list[str]:
    return [text for text in value if isinstance(text, str) and text.strip()] if isinstance(value, list) else []


def now_called(landmarks: Iterable[Known]) -> dict[str, str]:
    """What landmarks are called now, by the names that they had before.

    Args:
        landmarks: name and metadata of each.
    """
    return {old: name for name, metadata in landmarks for old in _earlier(metadata)}


def renamed_since(landmarks: Iterable[Known], exported: Iterable[Known]) -> dict[str, str]:
    """What landmarks of an export are called now, by the names that they have there, where they were renamed since.

    A name that another landmark of the export had once, before the export, is that of a landmark of its own there.

    Args:
        landmarks: those of the database.
        exported: those of the export.
    """
    here, there = list(landmarks), list(exported)
    now: dict[str, str] = {}
    for name, metadata in here:
        earlier = _earlier(metadata)
        known_then = {old for other, known in there if other in {name, *earlier} for old in _earlier(known)}
        now |= dict.fromkeys(earlier - known_then, name)
    return {old: new for old, new in now.items() if old not in {name for name, _ in here}}


def _earlier(metadata: Mapping[str, Any]) -> set[str]:
    return {clean_name(old, "landmark") for old in _texts(metadata.get(INDEXED_AS))}


def clean_name(name: object, what: str) -> str:
    """A name as it is stored.

    Args:
        name: what was given.
        what: what it is called in messages.

    Raises:
        OptionError: no text, nothing but blanks, a NUL, or a letter that is no Unicode.
    """
    if not isinstance(name, str):
        raise OptionError(f"{what} {name!r} is of type {type(name).__name__}; a name is a str, pass str({name!r})")
    if not name.strip():
        raise OptionError(f"{what} {name!r} is empty; give it a name")
    if "\0" in name:
        raise OptionError(f"{what} {name!r} holds a NUL, which ends a text for SQLite; give it another name")
    try:
        name.encode()
    except UnicodeEncodeError:
        raise OptionError(f"{what} {name!r} holds a letter that is no Unicode; give it another name") from None
    return unicodedata.normalize("NFC", str(name))


def same_names(name: str) -> tuple[str, ...]:
    """The ways in which a name may be stored, the likeliest first.

    Raises:
        OptionError: it is no text.
    """
    if not isinstance(name, str):
        raise OptionError(f"{name!r} is of type {type(name).__name__}; a name is a str")
    if name.isascii():
        return (name,)
    forms = (name, *(unicodedata.normalize(form, name) for form in ("NFC", "NFD")))
    return tuple(dict.fromkeys(forms))


def numbered(name: str) -> Iterator[str]:
    """The name with a number before its suffix, without end: "a (2).jpg", "a (3).jpg", ..."""
    stem, dot, suffix = name.rpartition(".")
    for number in count(2):
        yield f"{stem} ({number}){dot}{suffix}" if dot and "/" not in suffix else f"{name} ({number})"
