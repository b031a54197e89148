"""The page and the SDK for phones beside the Python SDK, in one run: `python -m benchmarks.phone` (first `make phone`).

Chromium without a window, 360 x 740, one thread on both sides unless a row says otherwise:

* the demo's 26 queries in a worker and in Python, one after the other, for each variant of the network: how many
  answers are the same, the median milliseconds by stage, the memory of a browser that was started for this variant;
* the same with two threads, and on a processor that is six times as slow (a control group, which needs
  root; without it this part is left out with the reason);
* the page itself, plainly and so slowed: time to the first answer at the first visit, at the second and in flight mode,
  and what is fetched;
* MediaPipe's image embedder for the web, where it is installed (`npm ci` in benchmarks/phone_js).

`--dev PATH/dev.json` compares the answers to a benchmark's queries instead, all of its photos in the database.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path
from typing import Any

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # read when numpy is imported: one thread on both sides
os.environ["OMP_NUM_THREADS"] = "1"

from benchmarks.lab import phone_dev, phone_mediapipe
from benchmarks.lab.browser import CHROMIUM, ISOLATED, Browser, Server
from benchmarks.lab.phone_answers import OPEN, compare
from benchmarks.lab.phone_visits import visits, write_site
from benchmarks.lab.records import environment
from delf_edge import Recognizer
from delf_edge.bundle.bundle import Bundle, default_bundle_path
from delf_edge.packs.create import cut_pack

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results"
DEMO = ROOT / "assets" / "demo"
SDK = ROOT / "web-sdk" / "dist"
VARIANTS = ("int8", "float16")
SLOWER = 6
FIRST = "colosseum"  # the photo that a visit asks
VISITS = "visits, milliseconds since the link was followed"
FEW = 8  # queries where all would take long
WORK = """() => {
    const source = "onmessage = () => { const began = performance.now(); let x = 0;" +
        "for (let i = 0; i < 2e7; i++) x += i * i % 7; postMessage(performance.now() - began) }";
    return new Promise(done => {
        const worker = new Worker(URL.createObjectURL(new Blob([source])));
        worker.onmessage = event => done(event.data);
        worker.postMessage(0);
    });
}"""


def queries() -> list[tuple[str, Path]]:
    """(URL, file) of the demo's queries."""
    return [(f"/demo/queries/{path.name}", path) for path in sorted((DEMO / "queries").glob("*.webp"))]


def measure(playwright: Any, server: Server, pack: Path, variant: str, factor: float = 1) -> dict[str, Any]:
    """Answers and times of one variant, in a browser of its own."""
    browser = Browser(playwright)
    page = browser.page(f"{server.url}/bundle/manifest.json")
    opened = page.evaluate(OPEN, [variant, {}])
    bundle = Bundle.load(default_bundle_path(), variant=variant)
    with Recognizer.open(pack, bundle=bundle, read_only=True) as places, browser.slowed(factor):
        report = compare(browser, page, places, queries() if factor == 1 else queries()[:FEW]).report()
    report |= {
        "threads": opened["threads"],
        "milliseconds of opening": {k: round(v) for k, v in opened["milliseconds"].items()},
        "bytes of the page's process at most": browser.memory(),
    }
    browser.close()
    return report


def slower(playwright: Any, server: Server) -> float:
    """How many times as slow a worker becomes, measured with a loop."""
    browser = Browser(playwright)
    page = browser.page(f"{server.url}/bundle/manifest.json")
    plain = min(page.evaluate(WORK) for _ in range(5))
    with browser.slowed(SLOWER):
        held = min(page.evaluate(WORK) for _ in range(5))
    browser.close()
    return float(round(held / plain, 2))


def visited(playwright: Any, server: Server, factor: float = 1) -> tuple[dict[str, Any], dict[str, int]]:
    """Three visits to the page in a browser of its own, and what the first one fetched."""
    browser = Browser(playwright)
    with browser.slowed(factor):
        found, sent = visits(browser, server, DEMO / "queries" / f"{FIRST}.webp")
    browser.close()
    return found, sent


def all_slowed(playwright: Any, server: Server, pack: Path) -> dict[str, Any] | str:
    """Answers and visits on a slowed processor, or why there are none."""
    try:
        return {
            "a loop in a worker takes, times": slower(playwright, server),
            VARIANTS[0]: measure(playwright, server, pack, VARIANTS[0], SLOWER),
            VISITS: visited(playwright, server, SLOWER)[0],
        }
    except PermissionError as e:
        return f"not measured: {e}"


def measure_all(playwright: Any, folder: Path, embedder: Path | None) -> dict[str, Any]:
    """Everything on the demo."""
    pack = folder / "pack" / "places.pack"
    pack.parent.mkdir()
    with Recognizer.open(folder / "demo.db") as places:
        for photo in sorted(p for p in DEMO.glob("references/*/*") if p.is_file()):
            places.add(photo, landmark=photo.parent.name)
        cut_pack(places.store, pack, name="demo", version=1)
        site = write_site(places.store, folder / "site", SDK / "visit", VARIANTS[0])
    folders = {
        "/sdk/": SDK,
        "/bundle/": default_bundle_path(),
        "/pack/": pack.parent,
        "/demo/": DEMO,
        "/visit/": site,
        "/mediapipe/": phone_mediapipe.PACKAGE,
    }
    if embedder is not None:
        folders["/embedder/"] = embedder.resolve().parent
    model = None if embedder is None else f"/embedder/{embedder.name}"
    plain, isolated = Server(folders), Server(folders, ISOLATED)
    result: dict[str, Any] = {
        "variants": {variant: measure(playwright, plain, pack, variant) for variant in VARIANTS},
        "two threads": {variant: measure(playwright, isolated, pack, variant) for variant in VARIANTS},
        f"{SLOWER} times as slow": all_slowed(playwright, plain, pack),
    }
    found, sent = visited(playwright, plain)
    result[VISITS] = found
    result["bytes that the first visit fetches, by gzip"] = sent
    result["MediaPipe's image embedder"] = phone_mediapipe.measure(playwright, plain, queries(), model)
    plain.stop()
    isolated.stop()
    return result


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="where the figures go, default: a file in benchmarks/results")
    parser.add_argument("--dev", type=Path, metavar="FILE", help="a benchmark whose answers are compared instead")
    parser.add_argument("--work", type=Path, metavar="FOLDER", help="keeps the database of --dev for the next run")
    parser.add_argument(
        "--embedder", type=Path, metavar="FILE", help="a model for MediaPipe (python -m benchmarks.phone_embedder)"
    )
    given = parser.parse_args()
    from playwright.sync_api import sync_playwright

    if CHROMIUM is None or not (SDK / "visit" / "worker.js").is_file():
        print("needs Chromium, and web-sdk as `make phone` builds it")
        return 2
    command = "python -m benchmarks.phone" + ("" if given.dev is None else " --dev dev.json")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        if given.dev is not None:
            from benchmarks.data.datasets import read_json

            name, work = "phone_dev.json", given.work or Path(folder)
            found = phone_dev.measure(playwright, SDK, read_json(given.dev), work, VARIANTS)
        else:
            name, found = "phone.json", measure_all(playwright, Path(folder), given.embedder)
        version = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        result = {"command": command, "environment": environment(), "chromium": version.version, **found}
        version.close()
    text = json.dumps(result, indent=2)
    (given.out or RESULTS / name).write_text(text + "\n")
    print(text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
