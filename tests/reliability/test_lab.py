"""The short form of every campaign of the reliability lab, and that the lab itself can find something."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from delf_edge.errors import ImageTooLargeError
from delf_edge.images.decode import load_image
from delf_edge.quantization.coarse_quantizer import CoarseIndex
from delf_edge.storage.store import Store
from reliability import (
    bitflip,
    bombs,
    campaigns,
    concurrency,
    faults,
    fuzz,
    growth,
    kill,
    longrun,
    plots,
    powercut,
    report,
    shim,
    world,
)
from reliability.doors import Attempt
from testing.paths import ROOT

needs_compiler = pytest.mark.skipif(
    shutil.which("cc") is None and shutil.which("gcc") is None, reason="the shim needs a C compiler"
)


@pytest.fixture(scope="module")
def log() -> list[shim.Event]:
    """What a process that ran every operation did to its files."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "data"
        folder.mkdir()
        return powercut.record(folder, seed=7, rounds=1)


@needs_compiler
def test_power_cuts_lose_nothing(log: list[shim.Event]) -> None:
    result = powercut.replay(log, cuts=30, seed=7)
    assert result["found"] == []
    assert set(result["by operation"]) == set(world.OPERATIONS)


@needs_compiler
def test_the_replay_sees_a_disk_that_lies(log: list[shim.Event]) -> None:
    """Without its syncs the same log must lose something, or the campaign would prove nothing."""
    liar = [event for event in log if event.kind not in (shim.SYNC, shim.SYNC_FOLDER)]
    assert powercut.replay(liar, cuts=30, seed=7)["lost or wrong"] > 3


def test_kills_lose_nothing() -> None:
    result = kill.batch(seed=7, n=1)
    assert result["found"] == []
    assert result["kills"] == len(world.OPERATIONS) + 1


@needs_compiler
def test_faults_of_system_calls_lose_nothing() -> None:
    result = faults.batch(seed=7, n=3)
    assert result["found"] == []
    assert result["outcomes"]["refused"] > 3


def test_flipped_bits_are_noticed() -> None:
    result = bitflip.batch(seed=7, n=12)
    assert result["lost or wrong"] == 0
    kinds = result["by kind of file"]
    assert set(bitflip.KINDS) <= set(kinds)
    assert kinds["network"] == {"refused": 12}
    assert kinds["manifest"].get("refused", 0) > 6


def test_hostile_input_is_refused_or_answered_right() -> None:
    result = fuzz.batch(seed=7, n=25)
    assert result["found"] == []
    assert {counts["mutants"] for counts in result["by door"].values()} == {25}


def test_a_death_and_a_wrong_answer_would_be_counted() -> None:
    def fragile(folder: Path) -> Attempt:
        def attempt(rng: np.random.Generator) -> str:
            kind = int(rng.integers(3))
            if kind == 0:
                import ctypes

                ctypes.string_at(0)
            if kind == 1:
                raise KeyError("not of our tree")
            return "wrong answers: for the test"

        return attempt

    counts, found = fuzz.door("fragile", fragile, seed=1, n=12)
    assert counts["process deaths"] > 0
    assert counts["unexpected"] > 0
    assert counts["process deaths"] + counts["unexpected"] + counts["wrong answers"] == 12 == len(found)


def test_bombs_are_refused_in_little_memory() -> None:
    result = bombs.batch(seed=0, n=1)
    assert result["found"] == []
    assert 0 < result["most MB of one"] <= bombs.MOST_MB


@pytest.mark.parametrize("pixels", ["10900 x 10900, all rows there", "119000000 x 1"])
def test_a_huge_picture_in_a_tiny_file_is_refused_by_its_density(pixels: str) -> None:
    width, height = (10900, 10900) if pixels.startswith("10900") else (119_000_000, 1)
    with pytest.raises(ImageTooLargeError, match=r"million pixels in \d+ bytes"):
        load_image(bombs.png(width, height, rows=1))
    assert load_image(bombs.png(2000, 2000, rows=2000)).size == (2000, 2000)  # an ordinary black photo


def test_readers_see_whole_and_fresh_pairs_only() -> None:
    result = concurrency.batch(seed=7, n=1600)
    assert result["lost or wrong"] == 0
    assert result["n"] == 1600
    assert result["most bytes of the log"] <= 16 << 20


