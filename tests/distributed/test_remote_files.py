"""Photos are fetched again where the fault may pass, and only there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fsspec
import pytest

from delf_edge.distributed.remote_files import fetch, put_file, put_path


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that were waited between tries."""
    seconds: list[float] = []
    monkeypatch.setattr("time.sleep", seconds.append)
    return seconds


def failing(monkeypatch: pytest.MonkeyPatch, errors: list[OSError]) -> None:
    real = fsspec.open

    def opened(*args: Any, **kwargs: Any) -> Any:
        if errors:
            raise errors.pop(0)
        return real(*args, **kwargs)

    monkeypatch.setattr(fsspec, "open", opened)


def test_a_fault_that_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, waits: list[float]) -> None:
    (tmp_path / "a").write_bytes(b"photo")
    failing(monkeypatch, [OSError("reset"), TimeoutError("slow")])
    assert fetch(str(tmp_path / "a")) == b"photo"
    assert waits == [1.0, 2.0]


def test_a_fault_that_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, waits: list[float]) -> None:
    failing(monkeypatch, [OSError(str(i)) for i in range(9)])
    with pytest.raises(OSError, match="2"):
        fetch(str(tmp_path / "a"))
    assert len(waits) == 2


def test_what_is_not_there_is_not_tried_again(tmp_path: Path, waits: list[float]) -> None:
    with pytest.raises(FileNotFoundError):
        fetch(str(tmp_path / "none"))
    assert waits == []


def test_files_are_put_whole(tmp_path: Path) -> None:
    put_file(b"1", str(tmp_path / "new" / "a"))
    put_path(tmp_path / "new" / "a", str(tmp_path / "other" / "b"))
    put_path(tmp_path / "new" / "a", "memory://put/b")
    assert (tmp_path / "other" / "b").read_bytes() == fetch("memory://put/b") == b"1"
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["a", "b", "new", "other"]
