"""Packs and updates: `python -m benchmarks.shipping ../shared/data/dev.json [--features DIR]`.

On DEV, with features that are extracted once and kept:

* ten packs opened together against the merged database: the same answers, and milliseconds of both;
* an update of 1 % of the images: bytes transferred, metadata included, against the bytes of the pack.

On made-up features of the tests' bundle, since nothing here depends on what the features are:

* updates cut off at a random byte, or killed at a random moment: which version the device answers from;
* single-byte changes of manifests, metadata with their signatures, packs and deltas: how many are refused.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.data.datasets import read_json
from benchmarks.data.feature_cache import FeatureCache
from benchmarks.lab.records import environment
from benchmarks.lab.search_data import raw_features
from delf_edge.bundle.bundle import Bundle, default_bundle_path
from delf_edge.errors import DelfEdgeError, PackError, UpdateError
from delf_edge.features.extractor import project_descriptors
from delf_edge.packs.create import Selection, cut_pack
from delf_edge.packs.manifest import check_pack, manifest_path
from delf_edge.recognizer import Recognizer
from delf_edge.storage.records import NewImage
from delf_edge.storage.store import Store
from delf_edge.types import Features
from delf_edge.updates.client import update
from delf_edge.updates.publisher import Channel
from testing.broken_fetcher import Cut
from testing.paths import TINY_BUNDLE
from testing.synthetic_database import add_images, made_up, make_database

N_PACKS = 10


# ---------------------------------------------------------------------- DEV


def dev_features(dev: Path, bundle: Bundle, cache: Path) -> tuple[list[tuple[str, Features]], list[Features]]:
    """Features of DEV's database with their names, and of its queries."""
    dataset = read_json(dev)
    names = [*dataset.database, *(query.name for query in dataset.queries)]
    raw = raw_features(bundle, [dataset.path(name) for name in names], FeatureCache(cache))
    ready = [replace(f, descriptors=project_descriptors(bundle.codebook, f.descriptors)) for f in raw]
    n = len(dataset.database)
    return list(zip(names[:n], ready[:n], strict=True)), ready[n:]


def fill(recognizer: Recognizer, images: Sequence[tuple[str, Features]]) -> None:
    """Store features; ten made-up landmarks a hundred images each, as packs are cut by landmark."""
    batch = [
        NewImage(name, f"part {i % N_PACKS}/{i}", hashlib.sha256(name.encode()).digest(), recognizer.encode(features))
        for i, (name, features) in enumerate(images)
    ]
    for i in range(0, len(batch), 256):
        recognizer.store.add_many(batch[i : i + 256])


def ten_packs(folder: Path, bundle: Bundle, images: Sequence[tuple[str, Features]], asked: Sequence[Features]) -> Any:
    """The same queries to the merged database and to ten packs, in turn."""
    with Recognizer.open(folder / "merged.db", bundle=bundle) as merged:
        fill(merged, images)
        packs = []
        for k in range(N_PACKS):
            own = frozenset(p.name for p in merged.store.landmarks() if p.name.startswith(f"part {k}/"))
            packs.append(folder / f"{k}.pack")
            cut_pack(merged.store, packs[-1], name=f"p{k}", version=1, selection=Selection(landmarks=own))
    began = time.perf_counter()
    with Recognizer.open(folder / "merged.db", bundle=bundle, read_only=True) as merged:
        opened = {"merged": time.perf_counter() - began}
        began = time.perf_counter()
        with Recognizer.open(folder / "own.db", bundle=bundle, packs=packs) as split:
            opened["ten packs"] = time.perf_counter() - began
            spent: dict[str, list[float]] = {"merged": [], "ten packs": []}
            top = whole = 0
            for features in asked:
                answers = {}
                for name, recognizer in (("merged", merged), ("ten packs", split)):
                    began = time.perf_counter()
                    matches = recognizer.rank(features, 10)
                    spent[name].append(1e3 * (time.perf_counter() - began))
                    answers[name] = [(m.name, m.score, m.probability, m.n_inliers) for m in matches]
                top += answers["merged"][:1] == answers["ten packs"][:1]
                whole += answers["merged"] == answers["ten packs"]
    return {
        "queries": len(asked),
        "images": len(images),
        "same_top_answer": top,
        "same_ten_with_scores": whole,
        "median_ms": {name: statistics.median(times) for name, times in spent.items()},
        "open_seconds": opened,
    }


