"""The service without a network: every route, what it refuses, and that nothing committed is lost."""

from __future__ import annotations

import asyncio
import json
import re
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from openapi_spec_validator import validate
from prometheus_client.parser import text_string_to_metric_families
from starlette.requests import Request
from starlette.testclient import TestClient

from delf_edge import Bundle, ImageError, OptionError, Recognizer
from delf_edge.bundle.calibration import Calibration
from delf_edge.camera.temporal_voting import VoteOptions
from delf_edge.camera.watcher import CameraOptions
from delf_edge.files import write_atomically
from delf_edge.images.decode import load_image
from delf_edge.packs.create import cut_pack
from delf_edge.packs.installed import switch
from delf_edge.query.options import IdentifyOptions
from delf_edge.storage.store import Store
from delf_edge.web.app import ServiceOptions, create_app
from delf_edge.web.event_stream import Hub
from delf_edge.web.openapi import document
from delf_edge.web.routes import post_identify
from delf_edge.web.security import Policy
from delf_edge.web.server import address_of, notify, read_token, tell_systemd
from delf_edge.web.sessions import Sessions
from delf_edge.web.work_queue import BusyError, Jobs
from testing.paths import ROOT, TINY_BUNDLE
from testing.synthetic_database import make_database

STATIC = ROOT / "delf_edge" / "web" / "static"
TOKEN = "0123456789abcdef"
AUTH = {"authorization": f"Bearer {TOKEN}"}


def photo(seed: int, suffix: str = ".png") -> bytes:
    blocks = np.random.default_rng(seed).integers(0, 256, (12, 16, 3)).astype(np.uint8)
    return cv2.imencode(suffix, cv2.resize(blocks, (320, 240), interpolation=cv2.INTER_NEAREST))[1].tobytes()


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return Bundle.load(TINY_BUNDLE)


@pytest.fixture
def recognizer(tmp_path: Path, bundle: Bundle) -> Iterator[Recognizer]:
    with Recognizer.open(tmp_path / "places.db", bundle=bundle, preset="fast") as opened:
        opened.pipeline.calibration = Calibration(threshold=0.5)
        yield opened


def client_of(
    recognizer: Recognizer, peer: str = "127.0.0.1", host: str = "127.0.0.1:8000", **policy: Any
) -> TestClient:
    camera = CameraOptions(identify=IdentifyOptions(min_inliers=12))
    app = create_app(recognizer, ServiceOptions(Policy(TOKEN, **policy), queue=2, max_pixels=1_000_000, camera=camera))
    return TestClient(app, base_url=f"http://{host}", client=(peer, 50000))


@pytest.fixture
def client(recognizer: Recognizer) -> Iterator[TestClient]:
    with client_of(recognizer) as opened:
        yield opened


def enrol(client: TestClient, seed: int, landmark: str, **query: Any) -> dict[str, Any]:
    response = client.post("/v1/images", params={"landmark": landmark, **query}, content=photo(seed), headers=AUTH)
    assert response.status_code == 201, response.text
    result = response.json()
    assert isinstance(result, dict)
    return result


# ---------------------------------------------------------------- what it is for


def test_enrol_identify_and_remove(client: TestClient) -> None:
    added = enrol(client, 0, "Town hall")
    enrol(client, 1, "Church")
    assert added["landmark"] == "Town hall"
    assert re.fullmatch(r"Town hall/[0-9a-f]{12}", added["name"])
    answer = client.post("/v1/identify", content=photo(0)).json()
    assert answer["landmark"] == "Town hall"
    proof = answer["proof"]
    assert proof["image_id"] == added["image_id"]
    assert len(proof["query_points"]) == len(proof["stored_points"]) == answer["n_inliers"] > 5
    assert (proof["query_size"], proof["stored_size"]) == ([320, 240], [320, 240])
    small = client.get(f"/v1/images/{added['image_id']}/thumbnail")
    assert small.headers["content-type"] == "image/jpeg"
    assert load_image(small.content).size == (320, 240)

    listed = client.get("/v1/landmarks").json()["landmarks"]
    assert [(row["name"], len(row["images"])) for row in listed] == [("Church", 1), ("Town hall", 1)]
    assert client.delete("/v1/images", params={"landmark": "Town hall"}, headers=AUTH).json() == {
        "removed": [added["image_id"]]
    }
    (church,) = client.get("/v1/landmarks").json()["landmarks"]
    assert client.delete(f"/v1/images/{church['images'][0]['id']}", headers=AUTH).status_code == 200
    assert client.get("/v1/landmarks").json() == {"landmarks": [], "read_only": False}
    assert client.post("/v1/identify", content=photo(0)).json()["landmark"] is None


