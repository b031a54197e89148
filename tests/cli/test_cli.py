"""The command line on real photographs and the built-in bundle: output, exit codes, and what is left behind."""

from __future__ import annotations

import dataclasses
import errno
import inspect
import io
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import typer.main

from delf_edge.bundle.bundle import Bundle, default_bundle_path
from delf_edge.bundle.manifest import bundle_id
from delf_edge.cli.main import app, main
from delf_edge.diagnostics.doctor import self_test
from delf_edge.errors import BundleError
from delf_edge.features.extractor import Extractor
from delf_edge.recognizer import Recognizer
from testing.paths import DEMO

LANDMARKS = ("Colosseum", "Mount Rushmore", "Petra", "Taj Mahal")
ALL: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
COMMANDS = {name: command for name, command in ALL.items() if not hasattr(command, "commands")}
COLOSSEUM = DEMO / "queries" / "colosseum.webp"


@dataclass(frozen=True)
class Ran:
    """What a command left: exit code and both outputs."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        value = json.loads(self.out)
        assert isinstance(value, dict)
        return value


def run(*arguments: str | Path) -> Ran:
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    code = ended.value.code
    assert isinstance(code, int)
    return Ran(code, out.getvalue(), err.getvalue())


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for landmark in LANDMARKS:
        shutil.copytree(DEMO / "references" / landmark, folder / landmark)
    return folder


@pytest.fixture(scope="module")
def indexed(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database of the four landmarks; tests that change it take `database`."""
    path = tmp_path_factory.mktemp("indexed") / "places.db"
    ran = run("index", path, photos, "--json")
    assert ran.code == 0, ran.err
    assert ran.json["added"] == len(LANDMARKS)
    return path


@pytest.fixture
def database(indexed: Path, tmp_path: Path) -> Path:
    path = tmp_path / "places.db"
    assert run("snapshot", indexed, path).code == 0
    return path


@pytest.fixture
def black(tmp_path: Path) -> Path:
    path = tmp_path / "black.png"
    path.write_bytes(cv2.imencode(".png", np.zeros((240, 320, 3), np.uint8))[1].tobytes())
    return path


@pytest.fixture
def truncated(tmp_path: Path) -> Path:
    path = tmp_path / "truncated.webp"
    path.write_bytes(COLOSSEUM.read_bytes()[:2000])
    return path


# ---------------------------------------------------------------------- help


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_and_option_has_help(name: str) -> None:
    command = COMMANDS[name]
    assert len(command.help.split()) >= 4
    for parameter in command.params:
        assert getattr(parameter, "help", None), f"{name}: {parameter.name} has no help"
    assert "--json" in {option for parameter in command.params for option in parameter.opts}
    ran = run(name, "--help")
    assert ran.code == 0
    assert "--json" in ran.out


def test_the_commands_are_those_of_the_contract() -> None:
    wanted = (
        "bench build doctor explain export fit-codebook identify import index info lint locate missing pack publish "
        "relabel remove rename seal serve snapshot update verify webapp"
    )
    assert " ".join(sorted(str(name) for name in COMMANDS)) == wanted


def test_help_loads_nothing_heavy() -> None:
    heavy = "{'numpy', 'cv2', 'ai_edge_litert', 'hnswlib'}"
    code = f"import sys, delf_edge.cli.main; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_defaults_are_those_of_the_library() -> None:
    def default(function: Any, name: str) -> object:
        return inspect.signature(function).parameters[name].default

    identify = COMMANDS["identify"].callback
    assert default(identify, "top") == default(Recognizer.identify, "top")
    assert default(identify, "threads") == default(Recognizer.open, "num_threads")


@pytest.mark.parametrize("arguments", ["", "identify", "nonsense", "info a.db --nonsense", "index a.db"])
def test_wrong_usage_is_exit_code_2(arguments: str) -> None:
    assert run(*arguments.split()).code == 2


# ---------------------------------------------------------------------- index


