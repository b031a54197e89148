"""Pictures and sounds: what they are is read from their bytes, never from their names."""

from __future__ import annotations

import hashlib
from pathlib import Path

from delf_edge.catalogue.fields import check_media_name, check_media_path, check_text
from delf_edge.catalogue.records import NewMedia
from delf_edge.errors import ImageError, OptionError
from delf_edge.images.decode import load_image
from delf_edge.images.headers import probe_size

MAX_BLOB = 4 << 20  # bytes that a database holds; larger ones stay files
MAX_FILE = 64 << 20  # bytes of a file beside the database
MAX_PIXELS = 40_000_000
_PICTURES = {"JPEG": "image/jpeg", "PNG": "image/png", "WebP": "image/webp"}


def media_type(data: bytes) -> str:
    """The media type of a picture or sound.

    Raises:
        OptionError: it is none that browsers of every kind show or play, or it is damaged.
    """
    if (sound := _sound_type(data)) is not None:
        return sound
    try:
        width, height, name = probe_size(data)
        if name not in _PICTURES or width * height > MAX_PIXELS:
            raise OptionError(
                f"a {name} picture of {width} x {height} pixels; JPEG, PNG and WebP up to {MAX_PIXELS:,} are kept"
            )
        load_image(data)  # a header alone is no picture
    except ImageError as e:
        raise OptionError(f"neither a picture nor a sound that can be kept: {e}") from e
    return _PICTURES[name]


def _sound_type(data: bytes) -> str | None:
    head = data[:12]
    if head.startswith(b"ID3") or (len(head) > 2 and head[0] == 0xFF and head[1] & 0xE6 == 0xE2):
        return "audio/mpeg"
    if head.startswith(b"OggS"):
        return "audio/ogg"
    if head.startswith(b"fLaC"):
        return "audio/flac"
    if head.startswith(b"RIFF") and head[8:] == b"WAVE":
        return "audio/wav"
    if head[4:8] == b"ftyp" and head[8:] in (b"M4A ", b"M4B "):
        return "audio/mp4"
    return None


def blob(name: str, data: bytes, credit: str | None = None) -> NewMedia:
    """Bytes to be kept in the database.

    Raises:
        OptionError: they are no picture or sound, or too many.
    """
    if len(data) > MAX_BLOB:
        raise OptionError(
            f"{name}: {len(data):,} bytes, a database keeps at most {MAX_BLOB:,}; shrink it, or give its path"
        )
    try:
        kind = media_type(data)
    except OptionError as e:
        raise OptionError(f"{name}: {e}") from e
    return NewMedia(
        check_media_name(name), kind, hashlib.sha256(data).hexdigest(), data=data, credit=check_text(credit, "credit")
    )


def beside(name: str, path: str, folder: Path, sha256: str | None = None, credit: str | None = None) -> NewMedia:
    """A file that stays where it is, below the database's folder.

    Raises:
        OptionError: it is not there, is no picture or sound, too large, or not the one with this hash.
    """
    relative = check_media_path(path)
    data = read_beside(folder, relative)
    found = hashlib.sha256(data).hexdigest()
    if sha256 is not None and found != sha256:
        raise OptionError(f"{path}: its SHA-256 is {found[:12]}, the row says {sha256[:12]}")
    return NewMedia(check_media_name(name), media_type(data), found, path=relative, credit=check_text(credit, "credit"))


def read_beside(folder: Path, path: str) -> bytes:
    """The bytes of a file below a folder, links not followed out of it.

    Raises:
        OptionError: it is not there, lies elsewhere, or is too large.
    """
    try:
        file = (folder / check_media_path(path)).resolve(strict=True)
        if not file.is_relative_to(folder.resolve()) or not file.is_file():
            raise OptionError(f"{path}: no file below {folder}")
        with file.open("rb") as opened:
            data = opened.read(MAX_FILE + 1)
    except (OSError, ValueError) as e:
        if isinstance(e, OptionError):
            raise
        raise OptionError(f"{path}: cannot be read below {folder} ({e})") from e
    if len(data) > MAX_FILE:
        raise OptionError(f"{path}: more than {MAX_FILE:,} bytes")
    return data
