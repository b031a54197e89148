"""A person with photos and a database, and what must hold of both after each command.

The rules are those of the user's guide (docs/own-photos.md), said of what the person owns:

* No photo file changes. Sealed files and packs keep their bytes.
* An image, a place, coordinates, a text are gone only if a command named them. What was corrected stays.
* A repeated command changes nothing. Exit code and `--json` say what happened.
"""

from __future__ import annotations

import hashlib
import os
import signal
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import quote

from delf_edge.errors import NameTakenError
from delf_edge.recognizer import Recognizer
from reliability import world
from reliability.running import BUNDLE, STRANGER, Ran, Service, as_program, forked, here

TREES = ("cardA", "cardB")
COUNTED = ("added", "unchanged", "updated", "replaced", "moved", "renamed")
PROGRAM_EVERY = 200  # commands: one of so many is a program of its own
Position = tuple[float, float] | None


@dataclass(slots=True)
class Content:
    """What a database holds."""

    images: dict[str, tuple[str, str]] = field(default_factory=dict)  # name -> landmark, SHA-256 of the photo
    places: dict[str, Position] = field(default_factory=dict)  # landmark -> latitude and longitude
    texts: dict[tuple[str, str], str] = field(default_factory=dict)  # landmark and language -> title

    @property
    def located(self) -> dict[str, Position]:
        return {name: position for name, position in self.places.items() if position is not None}

    @property
    def by_photo(self) -> dict[str, str]:
        """SHA-256 -> landmark."""
        return {sha256: landmark for landmark, sha256 in self.images.values()}


def content(path: Path) -> Content:
    """What a database holds, read from outside: by SQLite alone, without a trace."""
    if not path.exists():
        return Content()
    how = "mode=ro" if Path(f"{path}-wal").exists() else "immutable=1"  # without a log nobody has it open
    with closing(sqlite3.connect(f"{path.as_uri()}?{how}", uri=True)) as db:
        images = {name: (landmark, digest.hex()) for name, landmark, digest in db.execute(_IMAGES)}
        places: dict[str, Position] = {}
        for name, latitude, longitude in db.execute("SELECT name, latitude, longitude FROM landmarks"):
            places[name] = None if latitude is None or longitude is None else (latitude, longitude)
        texts = {(name, language): title for name, language, title in db.execute(_TEXTS)}
        assert len(images) == db.execute("SELECT count(*) FROM codes").fetchone()[0], "images without codes"
    return Content(images, places, texts)


_IMAGES = "SELECT i.name, l.name, i.content_hash FROM images i JOIN landmarks l ON l.id = i.landmark_id"
_TEXTS = "SELECT l.name, t.language, t.title FROM landmark_texts t JOIN landmarks l ON l.id = t.landmark_id"


