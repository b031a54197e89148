"""The service under load and abuse (python -m benchmarks.load).

Eight clients ask, list, enrol and delete for a while; then five times as many ask at once, more than the queue holds;
then come malformed requests, each of which must get a 4xx; at last the service is killed in the middle of an enrolment.
Everything that was acknowledged must be in the database.
"""

from __future__ import annotations

import argparse
import collections
import http.client
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.lab.records import environment
from delf_edge.images.decode import load_image
from delf_edge.interchange.photo_lists import list_folder
from delf_edge.recognizer import Recognizer

ROOT = Path(__file__).resolve().parent.parent
DEMO = ROOT / "assets" / "demo"
TOKEN = "only-for-this-benchmark"
AUTH = {"Authorization": f"Bearer {TOKEN}"}
QUERIES = [path.read_bytes() for path in sorted((DEMO / "queries").glob("*.webp"))]


class Service:
    """`delf-edge serve` as a process."""

    def __init__(self, database: Path, bundle: Path | None) -> None:
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = int(s.getsockname()[1])
        command = [sys.executable, "-m", "delf_edge.cli.main", "serve", str(database), "--port", str(self.port)]
        command += [] if bundle is None else ["--bundle", str(bundle)]
        self.process = subprocess.Popen(command, env=os.environ | {"DELF_EDGE_TOKEN": TOKEN}, stdout=subprocess.DEVNULL)
        while self.request("GET", "/healthz")[0] != 200:
            time.sleep(0.1)

    def request(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, bytes]:
        """Status and body; 0 where there was no answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        try:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            return response.status, response.read()
        except (OSError, http.client.HTTPException):
            return 0, b""
        finally:
            connection.close()

    def metric(self, name: str) -> float:
        """A gauge of the service's own metrics."""
        text = self.request("GET", "/metrics")[1].decode()
        return float(re.findall(rf"^{name} (\S+)", text, re.M)[0])

    def rss(self) -> float:
        """MB of RAM."""
        return self.metric("process_resident_memory_bytes") / 1e6


def variant(number: int) -> bytes:
    """A new photo: a demo photo with a number painted into a corner."""
    photo = load_image(QUERIES[number % len(QUERIES)]).pixels.copy()
    cv2.putText(photo, str(number), (4, 16), cv2.FONT_HERSHEY_PLAIN, 1, (255, 255, 255))
    return bytes(cv2.imencode(".jpg", cv2.cvtColor(photo, cv2.COLOR_RGB2BGR))[1].tobytes())


class Load:
    """What the clients did and what they got."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.codes: collections.Counter[str] = collections.Counter()
        self.seconds: list[float] = []
        self.kept: set[str] = set()
        self._lock = threading.Lock()
        self._number = 0

    def client(self, seed: int, until: float) -> None:
        """One client: mostly asks, now and then lists, enrols, or deletes what it enrolled."""
        rng = random.Random(seed)
        mine: list[tuple[int, str]] = []
        while time.monotonic() < until:
            dice = rng.random()
            began = time.monotonic()
            if dice < 0.8:
                kind, (status, _) = "identify", self.service.request("POST", "/v1/identify", rng.choice(QUERIES))
            elif dice < 0.9:
                kind, (status, _) = "landmarks", self.service.request("GET", "/v1/landmarks")
            elif dice < 0.96 or not mine:
                kind, status = "enrol", self.enrol(mine)
            else:
                kind, status = "delete", self._delete(mine)
            with self._lock:
                self.codes[f"{kind} {status}"] += 1
                if kind == "identify" and status == 200:
                    self.seconds.append(time.monotonic() - began)
            if status == 503:
                time.sleep(0.2)

    def enrol(self, mine: list[tuple[int, str]]) -> int:
        """Add a new photo; what is acknowledged goes to `mine` and `kept`. Returns the status."""
        with self._lock:
            self._number += 1
            name = f"load-{self._number}"
            body = variant(self._number)
        path = f"/v1/images?landmark=Load&name={name}"
        status, text = self.service.request("POST", path, body, AUTH)
        if status == 201:
            mine.append((json.loads(text)["image_id"], name))
            with self._lock:
                self.kept.add(name)
        return status

    def _delete(self, mine: list[tuple[int, str]]) -> int:
        image_id, name = mine[-1]
        status, _ = self.service.request("DELETE", f"/v1/images/{image_id}", headers=AUTH)
        if status == 200:
            mine.pop()
            with self._lock:
                self.kept.discard(name)
        return status


def run(load: Load, clients: int, seconds: float) -> list[float]:
    """All clients for a while; MB of RAM at ten times, from the beginning to the end."""
    began = time.monotonic()
    memory = [load.service.rss()]
    threads = [threading.Thread(target=load.client, args=(i, began + seconds)) for i in range(clients)]
    for thread in threads:
        thread.start()
    for i in range(1, 10):
        time.sleep(max(0.0, began + i * seconds / 10 - time.monotonic()))
        memory.append(load.service.rss())
    for thread in threads:
        thread.join()
    return [*memory, load.service.rss()]


def overload(service: Service, clients: int, seconds: float) -> dict[str, Any]:
    """More clients than the queue holds, none of which waits after a 503: status codes, the longest queue."""
    codes: collections.Counter[str] = collections.Counter()
    until = time.monotonic() + seconds

    def ask(seed: int) -> None:
        rng = random.Random(seed)
        while time.monotonic() < until:
            codes[str(service.request("POST", "/v1/identify", rng.choice(QUERIES))[0])] += 1

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(clients)]
    for thread in threads:
        thread.start()
    longest = 0.0
    while time.monotonic() < until:
        longest = max(longest, service.metric("delf_edge_jobs"))
        time.sleep(0.1)
    for thread in threads:
        thread.join()
    return {"clients": clients, "seconds": seconds, "codes": dict(sorted(codes.items())), "longest_queue": longest}


def malformed(service: Service, n: int) -> collections.Counter[str]:
    """Send n requests that are all wrong; counts of their status codes."""
    rng = random.Random(0)
    codes: collections.Counter[str] = collections.Counter()
    good = QUERIES[0]
    for i in range(n):
        kind = i % 8
        if kind == 0:
            status = service.request("POST", "/v1/identify", rng.randbytes(rng.randrange(1, 5000)))[0]
        elif kind == 1:
            status = service.request("POST", "/v1/identify", good[: rng.randrange(1, len(good) // 2)])[0]
        elif kind == 2:
            status = service.request("POST", "/v1/images?landmark=x", good)[0]  # no token
        elif kind == 3:
            status = service.request("DELETE", f"/v1/images/{rng.randrange(10**6, 10**9)}", headers=AUTH)[0]
        elif kind == 4:
            status = service.request(rng.choice(["PUT", "PATCH", "BREW"]), "/v1/identify", good)[0]
        elif kind == 5:
            status = service.request("GET", "/" + "../" * rng.randrange(1, 9) + "etc/passwd")[0]
        elif kind == 6:
            status = service.request("POST", "/v1/images?landmark=%00%0a", good, AUTH)[0]
        else:
            status = raw(service.port, rng.randbytes(rng.randrange(20, 400)) + b"\r\n\r\n")
        codes[str(status)] += 1
    return codes


def raw(port: int, data: bytes) -> int:
    """The status that bytes which are no HTTP get; 0 where the connection is just closed."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as s:
        try:
            s.sendall(data)
            s.shutdown(socket.SHUT_WR)
            found = re.match(rb"HTTP/1\.1 (\d+)", s.recv(4096))
        except OSError:
            return 0
    return int(found[1]) if found else 0


