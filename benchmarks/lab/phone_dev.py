"""DEV in the browser and in Python: all photos of a benchmark in one database, its queries asked on both sides."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote

from benchmarks.data.datasets import Dataset
from benchmarks.lab.browser import Browser, Server
from benchmarks.lab.phone_answers import OPEN, compare
from delf_edge import AddItem, Recognizer
from delf_edge.bundle.bundle import Bundle, default_bundle_path
from delf_edge.packs.create import cut_pack


def landmark_of(dataset: Dataset, i: int) -> str:
    """What a database photo shows: its place, or its folder where the benchmark does not say."""
    return dataset.places[i] or str(Path(dataset.database[i]).parent)


def fill(folder: Path, dataset: Dataset) -> Path:
    """The database of all photos of a benchmark; one that is there goes on where it was stopped."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{dataset.name}.db"
    with Recognizer.open(path) as places:
        has = places.store.has_name
        missing = [
            AddItem(dataset.path(name), landmark_of(dataset, i), name)
            for i, name in enumerate(dataset.database)
            if not has(name)
        ]
        for _ in places.add_many(missing):
            pass
        pack = folder / "places.pack"
        cut_pack(places.store, pack, name=dataset.name, version=max(1, places.store.revision()), overwrite=True)
    return pack


def measure(playwright: Any, sdk: Path, dataset: Dataset, folder: Path, variants: tuple[str, ...]) -> dict[str, Any]:
    """Both sides, for each variant."""
    pack = fill(folder, dataset)
    folders = {"/sdk/": sdk, "/bundle/": default_bundle_path(), "/pack/": folder, "/photos/": dataset.root}
    server, rows, facts = Server(folders), {}, {}
    photos = [(f"/photos/{quote(query.name)}", dataset.path(query.name)) for query in dataset.queries]
    for variant in variants:
        browser = Browser(playwright)
        page = browser.page(f"{server.url}/bundle/manifest.json")
        opened = page.evaluate(OPEN, [variant, {}])
        facts = {"photos": opened["nImages"], "landmarks": opened["nLandmarks"], "features": opened["nFeatures"]}
        with Recognizer.open(
            pack, bundle=Bundle.load(default_bundle_path(), variant=variant), read_only=True
        ) as places:
            report = compare(browser, page, places, photos).report()
        rows[variant] = report | {
            "milliseconds of opening": {k: round(v) for k, v in opened["milliseconds"].items()},
            "bytes of the page's process at most": browser.memory(),
        }
        browser.close()
    server.stop()
    return {"database": facts, "bytes of the pack": pack.stat().st_size, "variants": rows}
