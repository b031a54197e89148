"""What a house says of its kiosk in one TOML file: title, logo, languages, colours, fonts, sizes, camera, texts.

::

    [page]
    title = "Museum of Places"
    logo = "logo.svg"                    # beside this file
    language = "de"                      # of a page that nobody touches
    languages = ["de", "en", "fr"]
    idle_seconds = 90
    details = false                      # matched points and runners-up, for engineers

    [texts.de]                           # instead of what languages/de.json says
    invite = "Welcher Ort ist das?"

    [colours]                            # of the light page; [colours.dark] of the dark one
    accent = "#0b5a51"

    [fonts]
    family = "House Sans"
    files = ["house-sans.woff2"]

    [sizes]
    text = 1.0
    name = 1.0

    [camera]
    label = "Logitech"                   # part of the camera's name; default: any
    mirror = false
    rotation = 0                         # degrees clockwise by which its picture is turned
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from delf_edge.errors import OptionError

LANGUAGES_FOLDER = Path(__file__).resolve().parent / "static" / "languages"
_LOGOS = {".svg": "image/svg+xml", ".png": "image/png", ".webp": "image/webp", ".jpg": "image/jpeg"}
_FONTS = {".woff2": "font/woff2", ".woff": "font/woff", ".ttf": "font/ttf", ".otf": "font/otf"}
_COLOURS = ("paper", "panel", "ink", "soft", "line", "accent", "on-accent", "warm")
_TEXT_ON = (("ink", "paper"), ("ink", "panel"), ("soft", "paper"), ("soft", "panel"), ("on-accent", "accent"))
_LIGHT = {"paper": "#f4f1ea", "panel": "#ffffff", "ink": "#14201d", "soft": "#3c4845", "line": "#6f7a76"}
_LIGHT |= {"accent": "#0b5a51", "on-accent": "#ffffff", "warm": "#6b4000"}
_DARK = {"paper": "#0e1312", "panel": "#171e1d", "ink": "#f1f5f3", "soft": "#c4d0cb", "line": "#84918c"}
_DARK |= {"accent": "#5fd6c3", "on-accent": "#04211d", "warm": "#ffc95c"}
_LEAST_CONTRAST = 4.5  # WCAG 2, 1.4.3
_HEX = re.compile(r"#[0-9a-fA-F]{6}")
_FAMILY = re.compile(r"[\w][\w -]{0,63}")
_MAX_FILE = 32 << 20


@dataclass(frozen=True, slots=True)
class Camera:
    """Which camera the page takes, and how its picture lies.

    Attributes:
        label: part of its name; empty: any.
        mirror: whether visitors see themselves as in a mirror; what is recognised is never mirrored.
        rotation: degrees clockwise by which the picture is turned: 0, 90, 180, 270.
    """

    label: str = ""
    mirror: bool = False
    rotation: int = 0


@dataclass(frozen=True, slots=True)
class Branding:
    """What `read_branding` returns; without a file, what the page is from the start.

    Attributes:
        title: shown at the top; None: the sentence of the language.
        language: of a page that nobody touches.
        languages: that a visitor can choose.
        idle_seconds: without a touch, after which a page is as it was at the start.
        details: whether matched points and runners-up are shown.
        texts: language -> key -> text, in place of the page's own.
        camera: which one, and how it lies.
        css: rules that set colours, fonts and sizes.
        files: name in the address -> file and media type; the logo is called "logo".
    """

    title: str | None = None
    language: str = "en"
    languages: tuple[str, ...] = ()
    idle_seconds: float = 90.0
    details: bool = False
    texts: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    camera: Camera = Camera()
    css: str = ""
    files: Mapping[str, tuple[Path, str]] = field(default_factory=dict)


def known_languages() -> dict[str, dict[str, str]]:
    """The page's own texts: language -> key -> text."""
    return {path.stem: json.loads(path.read_text("utf-8")) for path in sorted(LANGUAGES_FOLDER.glob("*.json"))}


def read_branding(path: Path) -> Branding:
    """Read a branding file.

    Raises:
        OptionError: it cannot be read, has an unknown key or a value that cannot be used, or its colours are too
            alike to be read; the message names the key.
    """
    try:
        table = tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as e:
        raise OptionError(f"{path}: the branding file cannot be read ({e})") from e
    return _Reader(path, table).read()


