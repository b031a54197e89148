"""A small database of places with known content, and every operation of the SDK that changes one.

The places are made of the test bundle and of photos of seeded noise. An operation says beforehand what the file must
hold if it never happened and what it must hold afterwards, so that a crash in between can be judged.
"""

from __future__ import annotations

import atexit
import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from delf_edge.bundle.bundle import Bundle
from delf_edge.catalogue.catalogue import Catalogue
from delf_edge.catalogue.editor import apply_patches
from delf_edge.catalogue.media import blob
from delf_edge.catalogue.reader import CatalogueReader
from delf_edge.catalogue.records import LandmarkPatch
from delf_edge.files import sync_path
from delf_edge.quantization.packed_codes import CodeLayout
from delf_edge.query.options import IdentifyOptions
from delf_edge.recognizer import Recognizer
from delf_edge.storage.records import NewImage
from delf_edge.storage.store import Store
from delf_edge.types import Codes, Features
from testing.paths import FIXTURES, TINY_BUNDLE

PRESET = "fast"
OLD = FIXTURES / "places-0.1.db"
PHOTOS = 400  # that there are
PICTURES = 20  # of landmarks

# Name of an image -> its landmark, its photo's SHA-256 in hexadecimal; and what is known of landmarks: "text LANDMARK
# LANGUAGE" -> its title; "media LANDMARK NAME" -> the SHA-256.
State = dict[str, tuple[str, str]]
KNOWN = ("text ", "media ")


@cache
def bundle() -> Bundle:
    return Bundle.load(TINY_BUNDLE)


def layout() -> CodeLayout:
    return CodeLayout.of(bundle().codebook)


@cache
def photo(number: int) -> bytes:
    """A PNG of 128 x 96 pixels; another for every number."""
    rng = np.random.default_rng(number)
    coarse = rng.integers(0, 256, (12, 16, 3), np.uint8)
    pixels = cv2.resize(coarse, (128, 96), interpolation=cv2.INTER_CUBIC)
    return bytes(cv2.imencode(".png", pixels)[1].tobytes())


@cache
def digest(number: int) -> str:
    return hashlib.sha256(photo(number)).hexdigest()


_lab: list[Recognizer] = []


def _recognizer() -> Recognizer:
    """One that only describes photos."""
    if not _lab:
        folder = tempfile.mkdtemp(prefix="delf-edge-lab-")
        _lab.append(Recognizer.open(Path(folder) / "none.db", bundle=bundle(), preset=PRESET))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return _lab[0]


@cache
def features(number: int) -> Features:
    """What the test network sees in a photo."""
    return _recognizer().extract(photo(number))


@cache
def codes(number: int) -> Codes:
    """The stored form of a photo."""
    return _recognizer().encode(features(number))


def new_image(number: int, name: str, landmark: str) -> NewImage:
    """A photo, ready to be stored; every second one has a thumbnail."""
    thumbnail = photo(number)[:300] if number % 2 else None
    return NewImage(name, landmark, bytes.fromhex(digest(number)), codes(number), {"number": number}, thumbnail)


@dataclass(frozen=True)
class Step:
    """One operation: its kind, the file it changes, the contents before and after, and what does it."""

    operation: str
    file: str
    before: State | None
    after: State
    act: Callable[[], object]

    def as_json(self) -> str:
        return json.dumps({k: getattr(self, k) for k in ("operation", "file", "before", "after")})


OPERATIONS = (
    "add",
    "add many",
    "replace",
    "relabel",
    "remove",
    "remove landmark",
    "compact",
    "snapshot",
    "seal",
    "close and open",
    "catalogue import",
    "merge",
    "migrate",
)


def images(state: State) -> State:
    """The images of a content."""
    return {key: value for key, value in state.items() if not key.startswith(KNOWN)}


def content(store: Store) -> State:
    """Everything a database holds."""
    found = {i.name: (i.landmark, i.content_hash.hex()) for i in store.images()}
    for record in CatalogueReader([store]):
        for language, text in record.texts.items():
            found[f"text {record.name} {language}"] = (str(text.title), "")
        for item in record.media:
            found[f"media {record.name} {item.name}"] = (item.sha256, "")
    return found