def test_the_same_photo_again_is_no_second_image(client: TestClient, recognizer: Recognizer) -> None:
    first = enrol(client, 0, "Town hall", latitude=48.1, longitude=11.5)
    again = client.post("/v1/images", params={"landmark": "Town hall"}, content=photo(0), headers=AUTH)
    assert (again.status_code, again.json()["image_id"]) == (200, first["image_id"])
    (landmark,) = client.get("/v1/landmarks").json()["landmarks"]
    assert (landmark["latitude"], landmark["longitude"]) == (48.1, 11.5)
    assert len(recognizer.store) == 1


def test_quality_is_advice_and_stores_nothing(client: TestClient, recognizer: Recognizer) -> None:
    report = client.post("/v1/quality", content=photo(0)).json()
    assert 0 <= report["score"] <= 100
    assert set(report) == {"score", "parts", "reasons", "confused_with"}
    black = cv2.imencode(".png", np.zeros((90, 90, 3), np.uint8))[1].tobytes()
    assert client.post("/v1/quality", content=black, params={"landmark": "x"}).json()["score"] == 0
    assert len(recognizer.store) == 0


def test_a_session_gathers_frames_into_events(client: TestClient) -> None:
    enrol(client, 0, "Town hall")
    answers = []
    for _ in range(4):
        answers.append(client.post("/v1/identify?session=kiosk-01", content=photo(0)).json())
    assert [a["state"] for a in answers[:2]] == ["looking", "present"]
    assert [e["kind"] for a in answers for e in a["events"]] == ["appeared"]
    assert answers[1]["present"] == ["Town hall"]
    assert answers[3]["skipped"]  # an unchanged scene costs no second look
    assert answers[3]["state"] == "present"
    other = client.post("/v1/identify?session=kiosk-02", content=photo(0)).json()
    assert other["state"] == "looking"  # another camera
    assert client.post("/v1/identify?session=../x", content=photo(0)).status_code == 400
    text = client.get("/metrics").text
    assert 'delf_edge_events_total{kind="appeared"} 1' in text
    assert "delf_edge_sessions 2" in text


def test_what_a_camera_saw_leaves_when_its_frames_stop(recognizer: Recognizer) -> None:
    camera = CameraOptions(vote=VoteOptions(hold=0.05), identify=IdentifyOptions(min_inliers=12), signal=0.1)
    app = create_app(recognizer, ServiceOptions(Policy(TOKEN), camera=camera))
    with TestClient(app, base_url="http://127.0.0.1:8000", client=("127.0.0.1", 50000)) as client:
        enrol(client, 0, "Town hall")
        for _ in range(2):
            client.post("/v1/identify?session=unplugged", content=photo(0))
        sent = app.state.service.hub.sent
        assert sent["appeared"] == 1
        end = time.monotonic() + 60
        while not sent["left"] and time.monotonic() < end:
            time.sleep(0.05)
        assert sent["left"] == 1


def test_a_dark_frame_says_why_it_was_skipped(client: TestClient) -> None:
    black = cv2.imencode(".png", np.zeros((90, 90, 3), np.uint8))[1].tobytes()
    answer = client.post("/v1/identify?session=cellar-1", content=black).json()
    assert (answer["skipped"], answer["verdict"], answer["state"]) == (True, "black", "looking")


def test_thumbnails_of_indexed_files_are_made_only_of_the_very_photo(
    client: TestClient, recognizer: Recognizer, tmp_path: Path
) -> None:
    path = tmp_path / "hall.png"
    path.write_bytes(photo(0))
    image_id = recognizer.add(path, landmark="Town hall", metadata={"path": str(path)}).image_id
    url = f"/v1/images/{image_id}/thumbnail"
    assert client.get(url).status_code == 200
    path.write_bytes(photo(9))  # another photo of the same name is nobody's business
    assert client.get(url).status_code == 404
    path.unlink()
    assert client.get(url).status_code == 404
    assert client.get("/v1/images/777/thumbnail").status_code == 404


# ---------------------------------------------------------------- who may do what


