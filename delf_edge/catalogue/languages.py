"""Language tags (BCP 47): which are accepted, how they are written, and which text somebody gets who wants another.

The form of a tag is that of RFC 5646; a language of two letters must be in ISO 639-1. Longer codes and regions are not
looked up. The choice between languages is the lookup of RFC 4647, section 3.4.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from delf_edge.errors import OptionError

MAX_TAG = 35  # characters; RFC 5646, section 4.4.1
DEFAULT_LANGUAGE = "en"
_MAX_RANGES = 20  # of an Accept-Language header that are looked at
_TAG = re.compile(
    r"(?P<language>[a-z]{2,3}(?:-[a-z]{3}){0,3})"
    r"(?:-(?P<script>[a-z]{4}))?"
    r"(?:-(?P<region>[a-z]{2}|[0-9]{3}))?"
    r"(?:-(?:[a-z0-9]{5,8}|[0-9][a-z0-9]{3}))*"  # variants
    r"(?:-[0-9a-wy-z](?:-[a-z0-9]{2,8})+)*"  # extensions
    r"(?:-x(?:-[a-z0-9]{1,8})+)?"  # private use
)
_ISO_639_1 = (
    "aa ab ae af ak am an ar as av ay az ba be bg bh bi bm bn bo br bs ca ce ch co cr cs cu cv cy da de dv dz ee el "
    "en eo es et eu fa ff fi fj fo fr fy ga gd gl gn gu gv ha he hi ho hr ht hu hy hz ia id ie ig ii ik io is it iu "
    "ja jv ka kg ki kj kk kl km kn ko kr ks ku kv kw ky la lb lg li ln lo lt lu lv mg mh mi mk ml mn mr ms mt my na "
    "nb nd ne ng nl nn no nr nv ny oc oj om or os pa pi pl ps pt qu rm rn ro ru rw sa sc sd se sg sh si sk sl sm sn "
    "so sq sr ss st su sv sw ta te tg th ti tk tl tn to tr ts tt tw ty ug uk ur uz ve vi vo wa wo xh yi yo za zh zu"
)
_RANGE = re.compile(r"([A-Za-z0-9-]{1,35}|\*)(?:\s*;\s*q\s*=\s*([01](?:\.[0-9]{0,3})?))?")


def check_language(tag: str) -> str:
    """A language tag as it is stored: `pt-br` becomes `pt-BR`, `zh-hant` becomes `zh-Hant`.

    Raises:
        OptionError: it is no tag of BCP 47, or its two letters are no language.
    """
    found = _TAG.fullmatch(tag.lower()) if len(tag) <= MAX_TAG else None
    if found is None:
        hint = f"; did you mean {tag.replace('_', '-')!r}?" if "_" in tag else ""
        raise OptionError(f"{tag[:40]!r} is no language tag (BCP 47), such as 'en', 'pt-BR' or 'zh-Hant'{hint}")
    language = found["language"]
    if len(language) == 2 and language not in _ISO_639_1.split():
        raise OptionError(f"{tag[:40]!r}: {language!r} is no language of ISO 639-1, such as 'en', 'pl' or 'zh'")
    parts = tag.lower().split("-")
    for name in ("script", "region"):
        if found[name] is not None:
            place = parts.index(found[name], 1)
            parts[place] = found[name].title() if name == "script" else found[name].upper()
    return "-".join(parts)


def choose_language(available: Iterable[str], wanted: Sequence[str] = ()) -> str | None:
    """The best language for somebody who wants `wanted`.

    Args:
        available: the languages that there are.
        wanted: language tags, the most wanted first.

    Returns:
        The first wanted one that is available as it is, shortened from its end (`de-AT` finds `de`) or lengthened (`pt`
        finds `pt-BR`); else English, else the first in the alphabet; None where nothing is available.
    """
    known = {tag.lower(): tag for tag in sorted(available)}
    for tag in (*wanted, DEFAULT_LANGUAGE):
        parts = tag.lower().split("-")
        for n in range(len(parts), 0, -1):
            shorter = "-".join(parts[:n])
            if shorter in known:
                return known[shorter]
        longer = next((own for own in known if own.startswith(f"{parts[0]}-")), None)
        if longer is not None:
            return known[longer]
    return next(iter(known.values()), None)


def parse_accept_language(header: str) -> list[str]:
    """The tags of an `Accept-Language` header, the most wanted first; what is none is passed over."""
    ranges: list[tuple[float, int, str]] = []
    for i, part in enumerate(header.split(",")[:_MAX_RANGES]):
        found = _RANGE.fullmatch(part.strip())
        if found is not None and found[1] != "*":
            quality = min(1.0, float(found[2])) if found[2] else 1.0
            if quality > 0:
                ranges.append((-quality, i, found[1]))
    return [tag for _, _, tag in sorted(ranges)]