def one_percent(folder: Path, bundle: Bundle, images: Sequence[tuple[str, Features]]) -> Any:
    """Change 1 % of the images of a pack and count what a device fetches."""
    n = max(3, len(images) // 100)
    with Recognizer.open(folder / "one.db", bundle=bundle) as recognizer:
        fill(recognizer, images[n:])
        cut_pack(recognizer.store, folder / "1.pack", name="dev", version=1)
        third = n // 3
        recognizer.store.remove(*(name for name, _ in images[n : n + third]))
        for i in range(third):
            recognizer.store.relabel(images[2 * n + i][0], "another place")
        fill(recognizer, images[: n - 2 * third])
        cut_pack(recognizer.store, folder / "2.pack", name="dev", version=2)
    channel = Channel.create(folder / "channel", folder / "keys")
    channel.publish([folder / "1.pack"])
    root, device = channel.metadata / "1.root.json", folder / "device"
    first = update(str(channel.folder), device, bundle, root=root)
    channel.publish([folder / "2.pack"])
    second = update(str(channel.folder), device, bundle)
    size = check_pack(folder / "2.pack").bytes
    return {
        "images": len(images) - n,
        "changed": n,
        "pack_bytes": size,
        "first_bytes": first.bytes,
        "update_bytes": second.bytes,
        "share": second.bytes / size,
        "how": [p.how for p in second.packs],
    }


# ---------------------------------------------------------------------- faults


def channel_of_two(folder: Path, bundle: Bundle) -> tuple[Channel, Path, list[Path]]:
    """A channel at version 2, and a device that is at version 1."""
    database, packs = make_database(folder / "all.db", bundle, n_images=60), []
    channel, device = Channel.create(folder / "channel", folder / "keys"), folder / "spare"
    with Store.open(database) as store:
        for version in (1, 2):
            if version == 2:
                add_images(store, bundle, [500])
                store.remove("7.jpg")
            packs.append(folder / f"{version}.pack")
            cut_pack(store, packs[-1], name="made-up", version=version)
            channel.publish(packs[-1:])
            if version == 1:
                update(str(channel.folder), device, bundle, root=channel.metadata / "1.root.json")
    return channel, device, packs


def answered_from(device: Path, own: Path, bundle: Bundle, packs: Sequence[Path]) -> int:
    """The version a device answers from; 0 where it gives no answer, or a wrong one."""
    contents = [check_pack(path).content_sha256 for path in packs]
    try:
        with Recognizer.open(own, bundle=bundle, packs=[device]) as recognizer:
            if recognizer.rank(made_up(bundle, 11), 1)[0].name != "11.jpg":
                return 0
            return 1 + contents.index(check_pack(recognizer.combined.packs[0].path).content_sha256)
    except (DelfEdgeError, IndexError, ValueError):
        return 0


def faults(folder: Path, bundle: Bundle, trials: int) -> Any:
    """Half of the updates are cut off, half are killed."""
    channel, spare, packs = channel_of_two(folder, bundle)
    device, own, rng = folder / "device", folder / "own.db", np.random.default_rng(0)

    def fresh() -> None:
        shutil.rmtree(device, ignore_errors=True)
        shutil.copytree(spare, device, symlinks=True)

    fresh()
    began = time.perf_counter()
    total = update(str(channel.folder), device, bundle).bytes
    usual = time.perf_counter() - began
    seen: dict[str, Counter[int]] = {"cut off": Counter(), "killed": Counter()}
    healed = 0
    for i in range(trials):
        fresh()
        if i % 2:
            child = os.fork()
            if child == 0:
                update(str(channel.folder), device, bundle)
                os._exit(0)
            time.sleep(float(rng.random()) * 1.2 * usual)
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        else:
            with contextlib.suppress(UpdateError):
                update(str(channel.folder), device, bundle, fetcher=Cut(folder, int(rng.integers(0, total))))
        seen["killed" if i % 2 else "cut off"][answered_from(device, own, bundle, packs)] += 1
        if i % 10 == 0:  # and the next update mends whatever was left
            update(str(channel.folder), device, bundle)
            healed += answered_from(device, own, bundle, packs) == 2
    return {
        "trials": trials,
        "answered_from_version": {name: dict(sorted(counter.items())) for name, counter in seen.items()},
        "without_answer": sum(counter[0] for counter in seen.values()),
        "mended_by_the_next_update": [healed, -(-trials // 10)],
    }


def tampering(folder: Path, bundle: Bundle, changes: int) -> Any:
    """Change single bytes and count what is refused; a quarter of the changes in each kind of file."""
    channel, spare, packs = channel_of_two(folder, bundle)
    device, rng = folder / "device", np.random.default_rng(1)
    targets = [p for p in channel.targets.rglob("*") if p.is_file()]
    delta = next(p for p in targets if p.suffix == ".delta")
    signed = [
        channel.metadata / "timestamp.json",
        *(max(channel.metadata.glob(f"*.{r}.json")) for r in ("snapshot", "targets")),
    ]
    listing = next(p for p in targets if p.name.endswith("channel.json"))
    for whole in (p for p in targets if p.suffix == ".pack"):
        whole.unlink()  # a spoilt delta would be made good by the whole pack: that is not what is asked here
    kinds = {
        "manifests": [manifest_path(packs[1]), listing],
        "metadata and signatures": signed,
        "packs": [packs[1]],
        "deltas": [delta],
    }
    refused: dict[str, int] = {}
    missed: list[str] = []
    for kind, files in kinds.items():
        refused[kind] = 0
        for k in range(changes // len(kinds)):
            path = files[k % len(files)]
            sound = path.read_bytes()
            at, other = int(rng.integers(0, len(sound))), int(rng.integers(1, 256))
            path.write_bytes(sound[:at] + bytes([sound[at] ^ other]) + sound[at + 1 :])
            if _refused(path, packs[1], channel, spare, device, bundle):
                refused[kind] += 1
            else:
                missed.append(f"{path.name} byte {at} xor {other}")
            path.write_bytes(sound)
    return {"changes": len(kinds) * (changes // len(kinds)), "refused": refused, "missed": missed}


def _refused(path: Path, pack: Path, channel: Channel, spare: Path, device: Path, bundle: Bundle) -> bool:
    """Whether a changed file is refused where it is read: by opening the pack, or by the device."""
    if path in (pack, manifest_path(pack)):
        try:
            check_pack(pack)
        except PackError:
            return True
        return False
    shutil.rmtree(device, ignore_errors=True)
    shutil.copytree(spare, device, symlinks=True)
    try:
        report = update(str(channel.folder), device, bundle)
    except UpdateError:
        return True
    return report.packs[0].status in ("refused", "failed") and report.packs[0].version == 1


def _told(name: str, part: Any) -> Any:
    """A part of the result, said on stderr as soon as it is there: all of it takes a while."""
    print(name, json.dumps(part), file=sys.stderr)
    return part


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.shipping", description="Packs and updates.")
    parser.add_argument("dev", type=Path, nargs="?", help="dev.json; without it only the faults are tried")
    parser.add_argument("--features", type=Path, default=Path("out/features"), help="where features are kept")
    parser.add_argument("--trials", type=int, default=200, help="updates that are cut off or killed")
    parser.add_argument("--changes", type=int, default=2000, help="single-byte changes")
    a = parser.parse_args(arguments)
    result: dict[str, Any] = {"command": " ".join(["python -m benchmarks.shipping", *sys.argv[1:]]), **environment()}
    with tempfile.TemporaryDirectory(prefix="bench-shipping-") as scratch:
        if a.dev is not None:
            bundle = Bundle.load(default_bundle_path())
            images, asked = dev_features(a.dev, bundle, a.features)
            for part in ("ten", "one"):
                (Path(scratch) / part).mkdir()
            result["bundle"] = bundle.id
            result["ten_packs"] = _told("ten_packs", ten_packs(Path(scratch) / "ten", bundle, images, asked))
            result["one_percent"] = _told("one_percent", one_percent(Path(scratch) / "one", bundle, images))
        tiny = Bundle.load(TINY_BUNDLE)
        for name, run, n in (("faults", faults, a.trials), ("tampering", tampering, a.changes)):
            (Path(scratch) / name).mkdir()
            if n:
                result[name] = _told(name, run(Path(scratch) / name, tiny, n))
    print(json.dumps(result, indent=1))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