def test_index_again_adds_only_what_is_new(database: Path, photos: Path, tmp_path: Path) -> None:
    folder = tmp_path / "grown"
    shutil.copytree(photos, folder)
    shutil.copytree(DEMO / "references" / "Machu Picchu", folder / "Machu Picchu")
    assert run("index", database, folder).code == 0  # the files have moved: their path is written anew
    ran = run("index", database, folder, "--json")
    assert (ran.code, ran.json["added"], ran.json["unchanged"]) == (0, 0, 5)
    assert (ran.json["images"], ran.json["landmarks"], ran.json["failed"]) == (5, 5, [])


def test_a_bad_photo_is_one_line_and_not_the_end(tmp_path: Path, truncated: Path) -> None:
    folder = tmp_path / "mixed"
    (folder / "Colosseum").mkdir(parents=True)
    shutil.copy(truncated, folder / "Colosseum" / "a_truncated.webp")
    (folder / "Colosseum" / "b_empty.jpg").touch()
    (folder / "Colosseum" / "c_text.png").write_text("no photo")
    (folder / "Colosseum" / "notes.txt").write_text("passed over")
    shutil.copy(COLOSSEUM, folder / "Colosseum" / "d_good.webp")
    ran = run("index", tmp_path / "places.db", folder, "--json")
    assert ran.code == 1
    assert ran.json["added"] == 1
    assert [row["name"] for row in ran.json["failed"]] == [
        f"Colosseum/{name}" for name in ("a_truncated.webp", "b_empty.jpg", "c_text.png")
    ]
    assert len(ran.err.strip().splitlines()) == 3
    assert run("verify", tmp_path / "places.db").code == 0


def test_photos_outside_a_subfolder_are_reported(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    (folder / "Colosseum").mkdir(parents=True)
    shutil.copy(COLOSSEUM, folder / "Colosseum")
    shutil.copy(DEMO / "queries" / "tajMahal.webp", folder)
    ran = run("index", tmp_path / "places.db", folder, "--json")
    assert (ran.code, ran.json["added"]) == (1, 1)
    assert [row["name"] for row in ran.json["failed"]] == ["tajMahal.webp"]


def test_index_one_landmark(tmp_path: Path) -> None:
    folder = tmp_path / "holiday"
    folder.mkdir()
    shutil.copy(COLOSSEUM, folder)
    path = tmp_path / "places.db"
    assert run("index", path, folder, "--landmark", "Colosseum, Rome").code == 0
    assert run("info", path, "--json").json["landmarks"] == {"Colosseum, Rome": 1}


def test_index_by_manifest_keeps_names_and_metadata(tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    table.write_text('path,landmark,name,year\ncolosseum.webp,"Colosseum, Rome",rome,2009\ntajMahal.webp,Taj Mahal,,\n')
    path = tmp_path / "places.db"
    assert run("index", path, DEMO / "queries", "--manifest", table).code == 0
    with Recognizer.open(path, read_only=True) as recognizer:
        rome, taj = recognizer.store.image("rome"), recognizer.store.image("tajMahal.webp")
    assert rome.landmark == "Colosseum, Rome"
    assert rome.metadata == {"year": "2009", "path": str(COLOSSEUM)}
    assert taj.metadata == {"path": str(DEMO / "queries" / "tajMahal.webp")}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,landmark\na.jpg,A\n", "column path missing"),
        ("path,landmark\n", "no row"),
        ("path,landmark\na.jpg,\n", "line 2"),
        ("path,landmark\na.jpg,A,more\n", "line 2"),
        ("path,landmark,latitude\na.jpg,A,48.1\n", "latitude, longitude are '48.1', ''"),
        ("path,landmark,latitude,longitude\na.jpg,A,95,0\n", "line 2: latitude, longitude are '95', '0'"),
        ("", "column landmark, path missing"),
    ],
)
def test_a_bad_manifest_names_what_is_wrong(tmp_path: Path, text: str, message: str) -> None:
    table = tmp_path / "table.csv"
    table.write_text(text)
    ran = run("index", tmp_path / "places.db", tmp_path, "--manifest", table)
    assert ran.code == 2
    assert message in ran.err
    assert not (tmp_path / "places.db").exists()