@cache
def old_content() -> State:
    """What the database of version 0.1 holds."""
    with Store.open(OLD, mode="ro") as store:
        return content(store)


class World:
    """An open database and what is in it.

    Attributes:
        state: content of places.db; copied: content of copy.db, None where there is none.
    """

    def __init__(self, folder: Path, state: State, copied: State | None, rng: np.random.Generator) -> None:
        self.folder, self.state, self.copied, self.rng = folder, state, copied, rng
        self.recognizer = self._open()
        self.number = int(rng.integers(300))
        self.copies = 0  # that were made to be sealed or migrated

    def _open(self) -> Recognizer:
        return Recognizer.open(self.folder / "places.db", bundle=bundle(), preset=PRESET)

    def close(self) -> None:
        self.recognizer.close()

    def _unused(self) -> tuple[int, str]:
        """Number of a photo that is not stored, and a name for it."""
        stored = {sha256 for _, sha256 in self.state.values()}
        while digest(self.number) in stored or f"p{self.number}" in self.state:
            self.number = (self.number + 1) % PHOTOS
        return self.number, f"p{self.number}"

    def step(self, operation: str) -> Step:
        """An operation on the present content; carry it out, then call `done`."""
        state, store = self.state, self.recognizer.store
        if operation not in ("add", "add many") and len(images(state)) < 3:
            operation = "add many"
        if operation in ("add", "add many"):
            new, after = [], dict(state)
            for _ in range(1 if operation == "add" else 5):
                self.state = after
                number, name = self._unused()
                new.append(new_image(number, name, f"l{number % 5}"))
                after = after | {name: (f"l{number % 5}", digest(number))}
            self.state = state
            return Step(operation, "places.db", state, after, lambda: store.add_many(new))
        name = str(self.rng.choice(sorted(images(state))))
        landmark = state[name][0]
        if operation == "replace":
            number, _ = self._unused()
            image = new_image(number, name, "l9")
            return Step(operation, "places.db", state, state | {name: ("l9", digest(number))}, lambda: store.add(image))
        if operation == "relabel":
            label = f"label {int(self.rng.integers(5))}"
            after = state | {name: (label, state[name][1])}
            return Step(operation, "places.db", state, after, lambda: self.recognizer.relabel(name, label))
        if operation == "remove":
            after = {k: v for k, v in state.items() if k != name}
            return Step(operation, "places.db", state, after, lambda: self.recognizer.remove(name))
        if operation == "remove landmark":
            gone = tuple(f"{kind}{landmark} " for kind in KNOWN)
            after = {k: v for k, v in state.items() if v[0] != landmark and not k.startswith(gone)}
            return Step(operation, "places.db", state, after, lambda: self.recognizer.remove_landmark(landmark))
        if operation == "compact":
            return Step(operation, "places.db", state, state, store.compact)
        if operation == "snapshot":
            copy = self.folder / "copy.db"
            return Step(operation, "copy.db", self.copied, state, lambda: store.snapshot(copy, overwrite=True))
        if operation == "seal":
            self.copies += 1
            kiosk = self.folder / f"sealed{self.copies}.db"
            store.snapshot(kiosk)
            sync_path(self.folder)
            return Step(operation, kiosk.name, state, state, lambda: seal(kiosk))
        if operation == "catalogue import":
            patches, after = self._told(sorted({v[0] for v in images(state).values()})[:3])
            return Step(operation, "places.db", state, after, lambda: apply_patches(store, patches))
        if operation == "merge":
            other = next((v[0] for v in images(state).values() if v[0] != landmark), None)
            if other is None:
                return self.step("add many")
            return Step(operation, "places.db", state, _merged(state, landmark, other), self._merge(landmark, other))
        if operation == "migrate":
            self.copies += 1
            old = self.folder / f"old{self.copies}.db"
            old.write_bytes(OLD.read_bytes())  # the shim does not see how shutil copies
            sync_path(old)
            sync_path(self.folder)
            return Step(operation, old.name, old_content(), old_content(), lambda: Store.open(old).close())
        return Step("close and open", "places.db", state, state, self._reopen)

    def _told(self, landmarks: list[str]) -> tuple[list[LandmarkPatch], State]:
        """Texts in two languages and a picture for each landmark, and the content with them."""
        patches, after = [], dict(self.state)
        for landmark in landmarks:
            number = int(self.rng.integers(PICTURES))  # a landmark has 50 at most
            titles = {"en": f"title {number}", "ja": f"\u984c {number}"}
            picture = blob(f"{number}.png", photo(number))
            texts = {language: {"title": title} for language, title in titles.items()}
            patches.append(LandmarkPatch(landmark, None, landmark, {"kind": "tower"}, texts, (picture,)))
            after |= {f"text {landmark} {language}": (title, "") for language, title in titles.items()}
            after[f"media {landmark} {picture.name}"] = (picture.sha256, "")
        return patches, after

    def _merge(self, landmark: str, into: str) -> Callable[[], object]:
        return lambda: Catalogue([self.recognizer.store]).merge(landmark, into, prefer="new")

    def _reopen(self) -> None:
        self.recognizer.close()
        self.recognizer = self._open()

    def done(self, step: Step) -> None:
        """Take note that an operation was carried out."""
        if step.file == "places.db":
            self.state = step.after
        elif step.file == "copy.db":
            self.copied = step.after


