"""What people do, briefly (hours of it: `python -m reliability habits`); and that the model would notice a loss."""

from __future__ import annotations

from pathlib import Path

import pytest

from delf_edge.storage.store import Store
from reliability import habits, world
from reliability.habits import Person


@pytest.fixture
def person(tmp_path: Path) -> Person:
    someone = Person(tmp_path)
    for number, path in enumerate(("cardA/Petra/1.png", "cardA/Petra/2.png", "cardA/Colosseum/1.png")):
        someone.put(path, number)
    someone.index("cardA", None)
    return someone


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
    ran = habits.Ran(("index",), 0, '{"failed": [], "unchanged": 3, "images": 2}', "")
    with pytest.raises(AssertionError, match="a photo is not in"):
        person.check_index(ran, person.below("cardA"), None, before, habits.content(person.database))
