"""The door for packs and what carries them: files of packs, their manifests, deltas, and a channel's files.

A pack or manifest that was changed on its way is refused. One that a stranger changed and described anew opens or is
refused, and what it says under right checksums of its rows is either right or hostile on purpose. A delta leads to the
version that was wanted, or nowhere. A channel's changed file leaves the device with a version that was published.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from delf_edge.errors import DelfEdgeError, UpdateError
from delf_edge.files import file_sha256, remove_database
from delf_edge.packs.create import content_digest, cut_pack
from delf_edge.packs.installed import open_installed
from delf_edge.packs.manifest import PackManifest, manifest_path, open_pack
from delf_edge.storage.store import Store
from delf_edge.updates.client import update
from delf_edge.updates.delta import apply_delta, make_delta
from delf_edge.updates.publisher import Channel
from reliability import world
from reliability.doors import PLACES, Attempt, asked, damaged_page, hostile_sql, places_file
from reliability.mutate import mutate

DEEP = b"[" * 200_000
ODD: tuple[Any, ...] = (
    None,
    True,
    0,
    -1,
    2**70,
    0.5,
    float("inf"),
    "",
    "../x",
    "a" * 300,
    [],
    {},
    [[]],
    {"a": 1},
    "\ud800",
    "1",
)
DELTA_SQL = (
    "UPDATE meta SET value = '[\"x\", null, 1.5]' WHERE key = 'delta_landmarks'",
    "UPDATE meta SET value = '{{}}' WHERE key = 'delta_landmarks'",
    "UPDATE meta SET value = '[1, {big}]' WHERE key = 'delta_landmarks'",
    "UPDATE meta SET value = '{big}' WHERE key = 'delta_revision'",
    "UPDATE meta SET value = 'x' WHERE key = 'delta_revision'",
    "DELETE FROM meta WHERE key = 'delta_landmarks'",
    "UPDATE meta SET value = '0' WHERE key = 'sealed'",
    "INSERT INTO tombstones VALUES ({i}, x'', {big}, 0)",
    "UPDATE images SET id = {i}, landmark_id = {i}",
    "UPDATE landmarks SET name = 'l{i}'",
)


class Source:
    """Two versions of a pack, the delta between them, and a device that has the first of a channel with both."""

    def __init__(self, folder: Path) -> None:
        database = folder / "all.db"
        places_file(database)
        self.packs = [folder / "1.pack", folder / "2.pack"]
        with Store.open(database) as store:
            cut_pack(store, self.packs[0], name="p", version=1)
            store.remove(f"p{PLACES - 1}")
            store.add(world.new_image(PLACES, f"p{PLACES}", f"l{PLACES}"))
            store.set_landmark("l0", latitude=1.0, longitude=2.0)
            cut_pack(store, self.packs[1], name="p", version=2)
        self.manifests = [PackManifest.read(manifest_path(pack)) for pack in self.packs]
        self.contents = {m.content_sha256 for m in self.manifests}
        self.delta = folder / "delta"
        make_delta(self.packs[0], self.packs[1], self.delta)
        self.channel = Channel.create(folder / "channel", folder / "keys")
        self.channel.publish(self.packs[:1])
        self.device = folder / "device"
        update(str(self.channel.folder), self.device, world.bundle(), root=self.channel.metadata / "1.root.json")
        self.channel.publish(self.packs[1:])


def answers(store: Store, rng: np.random.Generator, *, hostile: bool = False) -> str:
    """What an opened pack says."""
    with store:
        return asked(store, rng, hostile=hostile)


def described_anew(path: Path, manifest: PackManifest) -> None:
    """Write the manifest that a stranger would write for this file."""
    facts = {"bytes": path.stat().st_size, "sha256": file_sha256(path)}
    dataclasses.replace(manifest, **facts).write(manifest_path(path))  # type: ignore[arg-type]


def odd_manifest(manifest: PackManifest, rng: np.random.Generator) -> bytes:
    """A manifest with an odd value in it, and with the right SHA-256 of itself."""
    facts: dict[str, Any] = manifest.as_json()
    del facts["manifest_sha256"]
    target = facts["layout"] if rng.random() < 0.3 else facts
    target[str(rng.choice(sorted(target)))] = ODD[int(rng.integers(len(ODD)))]
    text = json.dumps(facts, indent=1, sort_keys=True, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n"
    facts["manifest_sha256"] = hashlib.sha256(text).hexdigest()
    return json.dumps(facts, indent=1, sort_keys=True, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n"


def pack_door(folder: Path) -> Attempt:
    """Packs, manifests, deltas, files of a channel."""
    source = Source(folder)
    sound = [pack.read_bytes() for pack in source.packs]
    papers = [manifest_path(pack).read_bytes() for pack in source.packs]
    inside = zlib.decompress(source.delta.read_bytes())
    packed = source.delta.read_bytes()
    mutant, scratch = folder / "mutant.pack", folder / "scratch.db"
    bundle = {"bundle_id": world.bundle().id, "layout": world.layout()}

    def changed_on_its_way(rng: np.random.Generator) -> str:
        """The file or its manifest was changed; the other is as it was."""
        which = int(rng.integers(2))
        pack, paper = sound[which], papers[which]
        if rng.random() < 0.5:
            paper = DEEP if rng.random() < 0.01 else mutate(paper, papers, rng)
        else:
            pack = mutate(pack, sound, rng)
        mutant.write_bytes(pack)
        manifest_path(mutant).write_bytes(paper)
        with open_pack(mutant, **bundle) as store:  # type: ignore[arg-type]
            if (pack, paper) not in zip(sound, papers, strict=True):
                return "wrong answers: a changed pack was opened"
            return asked(store, rng, hostile=False)

    def by_a_stranger(rng: np.random.Generator) -> str:
        """The file was changed and described anew, or the manifest says something odd."""
        kind = rng.random()
        mutant.write_bytes(sound[0] if kind < 0.6 else damaged_page(sound[0], rng))
        if kind < 0.3:
            manifest_path(mutant).write_bytes(odd_manifest(source.manifests[0], rng))
            return answers(open_pack(mutant, **bundle), rng)  # type: ignore[arg-type]
        if kind < 0.6:
            hostile_sql(mutant, rng)
        described_anew(mutant, source.manifests[0])
        return answers(open_pack(mutant, **bundle), rng, hostile=kind < 0.6)  # type: ignore[arg-type]

    def by_delta(rng: np.random.Generator) -> str:
        """The delta was changed, before or after it was packed."""
        if rng.random() < 0.3:
            data, limit = mutate(packed, [packed, inside], rng), len(inside)
        else:
            scratch.write_bytes(inside if (sql := rng.random() < 0.6) else damaged_page(inside, rng))
            if sql:
                hostile_sql(scratch, rng, DELTA_SQL)
            data, limit = zlib.compress(scratch.read_bytes(), 1), scratch.stat().st_size
        (folder / "delta.mutant").write_bytes(data)
        apply_delta(source.packs[0], folder / "delta.mutant", mutant, source.manifests[1], limit)
        with Store.open(mutant, mode="ro") as store:
            if content_digest(store) != source.manifests[1].content_sha256:
                return "wrong answers: a changed delta led to another content"
        return answers(open_pack(mutant, **bundle), rng)  # type: ignore[arg-type]

    def by_channel(rng: np.random.Generator) -> str:
        """A file of the channel was changed; what the device has afterwards is one of the published versions."""
        here = folder / "follower"
        shutil.copytree(source.device, here)
        files = sorted(p for p in source.channel.folder.rglob("*") if p.is_file())
        file = files[int(rng.integers(len(files)))]
        data = file.read_bytes()
        try:
            file.write_bytes(DEEP if rng.random() < 0.05 else mutate(data, [data], rng))
            try:
                report = update(str(source.channel.folder), here, world.bundle())
                outcome = "answered" if report.sound else "refused"
            except UpdateError:
                outcome = "refused"
            with open_installed(here, "p", bundle_id=world.bundle().id, layout=world.layout()) as store:
                if content_digest(store) not in source.contents:
                    return "wrong answers: the device has a version that was never published"
                said = asked(store, rng, hostile=False)
            return said if said.startswith("wrong") else outcome
        finally:
            file.write_bytes(data)
            shutil.rmtree(here)

    def attempt(rng: np.random.Generator) -> str:
        kinds = (changed_on_its_way, by_a_stranger, by_delta, by_channel)
        kind = kinds[int(rng.choice(len(kinds), p=(0.35, 0.35, 0.25, 0.05)))]
        for path in (mutant, scratch):
            remove_database(path)
        manifest_path(mutant).unlink(missing_ok=True)
        try:
            return kind(rng)
        except DelfEdgeError:
            return "refused"

    return attempt