def test_changes_need_the_token_even_on_this_machine(client: TestClient, recognizer: Recognizer) -> None:
    image_id = enrol(client, 0, "Town hall")["image_id"]
    for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": f"Basic {TOKEN}"}, {"authorization": ""}):
        for method, path in (
            ("POST", "/v1/images?landmark=x"),
            ("DELETE", "/v1/images?landmark=Town hall"),
            ("DELETE", f"/v1/images/{image_id}"),
        ):
            response = client.request(method, path, content=photo(1), headers=headers)
            assert response.status_code == 401
            assert response.headers["www-authenticate"] == "Bearer"
    assert [image.landmark for image in recognizer.store.images()] == ["Town hall"]


@pytest.mark.parametrize(
    ("peer", "loopback_only"), [("192.168.1.7", True), ("192.168.1.7", False), ("127.0.0.1", False)]
)
def test_from_another_machine_everything_needs_the_token(
    recognizer: Recognizer, peer: str, loopback_only: bool
) -> None:
    with client_of(
        recognizer, peer, "kiosk.lan", hosts=frozenset({"kiosk.lan"}), loopback_only=loopback_only
    ) as client:
        for method, path in (
            ("POST", "/v1/identify"),
            ("GET", "/v1/landmarks"),
            ("GET", "/v1/events"),
            ("GET", "/metrics"),
        ):
            assert client.request(method, path, content=photo(0)).status_code == 401
        assert client.get("/healthz").status_code == 200
        assert client.get("/").status_code == 200
        assert client.get("/v1/landmarks", headers=AUTH).status_code == 200


def test_unknown_host_names_and_foreign_origins_are_refused(recognizer: Recognizer) -> None:
    with client_of(recognizer, host="evil.example") as client:
        assert client.get("/v1/landmarks").status_code == 400  # DNS rebinding
    with client_of(recognizer, host="localhost:8000") as client:
        assert client.get("/v1/landmarks").status_code == 200
        assert client.get("/v1/landmarks", headers={"origin": "http://evil.example"}).status_code == 403
        assert client.get("/v1/landmarks", headers={"origin": "http://localhost:8000"}).status_code == 200


def test_the_page_and_its_headers(client: TestClient) -> None:
    for path, kind in (("/", "text/html"), ("/app.css", "text/css"), ("/app.js", "text/javascript")):
        response = client.get(path)
        assert response.status_code == 200
        assert response.headers["content-type"].startswith(kind)
        policy = response.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert response.headers["x-content-type-options"] == "nosniff"
    for path in ("/app.py", "/../app.py", "/static/app.js", "/%2e%2e/app.py", "/docs"):
        assert client.get(path).status_code == 404


def test_a_stream_of_events_ends_at_once_where_only_its_headers_are_asked_for(client: TestClient) -> None:
    response = client.head("/v1/events")
    assert (response.status_code, response.headers["content-type"].split(";")[0]) == (200, "text/event-stream")


def test_the_pages_name_no_other_host_and_have_no_inline_code(client: TestClient) -> None:
    files = [path for path in STATIC.rglob("*") if path.is_file()]
    assert len(files) > 20
    for path in files:
        text = path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?://|[\"'(]//[a-z]", text), path
        assert not re.search(r"""(?:src|href)="/|["'`]/(?:v1|healthz|kiosk)""", text), (
            f"{path}: below a path of a proxy"
        )
        assert "eval(" not in text
        assert "innerHTML" not in text
        address = path.relative_to(STATIC).as_posix().replace("index.html", "").replace("staff.html", "staff")
        assert client.get(f"/{address}").text == path.read_text(encoding="utf-8")
    for name, folder in (("index.html", "visitor"), ("staff.html", "staff")):
        page = (STATIC / name).read_text(encoding="utf-8")
        assert not re.search(r"<script(?![^>]*src=)|<style|\sstyle=|\son[a-z]+=", page)
        assert not re.search(r'id="(camera|token=.*)"', page), "the address's #camera would move the focus there"
        scripts = [*(STATIC / folder).glob("*.js"), *([STATIC / "app.js"] if folder == "visitor" else [])]
        assert len(scripts) > 1
        for script in scripts:
            for element in set(re.findall(r"\$\(\"([a-z-]+)\"\)", script.read_text(encoding="utf-8"))):
                assert f'id="{element}"' in page, element


