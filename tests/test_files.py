"""Small files: JSON from anywhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from delf_edge.errors import PackIntegrityError
from delf_edge.files import parse_json
from delf_edge.packs import PackManifest


def test_json_from_strangers_is_read_or_refused(tmp_path: Path) -> None:
    assert parse_json(b'{"a": [1]}') == {"a": [1]}
    for text in (b"", b"{", b"[" * 200_000, "{'a': 1}"):
        with pytest.raises(ValueError, match=r"Expecting|brackets"):
            parse_json(text)
    (tmp_path / "deep.pack.json").write_bytes(b"[" * 200_000)
    with pytest.raises(PackIntegrityError, match="brackets"):
        PackManifest.read(tmp_path / "deep.pack.json")