def test_bad_folders_are_exit_code_2(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for folder in ("absent", "empty"):
        ran = run("index", tmp_path / "places.db", tmp_path / folder, "--json")
        assert ran.code == 2
        assert ran.json["error"]["type"] == "OptionError"
    both = run("index", tmp_path / "places.db", tmp_path, "--landmark", "A", "--manifest", tmp_path / "a.csv")
    assert both.code == 2
    (tmp_path / "empty" / "note.txt").write_text("x")
    ran = run("index", tmp_path / "places.db", tmp_path / "empty", "--landmark", "A")
    assert "in this folder; it has 1 .txt" in ran.err
    assert "subfolder" not in ran.err


# ---------------------------------------------------------------------- identify, explain


def test_identify_names_the_place(indexed: Path) -> None:
    ran = run("identify", indexed, COLOSSEUM, "--json")
    assert ran.code == 0, ran.err
    (answer,) = ran.json["answers"]
    assert answer["landmark"] == "Colosseum"
    assert answer["image"] == "Colosseum/photo.webp"
    assert answer["n_inliers"] == answer["matches"][0]["n_inliers"] > 10
    assert 0.5 < answer["probability"] <= 1
    assert {"decode"} < set(answer["milliseconds"])
    text = run("identify", indexed, COLOSSEUM, "--threads", "2").out
    assert f"{COLOSSEUM}: Colosseum" in text
    assert "milliseconds: decode" in text


def test_identify_says_unknown(indexed: Path, black: Path) -> None:
    ran = run("identify", indexed, black, COLOSSEUM, "--json")
    assert ran.code == 1
    assert [answer["landmark"] for answer in ran.json["answers"]] == [None, "Colosseum"]
    assert f"{black}: unknown" in run("identify", indexed, black).out


def test_identify_goes_on_after_a_bad_photo(indexed: Path, truncated: Path, tmp_path: Path) -> None:
    ran = run("identify", indexed, truncated, tmp_path / "absent.jpg", COLOSSEUM, "--json")
    assert ran.code == 2
    bad, absent, good = ran.json["answers"]
    assert bad["error"]["type"] == "ImageDecodeError"
    assert "absent.jpg" in absent["error"]["message"]
    assert good["landmark"] == "Colosseum"


def test_top_limits_the_list(indexed: Path) -> None:
    (answer,) = run("identify", indexed, COLOSSEUM, "--top", "1", "--json").json["answers"]
    assert len(answer["matches"]) == 1


def test_explain_draws_both_photos(indexed: Path, tmp_path: Path) -> None:
    out = tmp_path / "match.png"
    ran = run("explain", indexed, COLOSSEUM, "--out", out, "--json")
    assert ran.code == 0, ran.err
    answer = ran.json
    assert answer["landmark"] == "Colosseum"
    assert len(answer["query_keypoints"]) == len(answer["stored_keypoints"]) == answer["n_inliers"]
    picture: Any = cv2.imdecode(np.frombuffer(out.read_bytes(), np.uint8), cv2.IMREAD_COLOR)
    assert picture.shape[1] > 2 * picture.shape[0]


def test_explain_says_when_the_stored_photo_is_gone(database: Path, tmp_path: Path) -> None:
    kept = tmp_path / "kept.png"
    run("explain", database, COLOSSEUM, "--out", kept)
    with Recognizer.open(database) as recognizer:
        stored = DEMO / "references" / "Colosseum" / "photo.webp"
        recognizer.add(
            stored, landmark="Colosseum", name="Colosseum/photo.webp", metadata={"path": "/nowhere/photo.webp"}
        )
    gone = tmp_path / "gone.png"
    assert run("explain", database, COLOSSEUM, "--out", gone).code == 0
    pictures: list[Any] = [
        cv2.imdecode(np.frombuffer(p.read_bytes(), np.uint8), cv2.IMREAD_COLOR) for p in (kept, gone)
    ]
    before, after = pictures
    assert before.shape == after.shape
    assert (before != after).mean() > 0.2


def test_explain_never_overwrites_what_it_has_not_made(indexed: Path, tmp_path: Path) -> None:
    photo, other = tmp_path / "colosseum.png", tmp_path / "other.jpg"
    pixels = cv2.imdecode(np.frombuffer(COLOSSEUM.read_bytes(), np.uint8), cv2.IMREAD_COLOR)
    photo.write_bytes(cv2.imencode(".png", pixels)[1].tobytes())
    other.write_bytes(b"another photo")
    (tmp_path / "link.png").symlink_to(photo)
    (tmp_path / "hard.png").hardlink_to(photo)
    before = photo.read_bytes()
    for out in (photo, tmp_path / "x" / ".." / "colosseum.png", tmp_path / "link.png", tmp_path / "hard.png"):
        ran = run("explain", indexed, photo, "--out", out, "--overwrite")
        assert (ran.code, photo.read_bytes()) == (2, before)
        assert "another place" in ran.err
    assert run("explain", indexed, photo, "--out", indexed, "--overwrite").code == 2
    ran = run("explain", indexed, photo, "--out", other)
    assert (ran.code, other.read_bytes()) == (2, b"another photo")
    assert "--overwrite" in ran.err
    assert run("explain", indexed, photo, "--out", other, "--overwrite").code == 0
    for out in (other, tmp_path / "new.png", tmp_path / "new.png"):  # what it has made it may replace
        assert run("explain", indexed, photo, "--out", out).code == 0
        assert cv2.imdecode(np.frombuffer(out.read_bytes(), np.uint8), cv2.IMREAD_COLOR) is not None


def test_explain_leaves_nothing_where_the_disk_is_full(
    indexed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "match.png"
    assert run("explain", indexed, COLOSSEUM, "--out", out).code == 0
    before = out.read_bytes()

    def full(self: Path, data: bytes) -> int:
        with self.open("wb") as file:
            file.write(data[:100])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    for path in (out, tmp_path / "new.png"):
        ran = run("explain", indexed, COLOSSEUM, "--out", path)
        assert ran.code == 2
        assert "No space left" in ran.err
    assert out.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["match.png"]


def test_explain_says_when_the_stored_photo_has_changed(photos: Path, tmp_path: Path) -> None:
    folder, pictures = tmp_path / "photos", {}
    shutil.copytree(photos, folder)
    assert run("index", tmp_path / "places.db", folder).code == 0
    for name in ("before", "after"):
        out = tmp_path / f"{name}.png"
        assert run("explain", tmp_path / "places.db", COLOSSEUM, "--out", out).code == 0
        pictures[name] = np.asarray(cv2.imdecode(np.frombuffer(out.read_bytes(), np.uint8), cv2.IMREAD_COLOR))
        shutil.copy(photos / "Petra" / "photo.webp", folder / "Colosseum" / "photo.webp")
    right = pictures["after"][30:, -100:]
    assert np.median(right) == 60  # the empty canvas: a picture of Petra would be a lie
    assert np.median(pictures["before"][30:, -100:]) != 60


def test_explain_draws_the_unknown_too(indexed: Path, black: Path, tmp_path: Path) -> None:
    out = tmp_path / "unknown.jpg"
    assert run("explain", indexed, black, "--out", out).code == 1
    assert out.stat().st_size > 0


@pytest.mark.parametrize("name", ["match.gif", "match", "absent/match.png"])
def test_explain_refuses_what_it_cannot_write(indexed: Path, tmp_path: Path, name: str) -> None:
    ran = run("explain", indexed, COLOSSEUM, "--out", tmp_path / name)
    assert ran.code == 2
    assert name in ran.err


# ---------------------------------------------------------------------- changing


def test_remove_takes_effect_at_once(database: Path) -> None:
    with Recognizer.open(database, read_only=True) as reader:
        assert reader.identify(COLOSSEUM).landmark == "Colosseum"
        assert run("remove", database, "Colosseum/photo.webp", "--json").json["removed"] == ["Colosseum/photo.webp"]
        assert reader.identify(COLOSSEUM).landmark is None
    assert run("identify", database, COLOSSEUM).code == 1


def test_remove_a_landmark(database: Path) -> None:
    assert run("remove", database, "--landmark", "Petra").code == 0
    assert "Petra" not in run("info", database, "--json").json["landmarks"]
    assert run("remove", database, "--landmark", "Petra").code == 2


@pytest.mark.parametrize("arguments", [[], ["Petra/photo.webp", "--landmark", "Petra"], ["Petra/photo.webp", "absent"]])
def test_remove_refuses_and_changes_nothing(database: Path, arguments: list[str]) -> None:
    assert run("remove", database, *arguments).code == 2
    assert run("info", database, "--json").json["n_images"] == len(LANDMARKS)


def test_relabel(database: Path) -> None:
    assert run("relabel", database, "Colosseum/photo.webp", "Flavian Amphitheatre").code == 0
    (answer,) = run("identify", database, COLOSSEUM, "--json").json["answers"]
    assert answer["landmark"] == "Flavian Amphitheatre"
    missing = run("relabel", database, "absent", "A", "--json")
    assert (missing.code, missing.json["error"]["type"]) == (2, "NotFoundError")


def test_index_by_manifest_says_where_landmarks_are(tmp_path: Path) -> None:
    table, path = tmp_path / "table.csv", tmp_path / "places.db"
    table.write_text("path,landmark,latitude,longitude\ncolosseum.webp,Colosseum,41.89,12.49\ntajMahal.webp,Taj,,\n")
    for _ in range(2):  # the second time there is nothing to do
        assert run("index", path, DEMO / "queries", "--manifest", table).code == 0
    with Recognizer.open(path, read_only=True) as recognizer:
        found = {x.name: (x.latitude, x.longitude) for x in recognizer.store.landmarks()}
        assert "latitude" not in recognizer.store.image("colosseum.webp").metadata
    assert found == {"Colosseum": (41.89, 12.49), "Taj": (None, None)}


def test_locate_and_near(database: Path, tmp_path: Path) -> None:
    with Recognizer.open(database) as recognizer:
        recognizer.store.set_landmark("Colosseum", metadata={"city": "Rome"})
    assert run("locate", database, "Colosseum", "--at", "41.8902,12.4922").code == 0
    with Recognizer.open(database, read_only=True) as recognizer:
        (rome,) = [x for x in recognizer.store.landmarks() if x.name == "Colosseum"]
    assert (rome.latitude, rome.longitude, rome.metadata) == (41.8902, 12.4922, {"city": "Rome"})
    here, elsewhere = "41.89,12.49,1000", "-33.86,151.21,1000"
    assert run("identify", database, COLOSSEUM, "--near", here).code == 0
    assert run("identify", database, COLOSSEUM, "--near", elsewhere).code == 1
    assert run("explain", database, COLOSSEUM, "--near", elsewhere, "--out", tmp_path / "proof.jpg").code == 1
    southern = run("locate", database, "Colosseum", "--at", "-33.86,151.21", "--json")
    assert (southern.code, southern.json["latitude"]) == (0, -33.86)
    assert run("identify", database, COLOSSEUM, "--near", elsewhere).code == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["locate", "Colosseum", "--at", "41.9"], "latitude,longitude"),
        (["locate", "Colosseum", "--at", "north,1"], "latitude,longitude"),
        (["locate", "Colosseum", "--at", "91,0"], "-90..90"),
        (["locate", "Atlantis", "--at", "0,0"], "no landmark is called"),
        (["identify", COLOSSEUM, "--near", "41.9,12.5"], "latitude,longitude,metres"),
        (["identify", COLOSSEUM, "--near", "41.9,12.5,0"], "more than 0 metres"),
    ],
)
def test_a_bad_position_is_exit_code_2(database: Path, arguments: list[Any], message: str) -> None:
    command, *rest = arguments
    ran = run(command, database, *rest)
    assert ran.code == 2
    assert message in ran.err


