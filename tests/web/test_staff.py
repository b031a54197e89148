"""What staff do over HTTP: places and their texts, checks, statistics, pictures that visitors have left."""

from __future__ import annotations

import contextlib
import csv
import datetime
import io
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from starlette.testclient import TestClient

from delf_edge import Recognizer
from delf_edge.bundle.calibration import Calibration
from delf_edge.errors import NotFoundError
from delf_edge.storage.statistics import Statistics
from delf_edge.web.app import ServiceOptions, create_app
from delf_edge.web.questions import Questions
from delf_edge.web.security import Policy
from examples import watch_kiosks
from testing.paths import TINY_BUNDLE

TOKEN = "0123456789abcdef"
AUTH = {"authorization": f"Bearer {TOKEN}"}


def photo(seed: int, suffix: str = ".png") -> bytes:
    blocks = np.random.default_rng(seed).integers(0, 256, (12, 16, 3)).astype(np.uint8)
    return cv2.imencode(suffix, cv2.resize(blocks, (320, 240), interpolation=cv2.INTER_NEAREST))[1].tobytes()


@pytest.fixture
def client(tmp_path: Path) -> Iterator[TestClient]:
    with Recognizer.open(tmp_path / "places.db", bundle=TINY_BUNDLE, preset="fast") as recognizer:
        recognizer.pipeline.calibration = Calibration(threshold=0.5)
        for seed, name in enumerate(("Town hall", "Town hall", "Church")):
            recognizer.add(photo(seed), landmark=name, name=f"{name}/{seed}", thumbnail=True)
        options = ServiceOptions(
            Policy(TOKEN), statistics=tmp_path / "counts.db", questions=tmp_path / "questions", kiosk=True
        )
        app = create_app(recognizer, options)
        with TestClient(app, base_url="http://127.0.0.1:8000", client=("127.0.0.1", 50000)) as opened:
            yield opened


def test_a_place_is_opened_renamed_and_told_of(client: TestClient) -> None:
    before = client.get("/v1/staff/landmarks/town-hall", headers=AUTH).json()
    assert [image["name"] for image in before["photos"]] == ["Town hall/0", "Town hall/1"]
    assert before["photos"][0]["quality"] is None
    texts = {"de": {"title": "Rathaus", "summary": "Alt", "body": "# Mehr"}, "en": {"title": "Town hall"}}
    changed = client.patch("/v1/landmarks/town-hall", json={"name": "City hall", "texts": texts}, headers=AUTH)
    assert (changed.status_code, changed.json()["name"]) == (200, "City hall")
    told = client.get("/v1/landmarks/town-hall", headers={"accept-language": "de"}).json()
    assert (told["title"], told["body_html"]) == ("Rathaus", "<h2>Mehr</h2>\n")
    client.patch("/v1/landmarks/town-hall", json={"texts": {"de": {"summary": None}}}, headers=AUTH)
    assert "summary" not in client.get("/v1/landmarks/town-hall").json()["texts"]["de"]
    put = client.put("/v1/landmarks/town-hall/media/hall.png?credit=Me", content=photo(9), headers=AUTH)
    assert [(item["name"], item["credit"]) for item in put.json()["media"]] == [("hall.png", "Me")]
    assert client.get("/v1/landmarks/town-hall/media/hall.png").content == photo(9)
    shown = client.get("/v1/showcase", headers={"accept-language": "de"}).json()
    assert [(row["title"], row["picture"]) for row in shown["places"]] == [("Church", None), ("Rathaus", "hall.png")]
    gone = before["photos"][0]["id"]
    assert client.delete(f"/v1/images/{gone}", headers=AUTH).status_code == 200
    assert len(client.get("/v1/staff/landmarks/town-hall", headers=AUTH).json()["photos"]) == 1


