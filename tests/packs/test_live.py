"""A running recogniser takes up packs that are switched: whole answers, old files closed, failures without harm."""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from delf_edge import Bundle, Recognizer
from delf_edge.files import write_atomically
from delf_edge.packs import live as module
from delf_edge.packs.create import cut_pack
from delf_edge.packs.installed import go_back, switch
from delf_edge.packs.live import PointerStates
from delf_edge.packs.manifest import manifest_path
from delf_edge.storage.combined import CombinedStore
from delf_edge.storage.store import Store
from testing.paths import TINY_BUNDLE
from testing.synthetic_database import add_images, features_of, make_database

KEPT, GONE, NEW = 11, 12, 200  # images that both versions have, that only the first one has, and only the second one


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return Bundle.load(TINY_BUNDLE)


@pytest.fixture
def packs(tmp_path: Path, bundle: Bundle) -> Path:
    """Versions 1 (in use) and 2 of the pack `a`, and of `b` one version: images 300 to 309."""
    folder = tmp_path / "packs"
    country = make_database(tmp_path / "country.db", bundle, n_images=30)
    cut(country, folder, "a", 1)
    with Store.open(country) as store:
        store.remove(f"{GONE}.jpg")
        add_images(store, bundle, [NEW])
    cut(country, folder, "a", 2)
    other = tmp_path / "other.db"
    with Recognizer.open(other, bundle=bundle) as recognizer:
        add_images(recognizer.store, bundle, range(300, 310))
    cut(other, folder, "b", 1)
    switch(folder, "b", folder / "b" / "1.pack")
    switch_to(folder, 1)
    return folder


def cut(database: Path, folder: Path, name: str, version: int) -> None:
    (folder / name).mkdir(parents=True, exist_ok=True)
    with Store.open(database, mode="ro") as store:
        cut_pack(store, folder / name / f"{version}.pack", name=name, version=version)


def switch_to(folder: Path, version: int) -> None:
    """As `installed.switch`, but versions that are not in use stay: the tests go to and fro."""
    pointer = {"current": f"{version}.pack", "previous": None}
    write_atomically(folder / "a" / "current.json", json.dumps(pointer).encode())


@pytest.fixture
def recognizer(packs: Path, bundle: Bundle, tmp_path: Path) -> Iterator[Recognizer]:
    with Recognizer.open(tmp_path / "own.db", bundle=bundle, packs=[packs]) as opened:
        add_images(opened.store, bundle, range(400, 405))
        yield opened


def best(recognizer: Recognizer, seed: int) -> str:
    return recognizer.rank(features_of(recognizer, seed), 1)[0].name


def open_files(folder: Path) -> set[str]:
    """Packs that this process has open."""
    found = set()
    for link in Path("/proc/self/fd").iterdir():
        try:
            target = os.readlink(link)
        except OSError:
            continue
        if target.startswith(str(folder)) and ".pack" in target:
            found.add(str(Path(target.removesuffix(" (deleted)")).relative_to(folder)))
    return found


def seen(recognizer: Recognizer) -> tuple[bool, bool]:
    """Whether the image that only the first version has is found, and the one of the second."""
    return best(recognizer, GONE) == f"{GONE}.jpg", best(recognizer, NEW) == f"{NEW}.jpg"


def test_a_switch_is_taken_up_and_the_old_file_closed(recognizer: Recognizer, packs: Path) -> None:
    assert seen(recognizer) == (True, False)
    of_b, own = best(recognizer, 305), best(recognizer, 402)
    numbers = {image.name: image.image_id for image in recognizer.combined.images()}
    switch_to(packs, 2)
    recognizer.refresh_packs()
    assert seen(recognizer) == (False, True)
    assert (best(recognizer, 305), best(recognizer, 402), best(recognizer, KEPT)) == (of_b, own, f"{KEPT}.jpg")
    assert open_files(packs) == {"a/2.pack", "b/1.pack"}
    assert (recognizer.pack_switches, recognizer.pack_problems) == (1, ())
    again = {image.name: image.image_id for image in recognizer.combined.images()}
    assert {name: again[name] for name in numbers if name in again} == {n: i for n, i in numbers.items() if n in again}
    assert recognizer.pipeline.index.n_images == len(recognizer.combined) == len(again)
    recognizer.refresh_packs()
    assert recognizer.pack_switches == 1


def test_a_query_sees_it_by_itself(recognizer: Recognizer, packs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "POLL", 0.0)
    assert seen(recognizer) == (True, False)
    switch_to(packs, 2)
    waiting = threading.Event()
    for _ in range(600):
        if recognizer.pack_switches:
            break
        best(recognizer, KEPT)
        waiting.wait(0.05)
    assert seen(recognizer) == (False, True)