def _merged(state: State, landmark: str, into: str) -> State:
    """A content in which one landmark has gone to another, whose texts stay."""
    after: State = {}
    for key, value in state.items():
        kind = next((k for k in KNOWN if key.startswith(f"{k}{landmark} ")), None)
        if kind is None:
            after[key] = (into, value[1]) if value[0] == landmark else value
            continue
        moved = f"{kind}{into} {key.removeprefix(f'{kind}{landmark} ')}"
        after.setdefault(moved, value)
        if moved in state:
            after[moved] = state[moved]
    return after


def seal(path: Path) -> None:
    """What `delf-edge seal` does."""
    with Store.open(path) as store:
        store.seal()


def steps(folder: Path, seed: int, rounds: int) -> Iterator[Step]:
    """Every operation in turn, `rounds` times; each must be carried out before the next is asked for."""
    world = World(folder, {}, None, np.random.default_rng(seed))
    try:
        for _ in range(rounds):
            for operation in ("add", "add", *OPERATIONS):
                step = world.step(operation)
                yield step
                world.done(step)
    finally:
        world.close()


def complaint(
    path: Path, allowed: list[State | None], rng: np.random.Generator, *, sealed: bool = False, ask: float = 1.0
) -> str | None:
    """What is wrong with a database file after a crash; None where everything is as it must be.

    It must open, `verify` must be clean, its content must be one of `allowed` (None: no file, or one without images),
    and an image drawn at random must be found by its own features (with probability `ask`: it takes the longest).
    """
    if not path.exists():
        return None if None in allowed else "the file is gone"
    old = path.name.startswith("old")
    mode: dict[str, Any] = {} if old else {"bundle_id": bundle().id, "layout": layout()}
    if sealed or path.name.startswith("sealed"):
        with Store.open(path, mode="ro") as store:
            if store.sealed:
                mode = {"mode": "ro"}
    with Store.open(path, **mode) as store:
        if sealed and not store.sealed:
            return "acknowledged as sealed, and is not"
        if problems := store.verify():
            return f"verify: {problems[0].what}"
        found = content(store)
        if found not in [state or {} for state in allowed]:
            return f"content {sorted(found)} is none of the {len(allowed)} allowed"
        found = images(found)
        if old or not found or rng.random() >= ask:
            return None
        recognizer = Recognizer(store, bundle(), preset=PRESET)
        wanted = str(rng.choice(sorted(found)))
        matches = recognizer.rank(features(number_of(found[wanted][1])), 3, options=IdentifyOptions(verify=1))
        if not matches or matches[0].name != wanted or matches[0].landmark != found[wanted][0]:
            return f"{wanted} does not answer: {matches[:1]}"
    return None


@cache
def _numbers() -> dict[str, int]:
    return {digest(i): i for i in range(PHOTOS)}


def number_of(sha256: str) -> int:
    """The number of the photo with this hash."""
    return _numbers()[sha256]
