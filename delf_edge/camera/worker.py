"""The camera's loop in a thread of its own, with callbacks or for asyncio.

::

    with VideoSource(0) as source, CameraWorker(recognizer, source, on_event=show):
        run_the_app()

    with VideoSource(0) as source:
        async for event in watch_async(recognizer, source):
            await send(event)
"""

from __future__ import annotations

import asyncio
import collections
import logging
import threading
import weakref
from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import Self

from delf_edge.camera.frames import Frame, FrameSource, stop_at_exit
from delf_edge.camera.watcher import CameraOptions, Event, Watcher, watch
from delf_edge.recognizer import Recognizer

_LOG = logging.getLogger("delf_edge.camera")


class CameraWorker:
    """`watch` in a thread of its own. Use as a context manager.

    Events wait in a queue of `queue` places for a second thread that calls `on_event`, so that a slow callback never
    delays the camera; when the queue is full the oldest event is dropped (and counted in `dropped`).

    A loop that ends by an error says so: in the log (`delf_edge.camera`), to `on_error`, and by raising it at the end
    of the `with` block. An error of `on_event` is logged and given to `on_error`, and the camera goes on.

    Args:
        recognizer: the open database.
        source: where frames come from; it is not closed.
        on_event: called for each event.
        options: see `CameraOptions`.
        queue: events that may wait for a slow `on_event`.
        on_error: called with what went wrong, from the thread in which it did.

    Attributes:
        watcher: what is present now, and what became of the frames.
        error: what went wrong last, if anything did.
        dropped: events that a slow callback has missed.
    """

    def __init__(
        self,
        recognizer: Recognizer,
        source: FrameSource,
        on_event: Callable[[Event], None],
        options: CameraOptions | None = None,
        *,
        queue: int = 32,
        on_error: Callable[[BaseException], None] | None = None,
    ) -> None:
        self.watcher = Watcher(recognizer, options)
        self.error: BaseException | None = None
        self.dropped = 0
        self._recognizer, self._source, self._on_event, self._length = recognizer, source, on_event, queue
        self._events: collections.deque[Event] = collections.deque()
        self._news = threading.Condition()
        self._stopped = self._finished = False
        self._on_error = on_error
        self._ended_by: Exception | None = None
        this = weakref.ref(self)
        stop_at_exit(self, lambda: None if (worker := this()) is None else worker.stop())
        self._threads = [threading.Thread(target=run, daemon=True) for run in (self._watch, self._deliver)]

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()
        if kind is None and self._ended_by is not None:
            raise self._ended_by

    def start(self) -> None:
        """Begin to watch."""
        for thread in self._threads:
            thread.start()

    def stop(self, timeout: float = 10.0) -> None:
        """Stop after the frame at hand; events that are waiting are still delivered. The source stays open."""
        self.cancel()
        self.join(timeout)

    def cancel(self) -> None:
        """As `stop`, without waiting."""
        self._stopped = True

    def join(self, timeout: float | None = None) -> None:
        """Wait for the source's end."""
        for thread in self._threads:
            if thread is not threading.current_thread() and thread.ident is not None:
                thread.join(timeout)

    @property
    def running(self) -> bool:
        """Whether the loop goes on."""
        return self._threads[0].is_alive()

    def _watch(self) -> None:
        try:
            for event in watch(self._recognizer, _Stoppable(self._source, lambda: self._stopped), watcher=self.watcher):
                with self._news:
                    if len(self._events) >= self._length:
                        self._events.popleft()
                        self.dropped += 1
                    self._events.append(event)
                    self._news.notify()
        except Exception as e:
            self._ended_by = e
            self._failed("the camera's loop has ended", e)
        finally:
            with self._news:
                self._finished = True
                self._news.notify()

    def _deliver(self) -> None:
        while True:
            with self._news:
                self._news.wait_for(lambda: self._events or self._finished)
                if not self._events:
                    return
                event = self._events.popleft()
            try:
                self._on_event(event)
            except Exception as e:  # an app's mistake must not blind its camera
                self._failed(f"on_event failed ({event})", e)

    def _failed(self, what: str, e: Exception) -> None:
        self.error = e
        _LOG.error("%s: %s", what, e, exc_info=e)
        if self._on_error is not None:
            try:
                self._on_error(e)
            except Exception:
                _LOG.exception("on_error failed")


class _Stoppable:
    """A source that also ends when it is told to."""

    def __init__(self, source: FrameSource, stopped: Callable[[], bool]) -> None:
        self._source, self._stopped = source, stopped

    @property
    def ended(self) -> bool:
        return self._stopped() or self._source.ended

    def read(self, timeout: float) -> Frame | None:
        return None if self._stopped() else self._source.read(timeout)

    def close(self) -> None:
        self._source.close()


async def watch_async(
    recognizer: Recognizer, source: FrameSource, options: CameraOptions | None = None, *, queue: int = 32
) -> AsyncIterator[Event]:
    """As `watch`, for asyncio: frames are asked for in a thread; a slow consumer misses the oldest events.

    Raises:
        CameraError: the camera could not be opened.
        StoreError: the database cannot be read.
    """
    loop = asyncio.get_running_loop()
    events: collections.deque[Event] = collections.deque(maxlen=queue)
    news = asyncio.Event()

    def deliver(event: Event) -> None:
        events.append(event)
        loop.call_soon_threadsafe(news.set)

    worker = CameraWorker(recognizer, source, deliver, options, queue=queue)
    worker.start()

    async def end() -> None:
        await asyncio.to_thread(worker.join)
        news.set()

    ending = asyncio.create_task(end())
    try:
        while True:
            await news.wait()
            news.clear()
            while events:
                yield events.popleft()
            if ending.done() and not events:
                break
    finally:
        worker.cancel()
        await ending
    if worker.error is not None:
        raise worker.error