def test_what_cannot_be_changed_is_refused_with_its_reason(client: TestClient) -> None:
    for body, words in (
        ({"slug": "x"}, "'slug' cannot be changed"),
        ({"texts": {"de": {"colour": "x"}}}, "the fields are"),
        ({"texts": {"de": "x"}}, "the fields are"),
        ({"texts": []}, "the fields are"),
        ({"name": 3}, "name is a text"),
        ({"texts": {"no language": {"title": "x"}}}, "language"),
        ({"name": "Church"}, "Church"),
    ):
        refused = client.patch("/v1/landmarks/town-hall", json=body, headers=AUTH)
        assert refused.status_code == 400, body
        assert words in refused.json()["error"]
    assert client.patch("/v1/landmarks/town-hall", content=b"no json", headers=AUTH).status_code == 400
    assert client.patch("/v1/landmarks/nowhere", json={}, headers=AUTH).status_code == 404
    assert client.put("/v1/landmarks/church/media/x.png", content=b"no picture", headers=AUTH).status_code == 400
    assert client.get("/v1/staff/landmarks/town-hall", headers=AUTH).json()["texts"] == {}
    for method, path in (
        ("PATCH", "/v1/landmarks/church"),
        ("DELETE", "/v1/landmarks/church"),
        ("PUT", "/v1/landmarks/church/media/x.png"),
        ("POST", "/v1/landmarks/church/merge?into=town-hall"),
        ("GET", "/v1/staff/landmarks/church"),
        ("GET", "/v1/staff/statistics.csv"),
        ("POST", "/v1/staff/lint"),
        ("GET", "/v1/staff/questions"),
    ):
        assert client.request(method, path).status_code == 401, path


def test_two_places_become_one_and_a_place_goes(client: TestClient) -> None:
    assert client.post("/v1/landmarks/church/merge", headers=AUTH).status_code == 400
    assert client.post("/v1/landmarks/church/merge?into=nowhere", headers=AUTH).status_code == 404
    merged = client.post("/v1/landmarks/church/merge?into=town-hall&prefer=new", headers=AUTH).json()
    assert (merged["slug"], len(merged["photos"])) == ("town-hall", 3)
    assert client.get("/v1/landmarks/church").status_code == 404
    assert len(client.delete("/v1/landmarks/town-hall", headers=AUTH).json()["removed"]) == 3
    assert client.get("/v1/landmarks").json()["landmarks"] == []


def test_all_photos_are_checked_in_the_background(client: TestClient) -> None:
    assert client.get("/v1/staff/lint", headers=AUTH).json()["total"] == 0
    client.post("/v1/staff/lint", headers=AUTH)
    end = time.monotonic() + 120
    while (found := client.get("/v1/staff/lint", headers=AUTH).json())["running"]:
        assert time.monotonic() < end
        time.sleep(0.1)
    assert (found["done"], found["total"], len(found["findings"])) == (3, 3, 3)
    quality = client.get("/v1/staff/landmarks/church", headers=AUTH).json()["photos"][0]["quality"]
    assert 0 <= quality["score"] <= 100
    client.post("/v1/staff/lint", headers=AUTH)
    client.delete("/v1/staff/lint", headers=AUTH)
    end = time.monotonic() + 20
    while client.get("/v1/staff/lint", headers=AUTH).json()["running"]:
        assert time.monotonic() < end


def test_what_visitors_meet_is_counted(client: TestClient) -> None:
    client.post("/v1/identify", content=photo(0))
    client.post("/v1/identify", content=photo(77))
    for _ in range(5):  # frames of a camera: the place counts once
        client.post("/v1/identify?session=kiosk-001", content=photo(2))
    said = client.get("/v1/staff/statistics", headers=AUTH).json()
    today = said["days"][-1]
    assert (len(said["days"]), today["asked"], today["found"], today["unknown"]) == (7, 3, 2, 1)
    assert sum(today["hours"]) == 3
    assert said["landmarks"] == [{"landmark": "Church", "found": 1}, {"landmark": "Town hall", "found": 1}]
    table = client.get("/v1/staff/statistics.csv", headers=AUTH)
    assert table.headers["content-type"].startswith("text/csv")
    rows = list(csv.reader(io.StringIO(table.text)))
    assert rows[0] == ["day", "hour", "outcome", "landmark", "number"]
    assert sum(int(row[4]) for row in rows[1:]) == 3
    metrics = client.get("/metrics").text
    assert "delf_edge_found_today 2.0" in metrics
    assert "delf_edge_unknown_today 1.0" in metrics
    for query in ("first=x", "first=2026-01-02&last=2026-01-01", "first=1999-01-01", "last=0000-00-00"):
        assert client.get(f"/v1/staff/statistics?{query}", headers=AUTH).status_code == 400