# ---------------------------------------------------------------------- the file


def test_info_and_verify(indexed: Path) -> None:
    facts = run("info", indexed, "--json").json
    assert facts["landmarks"] == dict.fromkeys(LANDMARKS, 1)
    assert facts["n_images"] == len(LANDMARKS)
    assert facts["n_features"] > 100
    ran = run("verify", indexed, "--json")
    assert (ran.code, ran.json["problems"], ran.json["images"]) == (0, [], len(LANDMARKS))
    assert "Petra" in run("info", indexed).out


def test_verify_finds_a_changed_byte(database: Path) -> None:
    connection = sqlite3.connect(database)
    (blob,) = connection.execute("SELECT blob FROM codes WHERE image_id = 2").fetchone()
    changed = bytes([*blob[:-1], blob[-1] ^ 1])
    connection.execute("UPDATE codes SET blob = ? WHERE image_id = 2", (changed,))
    connection.commit()
    connection.close()
    ran = run("verify", database, "--json")
    assert ran.code == 1
    assert [problem["name"] for problem in ran.json["problems"]] == ["Mount Rushmore/photo.webp"]
    assert run("identify", database, COLOSSEUM).code == 0  # the rest stays readable


def test_a_sealed_file_is_one_file_and_read_only(database: Path, photos: Path, tmp_path: Path) -> None:
    sealed = tmp_path / "kiosk.db"
    assert run("seal", database, "--out", sealed).code == 0
    assert run("index", database, photos).code == 0  # the original can still be written
    sealed.chmod(0o444)
    assert run("identify", sealed, COLOSSEUM).code == 0
    assert sorted(path.name for path in tmp_path.glob("kiosk.db*")) == ["kiosk.db"]
    ran = run("index", sealed, photos, "--json")
    assert (ran.code, ran.json["error"]["type"]) == (2, "ReadOnlyError")
    assert run("seal", database).code == 0
    assert run("info", database, "--json").json["sealed"] is True