class _Reader:
    """Takes what it knows out of the tables; what is left over is an error."""

    def __init__(self, path: Path, table: dict[str, Any]) -> None:
        self.path, self.table = path, table
        self.files: dict[str, tuple[Path, str]] = {}
        self.texts = known_languages()

    def read(self) -> Branding:
        page = self._table("page")
        title, logo = self._take(page, "page.title", str, None), self._take(page, "page.logo", str, None)
        if logo is not None:
            self._file("page.logo", logo, "logo", _LOGOS)
        languages = tuple(self._take(page, "page.languages", list, list(self.texts)))
        language = self._take(page, "page.language", str, "en" if "en" in languages else next(iter(languages), ""))
        for given in (*languages, language):
            if given not in self.texts:
                raise self._wrong("page.languages", given, f"one of {', '.join(self.texts)}")
        if language not in languages:
            raise self._wrong("page.language", language, f"one of page.languages ({', '.join(languages)})")
        branding = Branding(
            title=title,
            language=language,
            languages=languages,
            idle_seconds=self._number(page, "page.idle_seconds", 90.0, 10.0, 3600.0),
            details=self._take(page, "page.details", bool, False),
            texts=self._texts(),
            camera=self._camera(),
            css=self._css(),
            files=self.files,
        )
        for left in (*(f"page.{key}" for key in page), *self.table):
            raise OptionError(f"{self.path}: there is no key {left!r}; docs/kiosk.md lists them")
        return branding

    def _table(self, name: str) -> dict[str, Any]:
        found = self.table.pop(name, {})
        if not isinstance(found, dict):
            raise self._wrong(name, found, f"a table: [{name}]")
        return found

    def _take(self, table: dict[str, Any], key: str, kind: type, default: Any) -> Any:
        value = table.pop(key.rpartition(".")[2], default)
        if value is not default and (not isinstance(value, kind) or (kind is not bool and isinstance(value, bool))):
            raise self._wrong(key, value, f"of the kind {kind.__name__}")
        return value

    def _number(self, table: dict[str, Any], key: str, default: float, least: float, most: float) -> float:
        value = table.pop(key.rpartition(".")[2], default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
            raise self._wrong(key, value, f"a number from {least:g} to {most:g}")
        return float(value)

    def _file(self, key: str, name: str, shown: str, kinds: Mapping[str, str]) -> None:
        file = self.path.parent / name
        kind = kinds.get(file.suffix.lower())
        if kind is None:
            raise self._wrong(key, name, f"a file that ends in {', '.join(kinds)}")
        if not file.is_file() or file.stat().st_size > _MAX_FILE:
            raise self._wrong(key, name, f"a file beside {self.path.name} of at most {_MAX_FILE >> 20} MB")
        self.files[shown] = file, kind

    def _texts(self) -> dict[str, dict[str, str]]:
        given = self._table("texts")
        for language, texts in given.items():
            known = self.texts.get(language)
            if known is None or not isinstance(texts, dict):
                raise self._wrong(f"texts.{language}", texts, f"a table of one of {', '.join(self.texts)}")
            for key, text in texts.items():
                if key not in known or not isinstance(text, str):
                    raise self._wrong(f"texts.{language}.{key}", text, "a text for a key of static/languages/en.json")
        return given

    def _camera(self) -> Camera:
        table = self._table("camera")
        rotation = table.pop("rotation", 0)
        if rotation not in (0, 90, 180, 270) or isinstance(rotation, bool):
            raise self._wrong("camera.rotation", rotation, "0, 90, 180 or 270")
        label = self._take(table, "camera.label", str, "")
        camera = Camera(label, self._take(table, "camera.mirror", bool, False), rotation)
        self._nothing_left("camera", table)
        return camera

    def _css(self) -> str:
        light = self._table("colours")
        dark = light.pop("dark", {})
        if not isinstance(dark, dict):
            raise self._wrong("colours.dark", dark, "a table: [colours.dark]")
        rules = [f":root {{ {self._colours('colours', light, _LIGHT)} }}"] if light else []
        if dark:
            rules.append(
                f"@media (prefers-color-scheme: dark) {{ :root {{ {self._colours('colours.dark', dark, _DARK)} }} }}"
            )
        elif light:  # a house that gives one set of colours has it in the dark too
            rules.append(
                f"@media (prefers-color-scheme: dark) {{ :root {{ {self._colours('colours', light, _LIGHT)} }} }}"
            )
        return "\n".join([*rules, *self._fonts(), *self._sizes()])

    def _colours(self, table: str, given: Mapping[str, Any], own: Mapping[str, str]) -> str:
        for name, value in given.items():
            if name not in _COLOURS or not isinstance(value, str) or not _HEX.fullmatch(value):
                raise self._wrong(f"{table}.{name}", value, f"#rrggbb for one of {', '.join(_COLOURS)}")
        colours = {**own, **given}
        for text, ground in _TEXT_ON:
            ratio = contrast(colours[text], colours[ground])
            if ratio < _LEAST_CONTRAST and {text, ground} & set(given):
                raise OptionError(
                    f"{self.path}: {table}: {text} {colours[text]} on {ground} {colours[ground]} has a contrast of "
                    f"{ratio:.1f} to 1; at least {_LEAST_CONTRAST} is needed to be read"
                )
        return " ".join(f"--{name}: {value};" for name, value in given.items())

    def _fonts(self) -> list[str]:
        table = self._table("fonts")
        family, files = self._take(table, "fonts.family", str, None), self._take(table, "fonts.files", list, [])
        self._nothing_left("fonts", table)
        if family is None:
            return []
        if not _FAMILY.fullmatch(family):
            raise self._wrong("fonts.family", family, "letters, digits, spaces and hyphens")
        rules = [f':root {{ --family: "{family}"; }}']
        for number, name in enumerate(files):
            shown = f"font{number}"
            self._file("fonts.files", str(name), shown, _FONTS)
            rules.append(f'@font-face {{ font-family: "{family}"; src: url("{shown}"); font-display: swap; }}')
        return rules

    def _sizes(self) -> list[str]:
        table = self._table("sizes")
        text = self._number(table, "sizes.text", 1.0, 0.75, 2.0)
        name = self._number(table, "sizes.name", 1.0, 0.5, 2.0)
        self._nothing_left("sizes", table)
        return [] if (text, name) == (1.0, 1.0) else [f":root {{ --text-size: {text:g}; --name-size: {name:g}; }}"]

    def _nothing_left(self, name: str, table: Mapping[str, Any]) -> None:
        for key in table:
            raise OptionError(f"{self.path}: there is no key {f'{name}.{key}'!r}; docs/kiosk.md lists them")

    def _wrong(self, key: str, value: object, wanted: str) -> OptionError:
        return OptionError(f"{self.path}: {key} is {value!r}; it must be {wanted}")


def contrast(one: str, other: str) -> float:
    """Contrast of two colours (#rrggbb), 1 to 21 (WCAG 2, relative luminance)."""

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)
