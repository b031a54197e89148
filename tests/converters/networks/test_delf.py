"""Checkpoints of others are refused in a line that says what is expected."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from delf_edge.converters.networks.delf import load_checkpoint  # noqa: E402
from delf_edge.errors import OptionError  # noqa: E402

pytestmark = pytest.mark.torch


@pytest.mark.parametrize(
    "content", [{"model": {}}, {"spec": "unknown", "attention_hidden": 8, "network": {}}, [1], None]
)
def test_a_foreign_checkpoint(tmp_path: Path, content: object) -> None:
    path = tmp_path / "network.pt"
    torch.save(content, path)
    if content is None:
        path.write_bytes(b"no zip")
    with pytest.raises(OptionError, match=r"network\.pt: no checkpoint of this trainer .* expected"):
        load_checkpoint(path)
