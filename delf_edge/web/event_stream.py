"""Server-sent events to whoever listens.

Not sse-starlette: it looks for uvicorn's signal handler and polls it to end its streams, beside the shutdown that
`web.server` has already; what it would save is the keep-alive line.
"""

from __future__ import annotations

import asyncio
import collections
import json
from collections.abc import AsyncIterator
from typing import Any

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