class Person:
    """A folder of photos, a database, and what their owner knows about them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files: dict[str, int] = {}  # path of a photo -> number of its content
        self.corrected: dict[str, str] = {}  # SHA-256 of a photo -> the landmark that the person gave it
        self.added: dict[str, str] = {}  # the same of photos that were added one by one, until `index` knows their file
        self.came_from: dict[str, set[str]] = {}  # name of an image -> files it may have come from
        self.called: set[tuple[str, str]] = set()  # old and new name of a landmark
        self.finished: dict[str, str] = {}  # sealed file or pack -> SHA-256
        self.exported: Content | None = None
        self.service: Service | None = None
        self.steps = 0
        folder.chmod(0o755)
        for tree in TREES:
            (folder / tree).mkdir(parents=True)

    @property
    def database(self) -> Path:
        return self.folder / "places.db"

    def end(self) -> None:
        """Stop what runs."""
        if self.service is not None:
            self.service.end(signal.SIGKILL)
            self.service = None

    # -- running

    def words(self, words: Sequence[str]) -> list[str]:
        """A command with the paths that "@" stands for."""
        return [str(self.folder / w[1:]) if w.startswith("@") else w for w in words]

    def run(self, *words: str) -> Ran:
        """A command."""
        self.steps += 1
        how = as_program if self.steps % PROGRAM_EVERY == 0 else here
        return self.checked(replace(how(self.words(words)), words=words))

    def checked(self, ran: Ran, codes: Sequence[int] = (0, 1, 2)) -> Ran:
        """The command said nothing impossible, and touched no file that is none of its business."""
        assert "Traceback" not in ran.err, ran
        assert ran.code in codes, ran
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

    def now(self, ran: Ran, before: Content, images: dict[str, tuple[str, str]] | None = None) -> Content:
        """The database after a command: the images as said; coordinates and texts of other places are still there."""
        after = content(self.database)
        images = before.images if images is None else images
        assert after.images == images, f"{ran}: {after.images} instead of {images}"
        return after

    def kept(self, ran: Ran, before: Content, after: Content, without: Sequence[str] = ()) -> None:
        """Coordinates and texts that no command named are as they were; not looked at: those of `without`."""
        places = {k for k, v in before.located.items() if after.located.get(k) != v and k not in without}
        texts = {k for k, v in before.texts.items() if after.texts.get(k) != v and k[0] not in without}
        assert not places, f"coordinates are gone or changed: {places}: {ran}"
        assert not texts, f"texts are gone or changed: {texts}: {ran}"

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

    # -- index

    def index(self, folder: str, landmark: str | None, *more: str) -> None:
        """`index`, and once more."""
        mine = self.below(folder)
        words = ["index", "@places.db", f"@{folder}", *BUNDLE, *more, "--json"]
        words += ["--landmark", landmark] if landmark else []
        before = content(self.database)
        ran = self.run(*words)
        after = content(self.database)
        if not mine:
            assert ran.code != 0, f"{ran}: nothing to index, and exit 0"
            assert after == before, ran
            return
        self.check_index(ran, mine, landmark, before, after)
        if ran.code == 0:
            again = self.run(*words)
            assert again.code == 0, again
            told = again.json
            assert told["unchanged"] + len(told["skipped_removed"]) == len(mine), f"a repeat is not unchanged: {again}"
            assert content(self.database) == after, f"a repeat changed the database: {again}"

    def check_index(
        self, ran: Ran, mine: dict[str, str], landmark: str | None, before: Content, after: Content
    ) -> None:
        told = ran.json
        failed, pruned, left_out = len(told["failed"]), set(told["pruned"]), told["skipped_removed"]
        assert ran.code == (1 if failed else 0), f"exit code: {ran}"
        assert sum(told.get(key, 0) for key in COUNTED) + failed + len(left_out) == len(mine), f"counts: {ran}"
        assert told["images"] == len(after.images), f"images: {ran}"
        assert not left_out or "--skip-removed" in ran.words, f"left out unasked: {ran}"
        if not failed:
            missing = set(mine.values()) - set(after.by_photo)
            assert len(missing) <= len(left_out), f"a photo is not in, and exit 0: {ran}"
        for name in pruned:
            assert "--prune" in ran.words, f"pruned unasked: {ran}"
            there = [path for path in self.came_from.get(name, ()) if self._holds(path, before.images[name][1])]
            assert not there, f"{name} was pruned, and may have come from {there}: {ran}"
        self._check_images(ran, mine, landmark, before, after, pruned)
        self._check_places(ran, before, after)
        self._learn(mine, after)
        for path, sha256 in mine.items():
            if after.by_photo.get(sha256) == self.added.get(sha256) in self.meanings(landmark or path.split("/")[1]):
                self.added.pop(sha256, None)  # `index` knows its file now

    def _check_images(
        self,
        ran: Ran,
        mine: dict[str, str],
        landmark: str | None,
        before: Content,
        after: Content,
        pruned: set[str],
    ) -> None:
        """Every image is there, and shows what it did, or what its file says if nobody has corrected that."""
        said: dict[str, set[str]] = {}
        for path, sha256 in mine.items():
            said.setdefault(sha256, set()).update(self.meanings(landmark or path.split("/")[1]))
        for name, (place, sha256) in before.images.items():
            if name in pruned:
                continue
            if sha256 not in after.by_photo:
                assert name in after.images, f"{name} ({place}) is gone: {ran}"
                files = {path for path in self.came_from.get(name, ()) if mine.get(path) == after.images[name][1]}
                assert files, f"{name} ({place}) was replaced by a photo that came from another file: {ran}"
                continue
            now = after.by_photo[sha256]
            if now != place:
                fixed = self.corrected | self.added
                assert fixed.get(sha256) != place, f"the correction of {name} to {place} is undone: {ran}"
                assert now in said.get(sha256, ()), f"{name} is {now} instead of {place}: {ran}"

    def _check_places(self, ran: Ran, before: Content, after: Content) -> None:
        """Coordinates and texts are where they were, or have gone along with all photos of a renamed folder."""
        fresh = set(after.places) - set(before.places)
        gone = [name for name in before.places if name not in after.places]
        self.kept(ran, before, after, gone)
        for name in gone:
            what = (before.places[name], {k[1]: v for k, v in before.texts.items() if k[0] == name})
            followers = {after.by_photo.get(digest, "") for place, digest in before.images.values() if place == name}
            if len(followers) == 1 and followers <= fresh:  # all its photos went there, and its former names with them
                former = {old for old, new in self.called if new == name}
                self.called |= {(old, follower) for old in former for follower in followers}
            if what == (None, {}):
                continue
            found = [(after.places[f], {k[1]: v for k, v in after.texts.items() if k[0] == f}) for f in fresh]
            assert what in found, f"what was known of {name} is gone: {what}: {ran}"

    def _holds(self, path: str, sha256: str) -> bool:
        return path in self.files and world.digest(self.files[path]) == sha256

    def _given(self, photo: str, name: str, before: Content, after: Content) -> None:
        """A program gave the photo of a file. The database is not told which: what is from a file there stays so."""
        mine = world.digest(self.files[photo])
        if mine not in before.by_photo or mine in self.added:
            self._learn({photo: mine}, after)
            return
        known = [self.came_from.get(n, set()) for n, (_, sha256) in before.images.items() if sha256 == mine]
        self.came_from.setdefault(name, set()).update(*known)

    def _learn(self, mine: dict[str, str], after: Content) -> None:
        """Which files an image may have come from."""
        for name, (_, sha256) in after.images.items():
            files = {path for path, digest in mine.items() if digest == sha256}
            self.came_from.setdefault(name, set()).update(files)

    def meanings(self, name: str) -> set[str]:
        """A landmark's name, and what it was renamed to."""
        names = {name}
        while more := {new for old, new in self.called if old in names} - names:
            names |= more
        return names

    # -- corrections

    def relabel(self, name: str, landmark: str) -> None:
        before = content(self.database)
        ran = self.run("relabel", "@places.db", name, landmark, "--json")
        if name not in before.images:
            assert ran.code != 0, f"no such image, and exit 0: {ran}"
            assert content(self.database) == before, ran
            return
        assert ran.code == 0, ran
        place, sha256 = before.images[name]
        self.kept(ran, before, self.now(ran, before, before.images | {name: (landmark, sha256)}))
        if landmark != place or sha256 in self.corrected:  # the same again corrects nothing
            self.corrected[sha256] = landmark

    def rename(self, old: str, new: str, *merge: str) -> None:
        before = content(self.database)
        ran = self.run("rename", "@places.db", old, new, *merge, "--json")
        if ran.code:
            assert content(self.database) == before, ran
            contradict = {k[1] for k in before.texts if k[0] == old} & {k[1] for k in before.texts if k[0] == new}
            allowed = old not in before.places or (new in before.places and (not merge or contradict))
            assert allowed, f"refused for no reason: {ran}"
            return
        assert old in before.places, f"no such landmark, and exit 0: {ran}"
        images = {name: (new if place == old else place, sha256) for name, (place, sha256) in before.images.items()}
        after = self.now(ran, before, images)
        self.kept(ran, before, after, (old,))
        assert after.places[new] == (before.places.get(new) or before.places[old]), f"coordinates: {ran}"
        for (place, language), title in before.texts.items():
            if place == old:
                wanted = before.texts.get((new, language), title)
                assert after.texts[new, language] == wanted, f"a text is lost: {ran}"
        if old != new:
            self._renamed(old, new)

    def _renamed(self, old: str, new: str) -> None:
        self.called.add((old, new))
        for fixed in (self.corrected, self.added):
            fixed |= {sha256: new for sha256, place in fixed.items() if place == old}

    def locate(self, landmark: str, at: tuple[float, float] | None) -> None:
        before = content(self.database)
        words = ("--clear",) if at is None else ("--at", f"{at[0]},{at[1]}")
        ran = self.run("locate", "@places.db", landmark, *words, "--json")
        after = self.now(ran, before)
        self.kept(ran, before, after, (landmark,) if landmark in before.places else ())
        if landmark in before.places:
            assert ran.code == 0, ran
            assert after.places == before.places | {landmark: at}, ran
        else:
            assert ran.code == 2, ran
            assert after == before, ran

    def describe(self, landmark: str, language: str, title: str) -> None:
        """`catalogue set`."""
        before = content(self.database)
        ran = self.run("catalogue", "set", "@places.db", landmark, f"title.{language}={title}", "--json")
        after = self.now(ran, before)
        assert after.places == before.places, ran
        known = landmark in before.places
        assert (ran.code == 0) == known, f"exit code: {ran}"
        assert after.texts == before.texts | ({(landmark, language): title} if known else {}), ran

    def remove(self, name: str) -> None:
        before = content(self.database)
        ran = self.run("remove", "@places.db", name, "--json")
        left = {n: image for n, image in before.images.items() if n != name}
        self.kept(ran, before, self.now(ran, before, left))
        assert (ran.code == 0) == (name in before.images), f"exit code: {ran}"
        self._forget(left)

    def remove_landmark(self, landmark: str) -> None:
        before = content(self.database)
        ran = self.run("remove", "@places.db", "--landmark", landmark, "--json")
        left = {name: image for name, image in before.images.items() if image[0] != landmark}
        after = self.now(ran, before, left)
        assert (ran.code == 0) == (landmark in before.places), f"exit code: {ran}"
        assert landmark not in after.places, f"{landmark} is still there: {ran}"
        self.kept(ran, before, after, (landmark,))
        self._forget(left)

    def _forget(self, images: dict[str, tuple[str, str]]) -> None:
        there = {sha256 for _, sha256 in images.values()}
        self.corrected = {sha256: place for sha256, place in self.corrected.items() if sha256 in there}
        self.added = {sha256: place for sha256, place in self.added.items() if sha256 in there}

    def add(self, photo: str, landmark: str) -> None:
        """`Recognizer.add` with the name that it gives by itself."""
        before = content(self.database)
        with Recognizer.open(self.database, bundle=world.bundle(), preset="fast") as recognizer:
            try:
                result = recognizer.add(self.folder / photo, landmark=landmark)
            except NameTakenError:
                assert content(self.database) == before, f"refused, and changed something: {photo}"
                return
        ran = Ran(("add", photo, landmark), 0, str(result), "")
        after = content(self.database)
        mine = world.digest(self.files[photo])
        for name, (place, sha256) in before.images.items():
            if sha256 != mine and photo not in self.came_from.get(name, ()):
                assert after.images.get(name) == (place, sha256), f"{name} ({place}) is gone or changed: {ran}"
        assert after.by_photo[mine] == landmark, ran
        self.kept(ran, before, after)
        self._given(photo, result.name, before, after)
        known = before.by_photo.get(mine)
        if known is None:
            self.added[mine] = landmark
        elif known != landmark:
            (self.added if mine in self.added else self.corrected)[mine] = landmark
        elif mine in self.corrected:
            self.corrected[mine] = landmark
        self.steps += 1
        self.check_files(ran)

    # -- copies

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

    def export(self) -> None:
        """`export`, and `import` into a database that is not there yet: the same content."""
        before = content(self.database)
        ran = self.run("export", "@places.db", "@exported", "--json")
        assert content(self.database) == before, ran
        assert ran.code == 0, ran
        copy = self.folder / "copy.db"
        again = self.run("import", "@copy.db", "@exported", *BUNDLE[:2], "--json")
        assert again.code == 0, again
        taken = content(copy)
        copy.unlink()
        assert (taken.images, taken.texts) == (before.images, before.texts), f"{again}: {taken} instead of {before}"
        assert taken.located == before.located, f"{again}: {taken.located} instead of {before.located}"
        self.exported = before

    def import_(self) -> None:
        """`import` of the last export into the database it came from."""
        assert self.exported is not None
        before, old = content(self.database), self.exported
        ran = self.run("import", "@places.db", "@exported", *BUNDLE[:2], "--json")
        assert ran.code == 0, ran
        after = content(self.database)
        assert set(after.by_photo) == set(before.by_photo) | set(old.by_photo), f"photos came or went: {ran}"
        for sha256, place in after.by_photo.items():
            said = self.meanings(old.by_photo[sha256]) if sha256 in old.by_photo else {before.by_photo[sha256]}
            assert place in said, f"{sha256} is {place} and not {said}: {ran}"
        for name, image in before.images.items():
            if image[1] not in old.by_photo:
                assert after.images.get(name) == image, f"{name} {image} is gone: {ran}"
        assert set(after.texts) >= set(before.texts), f"texts are gone: {ran}"
        assert set(after.located) >= set(before.located), f"coordinates are gone: {ran}"
        for sha256 in old.by_photo:
            place = after.by_photo[sha256]
            if sha256 not in before.by_photo:
                self.added[sha256] = place
            elif before.by_photo[sha256] != place:
                (self.added if sha256 in self.added else self.corrected)[sha256] = place
        assert self.run("import", "@places.db", "@exported", *BUNDLE[:2], "--json").code == 0
        assert content(self.database) == after, f"a repeat changed the database: {ran}"

    # -- asking

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

    # -- others

    def stranger(self, name: str, words: tuple[str, ...], mode: int) -> None:
        """A command of another user, in a folder with these permissions: what is there stays, and stays readable."""
        if os.getuid() and mode & 0o200:
            return  # the same user, who may write
        before = content(self.database)
        self.folder.chmod(mode)
        try:
            words = (words[0], f"@{name}", *words[1:], "--json")
            user = STRANGER if os.getuid() == 0 else None
            ran = replace(forked(self.words(words), user=user), words=("another user:", *words))
        finally:
            self.folder.chmod(0o755)
        self.steps += 1
        self.checked(ran)
        assert content(self.database) == before, f"somebody without permission has written: {ran}"
        sealed = name in self.finished
        if words[0] in ("info", "verify"):
            assert ran.code == 0 or not sealed, f"a sealed file cannot be read: {ran}"
            if ran.code == 0 and words[0] == "info":
                images = content(self.folder / name).images
                assert ran.json["n_images"] == len(images), f"not what is there: {ran}"
            if ran.code:
                assert "permission" in ran.err.lower(), f"the reason is not named: {ran}"
        else:
            assert ran.code == 2, f"no permission, and no error: {ran}"

    def killed(self, act: str, *what: str, milliseconds: float) -> None:
        """A command, killed somewhere in it, and then run again: each of its transactions happened or did not."""
        before = content(self.database)
        words = _WORDS[act](*what)
        ran = replace(forked(self.words(words), kill_after=milliseconds / 1000), words=(*words, "(killed)"))
        self.steps += 1
        self.checked(ran, (0, 1, 2, -signal.SIGKILL))
        between = content(self.database)
        if act == "index":
            for name, (place, sha256) in before.images.items():
                assert sha256 in between.by_photo or name in between.images, f"{name} ({place}) is gone: {ran}"
            self._learn(self.below(what[0]), between)
            self.index(what[0], None)
            return
        if act == "rename" and between != before:  # it was done before the kill; now there is no such landmark
            self._renamed(what[0], what[1])
        getattr(self, act)(*what)
        after = content(self.database)
        assert between in (before, after), f"half done: {ran}: {between} of {before} and {after}"

    # -- the service

    def serve(self) -> None:
        """Start the service."""
        self.service = Service(self.database)
        self.check_files(Ran(("serve",), 0, "", ""))

    def stop(self, how: int) -> None:
        """Stop it, or kill it."""
        assert self.service is not None
        before = content(self.database)
        self.service.end(how)
        self.service = None
        assert content(self.database) == before, "the end of the service changed the database"

    def ask_service(self, photo: str, landmark: str, name: str) -> None:
        """What the service says is what is there; a photo that it takes in replaces none."""
        assert self.service is not None
        before = content(self.database)
        status, told = self.service.ask("GET", "/v1/landmarks")
        ran = Ran(("serve", photo, landmark, name), status, str(told), "")
        assert status == 200, ran
        images = {image["name"]: row["name"] for row in told["landmarks"] for image in row["images"]}
        assert images == {n: place for n, (place, _) in before.images.items()}, f"the service is not up to date: {ran}"
        data, mine = (self.folder / photo).read_bytes(), world.digest(self.files[photo])
        assert self.service.ask("POST", "/v1/identify", data)[0] == 200
        query = f"landmark={quote(landmark)}&name={quote(name, safe='')}"
        status, told = self.service.ask("POST", f"/v1/images?{query}", data)
        after = content(self.database)
        taken = name in before.images and before.images[name][1] != mine
        assert (status == 409) == taken, f"status {status}: {told}: {ran}"
        left = {n: image for n, image in before.images.items() if image[1] != mine}
        assert after.images == (before.images if taken else left | {name: (landmark, mine)}), f"{told}: {ran}"
        if not taken:
            known = before.by_photo.get(mine)
            if known is None:
                self.added[mine] = landmark
            elif known != landmark:
                (self.added if mine in self.added else self.corrected)[mine] = landmark
            self._given(photo, name, before, after)
        self.steps += 1
        self.check_files(ran)


# What `killed` runs: method of a person -> the command that it runs.
_WORDS: dict[str, Callable[..., tuple[str, ...]]] = {
    "index": lambda folder: ("index", "@places.db", f"@{folder}", *BUNDLE),
    "relabel": lambda name, landmark: ("relabel", "@places.db", name, landmark),
    "rename": lambda old, new, *merge: ("rename", "@places.db", old, new, *merge),
    "describe": lambda landmark, language, title: (
        *("catalogue", "set", "@places.db", landmark, f"title.{language}={title}"),
    ),
    "remove": lambda name: ("remove", "@places.db", name),
    "remove_landmark": lambda landmark: ("remove", "@places.db", "--landmark", landmark),
}
