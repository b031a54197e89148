"""Visits to the page for phones: how long until the first answer, and what is fetched for it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.lab.browser import PHONE, Browser, Server
from delf_edge.bundle.bundle import default_bundle_path
from delf_edge.storage.store import Store
from delf_edge.web.visit import write_webapp

PATIENCE = 300_000  # milliseconds
# Milliseconds since the visitor followed the link.
SHOWN = """() => new Promise(done => {
    const card = document.getElementById('card'), trouble = document.getElementById('trouble');
    const end = () => done([performance.now(), trouble.textContent]);
    const look = () => (card.hidden && trouble.hidden ? requestAnimationFrame(look) : end());
    look();
})"""
KEPT = """async names => {
    const kept = await Promise.all(names.map(name => caches.match(new URL(name, document.baseURI))));
    return kept.every(file => file !== undefined);
}"""


def _until(ready: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE / 1000
    while not ready():
        if time.monotonic() > end:
            raise TimeoutError("the page for phones did not get there; look at it in a browser")
        time.sleep(0.02)


def _visit(context: Any, url: str, photo: Path) -> tuple[Any, dict[str, int]]:
    """A page, and milliseconds since navigation: the photo could be given, the answer was shown."""
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    page.goto(url, wait_until="commit")
    _until(lambda: bool(page.evaluate("document.documentElement?.dataset.ready !== undefined")))
    given = page.evaluate("performance.now()")
    page.set_input_files("#photo", str(photo))
    shown, trouble = page.evaluate(SHOWN)
    if trouble:
        raise RuntimeError(f"the page for phones says: {trouble}")
    return page, {"photo given": round(given), "answer shown": round(shown)}


def visits(browser: Browser, server: Server, photo: Path) -> tuple[dict[str, Any], dict[str, int]]:
    """The first visit, the second, and one in flight mode.

    Returns:
        Milliseconds of each, and the bytes that the first one fetched: file -> all its requests together; "all".
    """
    context = browser.opened.new_context(viewport=PHONE, locale="en-GB")
    url = f"{server.url}/visit/"
    found: dict[str, Any] = {}
    server.sent.clear()
    page, found["first visit"] = _visit(context, url, photo)
    used = sorted({name.removeprefix("/visit/") for name, _ in server.sent if name != "/visit/"})
    # The page's files are fetched once more by the service worker; the browser has them in its own cache.
    _until(lambda: bool(page.evaluate(KEPT, [name for name in used if name not in ("sw.js", "app.json")])))
    fetched: dict[str, int] = {"all": sum(size for _, size in server.sent)}
    for name, size in server.sent:
        fetched[name] = fetched.get(name, 0) + size
    page.close()
    page, found["second visit"] = _visit(context, url, photo)
    page.close()
    server.stop()
    try:
        page, found["flight mode"] = _visit(context, url, photo)
    finally:
        server.start()
    found["bytes of the page's process at most"] = browser.memory()
    context.close()
    return found, fetched


def write_site(store: Store, folder: Path, page: Path, variant: str) -> Path:
    """The page with the default bundle and a pack of a database."""
    write_webapp(store, folder, bundle=default_bundle_path(), page=page, variant=variant)
    return folder