def kill_while_enrolling(service: Service, load: Load) -> int:
    """Enrol until a SIGKILL falls in between, 3 s after the first; returns how many were acknowledged."""
    before = len(load.kept)
    killer: threading.Timer | None = None
    while (status := load.enrol([])) != 0:
        if status == 201 and killer is None:
            killer = threading.Timer(3.0, lambda: os.kill(service.process.pid, signal.SIGKILL))
            killer.start()
    service.process.wait()
    return len(load.kept) - before


def main() -> None:
    """Run all four, check the database, write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--overload", type=float, default=20, help="seconds with five times as many clients")
    parser.add_argument("--malformed", type=int, default=1000)
    parser.add_argument("--bundle", type=Path, default=None)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "load.json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        database = Path(folder) / "load.db"
        with Recognizer.open(database, bundle=options.bundle) as recognizer:
            for photo in list_folder(DEMO / "references")[0]:
                recognizer.add(photo.path, landmark=photo.landmark, name=photo.name, thumbnail=True)
            bundle = recognizer.bundle.id
        service = Service(database, options.bundle)
        load = Load(service)
        for query in QUERIES[:8]:
            service.request("POST", "/v1/identify", query)  # warm
        memory = run(load, options.clients, options.seconds)
        too_much = overload(service, 5 * options.clients, options.overload)
        wrong = malformed(service, options.malformed)
        until = time.monotonic() + 300  # what the overload left in the queue may come first
        while (status := service.request("POST", "/v1/identify", QUERIES[0])[0]) == 503 and time.monotonic() < until:
            time.sleep(1)
        serving = status == 200
        acknowledged = kill_while_enrolling(service, load)
        with Recognizer.open(database, bundle=options.bundle) as recognizer:
            names = {image.name for image in recognizer.store.images()}
            problems = recognizer.verify()
        result: dict[str, Any] = {
            "bundle": bundle,
            "clients": options.clients,
            "seconds": options.seconds,
            "codes": dict(sorted(load.codes.items())),
            "identify_seconds": {q: float(np.percentile(load.seconds, p)) for q, p in (("p50", 50), ("p99", 99))},
            "identified_per_second": len(load.seconds) / options.seconds,
            "rss_mb": {"at_tenths": memory, "growth": memory[-1] - memory[0], "last_half": memory[-1] - memory[5]},
            "overload": too_much,
            "malformed": dict(sorted(wrong.items())),
            "still_serving": serving,
            "enrolled_before_kill": acknowledged,
            "acknowledged_but_lost": sorted(load.kept - names),
            "damage": [problem.what for problem in problems],
        }
    command = f"python -m benchmarks.load --seconds {options.seconds:g} --clients {options.clients}"
    command += f" --overload {options.overload:g} --malformed {options.malformed}"
    options.out.parent.mkdir(parents=True, exist_ok=True)
    report = {"command": command, "environment": environment(), **result}
    options.out.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=2, ensure_ascii=False))


if __name__ == "__main__":
    main()
