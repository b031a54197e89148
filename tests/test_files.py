"""Small files: JSON from anywhere, and names that no file can have."""

from __future__ import annotations

from pathlib import Path

import pytest

from delf_edge.errors import OptionError, PackIntegrityError
from delf_edge.files import parse_json, partial_path, resolved, write_atomically
from delf_edge.packs.manifest import PackManifest


def test_json_from_strangers_is_read_or_refused(tmp_path: Path) -> None:
    assert parse_json(b'{"a": [1]}') == {"a": [1]}
    for text in (b"", b"{", b"[" * 200_000, "{'a': 1}"):
        with pytest.raises(ValueError, match=r"Expecting|brackets"):
            parse_json(text)
    (tmp_path / "deep.pack.json").write_bytes(b"[" * 200_000)
    with pytest.raises(PackIntegrityError, match="brackets"):
        PackManifest.read(tmp_path / "deep.pack.json")


@pytest.mark.parametrize("name", ["a\0b", "\ud800"])
def test_what_no_file_can_be_called_is_refused(name: str) -> None:
    with pytest.raises(OptionError, match="no file can have this name"):
        resolved(name)


@pytest.mark.parametrize("name", ["", ".", "/", "a/.."])
def test_a_target_has_a_name(name: str) -> None:
    with pytest.raises(OptionError, match="names no file"):
        partial_path(Path(name))
    with pytest.raises(OptionError, match="names no file"):
        write_atomically(Path(name), b"")