def test_snapshot_does_not_overwrite_unasked(indexed: Path, database: Path) -> None:
    assert run("snapshot", indexed, database).code == 2
    ran = run("snapshot", indexed, database, "--overwrite", "--json")
    assert (ran.code, ran.json["images"]) == (0, len(LANDMARKS))


@pytest.mark.parametrize("command", ["info", "verify", "identify", "remove"])
def test_a_file_that_is_no_database_is_exit_code_2(tmp_path: Path, command: str) -> None:
    path = tmp_path / "text.db"
    path.write_text("no database" * 1000)
    needs: dict[str, list[str | Path]] = {"identify": [COLOSSEUM], "remove": ["a"]}
    more = needs.get(command, [])
    ran = run(command, path, *more, "--json")
    assert ran.code == 2
    assert "text.db" in ran.json["error"]["message"]
    assert run(command, tmp_path / "absent.db", *more).code == 2
    assert not (tmp_path / "absent.db").exists()


# ---------------------------------------------------------------------- bundles


def other_bundle(folder: Path) -> Path:
    """The built-in bundle under another name, which gives it another id."""
    shutil.copytree(default_bundle_path(), folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    content = {**manifest, "name": "another"}
    (folder / "manifest.json").write_text(json.dumps({**content, "id": bundle_id(content)}))
    return folder


def test_a_database_of_another_bundle_is_refused(indexed: Path, tmp_path: Path) -> None:
    ran = run("identify", indexed, COLOSSEUM, "--bundle", other_bundle(tmp_path / "bundle"), "--json")
    assert (ran.code, ran.json["error"]["type"]) == (2, "BundleMismatchError")
    assert run("info", indexed, "--json").json["bundle_id"] in ran.json["error"]["message"]


def test_an_unknown_preset_is_refused(indexed: Path) -> None:
    ran = run("identify", indexed, COLOSSEUM, "--preset", "nonsense", "--json")
    assert (ran.code, ran.json["error"]["type"]) == (2, "OptionError")


def test_doctor_passes_on_this_machine() -> None:
    ran = run("doctor", "--json")
    assert ran.code == 0, ran.out
    report = ran.json
    assert {check["name"] for check in report["checks"]} == {
        "bundle",
        "keypoints",
        "local descriptors",
        "global descriptor",
        "words",
    }
    assert any("HNSW in use" in check["detail"] for check in report["checks"])
    assert report["versions"]["numpy"] == np.__version__
    assert "ok: keypoints" in run("doctor").out


def test_doctor_finds_a_damaged_bundle(tmp_path: Path) -> None:
    folder = other_bundle(tmp_path / "bundle")
    network = next(folder.glob("local_*.tflite"))
    data = bytearray(network.read_bytes())
    data[len(data) // 2] ^= 1
    network.write_bytes(data)
    ran = run("doctor", "--bundle", folder, "--json")
    assert ran.code == 1
    assert [(check["name"], check["passed"]) for check in ran.json["checks"]] == [("bundle", False)]
    assert network.name in ran.json["checks"][0]["detail"]


def test_doctor_finds_wrong_vectors(tmp_path: Path) -> None:
    """A network with the right hash but other output, as a broken runtime would give."""
    bundle = Bundle.load(default_bundle_path())
    with np.load(io.BytesIO(bundle.golden)) as archive:
        golden = {name: archive[name] for name in archive.files}
    golden["descriptors"] = np.roll(golden["descriptors"], 1, axis=0)
    packed = io.BytesIO()
    np.savez(packed, **golden)
    checks = {check.name: check.passed for check in self_test(dataclasses.replace(bundle, golden=packed.getvalue()))}
    assert checks == {"keypoints": True, "local descriptors": False, "global descriptor": True}


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("descriptors", np.zeros((3, 1), np.float32)),
        ("scales", None),
        ("tolerance", np.array(np.nan, np.float32)),
        ("image", np.zeros((0, 4, 3), np.uint8)),
        ("keypoints", np.array(1.0, np.float32)),
    ],
)
def test_golden_vectors_that_cannot_be_compared(name: str, array: np.ndarray | None) -> None:
    bundle = Bundle.load(default_bundle_path())
    with np.load(io.BytesIO(bundle.golden)) as archive:
        golden = {key: archive[key] for key in archive.files if key != name}
    packed = io.BytesIO()
    np.savez(packed, **golden, **({} if array is None else {name: array}))  # type: ignore[arg-type]
    with pytest.raises(BundleError, match="golden"):
        self_test(dataclasses.replace(bundle, golden=packed.getvalue()))