def test_the_folders_are_not_looked_at_more_than_once_a_second(
    recognizer: Recognizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[Sequence[Path]] = []
    real = module.pointer_states

    def counted(folders: Sequence[Path]) -> PointerStates:
        looks.append(folders)
        return real(folders)

    monkeypatch.setattr(module, "pointer_states", counted)
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    for _ in range(20):
        now[0] += 0.3
        best(recognizer, KEPT)
    assert 5 <= len(looks) <= 6


def test_a_query_under_way_keeps_its_packs(recognizer: Recognizer, packs: Path) -> None:
    with recognizer.steady() as before:
        switch_to(packs, 2)
        other = threading.Thread(target=recognizer.refresh_packs)
        other.start()
        other.join()
        assert recognizer.combined is before
        assert seen(recognizer) == (True, False)  # this thread still
        assert open_files(packs) == {"a/1.pack", "a/2.pack", "b/1.pack"}
        with recognizer.steady() as inner:
            assert inner is before
    assert seen(recognizer) == (False, True)
    assert open_files(packs) == {"a/2.pack", "b/1.pack"}


def test_many_threads_see_the_old_or_the_new(recognizer: Recognizer, packs: Path) -> None:
    answers: list[tuple[bool, bool]] = []
    failures: list[BaseException] = []
    done = threading.Event()

    def ask() -> None:
        try:
            while not done.is_set():
                with recognizer.steady():
                    answers.append(seen(recognizer))
        except BaseException as e:
            failures.append(e)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for i in range(12):
        switch_to(packs, 2 - i % 2)
        recognizer.refresh_packs()
    done.set()
    for thread in threads:
        thread.join()
    assert failures == []
    assert recognizer.pack_switches == 12
    assert set(answers) <= {(True, False), (False, True)}
    assert len(answers) >= len(threads)
    assert open_files(packs) == {"a/1.pack", "b/1.pack"}


def test_what_cannot_be_opened_changes_nothing(
    recognizer: Recognizer, packs: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    sound = (packs / "a" / "2.pack").read_bytes()
    (packs / "a" / "2.pack").write_bytes(sound[:-1])
    switch_to(packs, 2)
    with caplog.at_level(logging.WARNING):
        recognizer.refresh_packs()
    assert seen(recognizer) == (True, False)
    assert len(recognizer.pack_problems) == 1
    assert "2.pack" in recognizer.pack_problems[0]
    assert "going on without it" in caplog.text
    recognizer.refresh_packs()  # nothing has moved: not tried again yet
    assert len(caplog.records) == 1
    (packs / "a" / "2.pack").write_bytes(sound)
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 61)
    recognizer.refresh_packs()
    assert seen(recognizer) == (False, True)
    assert not recognizer.pack_problems


def test_a_foreign_pack_and_a_failing_index_change_nothing(
    recognizer: Recognizer, packs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    switch_to(packs, 2)

    def fails(*_: object) -> None:
        raise MemoryError("no room for a second index")

    with monkeypatch.context() as patch:
        patch.setattr(module, "CombinedStore", fails)
        recognizer.refresh_packs()
    assert recognizer.pack_problems == ("MemoryError: no room for a second index",)
    assert open_files(packs) == {"a/1.pack", "b/1.pack"}
    assert seen(recognizer) == (True, False)
    manifest_path(packs / "a" / "2.pack").unlink()
    switch_to(packs, 2)
    recognizer.refresh_packs()
    assert "manifest" in recognizer.pack_problems[0]
    assert seen(recognizer) == (True, False)


def test_a_pack_that_is_new_joins_and_ids_stay(
    recognizer: Recognizer, packs: Path, bundle: Bundle, tmp_path: Path
) -> None:
    ids = {image.name: image.image_id for image in recognizer.combined.images()}
    with Recognizer.open(tmp_path / "third.db", bundle=bundle) as third:
        add_images(third.store, bundle, range(500, 510))
    cut(tmp_path / "third.db", packs, "aa", 1)  # sorted between the two that are there
    switch(packs, "aa", packs / "aa" / "1.pack")
    recognizer.refresh_packs()
    assert best(recognizer, 505) == "505.jpg"
    now = {image.name: image.image_id for image in recognizer.combined.images()}
    assert {name: now[name] for name in ids} == ids
    assert now["505.jpg"] >> 40 == 3


def test_going_back_is_followed_and_a_version_that_is_gone_does_not_matter(
    recognizer: Recognizer, packs: Path, bundle: Bundle
) -> None:
    switch(packs, "a", packs / "a" / "2.pack")
    recognizer.refresh_packs()
    assert seen(recognizer) == (False, True)
    assert go_back(packs, "a") == packs / "a" / "1.pack"
    assert not (packs / "a" / "2.pack").exists()
    assert seen(recognizer) == (False, True)  # the file is gone, its content is still open
    recognizer.refresh_packs()
    assert seen(recognizer) == (True, False)


def test_a_pack_named_by_its_file_stays(packs: Path, bundle: Bundle, tmp_path: Path) -> None:
    with Recognizer.open(tmp_path / "own.db", bundle=bundle, packs=[packs / "a" / "1.pack"]) as recognizer:
        switch_to(packs, 2)
        recognizer.refresh_packs()
        assert seen(recognizer) == (True, False)


def test_closing_waits_for_a_pack_that_is_being_opened(
    recognizer: Recognizer, packs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    switch_to(packs, 2)
    opening, now = threading.Event(), time.monotonic()

    def slow(*stores: Any) -> CombinedStore:
        opening.set()
        time.sleep(0.3)
        return CombinedStore(*stores)

    monkeypatch.setattr(module, "CombinedStore", slow)
    monkeypatch.setattr(time, "monotonic", lambda: now + 61)
    best(recognizer, KEPT)  # a query looks after the folders, and another thread opens what is new
    assert opening.wait(60)
    recognizer.close()
    assert open_files(packs) == set()
    recognizer.close()
