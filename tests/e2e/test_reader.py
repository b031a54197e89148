"""The JavaScript reader in Chromium gives the answers of the SDK (first `npm install` in examples/reader)."""

from __future__ import annotations

import functools
import http.server
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from delf_edge import Recognizer
from delf_edge.ingestion import AddItem
from delf_edge.interchange.photo_lists import list_folder
from delf_edge.packs.create import cut_pack
from testing.paths import ROOT

pytestmark = pytest.mark.browser
DEMO = ROOT / "assets" / "demo"
READER = ROOT / "examples" / "reader"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
QUERIES = ("colosseum", "mountRushmore", "burj", "tajMahal")  # the last-but-one place is not in the pack
MINUTES = 60_000  # milliseconds


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pack of the demo references."""
    folder = tmp_path_factory.mktemp("reader")
    photos, _ = list_folder(DEMO / "references")
    with Recognizer.open(folder / "demo.db") as recognizer:
        for _ in recognizer.add_many(AddItem(p.path, p.landmark, p.name) for p in photos):
            pass
        cut_pack(recognizer.store, folder / "demo.pack", name="demo", version=1)
    return folder / "demo.pack"


@pytest.fixture(scope="module")
def address(pack: Path) -> Iterator[str]:
    """A server of the checkout and of the pack."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def translate_path(self, path: str) -> str:
            return str(pack) if path == "/demo.pack" else super().translate_path(path)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(ROOT)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.skipif(not (READER / "node_modules").is_dir(), reason="run `npm install` in examples/reader first")
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_the_same_answers(pack: Path, address: str) -> None:
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as p, Recognizer.open(pack.with_name("demo.db")) as recognizer:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page()
        page.set_default_timeout(10 * MINUTES)
        page.goto(f"{address}/examples/reader/reader.html?pack=/demo.pack&bundle=/assets/default/")
        for query in QUERIES:
            said = page.evaluate("url => window.identify(url)", f"/assets/demo/queries/{query}.webp")
            answer = recognizer.identify(DEMO / "queries" / f"{query}.webp")
            assert said["landmark"] == answer.landmark, query
            if answer.landmark is not None:
                assert said["image"] == answer.image
                assert said["inliers"] == pytest.approx(answer.n_inliers, rel=0.2, abs=3)
                assert said["probability"] == pytest.approx(answer.probability, abs=0.1)
        browser.close()