def test_the_visitors_page_has_nothing_of_the_staff(client: TestClient) -> None:
    scripts = "".join(path.read_text("utf-8") for path in [STATIC / "app.js", *(STATIC / "visitor").glob("*.js")])
    page = client.get("/").text
    assert not re.search(r"<a\b|<dialog|<form|<input|<iframe", page)
    assert not re.search(
        r"DELETE|PATCH|PUT|v1/images\"|v1/staff|showModal|\.href|window\.open|prompt\(|alert\(", scripts
    )


# ---------------------------------------------------------------- what it refuses


def test_wrong_requests_get_4xx_and_a_reason(client: TestClient, recognizer: Recognizer) -> None:
    wrong: list[tuple[int, str, str, bytes]] = [
        (400, "POST", "/v1/identify", b""),
        (415, "POST", "/v1/identify", b"no photo"),
        (415, "POST", "/v1/identify", photo(0)[:300]),
        (415, "POST", "/v1/identify", photo(0, ".jpg")[:-200]),
        (415, "POST", "/v1/quality", b"GIF89a"),
        (413, "POST", "/v1/identify", cv2.imencode(".png", np.zeros((1001, 1000), np.uint8))[1].tobytes()),
        (400, "POST", "/v1/images", photo(0)),
        (400, "POST", "/v1/images?landmark=" + "x" * 201, photo(0)),
        (400, "POST", "/v1/images?landmark=a%00b", photo(0)),
        (400, "POST", "/v1/images?landmark=a&replace=perhaps", photo(0)),
        (400, "POST", "/v1/images?landmark=x&latitude=north&longitude=1", photo(0)),
        (400, "POST", "/v1/images?landmark=x&latitude=91&longitude=1", photo(0)),
        (400, "POST", "/v1/images?landmark=x&latitude=48", photo(0)),
        (400, "POST", "/v1/images?landmark=x&latitude=nan&longitude=1", photo(0)),
        (404, "DELETE", "/v1/images?landmark=nowhere", b""),
        (404, "DELETE", "/v1/images/12345", b""),
        (404, "DELETE", "/v1/images/../../etc/passwd", b""),
        (404, "GET", "/nothing", b""),
        (405, "PUT", "/v1/images", b""),
        (405, "GET", "/v1/identify", b""),
    ]
    for status, method, path, body in wrong:
        response = client.request(method, path, content=body, headers=AUTH)
        assert response.status_code == status, (method, path, response.text)
        assert response.json()["error"]
    assert client.get("/healthz").json()["status"] == "ok"
    assert recognizer.verify() == []
    assert len(recognizer.store) == 0  # a request with one wrong parameter stores nothing


def test_a_body_above_the_cap_is_refused_whatever_its_header_says(recognizer: Recognizer) -> None:
    with client_of(recognizer, max_body=1000) as client:
        assert client.post("/v1/identify", content=b"x" * 1001).status_code == 413
        chunks = (b"x" * 100 for _ in range(11))  # sent in chunks: no Content-Length
        assert client.post("/v1/identify", content=chunks).status_code == 413
        assert client.post("/v1/identify", content=b"x" * 1000).status_code == 415
        assert client.post("/v1/identify", content=b"x", headers={"content-length": "many"}).status_code == 400


def test_a_body_that_never_comes_is_given_up() -> None:
    from starlette.exceptions import HTTPException

    async def never() -> dict[str, Any]:
        await asyncio.sleep(60)
        return {}

    request = Request({"type": "http", "method": "POST", "path": "/", "headers": []}, never)
    with pytest.raises(HTTPException) as refused:
        asyncio.run(Policy(TOKEN, body_timeout=0.01).body(request))
    assert refused.value.status_code == 408


def test_uploads_at_the_same_time_are_few(recognizer: Recognizer) -> None:
    async def play() -> None:
        options = ServiceOptions(Policy(TOKEN, body_timeout=30), uploads=1)
        app = create_app(recognizer, options)
        go = asyncio.Event()

        async def slowly() -> dict[str, Any]:
            await go.wait()
            return {"type": "http.request", "body": b"no photo", "more_body": False}

        scope = {
            "type": "http",
            "method": "POST",
            "path": "/v1/identify",
            "headers": [],
            "query_string": b"",
            "app": app,
        }
        first = asyncio.create_task(post_identify(Request(scope, slowly)))
        await asyncio.sleep(0)
        with pytest.raises(BusyError, match="uploads"):
            await post_identify(Request(scope, slowly))
        go.set()
        with pytest.raises(ImageError):
            await first
        with pytest.raises(ImageError):  # there is room again
            await post_identify(Request(scope, slowly))

    asyncio.run(play())


