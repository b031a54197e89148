"""Ten kiosks at a glance: one line for each, again and again; what needs somebody is said at its end.

python examples/watch_kiosks.py kiosks.txt, where kiosks.txt has an address on each line, such as
http://kiosk-1.local:8000. The token is read from DELF_EDGE_TOKEN; kiosks with --open-reading need none.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import json
import os
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

STALE = 60.0  # seconds without a frame after which a camera needs a look


def ask(address: str, token: str | None, timeout: float = 5.0) -> Mapping[str, Any]:
    """What a kiosk says of itself; {"error": ...} where it does not answer."""
    request = urllib.request.Request(f"{address.rstrip('/')}/v1/status")
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request, timeout=timeout) as response:
            found = json.load(response)
    except (OSError, ValueError, urllib.error.HTTPError) as e:
        return {"error": str(e)}
    return found if isinstance(found, dict) else {"error": "an answer that is not understood"}


def needs(status: Mapping[str, Any]) -> list[str]:
    """Why somebody should go there; empty where all is well."""
    if "error" in status:
        return [f"no answer: {status['error']}"]
    reasons = [] if status["status"] == "ok" else [f"the service is {status['status']}"]
    waited = status["seconds_since_frame"]
    if waited is None or waited > STALE:
        reasons.append("no frame yet" if waited is None else f"no frame for {waited:.0f} s")
    reasons += [f"pack: {problem}" for problem in status["pack_problems"]]
    return reasons


def line(address: str, status: Mapping[str, Any]) -> str:
    """One kiosk in one line."""
    reasons = needs(status)
    if "error" in status:
        return f"{address}: {reasons[0]}"
    database, today = status["database"], status["today"]
    facts = f"{status['version']}, {database['name']} revision {database['revision']} ({database['images']} photos)"
    counts = f"bundle {status['bundle'][:12]}, today {today['found']} found, {today['unknown']} not known"
    return f"{address}: {facts}, {counts}: {'; '.join(reasons) or 'ok'}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Watch until stopped; with --once, 1 where a kiosk needs somebody, else 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("addresses", type=Path, help="file with an address on each line")
    parser.add_argument("--every", type=float, default=30.0, help="seconds between two looks")
    parser.add_argument("--once", action="store_true", help="look once, and say by the exit code whether all is well")
    given = parser.parse_args(arguments)
    try:
        addresses = [text for row in given.addresses.read_text("utf-8").splitlines() if (text := row.strip())]
    except OSError as e:
        print(f"{given.addresses}: {e.strerror}", file=sys.stderr)
        return 2
    token = os.environ.get("DELF_EDGE_TOKEN")
    with concurrent.futures.ThreadPoolExecutor(max(1, len(addresses))) as pool:
        while True:
            found = list(pool.map(lambda address: ask(address, token), addresses))
            print(time.strftime("%H:%M:%S"))
            for address, status in zip(addresses, found, strict=True):
                print("  " + line(address, status), flush=True)
            if given.once:
                return 1 if any(needs(status) for status in found) else 0
            time.sleep(given.every)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main())
