"""`Slots` is a dict of integers that takes less room."""

from __future__ import annotations

import numpy as np
import pytest

from delf_edge.index import slots as module
from delf_edge.index.slots import Slots


@pytest.mark.parametrize("recent", [0, 5, 1000])
def test_slots_are_those_of_a_dict(recent: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RECENT", recent)
    rng = np.random.default_rng(recent)
    ids = rng.permutation(1000)[:200].astype(np.int64) + (1 << 40)
    table, plain = Slots(ids, np.arange(200)), dict(zip(ids.tolist(), range(200), strict=True))
    first = 200
    for _ in range(60):
        gone = [i for i in rng.integers(0, 1000, 5).tolist() if i + (1 << 40) in plain]
        gone = sorted({i + (1 << 40) for i in gone})
        new = sorted({*(rng.integers(0, 1000, 4) + (1 << 40)).tolist()} - (plain.keys() - set(gone)))
        table.drop(gone)
        table.put(new, first)
        for i in gone:
            del plain[i]
        plain.update(zip(new, range(first, first + len(new)), strict=True))
        first += len(new)
        assert len(table) == len(plain)
        asked = [*range(1 << 40, (1 << 40) + 1000, 7), 0, 1 << 50]
        assert [table.get(i) for i in asked] == [plain.get(i, -1) for i in asked]
        assert [i in table for i in asked] == [i in plain for i in asked]


def test_an_empty_table_has_nothing() -> None:
    table = Slots(np.zeros(0, np.int64), np.zeros(0, np.int64))
    assert len(table) == 0
    assert table.get(3) == -1
