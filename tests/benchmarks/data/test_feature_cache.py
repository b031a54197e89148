"""The feature cache: nothing stale, nothing half written, damage repaired."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.data.feature_cache import FeatureCache, photo_hash


def test_made_once_and_found_again(tmp_path: Path) -> None:
    made = []

    def make() -> dict[str, np.ndarray]:
        made.append(1)
        return {"x": np.arange(3, dtype=np.float16), "empty": np.zeros((0, 4))}

    for _ in range(2):
        arrays = FeatureCache(tmp_path).get("system", b"\x01" * 32, make)
        assert arrays["x"].dtype == np.float16
        assert arrays["empty"].shape == (0, 4)
    assert len(made) == 1
    FeatureCache(tmp_path).get("another system", b"\x01" * 32, make)
    FeatureCache(tmp_path).get("system", b"\x02" * 32, make)
    FeatureCache(None).get("system", b"\x01" * 32, make)
    assert len(made) == 4


@pytest.mark.parametrize("damage", [b"", b"not a zip", None])
def test_a_damaged_file_is_made_again(tmp_path: Path, damage: bytes | None) -> None:
    cache, content = FeatureCache(tmp_path), b"\x01" * 32
    cache.get("s", content, lambda: {"x": np.arange(3)})
    path = cache.path("s", content)
    assert path is not None
    path.write_bytes(path.read_bytes()[:-30] if damage is None else damage)
    assert cache.get("s", content, lambda: {"x": np.arange(4)})["x"].tolist() == [0, 1, 2, 3]
    assert cache.get("s", content, lambda: {"x": np.arange(5)})["x"].tolist() == [0, 1, 2, 3]


def test_objects_are_not_unpickled(tmp_path: Path) -> None:
    cache, content = FeatureCache(tmp_path), b"\x01" * 32
    path = cache.path("s", content)
    assert path is not None
    path.parent.mkdir(parents=True)
    np.savez(path, x=np.array([print], dtype=object))
    assert cache.get("s", content, lambda: {"x": np.arange(2)})["x"].tolist() == [0, 1]


def test_a_stopped_run_leaves_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OSError, match="No space"):
        FeatureCache(tmp_path).get("s", b"\x01" * 32, lambda: {"x": np.arange(2)})
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


def test_the_hash_sees_the_bytes_and_the_box(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"1")
    (tmp_path / "b").write_bytes(b"2")
    hashes = {photo_hash(tmp_path / "a"), photo_hash(tmp_path / "b"), photo_hash(tmp_path / "a", (0, 0, 1, 1))}
    assert len(hashes) == 3