def test_counts_outlive_the_service_and_a_wrong_file_stops_nobody(tmp_path: Path) -> None:
    hour = datetime.datetime(2026, 11, 28, 14, 30)
    for _ in range(2):
        statistics = Statistics(tmp_path / "counts.db")
        statistics.count("found", "=Petra", hour)
        statistics.close()
    statistics = Statistics(tmp_path / "counts.db")
    assert statistics.rows(hour.date(), hour.date()) == [("2026-11-28", 14, "found", "=Petra", 2)]
    assert "'=Petra" in statistics.csv(hour.date(), hour.date())  # no formula in a spreadsheet
    statistics.close()
    (tmp_path / "no database").write_bytes(b"x" * 4096)
    for path in (tmp_path / "no database", tmp_path / "no folder" / "counts.db"):
        memory = Statistics(path)
        memory.count("unknown")
        assert memory.today()["unknown"] == 1
        memory.close()
    assert (tmp_path / "no database").read_bytes() == b"x" * 4096


def test_statistics_change_no_other_database(tmp_path: Path) -> None:
    path = tmp_path / "mine.db"
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE mine (x)")
        db.commit()
    before = path.read_bytes()
    statistics = Statistics(path)
    statistics.count("found", "Colosseum")
    assert statistics.today()["found"] == 1  # in memory, until the service ends
    statistics.close()
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["mine.db"]


def test_a_visitor_leaves_a_picture_and_staff_teach_it(client: TestClient) -> None:
    assert client.get("/kiosk.json").json()["questions"] == {"days": 14}
    left = client.post("/v1/questions", content=photo(5, ".jpg"))
    assert (left.status_code, left.json()["days"]) == (201, 14)
    assert client.post("/v1/questions", content=b"no picture").status_code == 415
    (question,) = client.get("/v1/staff/questions", headers=AUTH).json()["questions"]
    path = f"/v1/staff/questions/{question['id']}"
    assert client.get(path).status_code == 401
    assert client.get(path, headers=AUTH).content == photo(5, ".jpg")
    assert client.get("/v1/status").json()["questions"] == 1
    assert client.delete(path, headers=AUTH).json() == {"removed": question["id"]}
    assert client.get(path, headers=AUTH).status_code == 404
    assert client.get("/v1/staff/questions/..%2Fplaces.db", headers=AUTH).status_code == 404


def test_pictures_go_after_their_time_and_when_there_are_too_many(tmp_path: Path) -> None:
    questions = Questions(tmp_path / "q", days=14, limit=3)
    assert questions.entries() == []
    keys = [questions.add(b"jpeg", now=1_000_000_000.0 + i) for i in range(5)]
    assert [entry["id"] for entry in questions.entries(now=1_000_000_010.0)] == keys[:1:-1]
    assert questions.entries(now=1_000_000_000.0 + 15 * 86_400) == []
    with pytest.raises(NotFoundError):
        questions.photo(keys[-1])
    (tmp_path / "q" / "notes.txt").write_text("a person's file", "utf-8")
    questions.prune(now=2_000_000_000.0)
    assert (tmp_path / "q" / "notes.txt").exists()


def test_one_line_tells_of_a_kiosk_and_what_it_needs(client: TestClient) -> None:
    status = client.get("/v1/status").json()
    assert status["database"]["images"] == 3
    assert status["last_frame"] is None
    assert watch_kiosks.needs(status) == ["no frame yet"]
    client.post("/v1/identify?session=kiosk-001", content=photo(2))
    status = client.get("/v1/status").json()
    assert status["seconds_since_frame"] < 30
    assert watch_kiosks.needs(status) == []
    assert "places.db" in watch_kiosks.line("http://kiosk", status)
    assert watch_kiosks.needs({**status, "seconds_since_frame": 61.0}) == ["no frame for 61 s"]
    assert watch_kiosks.needs(watch_kiosks.ask("http://127.0.0.1:9", None))[0].startswith("no answer")
