"""The browser SDK beside the Python SDK, in the same run: `python -m benchmarks.phone` (first `make phone`).

The demo's 26 queries are asked in headless Chromium, in a worker, and in Python, one after the other, for each variant
of the network: how many answers are the same (landmark, at most 2 matched points and 0.02 of probability apart), the
median milliseconds by stage on both sides, and the bytes that a first visit fetches. A photo of a new size is slower
in the browser, where the networks are made for each size.
"""

from __future__ import annotations

import argparse
import functools
import gzip
import http.server
import json
import os
import shutil
import tempfile
import threading
from collections import defaultdict
from pathlib import Path
from statistics import median
from typing import Any

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # read when numpy is imported: one thread on both sides
os.environ["OMP_NUM_THREADS"] = "1"

from benchmarks.lab.records import environment
from delf_edge import IdentifyOptions, Recognizer
from delf_edge.bundle.bundle import Bundle, default_bundle_path
from delf_edge.index.search import SearchOptions
from delf_edge.packs.create import cut_pack

ROOT = Path(__file__).parent.parent
RESULT = Path(__file__).parent / "results" / "phone.json"
OPEN = """async variant => {
    const {openInWorker} = await import('/web-sdk/dist/client.js');
    window.places?.close();
    const options = {bundle: '/assets/default/', database: '/demo.pack', variant};
    window.places = await openInWorker('/web-sdk/dist/worker.js', options);
    return window.places.info;
}"""
ASK = """async url => {
    const {landmark, nInliers, probability, milliseconds} =
        await window.places.identify(await (await fetch(url)).blob(), {turns: false});
    return {landmark, nInliers, probability, milliseconds};
}"""


class _Server(http.server.SimpleHTTPRequestHandler):
    """The checkout and one pack; notes the compressed bytes of what is fetched."""

    pack = Path()
    fetched: dict[str, int] = {}  # noqa: RUF012 shared on purpose

    def log_message(self, *_: object) -> None:
        """Nothing."""

    def translate_path(self, path: str) -> str:
        """As the base class, and the pack."""
        file = f"{self.pack.parent}{path}" if path.startswith("/demo.pack") else super().translate_path(path)
        if Path(file).is_file() and "/queries/" not in file:
            self.fetched[path] = len(gzip.compress(Path(file).read_bytes()))
        return file


def measure(page: Any, pack: Path, variant: str) -> dict[str, Any]:
    """Answers and times of one variant."""
    bundle = Bundle.load(default_bundle_path(), variant=variant)
    opened = page.evaluate(OPEN, variant)
    times: dict[str, list[float]] = defaultdict(list)
    same, apart = 0, []
    # As the browser does it: every word is compared.
    options = IdentifyOptions(turns=False, search=SearchOptions(exact_words=True))
    with Recognizer.open(pack, bundle=bundle, read_only=True) as places:
        for query in sorted((ROOT / "assets" / "demo" / "queries").glob("*.webp")):
            said = page.evaluate(ASK, f"/assets/demo/queries/{query.name}")
            answer = places.identify(query, options=options)
            points = abs(said["nInliers"] - answer.n_inliers)
            distance = abs(said["probability"] - answer.probability)
            if said["landmark"] == answer.landmark and points <= 2 and distance <= 0.02:
                same += 1
            else:
                apart.append([query.stem, said["landmark"], answer.landmark, points, round(distance, 4)])
            for side, spent in (("browser", said["milliseconds"]), ("python", answer.milliseconds)):
                for stage, value in spent.items():
                    times[f"{side}: {stage}"].append(value)
    return {
        "same answers": same,
        "apart": apart,
        "milliseconds, median": {name: round(median(values), 1) for name, values in sorted(times.items())},
        "milliseconds of opening": {k: round(v) for k, v in opened["milliseconds"].items()},
        "threads": opened["threads"],
    }


def renderer_memory() -> int:
    """Bytes of memory of the largest page of a Chromium that runs here (VmHWM, its most so far)."""
    most = 0
    for process in Path("/proc").iterdir():
        try:
            if b"--type=renderer" in (process / "cmdline").read_bytes():
                status = (process / "status").read_text()
                most = max(most, 1024 * int(status.partition("VmHWM:")[2].split()[0]))
        except (OSError, ValueError, IndexError):
            continue  # no process, or gone by now
    return most


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULT, help="where the figures go, default benchmarks/results")
    given = parser.parse_args()
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None or not (ROOT / "web-sdk" / "dist" / "worker.js").is_file():
        print("needs Chromium, and web-sdk as `make phone` builds it")
        return 2
    with tempfile.TemporaryDirectory() as folder:
        pack = Path(folder) / "demo.pack"
        with Recognizer.open(Path(folder) / "demo.db") as places:
            for photo in sorted(p for p in (ROOT / "assets" / "demo").glob("references/*/*") if p.is_file()):
                places.add(photo, landmark=photo.parent.name)
            cut_pack(places.store, pack, name="demo", version=1)
        _Server.pack = pack
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Server, directory=str(ROOT)))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with sync_playwright() as p:
            browser = p.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
            page = browser.new_page()
            page.set_default_timeout(600_000)
            page.goto(f"http://127.0.0.1:{server.server_port}/web-sdk/README.md")
            _Server.fetched.clear()
            rows = {variant: measure(page, pack, variant) for variant in ("int8", "float16")}
            version, memory = browser.version, renderer_memory()
            browser.close()
        server.shutdown()
    sizes = dict(sorted(_Server.fetched.items()))
    result = {
        "command": "python -m benchmarks.phone",
        "environment": environment(),
        "chromium": version,
        "variants": rows,
        "bytes by gzip": sizes,
        "bytes of the page's process at most, both variants one after the other": memory,
    }
    given.out.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
