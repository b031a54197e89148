"""The programs around the camera: `lint`, `serve` and the examples, with the tiny bundle."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest

from delf_edge import OptionError, Recognizer
from delf_edge.cli.main import main
from delf_edge.web.app import ServiceOptions, create_app
from delf_edge.web.security import Policy
from delf_edge.web.server import run_server
from testing.paths import ROOT, TINY_BUNDLE


def scene(seed: int) -> np.ndarray:
    blocks = np.random.default_rng(seed).integers(0, 256, (12, 16, 3)).astype(np.uint8)
    return np.asarray(cv2.resize(blocks, (320, 240), interpolation=cv2.INTER_NEAREST))


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "places.db"
    with Recognizer.open(path, bundle=TINY_BUNDLE) as recognizer:
        recognizer.add(scene(0), landmark="Town hall", name="hall.png", channel_order="BGR")
        recognizer.add(np.zeros((90, 90, 3), np.uint8), landmark="Cellar", name="black.png", channel_order="RGB")
    return path


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_lint_lists_poor_photos_first_and_says_why(database: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["lint", str(database), "--bundle", str(TINY_BUNDLE)])
    assert ended.value.code == 1
    out = capsys.readouterr().out
    assert out.startswith("  0  black.png (Cellar)\n     only 0 features")
    with pytest.raises(SystemExit) as ended:
        main(["lint", str(database), "--bundle", str(TINY_BUNDLE), "--below", "0", "--json"])
    assert ended.value.code == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["checked"], report["images"]) == (2, [])


def test_serve_refuses_a_weak_token(database: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "token").write_text("1234")
    with pytest.raises(SystemExit) as ended:
        main(["serve", str(database), "--token-file", str(tmp_path / "token")])
    assert ended.value.code == 2
    assert "at least 16" in capsys.readouterr().err


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def get(url: str) -> Any:
    """The JSON at an address that may not be open yet."""
    for _ in range(600):
        try:
            with urllib.request.urlopen(url) as response:
                return json.loads(response.read())
        except OSError:
            time.sleep(0.05)
    raise AssertionError(f"{url} does not answer")


@pytest.mark.parametrize("more", [[], ["--json"]])
def test_serve_says_nothing_where_the_port_is_in_use(
    database: Path, capsys: pytest.CaptureFixture[str], more: list[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = str(busy.getsockname()[1])
        with pytest.raises(SystemExit) as ended:
            main(["serve", str(database), "--bundle", str(TINY_BUNDLE), "--port", port, *more])
        assert ended.value.code == 2
        out, err = capsys.readouterr()
        assert f"port {port} of 127.0.0.1 is in use" in err
        assert "http" not in out
        with Recognizer.open(database, bundle=TINY_BUNDLE) as recognizer, pytest.raises(OptionError, match="in use"):
            run_server(create_app(recognizer, ServiceOptions(Policy("x" * 16))), "127.0.0.1", int(port))


def test_serve_names_an_address_that_is_not_this_machine_s(database: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for host in ("192.0.2.7", "no.such.name.invalid"):
        with pytest.raises(SystemExit) as ended:
            main(["serve", str(database), "--bundle", str(TINY_BUNDLE), "--host", host])
        assert ended.value.code == 2
        assert f"of {host}: this machine cannot listen there" in capsys.readouterr().err


def test_serve_makes_no_database_of_a_typing_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["serve", str(tmp_path / "typo.db"), "--bundle", str(TINY_BUNDLE)])
    assert ended.value.code == 2
    assert "typo.db: no such database" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("program", [["-m", "delf_edge.cli.main", "serve"], [str(ROOT / "examples" / "kiosk.py")]])
def test_the_service_tells_systemd_and_ends_in_an_orderly_way(
    database: Path, tmp_path: Path, program: list[str]
) -> None:
    port = free_port()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(60)
        command = [sys.executable, *program, str(database), "--bundle", str(TINY_BUNDLE), "--port", str(port)]
        environment = os.environ | {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "200000"}
        environment["PYTHONPATH"] = str(ROOT)
        service = subprocess.Popen(command, env=environment, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        try:
            assert systemd.recv(100) == b"READY=1"
            assert systemd.recv(100) == b"WATCHDOG=1"
            assert get(f"http://127.0.0.1:{port}/healthz")["status"] == "ok"
            listed = get(f"http://127.0.0.1:{port}/v1/landmarks")["landmarks"]
            assert [row["name"] for row in listed] == ["Cellar", "Town hall"]
        finally:
            service.terminate()
            out, _ = service.communicate(timeout=60)
        assert service.returncode == 0
        assert f"http://localhost:{port}/#token=" in out
    assert not Path(f"{database}-wal").exists()  # closed, not killed


def test_the_camera_app_prints_events(database: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frames = tmp_path / "frames"
    frames.mkdir()
    for i in range(5):
        cv2.imwrite(str(frames / f"{i}.png"), np.clip(scene(0).astype(int) + 4 * i, 0, 255).astype(np.uint8))
    app = example("camera_app")
    arguments = [str(database), str(frames), "--bundle", str(TINY_BUNDLE), "--near", "48", "11", "500", "--several"]
    assert app.main(arguments) == 0
    assert re.search(r"(?m)^00:00:0\d  appeared     Town hall, ", capsys.readouterr().out)
    (tmp_path / "empty").mkdir()
    assert app.main([str(database), str(tmp_path / "empty")]) == 2


@pytest.mark.parametrize("name", ["camera_app", "kiosk"])
def test_examples_say_in_a_line_that_there_is_no_database(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "frames").mkdir()
    for database in (tmp_path / "typo.db", tmp_path):
        arguments = [str(database)] + ([str(tmp_path / "frames")] if name == "camera_app" else [])
        assert example(name).main(arguments) == 2
        err = capsys.readouterr().err
        assert len(err.splitlines()) == 1
    assert not (tmp_path / "typo.db").exists()


def test_examples_are_short() -> None:
    for name in ("camera_app", "kiosk"):
        lines = (ROOT / "examples" / f"{name}.py").read_text(encoding="utf-8").splitlines()
        assert len(lines) < 60, name


def test_the_unit_and_the_guide_name_what_exists() -> None:
    unit = (ROOT / "deploy" / "delf-edge.service").read_text(encoding="utf-8")
    for line in ("Type=notify", "WatchdogSec=", "ProtectSystem=strict", "NoNewPrivileges=yes", "DynamicUser=yes"):
        assert f"\n{line}" in unit
    guide = (ROOT / "docs" / "kiosk.md").read_text(encoding="utf-8")
    for name in ("deploy/delf-edge.service", "examples/camera_app.py", "examples/kiosk.py"):
        assert name in guide
        assert (ROOT / name).exists()
