"""The browser SDK in Chromium, in a worker, gives Python's answers to the demo's 26 queries (`make phone`)."""

from __future__ import annotations

import functools
import http.server
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import pytest

from delf_edge import AddItem, Answer, IdentifyOptions, Recognizer
from delf_edge.interchange.photo_lists import list_folder
from delf_edge.packs.create import cut_pack
from testing.paths import ROOT
from testing.web_sdk import built_or_skip

pytestmark = pytest.mark.browser
DEMO = ROOT / "assets" / "demo"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
MINUTES = 60_000  # milliseconds
TURNED = ("colosseum.webp", "tajMahal.webp", "kutubMinar.webp", "cathedral.webp")  # the last one is not stored
OPEN = """async ([database, bundle]) => {
    const {openInWorker} = await import('/web-sdk/dist/client.js');
    try {
        window.places = await openInWorker('/web-sdk/dist/worker.js', {bundle, database});
    } catch (e) { return e.name; }
    return window.places.info;
}"""
ASK = """async ([url, turns]) => {
    const {proof, ...answer} = await window.places.identify(await (await fetch(url)).blob(), {turns});
    return {...answer, points: proof === null ? 0 : proof.query.length / 2};
}"""
FRAMES = """async url => {
    const session = window.places.session(), photo = await createImageBitmap(await (await fetch(url)).blob());
    const looks = [];
    for (let i = 0; i < 10; i++) looks.push(session.look(await createImageBitmap(photo), i / 5));
    const results = await Promise.all(looks);
    results.push(await session.look(await createImageBitmap(photo), 3));
    return results.map(r => [r.verdict, r.events.map(e => e.kind)]);
}"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pack of the demo references, its copy with a flipped byte, and the open database."""
    folder = tmp_path_factory.mktemp("web-sdk")
    photos, _ = list_folder(DEMO / "references")
    with Recognizer.open(folder / "demo.db") as places:
        list(places.add_many(AddItem(p.path, p.landmark, p.name) for p in photos))
        cut_pack(places.store, folder / "demo.pack", name="demo", version=1)
    data = bytearray((folder / "demo.pack").read_bytes())
    data[len(data) // 2] ^= 1
    (folder / "flipped.pack").write_bytes(data)
    (folder / "flipped.pack.json").write_bytes((folder / "demo.pack.json").read_bytes())
    return folder


@pytest.fixture(scope="module")
def page(folder: Path) -> Iterator[Any]:
    """A page of a server that gives out the checkout and the packs."""
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    playwright = pytest.importorskip("playwright.sync_api")
    built_or_skip()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def translate_path(self, path: str) -> str:
            made = path.startswith(("/demo.pack", "/flipped.pack", "/turned"))
            return f"{folder}{path}" if made else super().translate_path(path)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(ROOT)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with playwright.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page()
        page.set_default_timeout(10 * MINUTES)
        page.goto(f"http://127.0.0.1:{server.server_port}/web-sdk/README.md")
        yield page
        browser.close()
    server.shutdown()
    server.server_close()


def test_a_flipped_byte_and_a_folder_that_is_no_bundle_are_refused(page: Any) -> None:
    assert page.evaluate(OPEN, ["/flipped.pack", "/assets/default/"]) == "PackIntegrityError"
    assert page.evaluate(OPEN, ["/nothing.pack", "/assets/default/"]) in ("FetchError", "PackError")
    assert page.evaluate(OPEN, ["/demo.pack", "/assets/demo/"]) == "FetchError"


def test_the_graphics_chip_is_refused_where_there_is_none(page: Any) -> None:
    opened = """async () => {
        const {openInWorker} = await import('/web-sdk/dist/client.js');
        const options = {bundle: '/assets/default/', database: '/demo.pack', accelerator: 'webgpu'};
        return openInWorker('/web-sdk/dist/worker.js', options).then(() => 'opened', e => [e.name, e.message]);
    }"""
    name, message = page.evaluate(opened)
    assert name == "EngineError"
    assert 'accelerator "wasm"' in message


def is_answer(said: dict[str, Any], answer: Answer, query: str) -> None:
    assert said["landmark"] == answer.landmark, query
    assert said["nInliers"] == pytest.approx(answer.n_inliers, abs=2), query
    assert said["probability"] == pytest.approx(answer.probability, abs=0.02), query


def test_the_answers_are_those_of_python(page: Any, folder: Path) -> None:
    info = page.evaluate(OPEN, ["/demo.pack", "/assets/default/"])
    with Recognizer.open(folder / "demo.db") as places:
        assert (info["bundleId"], info["nImages"]) == (places.bundle.id, len(places.store))
        for query in sorted((DEMO / "queries").glob("*.webp")):
            said = page.evaluate(ASK, [f"/assets/demo/queries/{query.name}", False])
            answer = places.identify(query, options=IdentifyOptions(turns=False))
            is_answer(said, answer, query.name)
            assert said["points"] == said["nInliers"]


@pytest.mark.parametrize("turn", [cv2.ROTATE_90_CLOCKWISE, cv2.ROTATE_180, cv2.ROTATE_90_COUNTERCLOCKWISE])
def test_a_photo_on_its_side_gets_the_answer_of_python(page: Any, folder: Path, turn: int) -> None:
    page.evaluate(OPEN, ["/demo.pack", "/assets/default/"])
    found = []
    with Recognizer.open(folder / "demo.db") as places:
        for query in TURNED:
            upright = cv2.imread(str(DEMO / "queries" / query))
            assert upright is not None
            file = folder / f"turned-{turn}-{query}.png"  # PNG: both decoders give the same pixels
            cv2.imwrite(str(file), cv2.rotate(upright, turn))
            said, answer = page.evaluate(ASK, [f"/{file.name}", True]), places.identify(file)
            is_answer(said, answer, query)
            found.append(answer.landmark)
            if answer.found:
                assert page.evaluate(ASK, [f"/{file.name}", False])["landmark"] is None  # only by turning
    assert found.count(None) == 1  # the stranger


def test_of_ten_frames_at_once_the_newest_is_looked_at(page: Any) -> None:
    if isinstance(page.evaluate(OPEN, ["/demo.pack", "/assets/default/"]), str):
        pytest.fail("the demo pack was not opened")
    results = page.evaluate(FRAMES, "/assets/demo/queries/colosseum.webp")
    verdicts = [verdict for verdict, _ in results]
    assert verdicts[0] == verdicts[9] == "look"
    assert verdicts[1:9] == ["dropped"] * 8
    assert [kind for _, kinds in results for kind in kinds] == ["appeared"]
