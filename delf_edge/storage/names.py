"""Names of images and landmarks: text, in one Unicode form.

An accent is either part of a letter (NFC) or follows it (NFD, which some systems write to their file names): the same
name to every reader. Inside it is NFC; a name of an older database in the other form is found by either.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping
from itertools import count
from typing import Any

from delf_edge.errors import OptionError

# What `index` reads, so that it leaves alone what a person corrected.
INDEXED_AS = "indexed_as"  # metadata of an image: the landmark it had before; of a landmark: the names it had before
LOCATED = "located:"  # meta, with the landmark's id: a person said where it is, or that this is not known


PATH = "path"  # metadata of an image: where its file lies


def without_path(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Metadata of an image for other machines: without the path of its file, which names folders and people."""
    return {key: value for key, value in metadata.items() if key != PATH}


def clean_name(name: object, what: str) -> str:
    """A name as it is stored.

    Args:
        name: what was given.
        what: what it is called in messages.

    Raises:
        OptionError: no text, nothing but blanks, or a letter that is no Unicode.
    """
    if not isinstance(name, str):
        raise OptionError(f"{what} {name!r} is of type {type(name).__name__}; a name is a str, pass str({name!r})")
    if not name.strip():
        raise OptionError(f"{what} {name!r} is empty; give it a name")
    try:
        name.encode()
    except UnicodeEncodeError:
        raise OptionError(f"{what} {name!r} holds a letter that is no Unicode; give it another name") from None
    return unicodedata.normalize("NFC", str(name))


def same_names(name: str) -> tuple[str, ...]:
    """The ways in which a name may be stored, the likeliest first."""
    if name.isascii():
        return (name,)
    forms = (name, *(unicodedata.normalize(form, name) for form in ("NFC", "NFD")))
    return tuple(dict.fromkeys(forms))


def numbered(name: str) -> Iterator[str]:
    """The name with a number before its suffix, without end: "a (2).jpg", "a (3).jpg", ..."""
    stem, dot, suffix = name.rpartition(".")
    for number in count(2):
        yield f"{stem} ({number}){dot}{suffix}" if dot and "/" not in suffix else f"{name} ({number})"
