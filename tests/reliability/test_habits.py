"""What people do, briefly (hours of it: `python -m reliability habits`); and that the model would notice a loss."""

from __future__ import annotations

import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis.errors import Flaky

from delf_edge.storage.store import Store
from reliability import habits, world
from reliability.habits import Person


@pytest.fixture
def person() -> Iterator[Person]:
    folder = Path(tempfile.mkdtemp())  # nobody else may look into pytest's own
    someone = Person(folder)
    for number, path in enumerate(("cardA/Petra/1.png", "cardA/Petra/2.png", "cardA/Colosseum/1.png")):
        someone.put(path, number)
    someone.index("cardA", None)
    yield someone
    someone.end()
    shutil.rmtree(folder)


def test_what_people_do_loses_nothing() -> None:
    assert habits.live(2 * habits.STEPS, seed=0, shorten=False) > 0


def test_a_day_of_a_person(person: Person) -> None:
    person.locate("Petra", (30.3, 35.4))
    person.relabel("Petra/1.png", "Colosseum")
    person.index("cardA", None)
    person.finish("seal", "sealed.db")
    person.finish("pack", "cut.pack")
    person.try_to_change("sealed.db", ("relabel", "Petra/1.png", "y"))
    person.explain("cardA/Petra/1.png", "cardA/Petra/1.png")
    person.move("cardA/Petra/2.png", "cardB/Petra/2.png")
    person.delete("cardA/Colosseum/1.png")
    person.index("cardB", None)
    person.add("cardB/Petra/2.png", "Petra")
    person.ask("info")
    person.ask("verify")
    person.remove("Petra/1.png")
    person.remove_landmark("Petra")


def test_a_day_with_others(person: Person) -> None:
    """Texts, names and copies; another user, the service, and kills in between."""
    person.describe("Petra", "en", "The rose city")
    person.locate("Petra", (30.3, 35.4))
    person.rename("Petra", "Colosseum")
    person.export()
    person.rename("Petra", "Eiffel Tower")
    person.import_()
    person.rename("Eiffel Tower", "Colosseum", "--merge")
    person.index("cardA", None)
    person.finish("seal", "sealed.db")
    for name in ("places.db", "sealed.db"):
        for words in (("info",), ("verify",), ("relabel", "x", "y")):
            person.stranger(name, words, 0o755)
    person.delete("cardA/Petra/1.png")
    person.index("cardA", None, "--prune")
    person.remove("Petra/2.png")
    person.index("cardA", None, "--skip-removed")
    person.index("cardA", None)
    person.killed("index", "cardA", milliseconds=5)
    person.killed("relabel", "Petra/2.png", "Petra", milliseconds=3)
    person.serve()
    person.ask_service("cardA/Petra/2.png", "Petra", "Colosseum/1.png")
    person.relabel("Petra/2.png", "Colosseum")
    person.ask_service("cardA/Petra/2.png", "Petra", "new.png")
    person.stop(signal.SIGKILL)
    person.ask("verify")


def test_a_changed_photo_a_lost_image_and_a_changed_sealed_file_are_noticed(person: Person) -> None:
    person.finish("seal", "sealed.db")
    with (person.folder / "sealed.db").open("ab") as file:
        file.write(b"x")
    with pytest.raises(AssertionError, match=r"sealed\.db has changed"):
        person.ask("info")
    person.finished.clear()
    (person.folder / "cardA/Petra/1.png").write_bytes(world.photo(9))
    with pytest.raises(AssertionError, match=r"1\.png has changed"):
        person.ask("info")
    person.put("cardA/Petra/1.png", 0)
    before = habits.content(person.database)
    with Store.open(person.database) as store:
        store.remove("Petra/1.png")
    told = '{"failed": [], "unchanged": 3, "images": 2, "pruned": [], "skipped_removed": []}'
    ran = habits.Ran(("index",), 0, told, "")
    with pytest.raises(AssertionError, match="a photo is not in"):
        person.check_index(ran, person.below("cardA"), None, before, habits.content(person.database))


@pytest.mark.parametrize(
    ("error", "found"),
    [
        (AssertionError("lost"), ["seed 7: lost"]),
        (ExceptionGroup("two", [AssertionError("lost"), AssertionError("wrong")]), ["seed 7: lost", "seed 7: wrong"]),
        (Flaky("gave up"), []),
    ],
)
def test_a_batch_says_what_failed(error: Exception, found: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def live(*_: object) -> None:
        habits.Habits.steps += 3
        raise error

    monkeypatch.setattr(habits, "live", live)
    told = habits.batch(7, 400)
    assert told["found"] == found
    assert told["lost or wrong"] == len(found)
    assert (told["given up"], told["n"]) == ((0, 400) if found else (1, 3))


def test_what_failed_before_hypothesis_gave_up_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def live(*_: object) -> None:
        try:
            raise AssertionError("lost")
        except AssertionError:
            raise Flaky("gave up") from None

    monkeypatch.setattr(habits, "live", live)
    assert habits.batch(7, 400)["found"] == ["seed 7: lost"]


def test_another_error_ends_the_campaign(monkeypatch: pytest.MonkeyPatch) -> None:
    def live(*_: object) -> None:
        raise OSError("no space")

    monkeypatch.setattr(habits, "live", live)
    with pytest.raises(OSError, match="no space"):
        habits.batch(7, 400)
