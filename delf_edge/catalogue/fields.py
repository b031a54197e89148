"""One value at a time: what a field of the catalogue may hold, and what is said where it holds something else."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from delf_edge.errors import OptionError
from delf_edge.storage.slugs import MAX_SLUG, is_slug

LIMITS = {  # characters
    "name": 200,
    "kind": 100,
    "collection": 100,
    "title": 300,
    "summary": 2_000,
    "body": 100_000,
    "audio": 100,
    "link": 2_000,
    "credit": 500,
    "external id": 200,
}
MAX_METADATA = 64 << 10  # bytes of JSON
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_ID_NAME = re.compile(r"[a-z][a-z0-9_-]{0,39}")
_WIKIDATA = re.compile(r"Q[1-9][0-9]{0,11}")
_MEDIA_NAME = re.compile(r"[^/\\\x00-\x1f\x7f]{1,100}")


def check_text(value: Any, field: str) -> str | None:
    """A text of a field of `LIMITS`; None for null.

    Raises:
        OptionError: it is no text, too long, or holds characters that no text has.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise OptionError(f"{_shown(value)} is no text")
    text, limit = str(value), LIMITS[field]
    if len(text) > limit:
        raise OptionError(f"{len(text):,} characters, at most {limit:,} are stored; keep it short or link to it")
    if _CONTROL.search(text):
        raise OptionError(f"holds the control character {_CONTROL.search(text)[0]!r}; remove it")  # type: ignore[index]
    try:
        text.encode()
    except UnicodeEncodeError as e:
        raise OptionError(f"holds half of a surrogate pair at character {e.start}; write it in UTF-8") from e
    return text


def check_line(value: Any, field: str) -> str | None:
    """A text of one line without blanks around it; None where nothing is left."""
    text = check_text(value, field)
    if text is None:
        return None
    text = text.strip()
    if not text.isprintable():
        raise OptionError(f"{_shown(text)} is more than one line, or holds what cannot be printed")
    return text or None


def check_slug(value: Any) -> str:
    """A slug.

    Raises:
        OptionError: it is none.
    """
    if not isinstance(value, str) or not is_slug(value):
        raise OptionError(
            f"{_shown(value)} is no slug; use at most {MAX_SLUG} of a-z and 0-9, with single hyphens between them"
        )
    return value


def check_degrees(value: Any, limit: float) -> float | None:
    """Degrees from -limit to limit; None for null or empty.

    Raises:
        OptionError: it is no number, or none on Earth.
    """
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    try:
        degrees = float(value) if not isinstance(value, bool) else math.nan
    except (TypeError, ValueError, OverflowError):
        degrees = math.nan
    if not abs(degrees) <= limit:
        raise OptionError(f"{_shown(value)} is no number of degrees from -{limit:g} to {limit:g}")
    return degrees


def check_external_ids(value: Any) -> dict[str, str | None]:
    """Ids elsewhere by the name of the place; None removes one.

    Raises:
        OptionError: a name or an id is none.
    """
    if not isinstance(value, Mapping):
        raise OptionError(f'{_shown(value)} is no JSON object of ids, such as {{"wikidata": "Q243"}}')
    checked: dict[str, str | None] = {}
    for name, given in value.items():
        if not isinstance(name, str) or not _ID_NAME.fullmatch(name):
            raise OptionError(f"{_shown(name)}: ids are called by at most 40 of a-z, 0-9, '_' and '-'")
        text = check_line(given, "external id")
        if name == "wikidata" and text is not None and not _WIKIDATA.fullmatch(text):
            raise OptionError(f"{_shown(text)} is no item of Wikidata, such as 'Q243'")
        checked[name] = text
    return checked


def check_metadata(value: Any) -> dict[str, Any]:
    """Any JSON object of moderate size.

    Raises:
        OptionError: it is none.
    """
    if not isinstance(value, Mapping):
        raise OptionError(f"{_shown(value)} is no JSON object")
    try:
        text = json.dumps(dict(value), ensure_ascii=False, allow_nan=False)
        size = len(text.encode())
    except (TypeError, ValueError, RecursionError) as e:
        raise OptionError(f"cannot be stored as JSON: {e}") from e
    if size > MAX_METADATA:
        raise OptionError(f"{size:,} bytes of JSON, at most {MAX_METADATA:,} are stored")
    return dict(value)


def check_link(value: Any) -> str | None:
    """An address on the web; None for null or empty.

    Raises:
        OptionError: it is none: `javascript:` and the like would run in a page.
    """
    text = check_line(value, "link")
    if text is None:
        return None
    try:
        parts = urlsplit(text)
        sound = parts.scheme in ("http", "https") and bool(parts.hostname) and " " not in text
    except ValueError:
        sound = False
    if not sound:
        raise OptionError(f"{_shown(text)} is no address that begins with https:// or http://")
    return text


def check_media_name(value: Any) -> str:
    """What a picture or sound is called.

    Raises:
        OptionError: it could be no file's name.
    """
    if not isinstance(value, str) or not _MEDIA_NAME.fullmatch(value) or value in (".", "..") or value != value.strip():
        raise OptionError(f"{_shown(value)} is no name for a picture or sound; use that of a file, without folders")
    return value


def check_media_path(value: Any) -> str:
    """A path below the database's folder.

    Raises:
        OptionError: it leads out of it, or is no path.
    """
    text = check_text(value, "link") or ""
    path = PurePosixPath(text)
    if not text or "\\" in text or path.is_absolute() or ".." in path.parts or str(path) != text or ":" in text:
        raise OptionError(f"{_shown(value)} is no path below the database's folder, such as 'audio/tower.mp3'")
    return text


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
