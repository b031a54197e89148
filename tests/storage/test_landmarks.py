"""Landmarks: removed, renamed, merged, placed; names in either Unicode form."""

from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import Any

import pytest

from delf_edge.errors import NotFoundError, OptionError
from delf_edge.storage.names import renamed_since
from delf_edge.storage.records import Landmark, NewImage
from delf_edge.storage.store import Store
from testing.stores import new_image, open_store

NFC, NFD = (unicodedata.normalize(form, "Plaza de España/Café.jpg") for form in ("NFC", "NFD"))


@pytest.fixture
def store(tmp_path: Path) -> Any:
    with open_store(tmp_path / "places.db") as store:
        store.add_many(new_image(i) for i in range(8))  # 0 to 3 show "place 0", 4 to 7 "place 1"
        yield store
        assert store.verify() == []


def landmarks(store: Store) -> dict[str, Landmark]:
    return {landmark.name: landmark for landmark in store.landmarks()}


def test_a_landmark_goes_with_its_images_and_coordinates(store: Store) -> None:
    store.set_landmark("place 0", metadata={"a": 1}, latitude=1.0, longitude=2.0)
    assert len(store.remove_landmark("place 0")) == 4
    assert set(landmarks(store)) == {"place 1"}
    assert len(store) == 4
    with pytest.raises(NotFoundError, match="place 0"):
        store.remove_landmark("place 0")


def test_an_empty_landmark_can_be_removed(store: Store) -> None:
    store.set_landmark("nowhere yet", latitude=1.0, longitude=2.0)
    assert store.remove_landmark("nowhere yet") == []
    assert "nowhere yet" not in landmarks(store)


def test_a_landmark_gets_another_name(store: Store) -> None:
    store.set_landmark("place 0", metadata={"a": 1}, latitude=1.0, longitude=2.0)
    before, ids = landmarks(store)["place 0"].landmark_id, store.image_ids("place 0")
    assert store.rename_landmark("place 0", "Petra, Jordan") == before
    renamed = store.landmark("Petra, Jordan")
    assert (renamed.latitude, renamed.longitude, renamed.n_images) == (1.0, 2.0, 4)
    assert renamed.metadata == {"a": 1, "indexed_as": ["place 0"]}
    assert store.image_ids("Petra, Jordan") == ids
    store.rename_landmark("Petra, Jordan", "Petra")
    assert store.landmark("Petra").metadata["indexed_as"] == ["Petra, Jordan", "place 0"]
    store.rename_landmark("Petra", "place 0")
    assert store.landmark("place 0").metadata["indexed_as"] == ["Petra", "Petra, Jordan"]


def test_two_landmarks_are_merged_only_when_asked(store: Store) -> None:
    store.set_landmark("place 0", metadata={"a": 1, "b": 1}, latitude=1.0, longitude=2.0)
    store.set_landmark("place 1", metadata={"b": 2})
    with pytest.raises(OptionError, match="merge"):
        store.rename_landmark("place 0", "place 1")
    assert len(landmarks(store)) == 2
    revision = store.revision()
    store.rename_landmark("place 0", "place 1", merge=True)
    (merged,) = store.landmarks()
    assert (merged.n_images, merged.latitude, merged.longitude) == (8, 1.0, 2.0)
    assert merged.metadata == {"a": 1, "b": 2, "indexed_as": ["place 0"]}
    assert store.changes(revision).updated == (1, 2, 3, 4)  # an open reader takes them up


def test_the_coordinates_of_the_one_that_stays_stay(store: Store) -> None:
    for name, latitude in (("place 0", 1.0), ("place 1", 5.0)):
        store.set_landmark(name, latitude=latitude, longitude=2.0)
    store.rename_landmark("place 0", "place 1", merge=True)
    assert store.landmark("place 1").latitude == 5.0


def test_coordinates_are_taken_away(store: Store) -> None:
    store.set_landmark("place 0", metadata={"a": 1}, latitude=1.0, longitude=2.0)
    store.locate("place 0")
    assert store.landmark("place 0").latitude is None
    assert store.landmark("place 0").metadata["a"] == 1
    store.locate("place 0", 3.0, 4.0)
    assert store.landmark("place 0").longitude == 4.0
    for latitude, longitude in ((3.0, None), (91.0, 0.0), (float("nan"), 0.0)):
        with pytest.raises(OptionError):
            store.locate("place 0", latitude, longitude)
    with pytest.raises(NotFoundError):
        store.locate("nowhere", 1.0, 2.0)


def test_a_correction_by_hand_says_what_it_corrects(store: Store) -> None:
    store.relabel("0.jpg", "place 1")
    store.relabel("0.jpg", "elsewhere")
    assert store.image("0.jpg").metadata["indexed_as"] == "place 0"
    store.relabel("1.jpg", "place 0")
    assert "indexed_as" not in store.image("1.jpg").metadata


def test_both_unicode_forms_are_one_name(store: Store) -> None:
    store.add(new_image(20, name=NFD, landmark=NFD))
    assert store.image(NFC) == store.image(NFD)
    assert (store.image(NFC).name, store.image(NFC).landmark) == (NFC, NFC)
    store.add(new_image(21, landmark=NFC))
    assert store.image_ids(NFC) == store.image_ids(NFD)
    assert len(store.image_ids(NFC)) == 2
    store.locate(NFD, 1.0, 2.0)
    assert store.landmark(NFC).latitude == 1.0
    assert store.has_name(NFD)
    store.remove(NFD)
    store.remove_landmark(NFD)
    assert NFC not in landmarks(store)


def test_a_name_that_an_old_version_stored_in_the_other_form_is_found(store: Store) -> None:
    store.write_rows({"landmarks": [(50, NFD, "{}", 1.0, 2.0, 1)]})  # names went in as they were
    assert store.landmark(NFC).landmark_id == 50
    store.add(new_image(20, landmark=NFC))
    assert store.image("20.jpg").landmark == NFD
    store.rename_landmark(NFD, NFC)
    assert store.landmark(NFC).name == NFC


@pytest.mark.parametrize("name", ["", " ", "\n\t", 6347, 1.5, True, b"bytes", None])
def test_what_is_no_name_is_refused(store: Store, name: Any) -> None:
    for image in (new_image(30, name=name), new_image(30, landmark=name)):
        with pytest.raises(OptionError, match=r"name|landmark"):
            store.add(image)
    with pytest.raises(OptionError):
        store.relabel("1.jpg", name)
    with pytest.raises(OptionError):
        store.set_landmark(name)
    with pytest.raises(OptionError):
        store.rename_landmark("place 0", name)
    assert len(store) == 8


def test_half_a_surrogate_is_refused(store: Store) -> None:
    image: NewImage = new_image(30, name="\udcff.jpg")
    with pytest.raises(OptionError, match="no Unicode"):
        store.add(image)


def test_what_was_renamed_since_an_export() -> None:
    there = [("A", {}), ("B", {"indexed_as": ["Z"]})]
    assert renamed_since(there, there) == {}
    assert renamed_since([("C", {"indexed_as": ["A"]}), *there[1:]], there) == {"A": "C"}
    assert renamed_since([("C", {"indexed_as": ["B", "Z"]})], there) == {"B": "C"}  # Z was no name of it any more
    assert renamed_since([("C", {"indexed_as": ["Z"]}), *there], there) == {"Z": "C"}
    assert renamed_since([("A", {}), ("C", {"indexed_as": ["A"]})], there) == {}  # another has the name now
    assert renamed_since([("C", {"indexed_as": "A"}), ("D", {"indexed_as": [1, " "]})], there) == {}
