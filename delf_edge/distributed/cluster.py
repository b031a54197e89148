"""The shards of a build on a Dask cluster: a window of tasks, retries, progress, and going on where a run stopped.

Only as many tasks as keep the workers busy are on the scheduler at a time, so its memory does not grow with the number
of photos. A worker that dies takes nothing with it: its shard is made again elsewhere. A shard that has killed several
workers is made by `isolation.py`, which finds the photo.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import dask
from distributed import Client, LocalCluster, TimeoutError, wait
from distributed.scheduler import KilledWorker

from delf_edge.distributed.isolation import make_shard_isolated
from delf_edge.distributed.remote_files import finished
from delf_edge.distributed.shards import make_shard
from delf_edge.errors import BuildError
from delf_edge.interchange.photo_tables import Shard

_RETRIES = 2  # of a shard that raises, such as for a file server that is down for a moment
_DEATHS = 2  # workers that a shard may take with it before it is made in a child process
_POLL, _PATIENCE = 10.0, 120.0  # seconds between polls for workers, and without any
_WINDOW = 3  # tasks on the scheduler for each thread of the cluster


@dataclass(slots=True)
class Progress:
    """How far a build is.

    Attributes:
        shards, photos: done in this run.
        skipped: shards that were finished before.
        bad: rows without an image so far.
        began: time.monotonic() of the start.
        failed: shard number -> why it could not be made.
        isolated: shards that were made in a child process.
    """

    shards: int = 0
    photos: int = 0
    skipped: int = 0
    bad: int = 0
    began: float = field(default_factory=time.monotonic)
    failed: dict[int, str] = field(default_factory=dict)
    isolated: list[int] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Photos a second since the start."""
        return self.photos / max(time.monotonic() - self.began, 1e-9)

    def eta(self, photos_left: int) -> float | None:
        """Seconds until `photos_left` are done; None before the first shard."""
        return photos_left / self.rate if self.photos else None


@contextmanager
def connect_cluster(address: str | None, workers: int | None = None) -> Iterator[Client]:
    """A client of the cluster at `address`, or of one on this machine.

    Args:
        address: of a Dask scheduler, such as "tcp://10.0.0.1:8786"; None starts a cluster here.
        workers: processes of that; default: one for each core.

    Raises:
        BuildError: there is no scheduler at the address.
    """
    settings = {
        "distributed.scheduler.allowed-failures": _DEATHS,
        # A worker that died comes back by itself, but not within the 15 seconds that Dask waits before it gives it up:
        # importing takes longer on a busy machine, and without any worker a build would wait for ever.
        "distributed.deploy.lost-worker-timeout": "15 minutes",
        "distributed.comm.timeouts.connect": "2 minutes",
    }
    with dask.config.set(settings):
        if address is None:
            with (
                LocalCluster(
                    n_workers=workers, threads_per_worker=1, processes=True, dashboard_address=":0"
                ) as cluster,
                Client(cluster) as client,
            ):
                yield client
        else:
            try:
                client = Client(address, timeout=10)
            except (OSError, ValueError) as e:
                raise BuildError(f"{address}: no Dask scheduler answers there ({e})") from e
            with client:
                yield client


def make_shards(
    client: Client, shards: Iterator[Shard], out: str, on_progress: Callable[[Progress], None] | None = None
) -> tuple[list[str], Progress]:
    """Make every shard that is not there yet.

    Args:
        client: of the cluster.
        shards: the work, in the order of the manifest.
        out: URL of the folder for shards.
        on_progress: called after every shard.

    Returns:
        Names of all shards in the order of the manifest, and what was done.

    Raises:
        BuildError: the cluster has no workers.
    """
    there, names, progress = finished(out), [], Progress()
    running: dict[Any, Shard] = {}

    def submit(work: Callable[[Shard], Any], shard: Shard) -> None:
        future = client.submit(work, shard, pure=False, retries=_RETRIES if work is make_shard else 0)
        running[future] = shard

    def settle() -> None:
        future = _first(client, list(running))
        shard = running.pop(future)
        if future.status == "finished":
            manifest = future.result()
            progress.shards += 1
            progress.photos += manifest.photos
            progress.bad += len(manifest.bad)
        elif isinstance(future.exception(), KilledWorker) and shard.number not in progress.isolated:
            progress.isolated.append(shard.number)
            submit(make_shard_isolated, shard)
        else:
            progress.failed[shard.number] = str(future.exception())
        future.release()
        if on_progress is not None:
            on_progress(progress)

    for shard in shards:
        names.append(shard.name)
        if shard.name in there:
            progress.skipped += 1
            continue
        while len(running) >= _WINDOW * max(1, _threads(client)):
            settle()
        submit(make_shard, shard)
    while running:
        settle()
    return names, progress


def result_of(client: Client, future: Any) -> Any:
    """The result of a task, waiting for it as long as there are workers; what the task raised is raised here.

    Raises:
        BuildError: all workers have been gone for a while.
    """
    return _first(client, [future]).result()


def check(progress: Progress, n_shards: int) -> None:
    """Nothing if every shard could be made.

    Raises:
        BuildError: which could not, and why.
    """
    if progress.failed:
        number, why = min(progress.failed.items())
        raise BuildError(
            f"{len(progress.failed)} of {n_shards} shards could not be made, the first is {number}: {why}; the "
            "others are kept, start the build again"
        )


def _first(client: Client, futures: list[Any]) -> Any:
    """A future that is done, waiting for one as long as there are workers.

    Raises:
        BuildError: all workers have been gone for a while.
    """
    alone = 0.0
    while True:
        try:
            return next(iter(wait(futures, timeout=_POLL, return_when="FIRST_COMPLETED").done))
        except TimeoutError:
            alone = 0.0 if _threads(client) else alone + _POLL
            if alone >= _PATIENCE:
                raise BuildError(
                    f"no worker is left since {alone:.0f} s; start workers, then the build again: it goes on from here"
                ) from None


def _threads(client: Client) -> int:
    return sum(client.nthreads().values())
