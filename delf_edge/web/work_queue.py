"""Work for the recogniser: a few threads, a short queue, and a plain no when it is full."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

_T = TypeVar("_T")


class BusyError(Exception):
    """The queue is full, or a job waited too long in it."""


class Jobs:
    """Runs jobs in `workers` threads, lets `queue` more wait, and refuses the rest.

    Attributes:
        pending: jobs that run or wait.
        refused: jobs that were turned away.
    """

    def __init__(self, workers: int, queue: int, timeout: float) -> None:
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="recognise")
        self._capacity, self._timeout = workers + queue, timeout
        self.pending = self.refused = 0
        self._running: dict[Future[Any], float] = {}

    async def run(self, job: Callable[[], _T]) -> _T:
        """The result of a job.

        A job that has begun gets the timeout once more: on a slow or busy machine every job would otherwise use up
        its time in the queue and be given up half done, and nobody would get an answer.

        Raises:
            BusyError: no room, not begun within the timeout, or not ended within another one. A job that is running
                goes on; its place in the queue is free only when it has ended, so that slow jobs cannot pile up.
        """
        if self.pending >= self._capacity:
            self.refused += 1
            raise BusyError("too many photos at once; try again in a moment")
        loop = asyncio.get_running_loop()
        self.pending += 1
        future = self._pool.submit(job)
        self._running[future] = time.monotonic()
        future.add_done_callback(lambda f: loop.call_soon_threadsafe(self._done, f))
        answer = asyncio.wrap_future(future)
        try:
            for _ in ("waiting", "running"):
                if (await asyncio.wait([answer], timeout=self._timeout))[0]:
                    return answer.result()
                if not future.running():
                    break
        finally:
            answer.cancel()  # what has not begun never will
        self.refused += 1
        raise BusyError(f"no answer within {self._timeout:.0f} s; try again in a moment")

    def _done(self, future: Future[Any]) -> None:
        self.pending -= 1
        self._running.pop(future, None)

    @property
    def oldest(self) -> float:
        """Seconds since the oldest unfinished job was taken; 0 where there is none."""
        return time.monotonic() - min(self._running.values()) if self._running else 0.0

    def close(self) -> None:
        """Wait for what is running; what waits is dropped."""
        self._pool.shutdown(wait=True, cancel_futures=True)
