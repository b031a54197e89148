"""A kiosk of your own: the service and the page inside your program, with your own reaction to events.

python examples/kiosk.py places.db, then open the printed address in a browser on this machine.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from delf_edge import CameraOptions, DelfEdgeError, Recognizer, VoteOptions
from delf_edge.web.app import Service, ServiceOptions, create_app
from delf_edge.web.security import Policy
from delf_edge.web.server import address_of, listen, read_token, run_server


async def lamp(service: Service) -> None:
    """Here a lamp, a loudspeaker or a door would be switched: all events of all screens come by."""
    async for text in service.hub.subscribe():
        if "event: appeared" in text or "event: left" in text:
            print(text.strip(), flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until stopped; returns 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("database")
    parser.add_argument("--bundle", default=None)
    parser.add_argument("--port", type=int, default=8000)
    given = parser.parse_args(arguments)
    patient = CameraOptions(vote=VoteOptions(frames=3, hold=5.0))  # visitors stand still and look away
    if not Path(given.database).is_file():
        print(f"{given.database}: no such database; make one with `delf-edge index`", file=sys.stderr)
        return 2
    try:
        token, is_new = read_token(None)
        with (
            listen("127.0.0.1", given.port) as sockets,
            Recognizer.open(given.database, bundle=given.bundle) as recognizer,
        ):
            app = create_app(recognizer, ServiceOptions(Policy(token), camera=patient), beside=lamp)
            print(address_of("127.0.0.1", given.port, token if is_new else None), flush=True)
            run_server(app, "127.0.0.1", given.port, sockets)
    except DelfEdgeError as e:
        print(e, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
