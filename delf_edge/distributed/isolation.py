"""A shard of which a photo kills the process: the photo becomes a row like any other bad one.

`python -m delf_edge.distributed.isolation` reads a job on stdin and makes the shard; `make_shard_isolated` runs it
in a child process, and where that dies, notes the row it was at and starts again without it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from delf_edge import library_threads
from delf_edge.distributed.shards import ShardManifest, make_shard
from delf_edge.errors import BuildError
from delf_edge.interchange.photo_entry import PhotoEntry
from delf_edge.interchange.photo_tables import Shard


def make_shard_isolated(shard: Shard) -> ShardManifest:
    """As `make_shard`, in child processes.

    Raises:
        BuildError: the child fails without dying, or dies without having begun a photo.
    """
    bad: dict[int, str] = {}
    environment = {**os.environ, **dict.fromkeys(library_threads.VARIABLES, "1")}
    with tempfile.TemporaryDirectory(prefix="delf-edge-isolated-") as scratch:
        at, result = Path(scratch) / "at", Path(scratch) / "result"
        while True:
            at.unlink(missing_ok=True)
            done = subprocess.run(
                [sys.executable, "-m", __name__, str(result)],
                input=json.dumps([asdict(shard), bad, str(at)]).encode(),
                env=environment,
                capture_output=True,
                check=False,
            )
            if done.returncode == 0:
                return ShardManifest.from_bytes(result.read_bytes(), str(result))
            row = int(at.read_text()) if at.exists() and at.read_text() else None
            if done.returncode > 0 or row is None or row in bad:
                said = done.stderr.decode(errors="replace")[-500:]
                raise BuildError(f"shard {shard.number}: its process ended with {done.returncode}: {said}")
            bad[row] = f"the process that read it died of signal {-done.returncode}"


def run_job() -> None:
    """The child; the job comes from its own parent."""
    facts, bad, at = json.load(sys.stdin.buffer)
    shard = Shard(**(facts | {"rows": tuple(PhotoEntry(**row) for row in facts["rows"])}))
    manifest = make_shard(shard, {int(row): why for row, why in bad.items()}, Path(at))
    Path(sys.argv[1]).write_bytes(manifest.to_bytes())


if __name__ == "__main__":
    run_job()