def test_an_interrupted_index_goes_on(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "places.db"
    extract = Extractor.extract
    calls = iter([None, None])

    def interrupted(self: Extractor, *given: Any) -> Any:
        if next(calls, "stop"):
            raise KeyboardInterrupt
        return extract(self, *given)

    with monkeypatch.context() as patch:
        patch.setattr(Extractor, "extract", interrupted)
        ran = run("index", path, photos)
    assert ran.code == 130
    ran = run("index", path, photos, "--json")
    assert (ran.code, ran.json["unchanged"], ran.json["added"]) == (0, 2, 2)


def test_stdout_is_json_in_a_real_process(indexed: Path) -> None:
    """Nothing of LiteRT's or OpenCV's own chatter reaches stdout."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONWARNINGS"}
    done = subprocess.run(
        [sys.executable, "-m", "delf_edge.cli.main", "identify", str(indexed), str(COLOSSEUM), "--json"],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        cwd=DEMO.parent.parent,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["answers"][0]["landmark"] == "Colosseum"


def test_a_list_of_landmarks_that_is_no_text_is_refused(database: Path, truncated: Path, tmp_path: Path) -> None:
    ran = run("pack", database, tmp_path / "a.pack", "--landmarks", truncated)
    assert ran.code == 2
    assert "no text in UTF-8" in ran.err
    assert not (tmp_path / "a.pack").exists()
