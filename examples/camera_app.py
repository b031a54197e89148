"""Tell what a camera sees, in a terminal: python examples/camera_app.py places.db 0

The source is a camera's number, "picamera", an rtsp:// address, a video file or a folder of photos.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from contextlib import closing

from delf_edge import CameraOptions, DelfEdgeError, IdentifyOptions, Near, Recognizer, VoteOptions, watch
from delf_edge.camera.sources import PicameraSource, VideoSource, open_source


def main(arguments: Sequence[str] | None = None) -> int:
    """Print events until the source ends; returns 0."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("database")
    parser.add_argument("source", help='0, "picamera", rtsp://..., a video file or a folder')
    parser.add_argument("--bundle")
    parser.add_argument("--near", nargs=3, type=float, metavar=("LAT", "LON", "METRES"), help="where the camera is")
    parser.add_argument("--several", action="store_true", help="look for several landmarks in a frame")
    parser.add_argument("--turn", type=int, default=0, help="degrees clockwise that bring frames upright")
    parser.add_argument("--mirrored", action="store_true", help="the camera's pictures are left-right reversed")
    given = parser.parse_args(arguments)
    options = CameraOptions(
        identify=IdentifyOptions(near=Near(*given.near) if given.near else None),
        vote=VoteOptions(several=given.several),
        landmarks=3 if given.several else 1,
        turn=given.turn,
        mirrored=given.mirrored,
    )
    try:
        with (
            closing(open_source(given.source)) as source,
            Recognizer.open(given.database, bundle=given.bundle, read_only=True) as recognizer,
        ):
            live = isinstance(source, VideoSource | PicameraSource)  # its times are those of time.monotonic()
            clock, zero = (time.localtime, time.time() - time.monotonic()) if live else (time.gmtime, 0.0)
            for event in watch(recognizer, source, options):
                proof = f", {event.proof.answer.n_inliers} matched points" if event.proof else ""
                when = time.strftime("%H:%M:%S", clock(zero + event.time))
                print(f"{when}  {event.kind:11}  {event.landmark or 'camera'}{proof}", flush=True)
    except DelfEdgeError as e:
        print(e, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
