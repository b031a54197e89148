"""What `python -m benchmarks.phone` counts and compares, without a browser."""

from __future__ import annotations

import gzip
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks.data.datasets import Dataset
from benchmarks.lab import phone_mediapipe
from benchmarks.lab.browser import ISOLATED, Server
from benchmarks.lab.phone_answers import Comparison
from benchmarks.lab.phone_dev import landmark_of


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "index.html").write_text("<p>" + 1000 * "a")
    (tmp_path / "secret.txt").write_text("no")
    opened = Server({"/visit/": tmp_path / "site"}, ISOLATED)
    yield opened
    opened.stop()


def get(url: str) -> tuple[bytes, Any]:
    with urllib.request.urlopen(url) as answer:
        return answer.read(), answer.headers


def test_the_server_counts_the_compressed_bytes_of_every_request(server: Server) -> None:
    body, headers = get(f"{server.url}/visit/?from=qr")
    assert gzip.decompress(body) == b"<p>" + 1000 * b"a"
    assert headers["content-type"] == "text/html"
    assert headers["cross-origin-embedder-policy"] == "require-corp"
    get(f"{server.url}/visit/index.html")
    assert server.sent == [("/visit/", len(body)), ("/visit/index.html", len(body))]
    assert len(body) < 100


@pytest.mark.parametrize("path", ["/visit/../secret.txt", "/visit/%2e%2e/secret.txt", "/secret.txt", "/visit/none"])
def test_the_server_gives_out_its_folders_alone(server: Server, path: str) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        get(server.url + path)
    assert refused.value.code == 404
    refused.value.close()
    assert server.sent == []


def test_a_stopped_server_comes_back_at_its_address(server: Server) -> None:
    url = server.url
    server.stop()
    with pytest.raises(urllib.error.URLError):
        get(f"{url}/visit/")
    server.start()
    assert server.url == url
    get(f"{url}/visit/")


def test_answers_are_compared_by_landmark_points_and_probability() -> None:
    found = Comparison()

    def add(name: str, browser: tuple[str | None, int, float], python: tuple[str | None, int, float]) -> None:
        said = dict(zip(("landmark", "nInliers", "probability"), browser, strict=True)) | {
            "milliseconds": {"total": 300}
        }
        answer = SimpleNamespace(
            landmark=python[0], n_inliers=python[1], probability=python[2], milliseconds={"total": 100}
        )
        found.add(name, said, answer)

    add("same", ("Petra", 12, 0.99), ("Petra", 10, 0.98))
    add("points", ("Petra", 13, 0.99), ("Petra", 10, 0.99))
    add("probability", (None, 5, 0.4), (None, 5, 0.43))
    add("landmark", ("Petra", 9, 0.9), (None, 9, 0.9))
    found.processor = {"browser": 1.0, "python": 0.5}
    report = found.report()
    assert (report["photos"], report["same landmark"]) == (4, 3)
    assert report["same landmark, within 2 points and 0.02 of probability"] == 1
    assert [row[0] for row in report["apart"]] == ["points", "probability", "landmark"]
    assert report["largest distance"] == {"points": 3, "probability": 0.03}
    assert report["photo to answer, browser / Python"] == 3
    assert report["processor's milliseconds a photo"] == {"browser": 250.0, "python": 125.0}
    assert report["processor's time, browser / Python"] == 2


def test_a_photo_without_a_place_has_its_folder_for_one() -> None:
    dataset = Dataset("dev", Path("root"), ("a/b/1.jpg", "c/2.jpg"), (), places=("Petra", None))
    assert [landmark_of(dataset, i) for i in range(2)] == ["Petra", "c"]


def test_mediapipe_is_said_to_be_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, server: Server) -> None:
    monkeypatch.setattr(phone_mediapipe, "PACKAGE", tmp_path / "none")
    assert "npm ci in benchmarks/phone_js" in str(phone_mediapipe.measure(None, server, [], None))
