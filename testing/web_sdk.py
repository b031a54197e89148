"""What the tests of `web-sdk/` need: its packages, and what is built of it; made once where they are not there."""

from __future__ import annotations

import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest

from testing.paths import ROOT

SDK = ROOT / "web-sdk"
LEAST_NODE = 20
MINUTES = 60  # seconds
# What npm says when it cannot reach its registry, or that has no such file. All else is a mistake in web-sdk.
UNREACHABLE: tuple[str, ...] = (
    "EAI_AGAIN",
    "ECONNREFUSED",
    "ECONNRESET",
    "ENETUNREACH",
    "ENOTFOUND",
    "ERR_SOCKET_TIMEOUT",
    "ETIMEDOUT",
)
UNREACHABLE += ("E401", "E403", "E404", "E502", "E503", "E504", "ENOTCACHED")


@cache
def packages_or_skip() -> Path:
    """web-sdk with its packages, fetched by `npm ci` where they are not there; skips where they cannot be had."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("no Node.js on this machine")
    said = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout
    if int(said.strip().lstrip("v").partition(".")[0]) < LEAST_NODE:
        pytest.skip(f"Node.js {said.strip()} is here, web-sdk needs {LEAST_NODE} or newer")
    if not (SDK / "node_modules" / ".package-lock.json").is_file():
        done = run(npm, "ci", "--no-audit", "--no-fund", "--fetch-retries=1")
        if done.returncode != 0:
            if any(f"code {code}" in done.stderr for code in UNREACHABLE):
                pytest.skip(f"npm cannot fetch the packages of web-sdk: {done.stderr.strip()[:200]}")
            pytest.fail(f"npm ci failed in web-sdk: {done.stderr[-2000:]}")
    return SDK


@cache
def built_or_skip() -> Path:
    """web-sdk/dist, the page in it, built anew of what is here; skips as `packages_or_skip`."""
    npm = str(shutil.which("npm"))
    for script in ("build", "visit"):
        done = run(npm, "run", script, folder=packages_or_skip())
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return SDK / "dist"


def run(*command: str, folder: Path = SDK) -> subprocess.CompletedProcess[str]:
    """A command in web-sdk."""
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=10 * MINUTES, check=False, stdin=subprocess.DEVNULL
    )
