"""Slugs: the short ASCII names by which landmarks are known in URLs, tables and commands.

A slug is made from a landmark's name once, when the landmark is created, and stays when the name changes.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Container

MAX_SLUG = 80
SLUG = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")
_UNDECOMPOSED = str.maketrans(
    {"ß": "ss", "æ": "ae", "œ": "oe", "ø": "o", "ł": "l", "đ": "d", "ð": "d", "þ": "th", "ħ": "h", "ı": "i", "ŋ": "ng"}
)  # letters that Unicode does not take apart


def slugify(name: str) -> str:
    """A slug for a name: lower case, without diacritics, everything else as hyphens.

    A name without a single Latin letter or digit gets one from its hash, which is the same everywhere.
    """
    letters = unicodedata.normalize("NFKD", name.lower().translate(_UNDECOMPOSED))
    plain = letters.encode("ascii", "ignore").decode()
    words = re.findall(r"[a-z0-9]+", re.sub(r"['`]", "", plain)) if _is_mostly_latin(letters) else []
    slug = "-".join(words)[:MAX_SLUG].strip("-")
    return slug or f"place-{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"


def _is_mostly_latin(letters: str) -> bool:
    """Whether at least half of the letters and digits survive as ASCII; else what is left names nothing."""
    counted = [c for c in letters if c.isalnum()]
    return sum(c.isascii() for c in counted) * 2 >= len(counted)


def free_slug(wanted: str, taken: Container[str]) -> str:
    """`wanted`, or with the first free number behind it: `cafe`, `cafe-2`, `cafe-3`."""
    slug, number = wanted, 2
    while slug in taken:
        tail = f"-{number}"
        slug, number = wanted[: MAX_SLUG - len(tail)].strip("-") + tail, number + 1
    return slug


def is_slug(text: str) -> bool:
    """Whether a text has the form of a slug."""
    return len(text) <= MAX_SLUG and SLUG.fullmatch(text) is not None
