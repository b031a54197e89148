"""Events to whoever listens, and a `Watcher` for every camera that a browser shows us."""

from __future__ import annotations

import asyncio
import collections
import json
import threading
import time
from collections.abc import AsyncIterator
from typing import Any

from delf_edge.camera.watcher import CameraOptions, Event, Watcher
from delf_edge.recognizer import Recognizer
from delf_edge.web.work_queue import BusyError

_KEEP_ALIVE = 15.0  # seconds


class Hub:
    """Server-sent events for at most `listeners` clients; a slow one misses the oldest events.

    Attributes:
        sent: kind -> events published so far.
    """

    def __init__(self, listeners: int = 16, backlog: int = 64) -> None:
        self._listeners, self._backlog = listeners, backlog
        self._queues: set[asyncio.Queue[str | None]] = set()
        self._number = 0
        self._closed = False
        self.sent: collections.Counter[str] = collections.Counter()

    def __len__(self) -> int:
        return len(self._queues)

    def publish(self, kind: str, data: dict[str, Any]) -> None:
        """Send an event; from the event loop's thread only."""
        self._number += 1
        self.sent[kind] += 1
        text = f"id: {self._number}\nevent: {kind}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n"
        for queue in self._queues:
            if queue.full():
                queue.get_nowait()
            queue.put_nowait(text)

    def subscribe(self) -> AsyncIterator[str]:
        """The events from now on, as text; ends when the hub is closed.

        Raises:
            BusyError: there are too many listeners.
        """
        if len(self._queues) >= self._listeners or self._closed:
            raise BusyError(f"{self._listeners} clients listen already; close one of them")
        return self._stream()

    async def _stream(self) -> AsyncIterator[str]:
        queue: asyncio.Queue[str | None] = asyncio.Queue(self._backlog)
        self._queues.add(queue)  # here, so that it is sure to be taken out again
        try:
            yield "retry: 3000\n\n"
            while True:
                try:
                    text = await asyncio.wait_for(queue.get(), _KEEP_ALIVE)
                except TimeoutError:
                    text = ": still here\n\n"
                if text is None:
                    return
                yield text
        finally:
            self._queues.discard(queue)

    def close(self) -> None:
        """End all streams."""
        self._closed = True
        for queue in self._queues:
            if queue.full():
                queue.get_nowait()
            queue.put_nowait(None)


class Sessions:
    """One `Watcher` for each browser camera; those unused for `idle` seconds, and the oldest above `limit`, go.

    May be used from several threads; a watcher's own lock keeps its frames in order.
    """

    def __init__(self, places: Recognizer, options: CameraOptions, limit: int = 64, idle: float = 60.0) -> None:
        self._places, self._options, self._limit, self._idle = places, options, limit, idle
        self._lock = threading.Lock()
        self._watchers: collections.OrderedDict[str, tuple[Watcher, threading.Lock, float]] = collections.OrderedDict()

    def __len__(self) -> int:
        return len(self._watchers)

    def idle(self, after: float) -> list[tuple[str, Event]]:
        """Let time pass for cameras that have sent no frame for `after` seconds: (session, event) of what left."""
        now = time.monotonic()
        with self._lock:
            waiting = [(name, w, lock) for name, (w, lock, used) in self._watchers.items() if now - used > after]
        events = []
        for name, watcher, lock in waiting:
            if lock.acquire(blocking=False):  # a frame that is being looked at is a sign of life
                try:
                    events += [(name, event) for event in watcher.idle(now)]
                finally:
                    lock.release()
        return events

    def get(self, name: str) -> tuple[Watcher, threading.Lock]:
        """The watcher of a session, made anew where there is none."""
        now = time.monotonic()
        with self._lock:
            for key in [k for k, (_, _, used) in self._watchers.items() if now - used > self._idle]:
                del self._watchers[key]
            watcher, lock, _ = self._watchers.pop(name, (None, None, 0.0))
            if watcher is None or lock is None:
                watcher, lock = Watcher(self._places, self._options), threading.Lock()
            self._watchers[name] = watcher, lock, now
            while len(self._watchers) > self._limit:
                self._watchers.popitem(last=False)
        return watcher, lock
