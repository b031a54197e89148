"""The files of deploy/ in the proxies that they are for, in front of the running service."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from testing.paths import ROOT, TINY_BUNDLE

TOKEN = "0123456789abcdef"
PUBLIC = "https://guide.example/kiosk"
KIND = {"nginx": "nginx.conf", "caddy": "Caddyfile"}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as s:
        port: int = s.getsockname()[1]
        return port


def nginx(text: str, folder: Path, front: int) -> list[str]:
    """The command that runs nginx with the file's server, without TLS, on a port of its own and below `folder`."""
    server = "\n".join(line for line in text.splitlines() if "ssl_certificate" not in line)
    temporary = "".join(f"{kind}_temp_path {folder}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi"))
    temporary += "".join(f"{kind}_temp_path {folder}/{kind};\n" for kind in ("uwsgi", "scgi"))
    whole = folder / "nginx.conf"
    user = "user root; " if os.getuid() == 0 else ""  # its workers write to the test's folder
    whole.write_text(
        f"{user}daemon off; pid {folder}/pid; error_log {folder}/log; events {{}}\n"
        f"http {{\naccess_log off;\n{temporary}{server.replace('listen 443 ssl', f'listen 127.0.0.1:{front}')}\n}}\n"
    )
    return ["nginx", "-p", str(folder), "-e", str(folder / "log"), "-c", str(whole)]


def caddy(text: str, folder: Path, front: int) -> list[str]:
    """The command that runs Caddy with the file's site, without TLS, on a port of its own."""
    whole = folder / "Caddyfile"
    site = text.replace("guide.example {", f"http://guide.example:{front} {{\n\tbind 127.0.0.1")
    whole.write_text("{\n\tadmin off\n\tauto_https off\n}\n" + site)
    return ["caddy", "run", "--config", str(whole), "--adapter", "caddyfile"]


@pytest.fixture(params=sorted(KIND))
def front(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Address of a proxy with the service behind it."""
    program: str = request.param
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed (Debian: apt-get install {program})")
    back, port = free_port(), free_port()
    text = (ROOT / "deploy" / KIND[program]).read_text(encoding="utf-8").replace("127.0.0.1:8000", f"127.0.0.1:{back}")
    command = {"nginx": nginx, "caddy": caddy}[program](text, tmp_path, port)
    environment = {**os.environ, "DELF_EDGE_TOKEN": TOKEN, "HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)}
    serve = [sys.executable, "-m", "delf_edge", "serve", str(tmp_path / "p.db"), "--new", "--bundle", str(TINY_BUNDLE)]
    serve += ["--port", str(back), "--public-url", PUBLIC]
    running = []
    try:
        for line in (serve, command):
            log = (tmp_path / f"{Path(line[0]).name}.log").open("wb")
            running.append(subprocess.Popen(line, env=environment, stdout=log, stderr=log))
            log.close()
        address = f"http://127.0.0.1:{port}"
        for _ in range(300):
            if ask(address, "/kiosk/healthz")[0] == 200:
                break
            time.sleep(0.1)
        else:
            pytest.fail("\n".join(p.read_text("utf-8", "replace") for p in sorted(tmp_path.glob("*log"))))
        yield address
    finally:
        for process in running:
            process.send_signal(signal.SIGTERM)
            process.wait(20)


def ask(address: str, path: str, data: bytes | None = None, **headers: str) -> tuple[int, bytes, str]:
    """Status, body and `Location` of an answer."""
    names = {
        "host": "guide.example:" + address.rpartition(":")[2],
        **{k.replace("_", "-"): v for k, v in headers.items()},
    }
    opener = urllib.request.build_opener(_NoRedirect)
    try:
        with opener.open(urllib.request.Request(address + path, data, names), timeout=20) as r:
            return r.status, r.read(), ""
    except urllib.error.HTTPError as e:
        with e:
            return e.code, e.read(), e.headers.get("location", "")
    except OSError:
        return 0, b"", ""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *arguments: object) -> None:
        return None


def test_the_service_behind_it(front: str) -> None:
    token = f"Bearer {TOKEN}"
    assert ask(front, "/kiosk/")[1].lstrip().lower().startswith(b"<!doctype html")
    status, _, location = ask(front, "/kiosk")
    assert status in (301, 308)
    assert location.endswith("/kiosk/")
    assert ask(front, "/kiosk/v1/landmarks")[0] == 401
    assert json.loads(ask(front, "/kiosk/v1/landmarks", authorization=token)[1])["landmarks"] == []
    assert ask(front, "/kiosk/v1/landmarks", authorization=token, origin="https://guide.example")[0] == 200
    assert ask(front, "/kiosk/v1/landmarks", authorization=token, origin="https://evil.example")[0] == 403
    body = bytes(16 << 20)  # as much as the service takes: refused by it, and not by the proxy
    status, text, _ = ask(front, "/kiosk/v1/identify", body, authorization=token, content_type="image/jpeg")
    assert status == 415, text
    assert "error" in json.loads(text)


def test_events_pass_at_once(front: str) -> None:
    host, port = front.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as s:
        request = (
            f"GET /kiosk/v1/events HTTP/1.1\r\nhost: guide.example:{port}\r\nauthorization: Bearer {TOKEN}\r\n\r\n"
        )
        s.sendall(request.encode())
        seen = b""
        while b"retry: 3000" not in seen:
            part = s.recv(4096)
            assert part, seen
            seen += part
    assert seen.startswith(b"HTTP/1.1 200")
