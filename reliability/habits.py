"""What people do with their photos and their database, in any order, against a plain model of what they own.

A person (`person.py`) puts photos into folders, moves, renames, changes and deletes them, and runs commands in between;
some are killed, some are another user's, some run while the service is open. `Habits` lets hypothesis choose the steps,
and shorten them where something is wrong.

    python -m reliability habits --n 100000        # in batches of seeds, resumable
"""

from __future__ import annotations

import shutil
import signal
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import seed as seeded
from hypothesis import strategies as st
from hypothesis.errors import Flaky
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from reliability.person import TREES, Content, Person, content
from reliability.running import BUNDLE, Ran
from testing.paths import ROOT

__all__ = ["STEPS", "Content", "Habits", "LongHabits", "Person", "Ran", "batch", "content", "live"]

PLACES = ("Colosseum", "Eiffel Tower", "Petra")
NAMES = ("DSC_0001.png", "DSC_0002.png")
CONTENTS = 10
PHASES = (Phase.generate, Phase.shrink)
STEPS = 40  # of one life

photos = st.tuples(st.sampled_from(TREES), st.sampled_from(PLACES), st.sampled_from(NAMES)).map("/".join)
numbers = st.integers(0, CONTENTS - 1)
any_of = st.integers(0, 99)
trees = st.sampled_from(TREES)
places = st.sampled_from(PLACES)
positions = st.sampled_from((None, (41.89, 12.49), (48.858, 2.294), (-33.857, 151.215)))
languages = st.sampled_from(("en", "de"))
WRITES = (
    ("relabel", "x", "y"),
    ("remove", "x"),
    ("remove", "--landmark", "Petra"),
    ("rename", "Petra", "z"),
    ("locate", "Petra", "--at", "1,2"),
    ("catalogue", "set", "Petra", "title.en=x"),
)


