"""The service as a process: on a disk that fills up, and killed in the middle of an enrolment."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from delf_edge import Recognizer
from testing.paths import ROOT, TINY_BUNDLE

TOKEN = "only-for-this-test-0"
Started = Callable[..., "Service"]


def photo(seed: int) -> bytes:
    blocks = np.random.default_rng(seed).integers(0, 256, (12, 16, 3)).astype(np.uint8)
    return cv2.imencode(".png", cv2.resize(blocks, (320, 240), interpolation=cv2.INTER_NEAREST))[1].tobytes()


class Service:
    """`delf-edge serve` in a process of its own; `prefix` is the command it is started by."""

    def __init__(self, database: Path, prefix: tuple[str, ...] = ()) -> None:
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = int(s.getsockname()[1])
        command = [*prefix, sys.executable, "-m", "delf_edge.cli.main", "serve", str(database), "--new"]
        command += ["--bundle", str(TINY_BUNDLE), "--port", str(self.port)]
        environment = os.environ | {"DELF_EDGE_TOKEN": TOKEN, "PYTHONPATH": str(ROOT)}
        self.process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
        while self.request("GET", "/healthz")[0] != 200:
            assert self.process.poll() is None
            time.sleep(0.05)

    def request(self, method: str, path: str, body: bytes | None = None) -> tuple[int, Any]:
        """Status and JSON; 0 where there was no answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, {"Authorization": f"Bearer {TOKEN}"})
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        except (OSError, http.client.HTTPException):
            return 0, None
        finally:
            connection.close()

    def enrol(self, seed: int) -> tuple[int, Any]:
        return self.request("POST", f"/v1/images?landmark=Hall&name=photo-{seed}", photo(seed))

    def names(self) -> list[str]:
        listed = self.request("GET", "/v1/landmarks")[1]["landmarks"]
        return sorted(image["name"] for landmark in listed for image in landmark["images"])


@pytest.fixture
def start() -> Iterator[Started]:
    services: list[Service] = []

    def make(*arguments: Any, **more: Any) -> Service:
        services.append(Service(*arguments, **more))
        return services[-1]

    yield make
    for service in services:
        if service.process.poll() is None:
            service.process.terminate()
            assert service.process.wait(60) == 0


def test_a_full_disk_refuses_and_goes_on_when_there_is_room(start: Started, tmp_path: Path) -> None:
    if os.geteuid() != 0 or not shutil.which("unshare") or not shutil.which("nsenter"):
        pytest.skip("needs the right to mount a file system")
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a file system")
    mount = f"mount -t tmpfs -o size=1m none {tmp_path} && exec"
    service = start(tmp_path / "places.db", prefix=("unshare", "--mount", "sh", "-c", f'{mount} "$@"', "sh"))
    kept = []
    for seed in range(500):
        status, answer = service.enrol(seed)
        if status != 201:
            break
        kept.append(f"photo-{seed}")
    assert (status, "disk is full" in answer["error"]) == (507, True), answer
    assert len(kept) > 3
    assert service.names() == sorted(kept)
    assert service.request("POST", "/v1/identify", photo(0))[0] == 200  # asking goes on
    assert service.request("GET", "/healthz")[0] == 200
    wider = ["nsenter", "-t", str(service.process.pid), "-m", "mount", "-o", "remount,size=8m", str(tmp_path)]
    subprocess.run(wider, check=True)
    status, answer = service.enrol(seed)  # the very photo that was refused
    assert (status, answer["status"]) == (201, "added")
    assert service.names() == sorted([*kept, f"photo-{seed}"])


def test_a_service_killed_while_it_enrols_has_lost_nothing_acknowledged(start: Started, tmp_path: Path) -> None:
    database = tmp_path / "places.db"
    service = start(database)
    kept: list[str] = []
    killer: threading.Timer | None = None
    for seed in range(100_000):
        status, _ = service.enrol(seed)
        if status == 0:
            break
        kept.append(f"photo-{seed}")
        if killer is None:  # not before there is something to lose
            killer = threading.Timer(0.5, lambda: os.kill(service.process.pid, signal.SIGKILL))
            killer.start()
    assert service.process.wait(60) == -signal.SIGKILL
    again = start(database)
    assert set(kept) <= set(again.names()) <= {*kept, f"photo-{seed}"}
    assert again.enrol(seed)[0] in (200, 201)  # the page sends again what was not acknowledged: one image, not two
    assert again.names() == sorted([*kept, f"photo-{seed}"])
    with Recognizer.open(database, bundle=TINY_BUNDLE, read_only=True) as recognizer:
        assert recognizer.verify() == []
