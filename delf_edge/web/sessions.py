"""A `Watcher` for every camera that a browser shows us."""

from __future__ import annotations

import collections
import threading
import time

from delf_edge.camera.watcher import CameraOptions, Event, Watcher
from delf_edge.recognizer import Recognizer


class Sessions:
    """One `Watcher` for each browser camera; those unused for `idle` seconds, and the oldest above `limit`, go.

    May be used from several threads; a watcher's own lock keeps its frames in order.
    """

    def __init__(self, recognizer: Recognizer, options: CameraOptions, limit: int = 64, idle: float = 60.0) -> None:
        self._recognizer, self._options, self._limit, self._idle = recognizer, options, limit, idle
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
                watcher, lock = Watcher(self._recognizer, self._options), threading.Lock()
            self._watchers[name] = watcher, lock, now
            while len(self._watchers) > self._limit:
                self._watchers.popitem(last=False)
        return watcher, lock
