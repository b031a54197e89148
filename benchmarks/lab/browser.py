"""Chromium for measurements: a server that counts what it sends, the memory of a page, and a slower processor."""

from __future__ import annotations

import gzip
import http.server
import math
import os
import shutil
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from delf_edge.web.media_types import TYPES

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PHONE = {"width": 360, "height": 740}  # CSS pixels
FLAGS = ("--no-sandbox", "--disable-gpu")
# What a page needs before a browser gives it threads.
ISOLATED = {"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp"}
_PERIOD = 20_000  # microseconds in which a slowed browser has its part


class Server:
    """Gives out folders on this machine, compressed by gzip, and counts the bytes that it sends.

    Args:
        folders: prefix of the path, such as "/photos/" -> the folder that it stands for.
        headers: of every answer.
    """

    def __init__(self, folders: Mapping[str, Path], headers: Mapping[str, str] | None = None) -> None:
        self._folders, self._headers = dict(folders), dict(headers or {})
        self.sent: list[tuple[str, int]] = []
        self.port = 0
        self.start()

    def start(self) -> None:
        """Listen, on the port of the last time."""
        owner = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                """Nothing."""

            def do_GET(self) -> None:
                owner.answer(self)

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self._server.daemon_threads = True
        self.port = int(self._server.server_address[1])
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        """The network goes."""
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        """Of the root, without the last slash."""
        return f"http://127.0.0.1:{self.port}"

    @cached_property
    def _compressed(self) -> dict[Path, bytes]:
        return {}

    def file(self, path: str) -> Path | None:
        """The file of a path; None where there is none."""
        for prefix, folder in self._folders.items():
            if path.startswith(prefix):
                file = (folder / path.removeprefix(prefix)).resolve()
                file = file / "index.html" if file.is_dir() else file
                return file if file.is_relative_to(folder.resolve()) and file.is_file() else None
        return None

    def answer(self, request: http.server.BaseHTTPRequestHandler) -> None:
        """One request."""
        path = unquote(urlsplit(request.path).path)
        file = self.file(path)
        body = b"" if file is None else self._compressed.get(file) or gzip.compress(file.read_bytes(), 6, mtime=0)
        if file is not None:
            self._compressed[file] = body
            self.sent.append((path, len(body)))
        request.send_response(404 if file is None else 200)
        for name, value in self._headers.items():
            request.send_header(name, value)
        if file is not None:
            request.send_header("Content-Type", TYPES.get(file.suffix, "application/octet-stream"))
            request.send_header("Content-Encoding", "gzip")
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        with suppress(ConnectionError):
            request.wfile.write(body)


class Browser:
    """A Chromium of its own. `opened` is Playwright's browser.

    Args:
        playwright: what `sync_playwright` gives.
        flags: more of Chromium's.
    """

    def __init__(self, playwright: Any, flags: tuple[str, ...] = ()) -> None:
        self._mark = f"--delf-edge-benchmark={uuid.uuid4().hex}"
        args = [*FLAGS, *flags, self._mark]
        self._renderers: list[int] = []
        self._looked = -math.inf
        self.opened = playwright.chromium.launch(executable_path=CHROMIUM, args=args)

    def page(self, url: str) -> Any:
        """A page with the size of a phone, in a context of its own."""
        page = self.opened.new_context(viewport=PHONE, locale="en-GB").new_page()
        page.set_default_timeout(600_000)
        page.goto(url)
        return page

    def renderers(self) -> list[int]:
        """Processes of the pages and their workers, looked for every fifth of a second."""
        now = time.monotonic()
        if now - self._looked > 0.2:
            self._renderers = [pid for pid, line in self._processes().items() if "--type=renderer" in line]
            self._looked = now
        return self._renderers

    def _processes(self) -> dict[int, str]:
        """All processes of this browser -> their command lines."""
        lines, parents = _commands(), _parents()
        # A child that was forked this moment has its parent's command line still: the oldest is the browser.
        root = min(pid for pid, line in lines.items() if self._mark in line and "--type=" not in line)
        found = {}
        for pid, line in lines.items():
            above = pid
            while above in parents and above != root:
                above = parents[above]
            if above == root:
                found[pid] = line
        return found

    def memory(self) -> int:
        """Bytes of the largest renderer at its most so far (VmHWM)."""
        most = 0
        for pid in self.renderers():
            with suppress(OSError, ValueError, IndexError):  # gone by now
                status = Path(f"/proc/{pid}/status").read_text()
                most = max(most, 1024 * int(status.partition("VmHWM:")[2].split()[0]))
        return most

    def processor_time(self) -> float:
        """Seconds that the renderers have computed so far, all threads together."""
        ticks = 0
        for pid in self.renderers():
            with suppress(OSError, ValueError, IndexError):  # gone by now
                ticks += sum(map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]))
        return ticks / os.sysconf("SC_CLK_TCK")

    @contextmanager
    def slowed(self, factor: float) -> Iterator[None]:
        """All processes of the browser, and those that it starts meanwhile, share one part in `factor` of a processor.

        Chromium's own switch (Emulation.setCPUThrottlingRate) refuses workers: "Operation is only supported for pages,
        not workers". So the kernel does it, by a control group with a quota.

        Raises:
            PermissionError: no control group can be made; that takes the superuser on Linux.
        """
        if factor <= 1:
            yield
            return
        group = _control_group(1 / factor)
        try:
            for pid in self._processes():
                _move(pid, group)
            yield
        finally:
            _dissolve(group)

    def close(self) -> None:
        """End it."""
        self.opened.close()


def _control_group(part: float) -> Path:
    """A new group of processes that together get this part of one processor (cgroups version 1, else version 2)."""
    old = Path("/sys/fs/cgroup/cpu")
    parent = old if old.is_dir() else old.parent
    group = parent / f"delf-edge-{uuid.uuid4().hex}"
    quota = round(_PERIOD * part)
    try:
        group.mkdir()
        if parent == old:
            (group / "cpu.cfs_period_us").write_text(str(_PERIOD))
            (group / "cpu.cfs_quota_us").write_text(str(quota))
        else:
            (group / "cpu.max").write_text(f"{quota} {_PERIOD}")
    except OSError as e:
        with suppress(OSError):
            group.rmdir()
        raise PermissionError(f"{group}: no control group can be made ({e.strerror}); run it as root on Linux") from e
    return group


def _move(pid: int, group: Path) -> None:
    with suppress(ProcessLookupError):  # gone by now
        (group / "cgroup.procs").write_text(str(pid))


def _dissolve(group: Path) -> None:
    """Give all processes of a group back to the one above and take it away; the kernel needs a moment for each."""
    for _ in range(50):
        for pid in (group / "cgroup.procs").read_text().split():
            _move(int(pid), group.parent)
        with suppress(OSError):
            group.rmdir()
            return
        time.sleep(0.1)
    raise OSError(f"{group}: the kernel keeps this control group; remove it by hand with rmdir")


def _commands() -> dict[int, str]:
    """Process -> its command line."""
    found = {}
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            with suppress(OSError):
                found[int(process.name)] = (
                    (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                )
    return found


def _parents() -> dict[int, int]:
    """Process -> the one that started it."""
    found = {}
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            with suppress(OSError, IndexError, ValueError):
                found[int(process.name)] = int((process / "stat").read_text().rpartition(")")[2].split()[1])
    return found
