"""The doors through which strangers' bytes come in, each as a function that tries one mutant and says what came of it.

Outcomes: "refused" (an error of the SDK's own tree), "accepted", "answered", "wrong answers: why".
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from delf_edge.bundle.bundle import Bundle
from delf_edge.diagnostics.doctor import self_test
from delf_edge.errors import DelfEdgeError, ImageError, StoreError
from delf_edge.features.extractor import Extractor, extract_options
from delf_edge.files import remove_database
from delf_edge.images.decode import load_image
from delf_edge.query.options import IdentifyOptions
from delf_edge.recognizer import Recognizer
from delf_edge.storage.schema import row_crc32
from delf_edge.storage.store import Store
from delf_edge.types import Image
from reliability import world
from reliability.mutate import mutate, with_png_checksums
from testing.paths import FIXTURES, TINY_BUNDLE

Attempt = Callable[[np.random.Generator], str]
Maker = Callable[[Path], Attempt]
QUICK = IdentifyOptions(verify=2)
PLACES = 6
ASKED = 0.05  # share of what can be decoded that is also asked for: it takes the longest


def places_file(path: Path) -> None:
    """A database of a few places."""
    with Store.open(path, bundle_id=world.bundle().id, layout=world.layout()) as store:
        store.add_many(world.new_image(i, f"p{i}", f"l{i}") for i in range(PLACES))


def encoded(number: int) -> list[bytes]:
    """A photo in every format and form that OpenCV can write."""
    bgr: Any = cv2.imdecode(np.frombuffer(world.photo(number), np.uint8), cv2.IMREAD_COLOR)
    grey = cv2.cvtColor(bgr, cv2.COLOR_BGR2GRAY)
    forms: list[tuple[str, Any, list[int]]] = [
        (".jpg", bgr, []),
        (".jpg", bgr, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1, cv2.IMWRITE_JPEG_RST_INTERVAL, 4]),
        (".jpg", grey, []),
        (".png", bgr, []),
        (".png", np.dstack([bgr, grey]), []),
        (".png", bgr.astype(np.uint16) * 257, []),
        (".png", (grey > 127).astype(np.uint8) * 255, [cv2.IMWRITE_PNG_BILEVEL, 1]),
        (".webp", bgr, [cv2.IMWRITE_WEBP_QUALITY, 80]),
        (".webp", bgr, [cv2.IMWRITE_WEBP_QUALITY, 101]),
        (".bmp", bgr, []),
        (".tiff", bgr, [cv2.IMWRITE_TIFF_COMPRESSION, 1]),
        (".tiff", bgr, [cv2.IMWRITE_TIFF_COMPRESSION, 5]),
        (".tiff", grey, [cv2.IMWRITE_TIFF_COMPRESSION, 8]),
    ]
    return [bytes(cv2.imencode(suffix, pixels, options)[1].tobytes()) for suffix, pixels, options in forms]


def image_door(folder: Path) -> Attempt:
    """Photos: any bytes become an image or an `ImageError`."""
    path = folder / "places.db"
    places_file(path)
    recognizer = Recognizer.open(path, bundle=world.bundle(), preset=world.PRESET, read_only=True)
    seeds = [encoded(number) for number in range(PLACES)]
    cmyk = (FIXTURES / "cmyk.jpg").read_bytes()
    everything = [*(data for forms in seeds for data in forms), cmyk]

    def attempt(rng: np.random.Generator) -> str:
        number = int(rng.integers(PLACES))
        data = mutate(seeds[number][int(rng.integers(len(seeds[number])))], everything, rng)
        if rng.random() < 0.5:
            data = with_png_checksums(data)
        try:
            image = load_image(data)
        except ImageError:
            return "refused"
        H, W, channels = image.pixels.shape
        if image.pixels.dtype != np.uint8 or channels != 3 or H * W > 120_000_000 or image.size[0] < 1:
            return f"wrong answers: pixels {image.pixels.dtype} {image.pixels.shape} of {image.size}"
        if rng.random() >= ASKED or H * W > 10**6:
            return "accepted"
        answer = recognizer.identify(data, options=QUICK)
        right = answer.landmark in (None, f"l{number}")
        return "answered" if right else f"wrong answers: {answer.landmark} instead of l{number}"

    return attempt


def _rehash(folder: Path, name: str, data: bytes) -> None:
    """Write a file of a bundle, and its hash into the manifest, as a stranger who packs a bundle would."""
    (folder / name).write_bytes(data)
    manifest = json.loads((folder / "manifest.json").read_bytes())
    manifest["files"][name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    manifest.pop("id", None)
    (folder / "manifest.json").write_text(json.dumps(manifest))


def bundle_door(scratch: Path) -> Attempt:
    """Bundles: a changed file is refused by its hash; a manifest or codebook with right hashes, by its content.

    A network with the right hash is machine code in all but name and runs as such: only bundles that one trusts may be
    loaded (SECURITY.md), so mutants of networks keep their old hash here; `network_door` changes it.
    """
    folder = scratch / "bundle"
    shutil.copytree(TINY_BUNDLE, folder)
    names = sorted(p.name for p in folder.iterdir() if p.suffix in (".tflite", ".npz", ".json"))
    whole = {name: (folder / name).read_bytes() for name in names}
    others = [data[:4096] for data in whole.values()]
    image = Image(np.zeros((48, 64, 3), np.uint8), (64, 48))

    def attempt(rng: np.random.Generator) -> str:
        name = names[int(rng.integers(len(names)))]
        data = mutate(_piecewise(whole[name], rng), others, rng)
        if name.endswith(".npz") and rng.random() < 0.7:
            _rehash(folder, name, data)
        else:
            (folder / name).write_bytes(data)
        changed = data != whole[name] and name != "manifest.json"
        try:
            Bundle.verify(folder)
            bundle = Bundle.load(folder)
            if name != "manifest.json" and changed and bundle.id == world.bundle().id:
                return f"wrong answers: {name} changed and went unnoticed"
            if rng.random() < 0.2:
                Extractor(bundle).extract(image, extract_options(bundle, None))
                self_test(bundle)
            return "accepted"
        except DelfEdgeError:
            return "refused"
        finally:
            for changed_name in (name, "manifest.json"):
                (folder / changed_name).write_bytes(whole[changed_name])

    return attempt


def _piecewise(data: bytes, rng: np.random.Generator) -> bytes:
    """The data, now and then without its middle: changes then fall into headers more often."""
    if len(data) < 3000 or rng.random() < 0.7:
        return data
    return data[: int(rng.integers(500, 2000))] + data[-int(rng.integers(200, 1000)) :]


def network_door(scratch: Path) -> Attempt:
    """Networks with the right hash: what LiteRT makes of damaged models. Reported, not promised."""
    folder = scratch / "bundle"
    shutil.copytree(TINY_BUNDLE, folder)
    name = json.loads((folder / "manifest.json").read_bytes())["network"]["variants"]["float16"]
    whole, manifest = (folder / name).read_bytes(), (folder / "manifest.json").read_bytes()
    image = Image(np.zeros((48, 64, 3), np.uint8), (64, 48))

    def attempt(rng: np.random.Generator) -> str:
        _rehash(folder, name, mutate(whole, [whole], rng))
        try:
            bundle = Bundle.load(folder)
            Extractor(bundle).extract(image, extract_options(bundle, None))
            return "accepted"
        except DelfEdgeError:
            return "refused"
        finally:
            (folder / "manifest.json").write_bytes(manifest)

    return attempt


HOSTILE = (
    "CREATE TRIGGER t{i} AFTER INSERT ON images BEGIN DELETE FROM codes; END",
    "CREATE VIEW v{i} AS WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT x FROM c",
    "UPDATE codes SET blob = zeroblob({big}) WHERE image_id = {i}",
    "UPDATE codes SET blob = 'text' WHERE image_id = {i}",
    "UPDATE codes SET n = {big} WHERE image_id = {i}",
    "UPDATE images SET width = 'wide', height = x'00' WHERE id = {i}",
    "UPDATE images SET metadata = '[[[[[[' WHERE id = {i}",
    "UPDATE images SET metadata = '{{\"a\":' || replace(hex(zeroblob({deep})), '00', '[') || "
    "replace(hex(zeroblob({deep})), '00', ']') || '}}' WHERE id = {i}",
    "UPDATE images SET landmark_id = NULL WHERE id = {i}",
    "UPDATE images SET landmark_id = {big} WHERE id = {i}",
    "UPDATE landmarks SET latitude = 9e999, longitude = 'east' WHERE id = {i}",
    "UPDATE meta SET value = '{big}' WHERE key = 'n_words'",
    "UPDATE meta SET value = '-1' WHERE key = 'revision'",
    "UPDATE meta SET value = 'x' WHERE key = 'code_size'",
    "DELETE FROM meta WHERE key = 'uuid'",
    "INSERT INTO tombstones VALUES ({i}, x'', {big}, 0)",
    "UPDATE sqlite_sequence SET seq = {big}",
    "PRAGMA user_version = {i}",
    "PRAGMA application_id = {big}",
    "DROP TABLE codes",
    "UPDATE sqlite_master SET rootpage = {i} WHERE name = 'codes'",
    "UPDATE sqlite_master SET sql = 'CREATE TABLE codes (image_id INTEGER PRIMARY KEY, n, blob AS (n * 2), crc32)' "
    "WHERE name = 'codes'",
)
_TABLES = {
    "images": 9,
    "landmarks": 6,
    "codes": 3,
    "meta": 2,
    "tombstones": 3,
    "thumbnails": 2,
}


def hostile_sql(path: Path, rng: np.random.Generator, more: tuple[str, ...] = ()) -> None:
    """Change a database through SQL, and make the checksums of the rows right again; half of the time by `more`."""
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA foreign_keys=0")
    db.execute("PRAGMA writable_schema=1")
    for _ in range(int(rng.integers(1, 3))):
        big = int(rng.choice([0, 1, 255, 65536, 10**6, 2**31, 2**40]))
        deep = int(rng.integers(850, 1050))
        pool = more if more and rng.random() < 0.5 else HOSTILE
        statement = pool[int(rng.integers(len(pool)))].format(i=int(rng.integers(1, PLACES + 1)), big=big, deep=deep)
        if "zeroblob" in statement and big > 10**6:
            statement = statement.replace(str(big), "50000000")
        try:
            db.execute(statement)
        except sqlite3.Error:
            continue
    db.close()
    right_checksums(path)


def right_checksums(path: Path) -> None:
    """Make the checksums of the rows of a database right, as far as they can be written."""
    db = sqlite3.connect(path, isolation_level=None)
    steps = iter(range(100))
    db.set_progress_handler(lambda: next(steps, None) is None, 100_000)  # pages that lead to each other have no end
    try:
        db.execute("PRAGMA synchronous=OFF")  # nothing of it has to survive a power cut
        db.execute("BEGIN")
        for table, n in _TABLES.items():
            key = "key" if table == "meta" else "rowid"
            for row in db.execute(f"SELECT {key}, * FROM {table}").fetchall():
                crc = row_crc32(table, row[1 : 1 + n])
                db.execute(f"UPDATE {table} SET crc32 = ? WHERE {key} = ?", (crc, row[0]))
    except (sqlite3.Error, TypeError, ValueError, OverflowError):
        pass
    with contextlib.suppress(sqlite3.Error):  # what could be made right stays
        db.execute("COMMIT")
    db.close()


def damaged_page(data: bytes, rng: np.random.Generator) -> bytes:
    """A database with other bytes in one of its pages: a pointer (cycles, and pages that are none), or anything."""
    page = int.from_bytes(data[16:18], "big")
    if rng.random() < 0.5:
        out = bytearray(data)
        at = int(rng.integers(1, len(data) // page)) * page + int(rng.integers(0, 32))
        out[at : at + 4] = int(rng.integers(0, len(data) // page + 3)).to_bytes(4, "big")
        return bytes(out)
    at = int(rng.integers(0, len(data) - page + 1)) if rng.random() < 0.6 else 0
    return data[:at] + mutate(data[at : at + page], [data], rng) + data[at + page :]


def database_door(folder: Path) -> Attempt:
    """Databases: damaged bytes, and content that was made hostile with right checksums."""
    whole = folder / "whole.db"
    places_file(whole)
    data, path = whole.read_bytes(), folder / "mutant.db"

    def attempt(rng: np.random.Generator) -> str:
        hostile = rng.random() < 0.3
        remove_database(path)
        path.write_bytes(data if hostile else damaged_page(data, rng))
        if hostile:
            hostile_sql(path, rng)
        try:
            with Store.open(path, mode="ro", bundle_id=world.bundle().id, layout=world.layout()) as store:
                return asked(store, rng, hostile=hostile)
        except StoreError:
            return "refused"

    return attempt


def asked(store: Store, rng: np.random.Generator, *, hostile: bool) -> str:
    """Read everything that a database says and ask it for a place; `hostile`: anything is right but a crash."""
    number = int(rng.integers(PLACES))
    for image in store.images():
        if not hostile and image.landmark != f"l{image.metadata['number']}":
            return f"wrong answers: {image}"
    list(store.code_batches())
    store.landmarks()
    if rng.random() < 0.3:
        store.verify()
    matches = Recognizer(store, world.bundle(), preset=world.PRESET).rank(world.features(number), 1, options=QUICK)
    if not hostile and matches and matches[0].n_inliers >= 6 and matches[0].landmark != f"l{number}":
        return f"wrong answers: {matches[0]} instead of l{number}"
    return "answered"


def service_door(folder: Path) -> Attempt:
    """Requests, given to the ASGI application itself: never a 500, whatever they are."""
    ask = Requests(folder)
    photos = [world.photo(i) for i in range(PLACES)]
    words = ["/v1/identify", "/v1/images", "/v1/landmarks", "/v1/quality", "/healthz", "/metrics", "/openapi.json", "/"]
    words += ["/v1/images/1", "/v1/images/1/thumbnail", "/v1/images/99999999999999999999", "/v1/nothing", "/../etc"]
    queries = [
        b"",
        b"landmark=x",
        b"landmark=%00",
        b"landmark=" + b"a" * 300,
        b"name=..%2f..%2fx&landmark=y",
        b"top=-1",
    ]
    queries += [b"session=s", b"session=" + b"%ff" * 40, b"latitude=nan&longitude=1e999&landmark=z", b"landmark=%F0%9F"]

    def attempt(rng: np.random.Generator) -> str:
        def pick(options: list[Any]) -> Any:
            return options[int(rng.integers(len(options)))]

        method = pick(["GET", "POST", "POST", "POST", "DELETE", "PUT", "HEAD", "OPTIONS", "BREW"])
        target = pick(words[:4]) if method == "POST" and rng.random() < 0.8 else pick(words)
        if rng.random() < 0.2:
            target = mutate(target.encode(), [w.encode() for w in words], rng).decode("latin-1")
        query = pick(queries) if rng.random() < 0.7 else mutate(pick(queries) or b"a", queries[1:], rng)
        body = pick([b"", b"{}", pick(photos)]) if rng.random() < 0.4 else mutate(pick(photos), photos, rng)
        headers = [(b"host", pick([*[b"127.0.0.1:8000"] * 12, b"localhost", b"evil.example", b"\xff", b""]))]
        if rng.random() < 0.8:
            headers.append(
                (b"authorization", pick([*[b"Bearer secret-0123456789"] * 8, b"Bearer x", b"Basic \xff", b"Bearer"]))
            )
        if rng.random() < 0.1:
            headers.append((b"content-length", pick([str(len(body)).encode(), b"-1", b"x", b"9" * 30])))
        if rng.random() < 0.2:
            headers.append((pick([b"origin", b"content-type", b"x-" + b"y" * 50]), mutate(b"http://a.b", [b"x"], rng)))
        status = ask(method, target, query, headers, body)
        if status >= 500 and status != 503:
            return f"unexpected: status {status} for {method} {target!r} {query!r}"
        return "refused" if status >= 400 else "answered"

    return attempt


class Requests:
    """The service over a few places, asked without a socket."""

    def __init__(self, folder: Path) -> None:
        from delf_edge.web.app import ServiceOptions, create_app
        from delf_edge.web.security import Policy

        path = folder / "places.db"
        places_file(path)
        self._recognizer = Recognizer.open(path, bundle=world.bundle(), preset=world.PRESET)
        self._app = create_app(self._recognizer, ServiceOptions(Policy("secret-0123456789")))
        self._loop = asyncio.new_event_loop()

    def __call__(self, method: str, target: str, query: bytes, headers: list[tuple[bytes, bytes]], body: bytes) -> int:
        """The status of a request."""
        scope: dict[str, Any] = {"type": "http", "method": method, "path": target, "query_string": query}
        scope |= {"raw_path": target.encode("latin-1", "replace"), "headers": headers, "scheme": "http"}
        scope |= {"server": ("127.0.0.1", 8000), "client": ("127.0.0.1", 5), "http_version": "1.1", "root_path": ""}
        return self._loop.run_until_complete(_request(self._app, scope, body))

    def close(self) -> None:
        """Close the loop and the database."""
        self._app.state.service.jobs.close()
        self._loop.close()
        self._recognizer.close()


async def _request(app: Any, scope: dict[str, Any], body: bytes) -> int:
    """The status of one request."""
    parts = [body[: len(body) // 2], body[len(body) // 2 :]]
    status = 0

    async def receive() -> dict[str, Any]:
        if parts:
            return {"type": "http.request", "body": parts.pop(0), "more_body": bool(parts)}
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        nonlocal status
        if message["type"] == "http.response.start":
            status = message["status"]

    if scope["path"] == "/v1/events":
        return 200
    await asyncio.wait_for(app(scope, receive, send), 30)
    return status


DOORS: dict[str, Maker] = {
    "image": image_door,
    "bundle": bundle_door,
    "database": database_door,
    "service": service_door,
}
