"""Running the service: uvicorn, the token, and what systemd wants to know."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import secrets
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import uvicorn
from starlette.applications import Starlette

from delf_edge.errors import OptionError
from delf_edge.web.access import MIN_PIN
from delf_edge.web.security import is_loopback
from delf_edge.web.service import Service

MIN_TOKEN = 16  # characters
TOKEN_VARIABLE = "DELF_EDGE_TOKEN"
PIN_VARIABLE = "DELF_EDGE_PIN"


def read_token(path: Path | None) -> tuple[str, bool]:
    """The token from a file or from the environment, or a new one; and whether it is new.

    It is never taken from the command line, which every user of a machine can read.

    Raises:
        OptionError: it is too short, or the file cannot be read.
    """
    try:
        given = path.read_text("utf-8").strip() if path is not None else os.environ.get(TOKEN_VARIABLE, "")
    except (OSError, UnicodeDecodeError) as e:
        raise OptionError(f"{path}: the token cannot be read ({e})") from e
    if not given and path is None:
        return secrets.token_urlsafe(24), True
    if len(given) < MIN_TOKEN or not given.isascii() or not given.isprintable():
        raise OptionError(f"the token has {len(given)} characters; use at least {MIN_TOKEN} printable ASCII ones")
    return given, False


def read_pin(path: Path | None) -> str | None:
    """The PIN of staff from a file or from the environment; None where there is none.

    Raises:
        OptionError: it is too short or has other characters than digits, or the file cannot be read.
    """
    try:
        given = path.read_text("utf-8").strip() if path is not None else os.environ.get(PIN_VARIABLE, "")
    except (OSError, UnicodeDecodeError) as e:
        raise OptionError(f"{path}: the PIN cannot be read ({e})") from e
    if not given and path is None:
        return None
    if len(given) < MIN_PIN or not (given.isascii() and given.isdigit()):
        raise OptionError(f"the PIN has {len(given)} characters; use at least {MIN_PIN} digits")
    return given


@contextlib.contextmanager
def listen(host: str, port: int) -> Iterator[list[socket.socket]]:
    """Sockets that listen at an address, before anything is promised or opened; closed at the end.

    Raises:
        OptionError: the address is in use, not this machine's, or not allowed to this user.
    """
    with contextlib.ExitStack() as opened:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
            both = host == "::" and socket.has_dualstack_ipv6()  # all addresses, those of IPv4 too
            sockets, refused = [], []
            for family, address in dict.fromkeys((family, address) for family, _, _, _, address in found):
                try:
                    server = socket.create_server(address, family=family, dualstack_ipv6=both)
                    sockets.append(opened.enter_context(server))
                except OSError as e:
                    if e.errno == errno.EADDRINUSE:
                        raise
                    refused.append(e)  # a machine without IPv6 has an IPv6 name all the same
            if not sockets:
                raise refused[0]
        except OSError as e:
            raise OptionError(_no_address(host, port, e)) from e
        yield sockets


def _no_address(host: str, port: int, e: OSError) -> str:
    where = f"port {port} of {host}"
    if e.errno == errno.EADDRINUSE:
        return f"{where} is in use by another program; stop that, or choose another with --port"
    if isinstance(e, PermissionError):
        return f"{where} is not for this user; ports from 1024 on are: --port 8000"
    return f"{where}: this machine cannot listen there ({e.strerror}); check --host"


def run_server(app: Starlette, host: str, port: int, sockets: list[socket.socket] | None = None) -> None:
    """Serve until SIGTERM or SIGINT.

    Args:
        app: what `create_app` made.
        host: name or address to listen on.
        port: where to listen.
        sockets: those of `listen`, where it has been called before; otherwise the address is opened here.

    Raises:
        OptionError: the address cannot be used.
    """
    if sockets is None:
        with listen(host, port) as opened:
            return run_server(app, host, port, opened)
    service: Service = app.state.service
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        log_level="error",  # a line for every bad request would fill the journal
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=128,
        timeout_keep_alive=5,
        timeout_graceful_shutdown=5,
    )
    # uvicorn ends in an orderly way and then raises the signal again; the caller's `with` must close the database.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))
    _Server(config, service).run(sockets)


class _Server(uvicorn.Server):
    """Tells systemd, and ends the event streams at the end: they would keep a graceful shutdown waiting."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service
        self._beat: asyncio.Task[None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)  # the address is open when this returns
        self._beat = asyncio.create_task(tell_systemd(self._service))

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        notify("STOPPING=1")
        if self._beat is not None:
            self._beat.cancel()
        self._service.hub.close()
        await super().shutdown(sockets)


def notify(message: str) -> bool:
    """Send a line to systemd (sd_notify); False where there is nobody to tell."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as s, contextlib.suppress(OSError):
        s.connect("\0" + address[1:] if address.startswith("@") else address)
        s.sendall(message.encode())
        return True
    return False


async def tell_systemd(service: Service) -> None:
    """Ready, then a sign of life at half the watchdog's time, as long as jobs come to an end."""
    if not notify("READY=1"):
        return
    seconds = int(os.environ.get("WATCHDOG_USEC", "0")) / 2e6
    while seconds > 0:
        if service.healthy:
            notify("WATCHDOG=1")
        await asyncio.sleep(seconds)


def address_of(host: str, port: int, token: str | None, public_url: str | None = None) -> str:
    """What to type into a browser."""
    here = host in ("0.0.0.0", "::") or (is_loopback(host) and ":" not in host)
    shown = "localhost" if here else f"[{host}]" if ":" in host else host
    return (public_url or f"http://{shown}:{port}") + "/" + (f"#token={token}" if token else "")