def test_a_full_queue_is_503_and_frees_itself(recognizer: Recognizer, monkeypatch: pytest.MonkeyPatch) -> None:
    go = threading.Event()
    explain = recognizer.explain

    def slow(*args: Any, **kwargs: Any) -> Any:
        go.wait(30)
        return explain(*args, **kwargs)

    monkeypatch.setattr(recognizer, "explain", slow)
    with client_of(recognizer) as client:
        codes: list[int] = []
        threads = [
            threading.Thread(target=lambda: codes.append(client.post("/v1/identify", content=photo(0)).status_code))
            for _ in range(3)
        ]
        for thread in threads:
            thread.start()
        jobs = client.app.state.service.jobs  # type: ignore[attr-defined]
        while jobs.pending < 3:
            time.sleep(0.01)
        refused = client.post("/v1/identify", content=photo(0))
        assert refused.status_code == 503
        assert refused.headers["retry-after"] == "1"
        go.set()
        for thread in threads:
            thread.join(30)
        assert codes == [200, 200, 200]
        assert client.post("/v1/identify", content=photo(0)).status_code == 200
        assert "delf_edge_jobs_refused 1" in client.get("/metrics").text


def test_a_full_disk_is_507_and_nothing_is_lost(
    connections: list[sqlite3.Connection], client: TestClient, recognizer: Recognizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    enrol(client, 0, "Town hall")
    database = connections[-1]
    database.execute(f"PRAGMA max_page_count = {database.execute('PRAGMA page_count').fetchone()[0]}")
    for seed in range(1, 8):
        last = client.post("/v1/images", params={"landmark": "New"}, content=photo(seed), headers=AUTH)
    assert last.status_code == 507
    assert "full" in last.json()["error"]
    assert client.post("/v1/identify", content=photo(0)).json()["landmark"] == "Town hall"
    assert client.get("/healthz").status_code == 200
    assert recognizer.verify() == []


def test_a_read_only_database_can_be_asked_but_not_changed(tmp_path: Path, bundle: Bundle) -> None:
    path = tmp_path / "kiosk.db"
    with Recognizer.open(path, bundle=bundle) as recognizer:
        recognizer.add(photo(0), landmark="Town hall", name="0")
    with Recognizer.open(path, bundle=bundle, read_only=True) as recognizer, client_of(recognizer) as client:
        assert client.post("/v1/images?landmark=x", content=photo(1), headers=AUTH).status_code == 403
        assert client.get("/v1/landmarks").json()["read_only"] is True


# ---------------------------------------------------------------- operation


def test_a_photo_takes_no_other_ones_name(client: TestClient) -> None:
    target = "/v1/images?landmark=Hall&name=front"
    first = client.post(target, content=photo(11), headers=AUTH)
    assert first.status_code == 201
    assert client.post(target, content=photo(11), headers=AUTH).json() == first.json() | {"status": "unchanged"}
    refused = client.post(target, content=photo(12), headers=AUTH)
    assert refused.status_code == 409
    assert "front: another photo has this name, of Hall" in refused.json()["error"]
    other = client.post(f"{target}&replace=true", content=photo(12), headers=AUTH)
    assert (other.status_code, other.json()["status"]) == (200, "replaced")


def test_openapi_lists_every_route_and_what_it_answers(client: TestClient) -> None:
    described = {(method.upper(), path) for path, operations in document()["paths"].items() for method in operations}
    routes = {
        (method, re.sub(r":\w+}", "}", route.path))
        for route in client.app.routes  # type: ignore[attr-defined]
        for method in route.methods - {"HEAD"}
        if not route.path.endswith((".js", ".css", ".svg", ".json")) or route.path == "/openapi.json"
        if route.path not in ("/", "/staff", "/brand/{name}") and "/visit" not in route.path
    }
    assert described == routes
    served = client.get("/openapi.json").json()
    assert served == json.loads(json.dumps(document()))
    validate(served)
    enrol(client, 0, "Town hall")
    answer = client.post("/v1/identify?session=openapi-test", content=photo(0)).json()
    schema = served["paths"]["/v1/identify"]["post"]["responses"]["200"]["content"]["application/json"]["schema"]
    assert set(answer) <= set(schema["properties"])
    assert set(answer["proof"]) == set(schema["properties"]["proof"]["properties"])
    assert set(answer["matches"][0]) == set(schema["properties"]["matches"]["items"]["properties"])


def test_switched_packs_are_taken_up_and_reported(tmp_path: Path, bundle: Bundle) -> None:
    folder = tmp_path / "packs"
    (folder / "poland").mkdir(parents=True)
    with Store.open(make_database(tmp_path / "all.db", bundle, n_images=12), mode="ro") as store:
        for version in (1, 2, 3):
            cut_pack(store, folder / "poland" / f"{version}.pack", name="poland", version=version)
            if version == 1:
                switch(folder, "poland", folder / "poland" / "1.pack")

    def waited_for(client: TestClient, packs: list[str], n_problems: int) -> dict[str, Any]:
        for _ in range(200):
            health: dict[str, Any] = client.get("/healthz").json()
            if health["packs"] == packs and len(health["pack_problems"]) == n_problems:
                return health
            time.sleep(0.1)
        raise AssertionError(f"{health} in place of {packs} with {n_problems} problems")

    with (
        Recognizer.open(tmp_path / "own.db", bundle=bundle, preset="fast", packs=[folder]) as opened,
        client_of(opened) as client,
    ):
        waited_for(client, ["1.pack"], 0)
        (folder / "poland" / "3.pack").write_bytes(b"spoilt")
        pointer = {"current": "3.pack", "previous": "1.pack"}
        write_atomically(folder / "poland" / "current.json", json.dumps(pointer).encode())
        health = waited_for(client, ["1.pack"], 1)
        assert health["status"] == "ok"
        assert "3.pack" in health["pack_problems"][0]
        assert "delf_edge_pack_problems 1" in client.get("/metrics").text
        assert client.get("/v1/landmarks").json()["landmarks"][0]["images"][0]["name"] == "0.jpg"
        pointer = {"current": "2.pack", "previous": "1.pack"}
        write_atomically(folder / "poland" / "current.json", json.dumps(pointer).encode())
        waited_for(client, ["2.pack"], 0)
        text = client.get("/metrics").text
        assert "delf_edge_packs 1" in text
        assert "delf_edge_pack_switches 1" in text
        assert "delf_edge_pack_problems 0" in text


def sample(text: str, name: str, **labels: str) -> float:
    """The value of a metric."""
    families = text_string_to_metric_families(text)
    (value,) = (s.value for family in families for s in family.samples if s.name == name and s.labels == labels)
    return value


def test_the_metrics_are_those_that_dashboards_know(client: TestClient) -> None:
    enrol(client, 0, "Town hall")
    names = {
        sample.name
        for family in text_string_to_metric_families(client.get("/metrics").text)
        for sample in family.samples
    }
    assert names >= {
        "delf_edge_requests_total",
        "delf_edge_events_total",
        "delf_edge_identify_seconds_bucket",
        "delf_edge_identify_seconds_sum",
        "delf_edge_identify_seconds_count",
        "delf_edge_jobs",
        "delf_edge_jobs_refused",
        "delf_edge_listeners",
        "delf_edge_sessions",
        "delf_edge_images",
        "delf_edge_packs",
        "delf_edge_pack_switches",
        "delf_edge_pack_problems",
        "delf_edge_damaged_rows",
        "process_resident_memory_bytes",
    }


def test_health_and_metrics(client: TestClient, recognizer: Recognizer) -> None:
    client.post("/v1/identify", content=photo(0))
    client.get("/nothing/at/all")
    health = client.get("/healthz").json()
    assert health["status"] == "ok"
    text = client.get("/metrics").text
    assert sample(text, "delf_edge_requests_total", route="/v1/identify", method="POST", status="200") == 1
    assert sample(text, "delf_edge_requests_total", route="other", method="GET", status="404") == 1
    assert sample(text, "delf_edge_answers_total", outcome="unknown") == 1
    assert sample(text, "delf_edge_identify_seconds_count") == 1
    assert sample(text, "delf_edge_identify_seconds_bucket", le="+Inf") == 1
    assert sample(text, "process_resident_memory_bytes") > 1e6
    for line in text.splitlines():
        assert re.fullmatch(r"# (HELP|TYPE) \S+ .+|[a-z_]+(\{[^}]*\})? [0-9.e+]+", line), line
    recognizer.close()
    assert client.get("/healthz").status_code == 503


def test_events_reach_listeners_and_a_slow_one_misses_the_oldest() -> None:
    async def play() -> None:
        hub = Hub(listeners=1, backlog=2)
        stream = hub.subscribe()
        assert await anext(stream) == "retry: 3000\n\n"
        with pytest.raises(BusyError):
            hub.subscribe()
        for i in range(3):
            hub.publish("appeared", {"landmark": f"Ä{i}"})
        assert await anext(stream) == 'id: 2\nevent: appeared\ndata: {"landmark": "Ä1"}\n\n'
        hub.close()
        assert [text.split("\n")[0] async for text in stream] == ["id: 3"]
        assert len(hub) == 0

    asyncio.run(play())


def test_sessions_are_few_and_forgotten(recognizer: Recognizer) -> None:
    sessions = Sessions(recognizer, CameraOptions(), limit=2)
    first = sessions.get("a")
    assert sessions.get("a") == first
    sessions.get("b")
    sessions.get("c")
    assert len(sessions) == 2
    assert sessions.get("a") != first
    old = Sessions(recognizer, CameraOptions(), idle=0.0)
    seen = old.get("a")[0]
    time.sleep(0.01)
    assert old.get("a")[0] is not seen


def test_a_job_that_takes_too_long_keeps_its_place_until_it_ends() -> None:
    async def play() -> None:
        go = threading.Event()
        jobs = Jobs(workers=1, queue=0, timeout=0.01)
        with pytest.raises(BusyError, match="no answer"):
            await jobs.run(lambda: go.wait(30))
        assert jobs.oldest > 0
        with pytest.raises(BusyError, match="too many"):
            await jobs.run(lambda: None)
        go.set()
        while jobs.pending:
            await asyncio.sleep(0.01)
        assert jobs.oldest == 0
        jobs.close()

    asyncio.run(play())


def test_a_job_that_has_begun_is_not_given_up_half_done() -> None:
    async def play() -> None:
        jobs = Jobs(workers=1, queue=2, timeout=0.2)
        go = threading.Event()
        ran: list[str] = []

        def waits() -> bool:
            gone_on = go.wait(30)
            ran.append("first")
            return gone_on

        first = asyncio.create_task(jobs.run(waits))
        await asyncio.sleep(0.01)
        second = asyncio.create_task(jobs.run(lambda: ran.append("second")))
        with pytest.raises(BusyError, match="no answer"):
            await second  # it has not begun
        go.set()
        assert await first is True  # it had
        while jobs.pending:
            await asyncio.sleep(0.01)
        assert (ran, jobs.refused) == (["first"], 1)
        jobs.close()

    asyncio.run(play())


def test_the_token_comes_from_a_file_or_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DELF_EDGE_TOKEN", raising=False)
    made, is_new = read_token(None)
    assert is_new
    assert len(made) >= 24
    assert read_token(None)[0] != made
    path = tmp_path / "token"
    path.write_text(TOKEN + "\n")
    assert read_token(path) == (TOKEN, False)
    monkeypatch.setenv("DELF_EDGE_TOKEN", TOKEN)
    assert read_token(None) == (TOKEN, False)
    path.write_text("short")
    with pytest.raises(OptionError, match="5 characters"):
        read_token(path)
    with pytest.raises(OptionError, match="cannot be read"):
        read_token(tmp_path / "none")


def test_addresses_and_systemd(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import socket

    assert address_of("127.0.0.1", 8000, "t") == "http://localhost:8000/#token=t"
    assert address_of("0.0.0.0", 80, None) == "http://localhost:80/"
    assert address_of("kiosk.lan", 8000, None) == "http://kiosk.lan:8000/"
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert not notify("READY=1")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        assert notify("READY=1")
        assert listener.recv(100) == b"READY=1"


def test_the_watchdog_is_fed_only_while_jobs_come_to_an_end(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import socket

    async def play(listener: socket.socket) -> None:
        service = SimpleNamespace(healthy=False)
        task = asyncio.create_task(tell_systemd(service))  # type: ignore[arg-type]
        await asyncio.sleep(0.1)
        assert listener.recv(100) == b"READY=1"
        with pytest.raises(BlockingIOError):
            listener.recv(100)  # stuck: systemd will kill and restart it
        service.healthy = True
        while not task.done():
            try:
                assert listener.recv(100) == b"WATCHDOG=1"
                task.cancel()
            except BlockingIOError:
                pass
            await asyncio.sleep(0.01)

    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "20000")
        asyncio.run(play(listener))
