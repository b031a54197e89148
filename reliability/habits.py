"""What people do with their photos and their database, in any order, against a plain model of what they own.

A person puts photos into folders, moves, renames, changes and deletes them, and runs the commands in between. After
each command the model says what must hold. No photo file has changed; no image, place or correction is gone that no
command named; sealed files and packs have kept their bytes; a repeated command changes nothing; exit code and `--json`
say what happened. `Habits` lets hypothesis choose the steps, and shorten them where something is wrong.
"""

from __future__ import annotations

import hashlib
import io
import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import seed as seeded
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from delf_edge.cli.main import main
from delf_edge.recognizer import Recognizer
from delf_edge.storage.store import Store
from reliability import world
from testing.paths import TINY_BUNDLE

TREES = ("cardA", "cardB")
PLACES = ("Colosseum", "Eiffel Tower", "Petra")
NAMES = ("DSC_0001.png", "DSC_0002.png")
CONTENTS = 10
PHASES = (Phase.generate, Phase.shrink)
STEPS = 40  # of one life
Position = tuple[float, float] | None
BUNDLE = ("--bundle", str(TINY_BUNDLE), "--preset", "fast")
COUNTED = ("added", "unchanged", "updated", "replaced", "moved", "renamed")


@dataclass(frozen=True, slots=True)
class Ran:
    """What a command said."""

    words: tuple[str, ...]
    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        try:
            told = json.loads(self.out)
        except ValueError as e:
            raise AssertionError(f"{' '.join(self.words)}: stdout is no JSON: {self.out[:200]!r}") from e
        assert isinstance(told, dict)
        return told

    def __str__(self) -> str:
        return f"{' '.join(self.words)}: exit {self.code}, {self.out[:400]} {self.err[:400]}"


@dataclass(slots=True)
class Content:
    """What a database holds."""

    images: dict[str, tuple[str, str]] = field(default_factory=dict)  # name -> landmark, SHA-256 of the photo
    places: dict[str, Position] = field(default_factory=dict)  # landmark -> latitude and longitude

    @property
    def located(self) -> dict[str, Position]:
        return {name: position for name, position in self.places.items() if position is not None}


def content(path: Path) -> Content:
    """What a database holds, read from outside."""
    if not path.exists():
        return Content()
    with Store.open(path, mode="ro") as store:
        images = {image.name: (image.landmark, image.content_hash.hex()) for image in store.images()}
        places: dict[str, Position] = {}
        for landmark in store.landmarks():
            known = landmark.latitude is not None and landmark.longitude is not None
            places[landmark.name] = (landmark.latitude, landmark.longitude) if known else None  # type: ignore[assignment]
        assert not store.damaged, store.damaged
        return Content(images, places)


