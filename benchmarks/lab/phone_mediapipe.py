"""MediaPipe's image embedder for the web beside our page: a photo to a vector, and nothing after it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.lab.browser import Browser, Server

PACKAGE = Path(__file__).parent.parent / "phone_js" / "node_modules" / "@mediapipe" / "tasks-vision"
START = """async model => {
    const began = performance.now();
    const {FilesetResolver, ImageEmbedder} = await import('/mediapipe/vision_bundle.mjs');
    const files = await FilesetResolver.forVisionTasks('/mediapipe/wasm');
    if (model === null) {
        // Without a model the task ends with an error, after its WebAssembly was loaded and started.
        await ImageEmbedder.createFromModelBuffer(files, new Uint8Array(8)).catch(() => {});
    } else {
        const options = {baseOptions: {modelAssetPath: model, delegate: 'CPU'}, runningMode: 'IMAGE'};
        window.embedder = await ImageEmbedder.createFromOptions(files, options);
    }
    return performance.now() - began;
}"""
EMBED = """async url => {
    const blob = await (await fetch(url)).blob(), began = performance.now();
    const picture = await createImageBitmap(blob), decoded = performance.now();
    const {embeddings} = window.embedder.embed(picture);
    return [decoded - began, performance.now() - decoded, embeddings[0].floatEmbedding.length];
}"""


def measure(
    playwright: Any, server: Server, photos: Sequence[tuple[str, Path]], model: str | None
) -> dict[str, Any] | str:
    """Start, milliseconds a photo, memory and bytes, in a browser of its own; or why it was not measured.

    Args:
        playwright: what `sync_playwright` gives.
        server: has the package at `/mediapipe/`.
        photos: (URL, file).
        model: URL of an embedder (`benchmarks.phone_embedder`); None: the runtime's start alone.
    """
    if not (PACKAGE / "vision_bundle.mjs").is_file():
        return "not measured: not installed (npm ci in benchmarks/phone_js)"
    browser = Browser(playwright)
    page = browser.page(f"{server.url}/bundle/manifest.json")
    server.sent.clear()
    found: dict[str, Any] = {"milliseconds of the start": round(page.evaluate(START, model))}
    found["bytes, by gzip"] = {
        name: size for name, size in server.sent if name.startswith(("/mediapipe/", "/embedder/"))
    }
    if model is None:
        found["milliseconds, median"] = "not measured: no package ships a model; --embedder FILE names one"
    else:
        times = [page.evaluate(EMBED, url) for url, _ in photos]
        found["numbers of an embedding"] = times[0][2]
        found["milliseconds, median"] = {
            "decode": round(median(t[0] for t in times), 1),
            "embed": round(median(t[1] for t in times), 1),
        }
    found["bytes of the page's process at most"] = browser.memory()
    browser.close()
    return found