class Habits(RuleBasedStateMachine):
    """The steps, chosen by hypothesis."""

    long = False  # with processes that are killed, and the service
    done = 0  # commands of all lives in this process
    steps = 0

    def __init__(self) -> None:
        super().__init__()
        self.place = tempfile.mkdtemp(prefix="delf-edge-habits-")
        self.person = Person(Path(self.place))

    def teardown(self) -> None:
        Habits.done += self.person.steps
        self.person.end()
        shutil.rmtree(self.place, ignore_errors=True)

    def check_invariants(self, *args: Any, **kwargs: Any) -> None:
        Habits.steps += 1
        super().check_invariants(*args, **kwargs)

    def _file(self, number: int) -> str:
        return sorted(self.person.files)[number % len(self.person.files)]

    def _image(self, number: int) -> str:
        names = sorted(content(self.person.database).images)
        return names[number % len(names)] if names else "none.png"

    def has_files(self) -> bool:
        return bool(self.person.files)

    def has_database(self) -> bool:
        return self.person.database.exists()

    @initialize(shots=st.lists(st.tuples(photos, numbers), max_size=6), tree=trees)
    def begin(self, shots: list[tuple[str, int]], tree: str) -> None:
        """A few photos of some days, and mostly a database of one folder: so that all steps are possible soon."""
        for path, number in shots:
            self.person.put(path, number)
        if self.person.below(tree):
            self.person.index(tree, None)

    # -- files

    @rule(path=photos, number=numbers)
    def put(self, path: str, number: int) -> None:
        self.person.put(path, number)

    @precondition(has_files)
    @rule(which=any_of, to=photos)
    def move(self, which: int, to: str) -> None:
        self.person.move(self._file(which), to)

    @precondition(has_files)
    @rule(tree=trees, old=places, new=places)
    def rename_folder(self, tree: str, old: str, new: str) -> None:
        if old == new or self.person.below(f"{tree}/{new}"):
            return
        for path in list(self.person.below(f"{tree}/{old}")):
            self.person.move(path, f"{tree}/{new}/{path.rsplit('/', 1)[1]}")

    @precondition(has_files)
    @rule(which=any_of)
    def delete(self, which: int) -> None:
        self.person.delete(self._file(which))

    # -- photos go in

    @rule(tree=trees, more=st.sampled_from(((), (), ("--prune",), ("--skip-removed",), ("--thumbnails",))))
    def index(self, tree: str, more: tuple[str, ...]) -> None:
        self.person.index(tree, None, *more)

    @rule(tree=trees, landmark=places)
    def index_as(self, tree: str, landmark: str) -> None:
        self.person.index(tree, landmark)

    @precondition(has_files)
    @rule(which=any_of, landmark=places)
    def add(self, which: int, landmark: str) -> None:
        self.person.add(self._file(which), landmark)

    # -- corrections

    @precondition(has_database)
    @rule(which=any_of, landmark=places)
    def relabel(self, which: int, landmark: str) -> None:
        self.person.relabel(self._image(which), landmark)

    @precondition(has_database)
    @rule(old=places, new=places, merge=st.sampled_from(((), ("--merge",))))
    def rename(self, old: str, new: str, merge: tuple[str, ...]) -> None:
        self.person.rename(old, new, *merge)

    @precondition(has_database)
    @rule(landmark=places, at=positions)
    def locate(self, landmark: str, at: tuple[float, float] | None) -> None:
        self.person.locate(landmark, at)

    @precondition(has_database)
    @rule(landmark=places, language=languages, title=places)
    def describe(self, landmark: str, language: str, title: str) -> None:
        self.person.describe(landmark, language, title)

    @precondition(has_database)
    @rule(which=any_of)
    def remove(self, which: int) -> None:
        self.person.remove(self._image(which))

    @precondition(has_database)
    @rule(landmark=places)
    def remove_landmark(self, landmark: str) -> None:
        self.person.remove_landmark(landmark)

    # -- copies

    @precondition(has_database)
    @rule(what=st.sampled_from((("seal", "sealed.db"), ("seal", "sealed2.db"), ("pack", "cut.pack"))))
    def finish(self, what: tuple[str, str]) -> None:
        self.person.finish(*what)

    @precondition(lambda self: bool(self.person.finished))
    @rule(which=any_of, words=st.sampled_from(WRITES))
    def try_to_change(self, which: int, words: tuple[str, ...]) -> None:
        self.person.try_to_change(sorted(self.person.finished)[which % len(self.person.finished)], words)

    @precondition(has_database)
    @rule()
    def export(self) -> None:
        self.person.export()

    @precondition(lambda self: self.has_database() and self.person.exported is not None)
    @rule()
    def import_(self) -> None:
        self.person.import_()

    # -- asking

    @precondition(lambda self: self.has_files() and self.has_database())
    @rule(which=any_of, over=st.booleans())
    def explain(self, which: int, over: bool) -> None:
        photo = self._file(which)
        self.person.explain(photo, photo if over else "proof.png")

    @precondition(has_files)
    @rule(which=any_of)
    def identify(self, which: int) -> None:
        self.person.ask("identify", str(self.person.folder / self._file(which)), *BUNDLE)

    @precondition(has_database)
    @rule(command=st.sampled_from(("info", "verify", "missing")))
    def ask(self, command: str) -> None:
        self.person.ask(command)

    # -- others

    @precondition(has_database)
    @rule(
        which=any_of,
        words=st.sampled_from((("info",), ("verify",), *WRITES)),
        mode=st.sampled_from((0o755, 0o555)),
    )
    def stranger(self, which: int, words: tuple[str, ...], mode: int) -> None:
        names = ["places.db", *sorted(self.person.finished)]
        self.person.stranger(names[which % len(names)], words, mode)

    @precondition(lambda self: self.long and self.has_files() and self.has_database())
    @rule(tree=trees, milliseconds=st.floats(1, 60))
    def kill_index(self, tree: str, milliseconds: float) -> None:
        self.person.killed("index", tree, milliseconds=milliseconds)

    @precondition(lambda self: self.long and self.has_database())
    @rule(which=any_of, old=places, new=places, act=st.integers(0, 4), milliseconds=st.floats(1, 25))
    def kill(self, which: int, old: str, new: str, act: int, milliseconds: float) -> None:
        acts = (
            ("relabel", self._image(which), new),
            ("rename", old, new, "--merge"),
            ("describe", old, "en", new),
            ("remove", self._image(which)),
            ("remove_landmark", old),
        )
        self.person.killed(*acts[act], milliseconds=milliseconds)

    @precondition(lambda self: self.long and self.has_database() and self.person.service is None)
    @rule()
    def serve(self) -> None:
        self.person.serve()

    @precondition(lambda self: self.person.service is not None and self.has_files())
    @rule(which=any_of, landmark=places, name=any_of)
    def ask_service(self, which: int, landmark: str, name: int) -> None:
        names = (self._image(name), f"{landmark}/new.png")
        self.person.ask_service(self._file(which), landmark, names[name % 2])

    @precondition(lambda self: self.person.service is not None)
    @rule(how=st.sampled_from((signal.SIGTERM, signal.SIGKILL)))
    def stop(self, how: int) -> None:
        self.person.stop(how)


class LongHabits(Habits):
    """With processes that are killed, and the service beside."""

    long = True


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
    """A batch of the campaign: steps, and what was found.

    Hypothesis gives a batch up where the same choices lead to another end when it repeats them: a process that was
    killed may have come further. What was done by then counts, and what was found then counts all the same.
    """
    began, steps, found, given_up = Habits.done, Habits.steps, [], 0
    try:
        live(n, seed, LongHabits)
    except (AssertionError, ExceptionGroup, Flaky) as error:
        failures = _failures(error)
        if not failures and not isinstance(error, Flaky):
            raise
        given_up = int(not failures)
        for e in failures:
            notes = [str(note) for note in getattr(e, "__notes__", ())]
            found.append("\n".join([f"seed {seed}: {str(e)[:3000]}", *notes])[:8000].replace(f"{ROOT}/", ""))
    return {
        "n": min(n, Habits.steps - steps) if given_up else n,
        "steps": Habits.steps - steps,
        "commands": Habits.done - began,
        "lost or wrong": len(found),
        "given up": given_up,
        "found": found,
    }


def _failures(error: BaseException | None) -> list[AssertionError]:
    """What failed in an error of hypothesis: alone, one of several, or what it was about when it gave up."""
    if isinstance(error, AssertionError):
        return [error]
    if isinstance(error, BaseExceptionGroup):
        return [e for part in error.exceptions for e in _failures(part)]
    return [] if error is None else _failures(error.__cause__) or _failures(error.__context__)
