"""Silent corruption: one bit is flipped in every kind of file (`python -m reliability bitflip`).

A flip that changes what the file says must be noticed before it changes an answer: the file is refused, or the damaged
rows are left out and `verify` names them. A flip that changes nothing (free space, white space) is harmless. SQLite's
log is not a file that ships, and its format takes a damaged record for the end of the log: what is read must be right,
but what follows the flip is missing without a word, and is counted as such.
"""

from __future__ import annotations

import collections
import json
import shutil
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from delf_edge.bundle.bundle import Bundle
from delf_edge.bundle.manifest import bundle_id
from delf_edge.errors import BundleError, PackError, StoreError
from delf_edge.files import remove_database
from delf_edge.packs.manifest import manifest_path, open_pack
from delf_edge.quantization.coarse_quantizer import CoarseIndex
from delf_edge.quantization.packed_codes import pack_codes
from delf_edge.storage.store import Store
from delf_edge.updates.delta import apply_delta
from reliability import world
from reliability.pack_door import Source
from testing.paths import TINY_BUNDLE

KINDS = (
    "sealed database",
    "database",
    "network",
    "tail",
    "codebook",
    "golden vectors",
    "manifest",
    "graph cache",
    "pack",
    "pack manifest",
    "delta",
)
IMAGES = 12


def content(path: Path) -> tuple[dict[int, object], list[str]]:
    """Everything that a database says, by id, and what `verify` finds."""
    with Store.open(path, mode="ro") as store:
        found: dict[int, object] = {i.image_id: i for i in store.images()}
        found |= {1000 + i: pack_codes(c) for i, c in store.codes(range(1, IMAGES + 1)).items()}
        found |= {2000 + i: store.thumbnail(i) for i in range(1, IMAGES + 1) if store.thumbnail(i) is not None}
        found |= {3000 + m.landmark_id: m for m in store.landmarks()}
        return found, [p.what for p in store.verify()] + list(store.damaged.values())


def database_outcome(path: Path, true: dict[int, object], *, older: bool = False) -> str:
    """What became of a damaged database; `older`: landmarks, which count their images, are left out."""
    try:
        found, problems = content(path)
    except StoreError:
        return "refused"
    if older:
        found = {key: value for key, value in found.items() if key < 3000}
    if any(true.get(key) != value for key, value in found.items()):
        return "WRONG"
    if problems:
        return "reported"
    return "harmless" if len(found) == len(true) else "MISSING"


def bundle_outcome(folder: Path, before: Any) -> str:
    """What became of a damaged bundle."""
    try:
        Bundle.verify(folder)
        bundle = Bundle.load(folder)
    except BundleError:
        return "refused"
    if json.loads((folder / "manifest.json").read_bytes()) == before:
        return "harmless"
    return "WRONG" if bundle.id == world.bundle().id else "refused by its databases"  # the name "id" itself was hit


def batch(seed: int, n: int) -> dict[str, Any]:
    """n flips in a file of each kind."""
    rng = np.random.default_rng(seed)
    outcomes: dict[str, collections.Counter[str]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for kind, path, judge in files(Path(folder)):
            counts = outcomes[kind] = collections.Counter()
            whole = path.read_bytes()
            for at in rng.integers(0, len(whole) * 8, n):
                damaged = bytearray(whole)
                damaged[at // 8] ^= 1 << (at % 8)
                path.write_bytes(damaged)
                counts[judge()] += 1
            path.write_bytes(whole)
    wrong = sum(c["WRONG"] + (c["MISSING"] if kind != "log" else 0) for kind, c in outcomes.items())
    return {"n": n, "lost or wrong": wrong, "by kind of file": {k: dict(c) for k, c in outcomes.items()}, "found": []}


def files(scratch: Path) -> list[tuple[str, Path, Callable[[], str]]]:
    """A file of each kind, and what judges it once it is damaged."""
    path, sealed, logged = scratch / "places.db", scratch / "sealed.db", scratch / "logged.db"
    with Store.open(path, bundle_id=world.bundle().id, layout=world.layout()) as store:
        for i in range(IMAGES):
            store.add(world.new_image(i, f"p{i}", f"l{i % 5}"))
        for suffix in ("", "-wal"):  # as a power cut leaves it
            shutil.copy(f"{path}{suffix}", f"{logged}{suffix}")
        store.snapshot(sealed)
    world.seal(sealed)
    true, _ = content(path)
    logged_whole = {suffix: Path(f"{logged}{suffix}").read_bytes() for suffix in ("", "-wal")}

    def log_outcome() -> str:
        logged.write_bytes(logged_whole[""])
        Path(f"{logged}-shm").unlink(missing_ok=True)
        wal = Path(f"{logged}-wal").read_bytes()
        try:
            return database_outcome(logged, {k: v for k, v in true.items() if k < 3000}, older=True)
        finally:
            Path(f"{logged}-wal").write_bytes(wal)

    found: list[tuple[str, Path, Callable[[], str]]] = [
        ("sealed database", sealed, lambda: database_outcome(sealed, true)),
        ("database", path, lambda: database_outcome(path, true)),
        ("log", Path(f"{logged}-wal"), log_outcome),
    ]
    folder = scratch / "bundle"
    shutil.copytree(TINY_BUNDLE, folder)
    manifest = json.loads((folder / "manifest.json").read_bytes())
    manifest["id"] = bundle_id(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=2, sort_keys=True) + "\n")
    local = manifest["network"]
    tail = manifest["tail"]
    names = {
        "network": local["variants"][local["default"]],
        "tail": tail["variants"][tail["default"]],
        "codebook": manifest["codebook"],
        "golden vectors": manifest["golden"],
        "manifest": "manifest.json",
    }
    for kind, name in names.items():
        found.append((kind, folder / name, lambda: bundle_outcome(folder, manifest)))
    centroids = world.bundle().codebook.centroids
    cache = scratch / "graph"
    CoarseIndex(centroids, method="graph", cache_path=cache)
    queries = np.random.default_rng(0).normal(size=(5, centroids.shape[1])).astype(np.float32)
    expected = CoarseIndex(centroids, method="graph").assign(queries, 4)[0]

    def graph_outcome() -> str:
        words = CoarseIndex(centroids, method="graph", cache_path=cache).assign(queries, 4)[0]
        return "refused" if (words == expected).all() else "WRONG"

    found.append(("graph cache", cache, graph_outcome))
    return found + shipped(scratch)


def shipped(folder: Path) -> list[tuple[str, Path, Callable[[], str]]]:
    """What goes out to devices: a pack, its manifest, and a delta to the next version."""
    (folder / "shipped").mkdir()
    source = Source(folder / "shipped")
    old, wanted = source.packs[0], source.manifests[1]
    limit, made = len(zlib.decompress(source.delta.read_bytes())), folder / "made.pack"

    def pack_outcome() -> str:
        try:
            open_pack(old).close()
        except PackError:
            return "refused"
        return "WRONG"

    def delta_outcome() -> str:
        try:
            apply_delta(old, source.delta, made, wanted, limit)
        except (PackError, StoreError):
            return "refused"
        finally:
            remove_database(made)
        return "harmless"  # `apply_delta` has compared the content with what the manifest of the new version says

    return [
        ("pack", old, pack_outcome),
        ("pack manifest", manifest_path(old), pack_outcome),
        ("delta", source.delta, delta_outcome),
    ]
