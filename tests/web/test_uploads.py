"""Photos in forms, as `curl -F` and generated clients send them, and event streams that are taken up again."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from starlette.testclient import TestClient
from starlette.types import Message

from delf_edge import Bundle, Recognizer
from delf_edge.web.app import ServiceOptions, create_app
from delf_edge.web.event_stream import EventStreamResponse, Hub
from delf_edge.web.security import Policy
from delf_edge.web.work_queue import BusyError
from testing.paths import TINY_BUNDLE

TOKEN = "0123456789abcdef"
AUTH = {"authorization": f"Bearer {TOKEN}"}


def photo(seed: int = 0) -> bytes:
    blocks = np.random.default_rng(seed).integers(0, 256, (12, 16, 3)).astype(np.uint8)
    return cv2.imencode(".png", cv2.resize(blocks, (320, 240), interpolation=cv2.INTER_NEAREST))[1].tobytes()


@pytest.fixture
def client(tmp_path: Path) -> Iterator[TestClient]:
    with Recognizer.open(tmp_path / "places.db", bundle=Bundle.load(TINY_BUNDLE), preset="fast") as recognizer:
        app = create_app(recognizer, ServiceOptions(Policy(TOKEN, max_body=300_000)))
        with TestClient(app, base_url="http://127.0.0.1:8000", client=("127.0.0.1", 50000)) as opened:
            yield opened


def form(client: TestClient, path: str, data: bytes, fields: dict[str, str] | None = None, **more: Any) -> Any:
    files = {"photo": ("front.png", data, "image/png")}
    return client.post(path, files=files, data=fields or {}, headers=AUTH, **more)


def test_a_form_does_what_a_body_does(client: TestClient) -> None:
    fields = {"landmark": "Rathaus Köln", "name": "front.png", "latitude": "50.94", "longitude": "6.96"}
    added = form(client, "/v1/images", photo(), fields)
    assert added.status_code == 201, added.text
    assert (added.json()["landmark"], added.json()["name"]) == ("Rathaus Köln", "front.png")
    (place,) = client.get("/v1/landmarks").json()["landmarks"]
    assert (place["latitude"], place["longitude"]) == (50.94, 6.96)
    asked = form(client, "/v1/identify", photo()).json()
    assert asked["matches"] == client.post("/v1/identify", content=photo()).json()["matches"]
    assert form(client, "/v1/identify", photo(), {"session": "camera-1"}).json()["state"] == "looking"
    assert form(client, "/v1/quality", photo(), {"landmark": "Rathaus Köln"}).status_code == 200


def test_what_curl_calls_a_form_by_itself_is_a_photo(client: TestClient) -> None:
    headers = {"content-type": "application/x-www-form-urlencoded"}  # curl --data-binary @front.png
    assert client.post("/v1/identify", content=photo(), headers=headers).status_code == 200
    answer = client.post("/v1/identify", content=b"photo=front.png", headers=headers)
    assert answer.status_code == 415
    assert "curl -F" in answer.json()["error"]


def test_broken_forms_are_refused_with_a_reason(client: TestClient) -> None:
    two = [("photo", ("a.png", photo(), "image/png")), ("photo", ("b.png", photo(1), "image/png"))]
    multipart = {"content-type": "multipart/form-data; boundary=x"}
    for answer, why in (
        (client.post("/v1/identify", files=two), "Too many files"),
        (client.post("/v1/identify", files={"session": (None, b"camera-1")}), "no file"),
        (form(client, "/v1/identify", b""), "empty"),
        (form(client, "/v1/identify", photo(), {"landmark": "x"}), "landmark"),
        (form(client, "/v1/identify?session=camera-1", photo(), {"session": "camera-2"}), "once is enough"),
        (form(client, "/v1/images", photo(), {"name": "x"}), "landmark is missing"),
        (client.post("/v1/identify", content=b"--x\r\nnonsense", headers=multipart), "no file"),
        (client.post("/v1/identify", content=photo(), headers={"content-type": "multipart/form-data"}), "cannot be"),
    ):
        assert answer.status_code == 400, answer.text
        assert why in answer.json()["error"]
    assert form(client, "/v1/identify", bytes(300_001)).status_code == 413
    assert form(client, "/v1/identify", b"no photo").status_code == 415
    assert client.get("/v1/landmarks").json()["landmarks"] == []


# ---------------------------------------------------------------- event streams


def test_a_client_that_comes_back_gets_what_it_missed() -> None:
    async def play() -> None:
        hub = Hub(backlog=3, first=100)
        for i in range(5):
            hub.publish("appeared", {"i": i})

        async def ids(last: int | None) -> list[str]:
            hub.publish("end", {})
            listener = hub.subscribe(last)
            listener.put(None)
            return [text.split("\n")[0] async for text in listener][1:]

        assert await ids(104) == ["id: 105", "id: 106"]
        assert await ids(7) == ["id: 105", "id: 106", "id: 107"]  # of an earlier run: what is kept
        assert await ids(None) == []
        assert await ids(10**9) == []

    asyncio.run(play())


def test_a_listener_too_many_is_refused_before_the_answer_begins() -> None:
    async def play() -> None:
        hub = Hub(listeners=2)
        sent: list[Message] = []
        gone = asyncio.Event()

        async def receive() -> Message:
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            sent.append(message)

        async def listen() -> None:
            await EventStreamResponse(hub, None)({"type": "http"}, receive, send)

        first = [asyncio.ensure_future(listen()) for _ in range(2)]
        await asyncio.sleep(0)  # both have their place although neither has sent an event
        with pytest.raises(BusyError):
            await listen()
        await asyncio.sleep(0.01)
        assert [m["status"] for m in sent if m["type"] == "http.response.start"] == [200, 200]
        gone.set()
        await asyncio.gather(*first)
        assert len(hub) == 0
        gone.clear()
        last = asyncio.ensure_future(listen())
        await asyncio.sleep(0.01)
        hub.close()
        await last
        assert sent[-1] == {"type": "http.response.body", "body": b"", "more_body": False}

    asyncio.run(play())


def test_a_listener_that_is_dropped_leaves_its_place() -> None:
    hub = Hub(listeners=1)
    kept = hub.subscribe()
    assert len(hub) == 1
    del kept
    hub.subscribe()


def test_the_service_says_503_to_a_listener_too_many(client: TestClient) -> None:
    hub = client.app.state.service.hub  # type: ignore[attr-defined]
    kept = [hub.subscribe() for _ in range(16)]
    answer = client.get("/v1/events")
    assert (answer.status_code, len(kept)) == (503, 16)
    assert answer.headers["retry-after"] == "1"
