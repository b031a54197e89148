"""`index` loses nothing: same names in other folders, moved and changed files, corrections, what is in the way."""

from __future__ import annotations

import json
import os
import shutil
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from delf_edge.storage.names import without_path
from delf_edge.storage.store import Store
from testing.command import Ran, run
from testing.paths import TINY_BUNDLE
from tests.fixtures.make_old_database import photo


class Desk:
    """A person's folder with photos, and a database."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.database = folder, folder / "p.db"

    def put(self, path: str, seed: int) -> Path:
        file = self.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(photo(seed))
        return file

    def index(self, folder: str, *options: str | Path, code: int = 0) -> dict[str, Any]:
        ran = self.run("index", self.database, self.folder / folder, "--bundle", TINY_BUNDLE, *options, "--json")
        assert ran.code == code, ran.err
        return {**ran.json, "err": ran.err}

    def run(self, *arguments: str | Path) -> Ran:
        return run(*arguments)

    def manifest(self, text: str) -> Path:
        path = self.folder / "list.csv"
        path.write_text(text)
        return path

    @property
    def stored(self) -> dict[str, str]:
        """Name -> landmark."""
        with Store.open(self.database, mode="ro") as store:
            assert store.verify() == []
            return {image.name: image.landmark for image in store.images()}

    @property
    def landmarks(self) -> dict[str, tuple[int, float | None]]:
        """Name -> number of images, latitude."""
        with Store.open(self.database, mode="ro") as store:
            return {landmark.name: (landmark.n_images, landmark.latitude) for landmark in store.landmarks()}


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def counts(report: dict[str, Any]) -> dict[str, int]:
    return {key: report[key] for key in ("added", "unchanged", "updated", "replaced") if report[key]}


# ---------------------------------------------------------------------- the same name, another file


def test_cards_whose_photos_have_the_same_names(desk: Desk) -> None:
    for seed, (card, landmark) in enumerate((("cardA", "Colosseum"), ("cardB", "Eiffel Tower"), ("x/cardB", "Petra"))):
        desk.put(f"{card}/DSC_0001.bmp", seed)
        assert counts(desk.index(card, "--landmark", landmark)) == {"added": 1}
    kept = {
        "DSC_0001.bmp": "Colosseum",
        "cardB/DSC_0001.bmp": "Eiffel Tower",
        "cardB/DSC_0001 (2).bmp": "Petra",
    }
    assert desk.stored == kept
    for card, landmark in (("cardA", "Colosseum"), ("cardB", "Eiffel Tower"), ("x/cardB", "Petra")):
        assert counts(desk.index(card, "--landmark", landmark)) == {"unchanged": 1}
    assert desk.stored == kept


def test_years_whose_folders_have_the_same_names(desk: Desk) -> None:
    for seed, year in enumerate(("trip2019", "trip2024")):
        desk.put(f"{year}/Paris/IMG_0001.bmp", seed)
        assert counts(desk.index(year)) == {"added": 1}
    assert desk.stored == {"Paris/IMG_0001.bmp": "Paris", "trip2024/Paris/IMG_0001.bmp": "Paris"}
    desk.put("trip2024/Paris/IMG_0001.bmp", 7)  # edited
    assert counts(desk.index("trip2024")) == {"replaced": 1}
    assert counts(desk.index("trip2019")) == {"unchanged": 1}
    assert len(desk.stored) == 2


def test_the_next_card_in_the_same_reader(desk: Desk) -> None:
    desk.put("card/DSC_0001.bmp", 1)
    desk.index("card", "--landmark", "Colosseum")
    desk.put("card/DSC_0001.bmp", 2)
    assert counts(desk.index("card", "--landmark", "Petra")) == {"added": 1}
    assert sorted(desk.stored.values()) == ["Colosseum", "Petra"]
    assert counts(desk.index("card", "--landmark", "Petra")) == {"unchanged": 1}


def test_a_changed_file_replaces_its_image(desk: Desk) -> None:
    desk.put("photos/Paris/a.bmp", 1)
    desk.index("photos")
    desk.put("photos/Paris/a.bmp", 2)
    assert counts(desk.index("photos")) == {"replaced": 1}
    assert desk.stored == {"Paris/a.bmp": "Paris"}


def test_a_name_that_a_table_gives_twice(desk: Desk) -> None:
    for seed in range(3):
        desk.put(f"photos/{seed}.bmp", seed)
    table = desk.manifest("path,landmark,name\n0.bmp,A,x\n1.bmp,B,x\n2.bmp,C,y\n")
    for done in ({"added": 2}, {"unchanged": 2}):
        report = desk.index("photos", "--manifest", table, code=1)
        assert counts(report) == done
        (failure,) = report["failed"]
        assert failure["name"] == "x"
        assert "0.bmp" in failure["error"]
        assert desk.stored == {"x": "A", "y": "C"}


def test_a_photo_that_was_added_by_hand_is_not_replaced(desk: Desk) -> None:
    from delf_edge import Recognizer

    with Recognizer.open(desk.database, bundle=TINY_BUNDLE) as recognizer:
        recognizer.add(photo(1), landmark="kiosk", name="Paris/a.bmp")
        recognizer.add(photo(3), landmark="kiosk", name="mine")
    desk.put("photos/Paris/a.bmp", 2)
    desk.put("photos/Paris/b.bmp", 3)
    report = desk.index("photos")
    assert desk.stored == {"Paris/a.bmp": "kiosk", "photos/Paris/a.bmp": "Paris", "mine": "kiosk"}
    assert "mine" in report["err"]
    assert counts(desk.index("photos")) == {"unchanged": 2}


# ---------------------------------------------------------------------- files that move


def test_a_renamed_file_takes_its_image_along(desk: Desk) -> None:
    a = desk.put("photos/Paris/a.bmp", 1)
    desk.index("photos")
    a.rename(a.with_name("b.bmp"))
    assert counts(desk.index("photos")) == {"updated": 1}
    assert desk.stored == {"Paris/b.bmp": "Paris"}
    desk.put("photos/Paris/a.bmp", 2)
    assert counts(desk.index("photos")) == {"added": 1, "unchanged": 1}


def test_a_file_in_the_place_of_a_renamed_one(desk: Desk) -> None:
    a = desk.put("photos/Paris/a.bmp", 1)
    desk.index("photos")
    desk.run("relabel", desk.database, "Paris/a.bmp", "Rome")
    a.rename(a.with_name("z.bmp"))
    desk.put("photos/Paris/a.bmp", 2)
    desk.index("photos")
    assert desk.stored == {"Paris/z.bmp": "Rome", "Paris/a.bmp": "Paris"}


def test_two_files_that_change_places(desk: Desk) -> None:
    desk.put("photos/Paris/a.bmp", 1)
    desk.put("photos/Paris/b.bmp", 2)
    desk.index("photos")
    desk.run("relabel", desk.database, "Paris/a.bmp", "Rome")
    desk.put("photos/Paris/a.bmp", 2)
    desk.put("photos/Paris/b.bmp", 1)
    desk.index("photos")
    assert sorted(desk.stored.values()) == ["Paris", "Rome"]
    assert counts(desk.index("photos")) == {"unchanged": 2}


def test_a_renamed_folder_keeps_its_coordinates(desk: Desk) -> None:
    for seed in range(3):
        desk.put(f"photos/Taj/{seed}.bmp", seed)
    desk.put("photos/Petra/9.bmp", 9)
    desk.index("photos")
    desk.run("locate", desk.database, "Taj", "--at", "27.17,78.04")
    (desk.folder / "photos" / "Taj").rename(desk.folder / "photos" / "Taj Mahal")
    assert counts(desk.index("photos")) == {"updated": 3, "unchanged": 1}
    assert desk.landmarks == {"Petra": (1, None), "Taj Mahal": (3, 27.17)}


def test_photos_that_go_to_a_known_place_leave_the_old_one(desk: Desk) -> None:
    a = desk.put("photos/Taj/a.bmp", 1)
    desk.put("photos/Petra/b.bmp", 2)
    desk.index("photos")
    desk.run("locate", desk.database, "Taj", "--at", "27.17,78.04")
    a.rename(desk.folder / "photos" / "Petra" / "a.bmp")
    assert "remove --landmark" in desk.index("photos")["err"]
    assert desk.landmarks == {"Petra": (2, None), "Taj": (0, 27.17)}
    assert desk.run("remove", desk.database, "--landmark", "Taj").code == 0
    assert desk.landmarks == {"Petra": (2, None)}


# ---------------------------------------------------------------------- what a person corrected


def test_a_relabelled_photo_stays(desk: Desk) -> None:
    desk.put("photos/Petra/photo.bmp", 1)
    desk.index("photos")
    assert desk.run("relabel", desk.database, "Petra/photo.bmp", "Petra, Jordan").code == 0
    assert desk.run("locate", desk.database, "Petra, Jordan", "--at", "30.3,35.4").code == 0
    for _ in range(2):
        report = desk.index("photos")
        assert counts(report) == {"unchanged": 1}
        assert report["kept"] == 1
        assert desk.landmarks == {"Petra, Jordan": (1, 30.3)}
    desk.put("photos/Petra/photo.bmp", 2)  # edited
    assert counts(desk.index("photos")) == {"replaced": 1}
    assert desk.stored == {"Petra/photo.bmp": "Petra, Jordan"}
    assert desk.run("remove", desk.database, "--landmark", "Petra, Jordan").code == 0
    assert desk.landmarks == {}


def test_a_table_that_says_something_new_is_heard(desk: Desk) -> None:
    desk.put("photos/a.bmp", 1)
    table = desk.manifest("path,landmark\na.bmp,A\n")
    desk.index("photos", "--manifest", table)
    desk.run("relabel", desk.database, "a.bmp", "B")
    desk.index("photos", "--manifest", table)
    assert desk.stored == {"a.bmp": "B"}
    report = desk.index("photos", "--manifest", desk.manifest("path,landmark\na.bmp,C\n"))
    assert desk.stored == {"a.bmp": "C"}
    assert "a.bmp: the table says C now, which replaces the B of `relabel`" in report["err"]


def test_one_name_for_a_folder_leaves_corrections(desk: Desk) -> None:
    desk.put("photos/A/a.bmp", 1)
    desk.put("photos/A/b.bmp", 2)
    desk.index("photos")
    desk.run("relabel", desk.database, "A/a.bmp", "B")
    report = desk.index("photos", "--landmark", "C")
    assert desk.stored == {"A/a.bmp": "B", "A/b.bmp": "C"}
    assert report["kept"] == 1


def test_what_a_program_says_of_a_photo_of_the_folder_stays(desk: Desk) -> None:
    from delf_edge import Recognizer

    file = desk.put("photos/A/a.bmp", 1)
    desk.index("photos")
    with Recognizer.open(desk.database, bundle=TINY_BUNDLE) as recognizer:
        recognizer.add(file, landmark="B", name="A/a.bmp")
    for name in ("A/a.bmp", "C/a.bmp"):
        (desk.folder / "photos/C").mkdir(exist_ok=True)
        file = file.rename(desk.folder / "photos" / name)
        assert desk.index("photos")["kept"] == 1
        assert desk.stored == {name: "B"}


def test_photos_that_were_removed_are_added_again_or_left_out(desk: Desk) -> None:
    for number in range(3):
        desk.put(f"photos/A/{number}.bmp", number)
    desk.index("photos")
    assert desk.run("remove", desk.database, "A/1.bmp").code == 0
    for _ in range(2):
        report = desk.index("photos", "--skip-removed")
        assert counts(report) == {"unchanged": 2}
        assert report["skipped_removed"] == ["A/1.bmp"]
        assert "left out, since removed before: A/1.bmp" in report["err"]
    report = desk.index("photos")
    assert counts(report) == {"added": 1, "unchanged": 2}
    assert report["added_again"] == ["A/1.bmp"]
    assert "--skip-removed" in report["err"]
    assert (
        desk.index("photos", "--skip-removed")["skipped_removed"] == []
    )  # it is in again, and nobody removed it since
    (desk.folder / "photos/A/2.bmp").unlink()
    assert desk.index("photos", "--prune")["pruned"] == ["A/2.bmp"]
    desk.put("photos/A/2.bmp", 2)  # it is back: nobody had removed it
    assert desk.index("photos", "--skip-removed")["added"] == 1
    assert desk.run("remove", desk.database, "--landmark", "A").code == 0
    lines = desk.run(
        "index", desk.database, desk.folder / "photos", "--bundle", TINY_BUNDLE, "--skip-removed", "--jsonl"
    )
    assert [json.loads(line).get("status") for line in lines.out.splitlines()] == ["skipped"] * 3 + [None]


def test_a_renamed_landmark_stays_and_gets_what_is_new(desk: Desk) -> None:
    desk.put("photos/Petra/1.bmp", 1)
    desk.index("photos")
    assert desk.run("rename", desk.database, "Petra", "Petra, Jordan").code == 0
    desk.put("photos/Petra/2.bmp", 2)
    assert counts(desk.index("photos")) == {"added": 1, "unchanged": 1}
    assert desk.landmarks == {"Petra, Jordan": (2, None)}
    desk.run("relabel", desk.database, "Petra/1.bmp", "Rome")
    desk.run("rename", desk.database, "Rome", "Roma")
    assert counts(desk.index("photos")) == {"unchanged": 2}
    assert desk.stored == {"Petra/1.bmp": "Roma", "Petra/2.bmp": "Petra, Jordan"}


def test_merging_is_asked_for(desk: Desk) -> None:
    desk.put("photos/Taj/1.bmp", 1)
    desk.put("photos/Taj Mahal/2.bmp", 2)
    desk.index("photos")
    assert desk.run("rename", desk.database, "Taj", "Taj Mahal").code == 2
    assert desk.run("rename", desk.database, "Taj", "Taj Mahal", "--merge", "--json").json["images"] == 2
    assert counts(desk.index("photos")) == {"unchanged": 2}
    assert desk.landmarks == {"Taj Mahal": (2, None)}
    assert desk.run("rename", desk.database, "nowhere", "x").code == 2


def test_coordinates_by_hand_stay(desk: Desk) -> None:
    desk.put("photos/a.bmp", 1)
    table = desk.manifest("path,landmark,lat,lon\na.bmp,A,1,2\n")
    desk.index("photos", "--manifest", table)
    assert desk.landmarks == {"A": (1, 1.0)}
    desk.run("locate", desk.database, "A", "--at", "5,6")
    assert "`locate`" in desk.index("photos", "--manifest", table)["err"]
    assert desk.landmarks == {"A": (1, 5.0)}
    assert desk.run("locate", desk.database, "A", "--clear", "--json").json["latitude"] is None
    desk.index("photos", "--manifest", table)
    assert desk.landmarks == {"A": (1, None)}
    assert desk.run("locate", desk.database, "A").code == 2
    assert desk.run("locate", desk.database, "A", "--at", "1,2", "--clear").code == 2


# ---------------------------------------------------------------------- the same photo twice


def test_the_same_photo_in_two_landmarks(desk: Desk) -> None:
    desk.put("photos/A/a.bmp", 1)
    desk.put("photos/B/b.bmp", 1)
    for done in ({"added": 1, "unchanged": 1}, {"unchanged": 2}):
        report = desk.index("photos")
        assert counts(report) == done
        assert "A/a.bmp" in report["err"]
        assert "B/b.bmp" in report["err"]
        assert len(report["warnings"]) == 1
        assert desk.stored == {"A/a.bmp": "A"}
    assert "A/a.bmp" in desk.index("photos/B", "--landmark", "C")["err"]
    assert desk.stored == {"A/a.bmp": "A"}


def test_a_copy_of_a_folder_changes_nothing(desk: Desk) -> None:
    desk.put("photos/A/a.bmp", 1)
    desk.index("photos")
    shutil.copytree(desk.folder / "photos", desk.folder / "backup")
    for folder in ("backup", "photos"):
        report = desk.index(folder)
        assert counts(report) == {"unchanged": 1}
        assert report["warnings"] == []


def test_columns_that_are_not_understood_are_named(desk: Desk) -> None:
    desk.put("photos/a.bmp", 1)
    table = desk.manifest('path,landmark,GPS Latitude,year\na.bmp,"Two\nlines",1,\n')
    told = "columns that are kept as metadata: GPS Latitude"
    report = desk.index("photos", "--manifest", table)
    assert report["warnings"] == [told]
    assert told in report["err"]
    assert desk.stored == {"a.bmp": "Two lines"}


def test_a_file_in_place_of_the_folder(desk: Desk) -> None:
    table = desk.manifest("path,landmark\na.bmp,A\n")
    assert "`--manifest list.csv`" in desk.index(table.name, code=2)["err"]
    assert "it is a file" in desk.index(desk.put("a.bmp", 1).name, code=2)["err"]
    assert not desk.database.exists()


def test_a_table_that_contradicts_itself(desk: Desk) -> None:
    desk.put("photos/a.bmp", 1)
    table = desk.manifest("path,landmark,lat,lon\na.bmp,A,1,2\na.bmp,B,1,2\na.bmp,A,3,4\n")
    for _ in range(2):
        report = desk.index("photos", "--manifest", table)
        assert len(report["warnings"]) == 2
        assert "(1.0, 2.0)" in report["err"]
        assert "(3.0, 4.0)" in report["err"]
        assert desk.landmarks == {"A": (1, 1.0)}


# ---------------------------------------------------------------------- what is in the way


def test_folders_of_systems_are_left_out(desk: Desk) -> None:
    desk.put("photos/Paris/a.bmp", 1)
    for folder in ("@eaDir", "#recycle", "$RECYCLE.BIN", "__MACOSX", "lost+found", ".thumbnails"):
        desk.put(f"photos/{folder}/x.bmp", 2)
        desk.put(f"photos/Paris/{folder}/y.bmp", 3)
    report = desk.index("photos")
    assert desk.stored == {"Paris/a.bmp": "Paris"}
    assert "@eaDir" in report["excluded"]


def test_patterns_and_levels(desk: Desk) -> None:
    desk.put("photos/France/Paris/Louvre/1.bmp", 1)
    desk.put("photos/France/Paris/Eiffel/2.bmp", 2)
    desk.put("photos/USA/Paris/3.bmp", 3)
    desk.put("photos/raw/x.bmp", 4)
    report = desk.index("photos", "--level", "2", "--exclude", "raw", "--exclude", "*/Eiffel")
    assert desk.stored == {"France/Paris/Louvre/1.bmp": "Paris", "USA/Paris/3.bmp": "Paris"}
    assert "France/Paris and USA/Paris" in report["err"]
    report = desk.index("photos", "--level", "-1", "--exclude", "raw/", "--dry-run")
    assert report["landmarks"] == {"Louvre": 1, "Eiffel": 1, "Paris": 1}
    assert desk.index("photos", "--level", "3", "--dry-run", code=1)["landmarks"] == {"Louvre": 1, "Eiffel": 1}
    assert desk.run("index", desk.database, desk.folder / "photos", "--level", "0").code == 2


def test_a_dry_run_changes_nothing(desk: Desk) -> None:
    desk.put("photos/Paris/a.bmp", 1)
    before = sorted(p.name for p in desk.folder.rglob("*"))
    ran = desk.run("index", desk.database, desk.folder / "photos", "--dry-run")
    assert ran.code == 0
    assert "1  Paris" in ran.out
    assert sorted(p.name for p in desk.folder.rglob("*")) == before


def test_photos_whose_file_is_gone(desk: Desk) -> None:
    gone = desk.put("photos/Paris/a.bmp", 1)
    desk.put("photos/Paris/b.bmp", 2)
    other = desk.put("elsewhere/Rome/c.bmp", 3)
    desk.index("photos")
    desk.index("elsewhere")
    assert desk.run("missing", desk.database).code == 0
    gone.unlink()
    other.unlink()
    ran = desk.run("missing", desk.database, "--json")
    assert ran.code == 1
    assert [row["name"] for row in ran.json["missing"]] == ["Paris/a.bmp", "Rome/c.bmp"]
    assert len(desk.stored) == 3
    desk.index("photos")
    assert len(desk.stored) == 3  # never unasked
    assert desk.index("photos", "--prune", "--dry-run")["pruned"] == ["Paris/a.bmp"]
    assert desk.index("photos", "--prune")["pruned"] == ["Paris/a.bmp"]
    assert desk.stored == {"Paris/b.bmp": "Paris", "Rome/c.bmp": "Rome"}


def test_a_photo_that_another_folder_still_holds_is_not_pruned(desk: Desk) -> None:
    first = desk.put("cardB/Petra/a.bmp", 1)
    desk.put("cardB/Petra/b.bmp", 2)
    copies = [desk.put(f"card{card}/Petra/a.bmp", 1) for card in "AC"]
    desk.index("cardB", "--thumbnails")
    for card in ("cardA", "cardC", "cardA"):
        assert counts(desk.index(card)) == {"unchanged": 1}
    desk.run("relabel", desk.database, "Petra/a.bmp", "Al-Khazneh")
    for gone in (first, copies[0]):
        gone.unlink()
        assert desk.run("missing", desk.database).code == 0
        assert desk.index("cardB", "--prune", "--dry-run")["pruned"] == []
        assert desk.index("cardB", "--prune")["pruned"] == []
        assert desk.stored == {"Petra/a.bmp": "Al-Khazneh", "Petra/b.bmp": "Petra"}
    with Store.open(desk.database, mode="ro") as store:
        assert store.thumbnail(store.image("Petra/a.bmp").image_id) is not None
    copies[1].unlink()
    assert [row["name"] for row in desk.run("missing", desk.database, "--json").json["missing"]] == ["Petra/a.bmp"]
    assert desk.index("cardB", "--prune")["pruned"] == ["Petra/a.bmp"]


def test_where_the_copies_lie_is_nobody_elses_business(desk: Desk) -> None:
    for card in "AB":
        desk.put(f"card{card}/Petra/a.bmp", 1)
        desk.index(f"card{card}")
    with Store.open(desk.database, mode="ro") as store:
        metadata = store.image("Petra/a.bmp").metadata
    assert without_path(metadata) == {}
    assert str(desk.folder / "cardB") in json.dumps(metadata)
    pack = desk.folder / "a.pack"
    assert desk.run("pack", desk.database, pack).code == 0
    assert b"card" not in pack.read_bytes()


def test_a_copy_that_shows_something_else_by_now_does_not_keep_an_image(desk: Desk) -> None:
    first, other = desk.put("cardB/Petra/a.bmp", 1), desk.put("cardA/Petra/a.bmp", 1)
    desk.put("cardB/Petra/b.bmp", 2)
    desk.index("cardB")
    desk.index("cardA")
    first.unlink()
    desk.put("cardA/Petra/a.bmp", 3)
    assert other.exists()
    assert desk.index("cardB", "--prune")["pruned"] == ["Petra/a.bmp"]


def test_what_a_program_added_is_not_pruned(desk: Desk) -> None:
    from delf_edge import Recognizer

    desk.put("cardA/Petra/b.bmp", 2)
    desk.index("cardA")
    file = desk.put("cardA/Petra/a.bmp", 1)
    with Recognizer.open(desk.database, bundle=TINY_BUNDLE) as recognizer:
        recognizer.add(file.read_bytes(), landmark="Petra", name="by a program")
    assert counts(desk.index("cardA")) == {"unchanged": 1, "updated": 1}
    file.unlink()
    assert desk.index("cardA", "--prune")["pruned"] == []
    assert desk.stored == {"Petra/b.bmp": "Petra", "by a program": "Petra"}
    assert desk.run("missing", desk.database).code == 0


def test_one_bad_entry_does_not_end_the_run(desk: Desk) -> None:
    desk.put("photos/Paris/a.bmp", 1)
    desk.put("photos/Rome/z.bmp", 2)
    (desk.folder / "photos" / "Paris" / "bad.jpg").write_bytes(b"no photo")
    name = os.fsencode(desk.folder / "photos" / "Paris") + b"/\xff\xfe.bmp"
    Path(os.fsdecode(name)).write_bytes(photo(3))
    folder = os.fsencode(desk.folder / "photos") + b"/\xff"
    Path(os.fsdecode(folder)).mkdir()
    Path(os.fsdecode(folder + b"/x.bmp")).write_bytes(photo(4))
    report = desk.index("photos", code=1)
    assert len(report["failed"]) == 3
    assert sorted(desk.stored.values()) == ["Paris", "Rome"]
    assert counts(desk.index("photos", code=1)) == {"unchanged": 2}


def test_a_folder_that_cannot_be_read(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.put("photos/A/a.bmp", 1)
    desk.put("photos/B/b.bmp", 2)
    real = os.scandir

    def refuse(path: str) -> Any:
        if str(path).endswith("/A"):
            raise PermissionError(13, "Permission denied", path)
        return real(path)

    monkeypatch.setattr(os, "scandir", refuse)
    report = desk.index("photos", "--prune", code=1)
    assert desk.stored == {"B/b.bmp": "B"}
    assert "A: " in report["err"]


def test_folders_far_down(desk: Desk) -> None:
    deep = desk.folder / "photos" / "Paris"
    deep.mkdir(parents=True)
    here = os.getcwd()
    try:
        os.chdir(deep)
        for _ in range(1500):
            os.mkdir("d")
            os.chdir("d")
        os.chdir(here)
        desk.put("photos/Paris/a.bmp", 1)
        report = desk.index("photos", code=0)
        assert desk.stored == {"Paris/a.bmp": "Paris"}
        assert report["failed"] == []
    finally:  # pytest's own clean-up goes down by recursion, and would fail
        os.chdir(deep)
        while os.path.isdir("d"):
            os.chdir("d")
        while not os.path.samefile(os.curdir, deep):
            os.chdir(os.pardir)
            os.rmdir("d")
        os.chdir(here)


def test_empty_names_are_mistakes(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.put("photos/Paris/a.bmp", 1)
    monkeypatch.chdir(desk.folder / "photos")
    assert desk.run("index", desk.database, "").code == 2
    for landmark in ("", "  "):
        assert desk.run("index", desk.database, ".", "--landmark", landmark).code == 2
    assert not desk.database.exists()


def test_accents_in_either_form_are_one_place(desk: Desk) -> None:
    nfc, nfd = (unicodedata.normalize(form, "Café") for form in ("NFC", "NFD"))
    desk.put(f"one/{nfc}/a.bmp", 1)
    desk.put(f"two/{nfd}/b.bmp", 2)
    desk.index("one")
    desk.index("two")
    assert desk.landmarks == {nfc: (2, None)}
    assert counts(desk.index("two")) == {"unchanged": 1}
    table = desk.manifest(f"path,landmark\n{nfc}/b.bmp,{nfc}\n")
    assert counts(desk.index("two", "--manifest", table)) == {"unchanged": 1}
    assert desk.run("remove", desk.database, "--landmark", nfd).code == 0


def test_json_lines_have_an_object_for_each_photo(desk: Desk) -> None:
    desk.put("photos/Paris/a.bmp", 1)
    desk.put("photos/loose.bmp", 2)
    desk.put("photos/Paris/movie.gif", 3)
    ran = desk.run("index", desk.database, desk.folder / "photos", "--bundle", TINY_BUNDLE, "--jsonl")
    assert ran.code == 1
    loose, added, report = map(json.loads, ran.out.splitlines())
    assert loose["name"] == "loose.bmp"
    assert (added["name"], added["status"], added["warning"]) == ("Paris/a.bmp", "added", None)
    assert report["passed_over"] == {".gif": 1}
    assert "1 .gif" in ran.err
