"""What the service tells of a landmark: its row, in the language of the browser, and its pictures and sounds."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from starlette.testclient import TestClient

from delf_edge import Recognizer
from delf_edge.bundle.calibration import Calibration
from delf_edge.web.app import ServiceOptions, create_app
from delf_edge.web.security import Policy
from testing.paths import TINY_BUNDLE

TOKEN = "0123456789abcdef"


def photo(seed: int) -> bytes:
    blocks = np.random.default_rng(seed).integers(0, 256, (12, 16, 3)).astype(np.uint8)
    return cv2.imencode(".png", cv2.resize(blocks, (320, 240), interpolation=cv2.INTER_NEAREST))[1].tobytes()


@pytest.fixture
def client(tmp_path: Path) -> Iterator[TestClient]:
    with Recognizer.open(tmp_path / "places.db", bundle=TINY_BUNDLE, preset="fast") as recognizer:
        recognizer.pipeline.calibration = Calibration(threshold=0.5)
        recognizer.add(photo(0), landmark="Town hall")
        texts = {"en": {"title": "Town hall", "summary": "<b>Old</b>"}, "de": {"title": "Rathaus"}}
        media = [{"name": "hall.png", "data": base64.b64encode(photo(1)).decode(), "credit": "Somebody"}]
        recognizer.catalogue.set("town-hall", {"texts": texts, "media": media, "ids.wikidata": "Q1"})
        app = create_app(recognizer, ServiceOptions(Policy(TOKEN)))
        with TestClient(app, base_url="http://127.0.0.1:8000", client=("127.0.0.1", 50000)) as opened:
            yield opened


def test_a_landmark_is_told_in_the_language_of_the_browser(client: TestClient) -> None:
    found = client.get("/v1/landmarks/town-hall", headers={"accept-language": "fr, de-AT;q=0.8"})
    assert (found.status_code, found.headers["content-language"], found.headers["vary"]) == (
        200,
        "de",
        "accept-language",
    )
    body = found.json()
    assert (body["title"], body["summary"], body["language"]) == ("Rathaus", "<b>Old</b>", "de")
    assert body["texts"]["en"] == {"title": "Town hall", "summary": "<b>Old</b>"}
    assert body["external_ids"] == {"wikidata": "Q1"}
    assert client.get("/v1/landmarks/town-hall").json()["title"] == "Town hall"
    assert client.get("/v1/landmarks/nowhere").status_code == 404
    assert client.get("/v1/landmarks").json()["landmarks"][0]["slug"] == "town-hall"


def test_an_answer_carries_what_is_known(client: TestClient) -> None:
    headers = {"accept-language": "de"}
    answer = client.post("/v1/identify", content=photo(0), headers=headers).json()
    assert answer["landmark"] == "Town hall"
    assert (answer["info"]["title"], answer["info"]["slug"]) == ("Rathaus", "town-hall")
    assert answer["info"]["media"] == ["hall.png"]


def test_media_have_their_type_and_an_etag(client: TestClient) -> None:
    found = client.get("/v1/landmarks/town-hall/media/hall.png")
    assert (found.status_code, found.headers["content-type"], found.content) == (200, "image/png", photo(1))
    assert found.headers["x-content-type-options"] == "nosniff"
    again = client.get("/v1/landmarks/town-hall/media/hall.png", headers={"if-none-match": found.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    for path in ("town-hall/media/none.png", "nowhere/media/hall.png", "town-hall/media/..%2Fplaces.db"):
        assert client.get(f"/v1/landmarks/{path}").status_code == 404
