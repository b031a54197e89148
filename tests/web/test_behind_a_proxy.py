"""The service behind a proxy: who counts as local, which names and origins are its own, and paths below a prefix."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from delf_edge import Bundle, OptionError, Recognizer
from delf_edge.web.app import ServiceOptions, create_app
from delf_edge.web.security import Policy, is_loopback, public_address
from delf_edge.web.server import address_of, listen
from testing.paths import TINY_BUNDLE

TOKEN = "0123456789abcdef"
AUTH = {"authorization": f"Bearer {TOKEN}"}


@pytest.fixture(scope="module")
def recognizer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recognizer]:
    path = tmp_path_factory.mktemp("proxy") / "places.db"
    with Recognizer.open(path, bundle=Bundle.load(TINY_BUNDLE), preset="fast") as opened:
        yield opened


def client_of(recognizer: Recognizer, host: str = "127.0.0.1:8000", **policy: Any) -> TestClient:
    app = create_app(recognizer, ServiceOptions(Policy(TOKEN, **policy)))
    return TestClient(app, base_url=f"http://{host}", client=("127.0.0.1", 50000))


@pytest.mark.parametrize(
    "header",
    ["Forwarded", "X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "X-Forwarded-Server", "X-Real-IP", "Via"],
)
def test_what_a_proxy_passes_on_is_not_local(recognizer: Recognizer, header: str) -> None:
    with client_of(recognizer) as client:
        for method, path in (
            ("POST", "/v1/identify"),
            ("GET", "/v1/landmarks"),
            ("HEAD", "/v1/events"),
            ("GET", "/metrics"),
        ):
            assert client.request(method, path, headers={header: "for=192.0.2.1"}).status_code == 401
        assert client.get("/v1/landmarks", headers={header: "for=192.0.2.1", **AUTH}).status_code == 200
        assert client.get("/v1/landmarks").status_code == 200


def test_with_a_public_address_nothing_is_local(recognizer: Recognizer) -> None:
    with client_of(recognizer, public_url="https://guide.example") as client:
        assert client.get("/v1/landmarks").status_code == 401
        assert client.get("/v1/landmarks", headers=AUTH).status_code == 200
        assert client.get("/healthz").status_code == 200


@pytest.mark.parametrize(
    ("host", "origin", "public_url", "status"),
    [
        ("kiosk:443", "https://kiosk", None, 200),
        ("kiosk", "https://kiosk:443", None, 200),
        ("kiosk:80", "http://kiosk", None, 200),
        ("KIOSK", "https://kiosk", None, 200),
        ("kiosk:443", "http://kiosk", None, 403),
        ("kiosk:8443", "https://kiosk", None, 403),
        ("kiosk", "https://kiosk.evil.example", None, 403),
        ("kiosk", "null", None, 403),
        ("kiosk", "", None, 403),
        ("kiosk", "https://kiosk:99999", None, 403),
        ("kiosk", "file://kiosk", None, 403),
        ("127.0.0.1:8000", "https://guide.example", "https://guide.example/kiosk", 200),
        ("127.0.0.1:8000", "http://guide.example", "https://guide.example/kiosk", 403),
        ("guide.example", "https://guide.example", "https://guide.example", 200),
    ],
)
def test_a_usual_port_may_be_named_or_left_out(
    recognizer: Recognizer, host: str, origin: str, public_url: str | None, status: int
) -> None:
    with client_of(recognizer, hosts=frozenset({"kiosk"}), public_url=public_url) as client:
        headers = {"host": host, "origin": origin, **AUTH}
        assert client.get("/v1/landmarks", headers=headers).status_code == status


@pytest.mark.parametrize("prefix", ["", "/museum/kiosk"])
def test_it_works_below_a_path_that_a_proxy_takes_away_or_leaves(recognizer: Recognizer, prefix: str) -> None:
    with client_of(recognizer, public_url="https://guide.example/museum/kiosk") as client:
        assert client.get(f"{prefix}/healthz").status_code == 200
        assert client.get(f"{prefix}/").headers["content-type"].startswith("text/html")
        assert client.get(f"{prefix}/v1/landmarks").status_code == 401  # the prefix is no way around the token
        assert client.get(f"{prefix}/v1/landmarks", headers=AUTH).status_code == 200
        assert client.delete(f"{prefix}/v1/images", params={"landmark": "x"}).status_code == 401
        assert client.get("/museum/kioskets/healthz").status_code == 404


def test_public_addresses_have_one_form() -> None:
    assert public_address("https://Guide.example/") == "https://guide.example"
    assert public_address("https://guide.example:443//a/b//") == "https://guide.example/a/b"
    assert public_address("http://[::1]:8080/a") == "http://[::1]:8080/a"
    for wrong in (
        "",
        "guide.example",
        "ftp://guide.example",
        "https://",
        "https://a:b@guide.example",
        "https://guide.example/?x=1",
        "https://guide.example/#x",
        "https://guide.example/../x",
        "https://guide.example:port",
        "https://gu ide.example",
        "https://guide.example/ä",
    ):
        with pytest.raises(OptionError, match="--public-url"):
            public_address(wrong)
    shown = address_of("127.0.0.1", 8000, "secret", "https://guide.example/a")
    assert shown == "https://guide.example/a/#token=secret"


def test_all_addresses_of_both_kinds() -> None:
    if not socket.has_dualstack_ipv6():
        pytest.skip("this machine has no IPv6")
    with listen("::", 0) as (server,):
        port = server.getsockname()[1]
        for address in ("127.0.0.1", "::1"):
            with socket.create_connection((address, port), timeout=5):
                pass
    assert address_of("::", 8000, None) == "http://localhost:8000/"
    assert address_of("::1", 8000, None) == "http://[::1]:8000/"
    assert is_loopback("::ffff:127.0.0.1")
    assert not is_loopback("::ffff:192.0.2.1")


def test_the_command_line_knows_the_public_address(tmp_path: Path) -> None:
    from delf_edge.cli.main import main

    with pytest.raises(SystemExit, match="2"):
        main(["serve", str(tmp_path / "x.db"), "--new", "--public-url", "guide.example"])
    assert not (tmp_path / "x.db").exists()