def test_memory_does_not_grow_in_the_short_form() -> None:
    result = growth.batch(seed=0, n=60)
    assert len(result["series"]) >= 20
    assert result["lost or wrong"] == 0


def test_a_minute_of_a_kiosk_in_two_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(longrun, "EVERY", 0.5)
    result = longrun.campaign(seconds=2.0, frames_per_second=20)
    assert result["problems"] == []
    assert result["frames"] > 3


def test_sums_of_batches_can_be_taken_up_again(tmp_path: Path) -> None:
    keep = tmp_path / "sums.json"
    first = campaigns.run("bombs", 1, 0.0, keep=keep)
    assert first["n"] == 0  # no time, nothing done
    assert campaigns.merge({"a": 1, "most b": 5, "c": {"d": 1}}, {"a": 2, "most b": 3, "c": {"d": 1, "e": 1}}) == {
        "a": 3,
        "most b": 5,
        "c": {"d": 2, "e": 1},
    }


def test_graphs_answer_alike_while_threads_ask_for_more_neighbours() -> None:
    """How far hnswlib looks is one number for all its threads: an answer must not depend on what the others ask."""
    rng = np.random.default_rng(0)
    centroids = rng.normal(size=(2000, 16)).astype(np.float32)
    queries = rng.normal(size=(50, 16)).astype(np.float32)
    index = CoarseIndex(centroids, method="graph")
    alone = {P: index.assign(queries, P)[0] for P in (1, 4, 16)}
    for P, words in alone.items():  # approximate, but never garbage
        exact = CoarseIndex(centroids, method="exact").assign(queries, P)[0]
        assert np.mean([len(set(a) & set(b)) / P for a, b in zip(words.tolist(), exact.tolist(), strict=True)]) > 0.9
    same: list[bool] = []

    def ask(P: int) -> None:
        for _ in range(20):
            same.append(bool((index.assign(queries, P)[0] == alone[P]).all()))

    threads = [threading.Thread(target=ask, args=(P,)) for P in (1, 4, 16, 1, 4, 16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert same == [True] * 120


def test_a_clock_that_jumps_back_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "places.db"
    with Store.open(path, bundle_id="b", layout=world.layout()) as store:
        store.add(world.new_image(1, "a", "x"))
        before = store.revision()
        monkeypatch.setattr(time, "time", lambda: 1.0)
        store.add(world.new_image(2, "b", "y"))
        store.relabel("a", "z")
        assert store.revision() == before + 2
        assert [image.name for image in store.images()] == ["a", "b"]
        assert store.verify() == []


STARVED = """
import resource, sys
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from delf_edge.errors import DelfEdgeError
from delf_edge.storage.store import Store
from reliability import world
images = [world.new_image(i, f"p{i}", "x") for i in range(40)]
big = [world.new_image(i, f"q{i}", "x") for i in range(40, 80)]
object.__setattr__(big[0], "thumbnail", bytes(60 << 20))
with Store.open(sys.argv[1], bundle_id=world.bundle().id, layout=world.layout()) as store:
    store.add_many(images)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * 4096
    resource.setrlimit(resource.RLIMIT_AS, (used + (20 << 20), resource.RLIM_INFINITY))
    try:
        store.add_many(big)
    except (MemoryError, DelfEdgeError) as e:
        print(type(e).__name__)
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert len(store) == 40, len(store)
    object.__setattr__(big[0], "thumbnail", None)
    store.add_many(big)
    assert len(store) == 80 and store.verify() == []
"""


def test_out_of_memory_stores_nothing_and_the_next_call_works(tmp_path: Path) -> None:
    command = [sys.executable, "-c", STARVED, str(tmp_path / "places.db"), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip() in ("MemoryError", "StoreError")


def test_the_threat_model_has_the_figures_that_were_recorded() -> None:
    results = json.loads(campaigns.RESULTS.read_text(encoding="utf-8"))
    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    assert report.table(results) in text, "python -m reliability.report prints the table"


def test_the_long_run_is_drawn_from_its_record(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="draws")
    longrun_record = json.loads(campaigns.RESULTS.read_text(encoding="utf-8"))["longrun"]
    picture = plots.draw(longrun_record, tmp_path / "p.png").read_bytes()
    assert load_image(picture).size[0] > 900
