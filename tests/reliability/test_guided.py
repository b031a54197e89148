"""The doors of the coverage-guided fuzzer, without it: seeds pass, damaged ones end in errors of our own."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from delf_edge.errors import DelfEdgeError
from reliability import guided


@pytest.mark.parametrize("name", guided.NAMES)
def test_seeds_are_accepted_and_their_halves_end_in_our_own_errors(name: str, tmp_path: Path) -> None:
    door: guided.Door = getattr(guided, f"{name}_door")(tmp_path)
    refused = 0
    for seed in door.seeds:
        assert len(seed) <= door.longest
        if not seed.startswith(b"II+"):  # a header, to begin with
            door.attempt(seed)
        for part in (b"", seed[:40], seed[: len(seed) // 2], seed[:-1], bytes(len(seed))):
            try:
                door.attempt(part)
            except DelfEdgeError:
                refused += 1
    door.close()
    assert refused or name == "service"  # which answers with a status


def test_a_status_of_500_is_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from reliability import doors

    monkeypatch.setattr(doors.Requests, "__call__", lambda *request: 500)
    door = guided.service_door(tmp_path)
    with pytest.raises(RuntimeError, match="status 500"):
        door.attempt(b"GET\n/")
    door.close()


@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="atheris is not installed")
def test_a_few_seconds_reach_edges() -> None:
    result = guided.run("image", 5)
    assert result["edges"] > 50
    assert result["found"] == []