class Person:
    """A folder of photos, a database, and what their owner knows about them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files: dict[str, int] = {}  # path of a photo -> number of its content
        self.corrected: dict[str, str] = {}  # name of an image -> the landmark that the person gave it
        self.came_from: dict[str, set[str]] = {}  # name of an image -> files it may have come from
        self.finished: dict[str, str] = {}  # sealed file or pack -> SHA-256
        self.steps = 0
        for tree in TREES:
            (folder / tree).mkdir(parents=True)

    @property
    def database(self) -> Path:
        return self.folder / "places.db"

    def run(self, *words: str) -> Ran:
        """A command, in this process; its working folder is told by absolute paths."""
        out, err = io.StringIO(), io.StringIO()
        given = [str(self.folder / w[1:]) if w.startswith("@") else w for w in words]
        code: Any = 0
        with redirect_stdout(out), redirect_stderr(err):
            try:
                main(given)
            except SystemExit as e:
                code = e.code
        ran = Ran(words, code, out.getvalue(), err.getvalue())
        assert "Traceback" not in ran.err, ran
        assert code in (0, 1, 2), ran
        self.steps += 1
        self.check_files(ran)
        return ran

    def check_files(self, ran: Ran) -> None:
        """Every photo is what it was, and so is every sealed file and pack."""
        there = {p.relative_to(self.folder).as_posix() for tree in TREES for p in (self.folder / tree).rglob("*.*")}
        assert there == set(self.files), f"{ran}: files came or went: {there ^ set(self.files)}"
        for path, number in self.files.items():
            assert (self.folder / path).read_bytes() == world.photo(number), f"{ran}: {path} has changed"
        for path, sha256 in self.finished.items():
            data = (self.folder / path).read_bytes()
            assert hashlib.sha256(data).hexdigest() == sha256, f"{ran}: {path} has changed"

    # -- the files

    def put(self, path: str, number: int) -> None:
        target = self.folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(world.photo(number))
        self.files[path] = number

    def move(self, path: str, to: str) -> None:
        if to in self.files:
            return
        (self.folder / to).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / path).rename(self.folder / to)
        self.files[to] = self.files.pop(path)

    def delete(self, path: str) -> None:
        (self.folder / path).unlink()
        del self.files[path]

    def below(self, folder: str) -> dict[str, str]:
        """Files below a folder, and the SHA-256 of each."""
        return {path: world.digest(n) for path, n in self.files.items() if path.startswith(f"{folder}/")}

    # -- the commands

    def index(self, folder: str, landmark: str | None) -> None:
        """`index`, and once more."""
        mine = self.below(folder)
        words = ["index", "@places.db", f"@{folder}", *BUNDLE, "--json"]
        words += ["--landmark", landmark] if landmark else []
        before = content(self.database)
        ran = self.run(*words)
        after = content(self.database)
        if not mine:
            assert ran.code != 0, f"{ran}: nothing to index, and exit 0"
            assert after.images == before.images, ran
            return
        self.check_index(ran, mine, landmark, before, after)
        if ran.code == 0:
            again = self.run(*words)
            assert again.code == 0, again
            assert again.json["unchanged"] == len(mine), f"a repeat is not unchanged: {again}"
            assert content(self.database) == after, f"a repeat changed the database: {again}"

    def check_index(
        self, ran: Ran, mine: dict[str, str], landmark: str | None, before: Content, after: Content
    ) -> None:
        told = ran.json
        failed = len(told["failed"])
        assert ran.code == (1 if failed else 0), f"exit code: {ran}"
        assert sum(told.get(key, 0) for key in COUNTED) + failed == len(mine), f"counts: {ran}"
        assert told["images"] == len(after.images), f"images: {ran}"
        stored = {sha256 for _, sha256 in after.images.values()}
        if not failed:
            assert set(mine.values()) <= stored, f"a photo is not in, and exit 0: {ran}"
        named = {sha256: landmark or path.split("/")[1] for path, sha256 in mine.items()}
        for name, (place, sha256) in before.images.items():
            if name not in after.images:
                assert (place, sha256) in after.images.values(), f"{name} ({place}) is gone: {ran}"
                continue
            now, new_sha256 = after.images[name]
            if new_sha256 != sha256:
                files = {path for path in self.came_from.get(name, ()) if mine.get(path) == new_sha256}
                assert files, f"{name} ({place}) was replaced by a photo that came from another file: {ran}"
            if now != place:
                assert self.corrected.get(name) != place, f"the correction of {name} to {place} is undone: {ran}"
                assert now in named.values(), f"{name} is {now} instead of {place}: {ran}"
        lost = before.located.items() - after.located.items()
        assert not lost, f"coordinates are gone or changed: {lost}: {ran}"
        for name, (_, sha256) in after.images.items():
            self.came_from.setdefault(name, set()).update(path for path, digest in mine.items() if digest == sha256)

    def unchanged_but(self, ran: Ran, before: Content, images: dict[str, tuple[str, str]]) -> Content:
        """The database now: the images as said, and no place with coordinates gone."""
        after = content(self.database)
        assert after.images == images, f"{ran}: {after.images} instead of {images}"
        return after

    def relabel(self, name: str, landmark: str) -> None:
        before = content(self.database)
        ran = self.run("relabel", "@places.db", name, landmark, "--json")
        if name not in before.images:
            assert ran.code != 0, f"no such image, and exit 0: {ran}"
            assert content(self.database) == before, ran
            return
        assert ran.code == 0, ran
        after = self.unchanged_but(ran, before, before.images | {name: (landmark, before.images[name][1])})
        self.corrected[name] = landmark
        assert not before.located.items() - after.located.items(), f"coordinates are gone: {ran}"

    def locate(self, landmark: str, at: tuple[float, float]) -> None:
        before = content(self.database)
        ran = self.run("locate", "@places.db", landmark, "--at", f"{at[0]},{at[1]}", "--json")
        after = self.unchanged_but(ran, before, before.images)
        if landmark in before.places:
            assert ran.code == 0, ran
            assert after.places == before.places | {landmark: at}, ran
        else:
            assert (ran.code != 0) == (after.places == before.places), ran

    def remove(self, name: str) -> None:
        before = content(self.database)
        ran = self.run("remove", "@places.db", name, "--json")
        left = {n: image for n, image in before.images.items() if n != name}
        after = self.unchanged_but(ran, before, left)
        assert (ran.code == 0) == (name in before.images), f"exit code: {ran}"
        assert not before.located.items() - after.located.items(), f"coordinates are gone: {ran}"
        self.corrected.pop(name, None)

    def remove_landmark(self, landmark: str) -> None:
        before = content(self.database)
        ran = self.run("remove", "@places.db", "--landmark", landmark, "--json")
        left = {name: image for name, image in before.images.items() if image[0] != landmark}
        after = self.unchanged_but(ran, before, left)
        assert (ran.code == 0) == (landmark in before.places), f"exit code: {ran}"
        assert landmark not in after.places, f"{landmark} is still there: {ran}"
        others = {name: position for name, position in before.located.items() if name != landmark}
        assert not others.items() - after.located.items(), f"coordinates of others are gone: {ran}"
        self.corrected = {name: place for name, place in self.corrected.items() if name in left}

    def finish(self, command: str, name: str) -> None:
        """`snapshot` and `seal`, or `pack`: the result has what the database has, and never changes again."""
        before = content(self.database)
        target = self.folder / name
        existed = target.exists()
        if command == "pack":
            ran = self.run("pack", "@places.db", f"@{name}", "--json")
        else:
            ran = self.run("snapshot", "@places.db", f"@{name}", "--json")
        if existed or (command == "pack" and not before.images):
            assert ran.code != 0, f"replaced a file or made an empty pack: {ran}"
            return
        assert ran.code == 0, ran
        if command == "seal":
            assert self.run("seal", f"@{name}", "--json").code == 0
        assert content(target).images == before.images, ran
        assert content(self.database) == before, ran
        self.finished[name] = hashlib.sha256(target.read_bytes()).hexdigest()

    def try_to_change(self, name: str, words: tuple[str, ...]) -> None:
        """A command that writes, on a sealed file: it is refused, and nothing changes."""
        ran = self.run(words[0], f"@{name}", *words[1:], "--json")
        assert ran.code == 2, f"a sealed file was written: {ran}"
        beside = {p.name for p in self.folder.glob(f"{name}*")}
        assert beside <= {name, f"{name}.json", f"{name}.index"}, f"{beside}: {ran}"

    def explain(self, photo: str, out: str) -> None:
        """Draw the proof; a photo is never drawn over."""
        before = content(self.database)
        ran = self.run("explain", "@places.db", f"@{photo}", "--out", f"@{out}", *BUNDLE, "--json")
        assert content(self.database) == before, ran
        if out in self.files:
            assert ran.code != 0, f"drew over a photo, and exit 0: {ran}"

    def ask(self, command: str, *words: str) -> None:
        """A command that only reads."""
        before = content(self.database)
        ran = self.run(command, "@places.db", *words, "--json")
        assert ran.code in ((0, 1) if self.database.exists() else (2,)), ran
        assert content(self.database) == before, f"a command that reads has written: {ran}"
        assert ran.json or ran.code == 2, ran

    def add(self, photo: str, landmark: str) -> None:
        """`Recognizer.add` with the name that it gives by itself."""
        before = content(self.database)
        with Recognizer.open(self.database, bundle=world.bundle(), preset="fast") as recognizer:
            result = recognizer.add(self.folder / photo, landmark=landmark)
        ran = Ran(("add", photo, landmark), 0, str(result), "")
        after = content(self.database)
        for name, image in before.images.items():
            if after.images.get(name) != image:
                same_file = photo in self.came_from.get(name, ())
                same_photo = image[1] == world.digest(self.files[photo])
                assert same_file or same_photo, f"{name} {image} was replaced by another file's photo: {ran}"
        assert not before.located.items() - after.located.items(), f"coordinates are gone: {ran}"
        for name, (_, sha256) in after.images.items():
            if sha256 == world.digest(self.files[photo]):
                self.came_from.setdefault(name, set()).add(photo)
                if before.images.get(name) != after.images[name]:
                    self.corrected.pop(name, None)  # the person has named another landmark
        self.steps += 1
        self.check_files(ran)

    def killed(self, folder: str, milliseconds: int) -> None:
        """`index` in a process of its own, killed somewhere in it."""
        before = content(self.database)
        program = "from delf_edge.cli.main import main; main()"
        words = [
            "index",
            str(self.database),
            str(self.folder / folder),
            "--bundle",
            str(TINY_BUNDLE),
            "--preset",
            "fast",
        ]
        process = subprocess.Popen(
            [sys.executable, "-c", program, *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        time.sleep(milliseconds / 1000)
        process.send_signal(signal.SIGKILL)
        process.wait()
        ran = Ran(("index", folder, "killed"), 0, "", "")
        after = content(self.database)
        for name, image in before.images.items():
            kept = after.images.get(name)
            assert kept is not None, f"{name} {image} is gone: {ran}"
            if kept != image:
                files = [p for p in self.came_from.get(name, ()) if self.below(folder).get(p) == kept[1]]
                assert files or kept[1] == image[1], f"{name} was replaced: {ran}"
        assert not before.located.items() - after.located.items(), f"coordinates are gone: {ran}"
        for name, (_, sha256) in after.images.items():
            self.came_from.setdefault(name, set()).update(
                path for path, digest in self.below(folder).items() if digest == sha256
            )
        self.steps += 1
        self.check_files(ran)


photos = st.tuples(st.sampled_from(TREES), st.sampled_from(PLACES), st.sampled_from(NAMES)).map("/".join)
numbers = st.integers(0, CONTENTS - 1)
places = st.sampled_from(PLACES)
positions = st.sampled_from(((41.89, 12.49), (48.858, 2.294), (-33.857, 151.215)))
WRITES = (
    ("relabel", "x", "y"),
    ("remove", "x"),
    ("remove", "--landmark", "Petra"),
    ("locate", "Petra", "--at", "1,2"),
)


class Habits(RuleBasedStateMachine):
    """The steps, chosen by hypothesis."""

    kills = False
    done = 0  # steps of all lives in this process

    def __init__(self) -> None:
        super().__init__()
        self.place = tempfile.mkdtemp(prefix="delf-edge-habits-")
        self.person = Person(Path(self.place))

    def teardown(self) -> None:
        Habits.done += self.person.steps
        shutil.rmtree(self.place, ignore_errors=True)

    def _file(self, number: int) -> str:
        return sorted(self.person.files)[number % len(self.person.files)]

    def _image(self, number: int) -> str:
        names = sorted(content(self.person.database).images)
        return names[number % len(names)] if names else "none.png"

    def has_files(self) -> bool:
        return bool(self.person.files)

    def has_database(self) -> bool:
        return self.person.database.exists()

    @rule(path=photos, number=numbers)
    def put(self, path: str, number: int) -> None:
        self.person.put(path, number)

    @precondition(has_files)
    @rule(which=st.integers(0, 99), to=photos)
    def move(self, which: int, to: str) -> None:
        self.person.move(self._file(which), to)

    @precondition(has_files)
    @rule(tree=st.sampled_from(TREES), old=places, new=places)
    def rename_folder(self, tree: str, old: str, new: str) -> None:
        if old == new or self.person.below(f"{tree}/{new}"):
            return
        for path in list(self.person.below(f"{tree}/{old}")):
            self.person.move(path, f"{tree}/{new}/{path.rsplit('/', 1)[1]}")

    @precondition(has_files)
    @rule(which=st.integers(0, 99))
    def delete(self, which: int) -> None:
        self.person.delete(self._file(which))

    @rule(tree=st.sampled_from(TREES))
    def index(self, tree: str) -> None:
        self.person.index(tree, None)

    @rule(tree=st.sampled_from(TREES), landmark=places)
    def index_as(self, tree: str, landmark: str) -> None:
        self.person.index(tree, landmark)

    @precondition(has_files)
    @rule(which=st.integers(0, 99), landmark=places)
    def add(self, which: int, landmark: str) -> None:
        self.person.add(self._file(which), landmark)

    @precondition(has_database)
    @rule(which=st.integers(0, 99), landmark=places)
    def relabel(self, which: int, landmark: str) -> None:
        self.person.relabel(self._image(which), landmark)

    @precondition(has_database)
    @rule(landmark=places, at=positions)
    def locate(self, landmark: str, at: tuple[float, float]) -> None:
        self.person.locate(landmark, at)

    @precondition(has_database)
    @rule(which=st.integers(0, 99))
    def remove(self, which: int) -> None:
        self.person.remove(self._image(which))

    @precondition(has_database)
    @rule(landmark=places)
    def remove_landmark(self, landmark: str) -> None:
        self.person.remove_landmark(landmark)

    @precondition(has_database)
    @rule(what=st.sampled_from((("seal", "sealed.db"), ("seal", "sealed2.db"), ("pack", "cut.pack"))))
    def finish(self, what: tuple[str, str]) -> None:
        self.person.finish(*what)

    @precondition(lambda self: bool(self.person.finished))
    @rule(which=st.integers(0, 99), words=st.sampled_from(WRITES))
    def try_to_change(self, which: int, words: tuple[str, ...]) -> None:
        self.person.try_to_change(sorted(self.person.finished)[which % len(self.person.finished)], words)

    @precondition(lambda self: self.has_files() and self.has_database())
    @rule(which=st.integers(0, 99), over=st.booleans())
    def explain(self, which: int, over: bool) -> None:
        photo = self._file(which)
        self.person.explain(photo, photo if over else "proof.png")

    @precondition(has_files)
    @rule(which=st.integers(0, 99))
    def identify(self, which: int) -> None:
        self.person.ask("identify", str(self.person.folder / self._file(which)), *BUNDLE)

    @rule(command=st.sampled_from(("info", "verify")))
    def ask(self, command: str) -> None:
        self.person.ask(command)

    @precondition(lambda self: self.kills and self.has_files() and self.has_database())
    @rule(tree=st.sampled_from(TREES), milliseconds=st.integers(200, 900))
    def kill(self, tree: str, milliseconds: int) -> None:
        self.person.killed(tree, milliseconds)


class LongHabits(Habits):
    """With processes that are killed."""

    kills = True


def live(n: int, seed: int, machine: type[Habits] = Habits, *, shorten: bool = True) -> int:
    """About n steps, in lives of `STEPS`; the number of commands that were run.

    Raises:
        AssertionError: something was lost or told wrongly; hypothesis prints the shortest way to it.
    """
    began = Habits.done
    config = settings(
        max_examples=max(1, n // STEPS),
        stateful_step_count=STEPS,
        deadline=None,
        database=None,
        print_blob=False,
        phases=PHASES if shorten else PHASES[:1],
        suppress_health_check=list(HealthCheck),
    )
    seeded(seed)(machine)
    run_state_machine_as_test(machine, settings=config)
    return Habits.done - began


def batch(seed: int, n: int) -> dict[str, Any]:
    """A batch of the campaign: steps, and what was found."""
    began, found = Habits.done, []
    random.seed(seed)
    try:
        live(n, seed, LongHabits)
    except AssertionError as e:
        notes = [str(note) for note in getattr(e, "__notes__", ())]
        found.append("\n".join([str(e).splitlines()[0][:500], *notes])[:4000])
    return {"n": n, "commands": Habits.done - began, "lost or wrong": len(found), "found": found}
