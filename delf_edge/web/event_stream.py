"""Server-sent events to whoever listens.

Not sse-starlette: it looks for uvicorn's signal handler and polls it to end its streams, beside the shutdown that
`web.server` has already; what it would save is the keep-alive line.
"""

from __future__ import annotations

import asyncio
import collections
import json
import weakref
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from delf_edge.web.work_queue import BusyError

_KEEP_ALIVE = 15.0  # seconds


class Subscription:
    """The events for one listener, as an asynchronous iterator of text; ends when it or the hub is closed."""

    def __init__(self, missed: list[str], backlog: int) -> None:
        self._first = ["retry: 3000\n\n", *missed]
        self._queue: asyncio.Queue[str | None] = asyncio.Queue(backlog)

    def __aiter__(self) -> Subscription:
        return self

    async def __anext__(self) -> str:
        if self._first:
            return self._first.pop(0)
        try:
            text = await asyncio.wait_for(self._queue.get(), _KEEP_ALIVE)
        except TimeoutError:
            return ": still here\n\n"
        if text is None:
            raise StopAsyncIteration
        return text

    def put(self, text: str | None) -> None:
        """Add an event, or None for the end; where the queue is full, the oldest event is dropped."""
        if self._queue.full():
            self._queue.get_nowait()
        self._queue.put_nowait(text)


class Hub:
    """Server-sent events for at most `listeners` clients; a slow one misses the oldest events.

    Args:
        listeners: clients that may listen at the same time.
        backlog: events that wait for a slow client, and that are kept for one that comes back.
        first: number before that of the first event. A service gives its start time, so that the numbers of an
            earlier run are lower.

    Attributes:
        sent: kind -> events published so far.
    """

    def __init__(self, listeners: int = 16, backlog: int = 64, first: int = 0) -> None:
        self._listeners, self._backlog = listeners, backlog
        # Weak, so that a place is free again whenever a listener is gone, however it ended.
        self._open: weakref.WeakSet[Subscription] = weakref.WeakSet()
        self._number = first
        self._kept: collections.deque[tuple[int, str]] = collections.deque(maxlen=backlog)
        self._closed = False
        self.sent: collections.Counter[str] = collections.Counter()

    def __len__(self) -> int:
        return len(self._open)

    def publish(self, kind: str, data: dict[str, Any]) -> None:
        """Send an event; from the event loop's thread only."""
        self._number += 1
        self.sent[kind] += 1
        text = f"id: {self._number}\nevent: {kind}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n"
        self._kept.append((self._number, text))
        for listener in list(self._open):
            listener.put(text)

    def subscribe(self, last: int | None = None) -> Subscription:
        """The events from now on, and those that a client missed.

        The place is taken when this returns, not when the first event is read.

        Args:
            last: number of the last event that the client had (`Last-Event-ID`). The kept events after it come
                first. A number from before the start brings no more than what is kept; one that was never given
                brings nothing.

        Raises:
            BusyError: there are too many listeners, or the hub is closed.
        """
        if len(self._open) >= self._listeners or self._closed:
            raise BusyError(f"{self._listeners} clients listen already; close one of them")
        known = last is not None and last <= self._number
        missed = [text for number, text in self._kept if known and number > (last or 0)]
        listener = Subscription(missed, self._backlog)
        self._open.add(listener)
        return listener

    def leave(self, listener: Subscription) -> None:
        """Give a listener's place to another one."""
        self._open.discard(listener)

    def close(self) -> None:
        """End all streams."""
        self._closed = True
        for listener in list(self._open):
            listener.put(None)
        self._open.clear()


class EventStreamResponse(Response):
    """The events of a hub. The place is taken before the answer begins: a client too many gets an error, not a 200."""

    media_type = "text/event-stream"

    def __init__(self, hub: Hub, last: int | None) -> None:
        super().__init__(headers={"cache-control": "no-store", "x-accel-buffering": "no"})
        del self.headers["content-length"]
        self._hub, self._last = hub, last

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until the client goes or the hub is closed."""
        listener = self._hub.subscribe(self._last)
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            async with asyncio.TaskGroup() as tasks:
                gone = tasks.create_task(_until_gone(receive))
                sending = tasks.create_task(self._send(listener, send))
                await asyncio.wait((gone, sending), return_when=asyncio.FIRST_COMPLETED)
                gone.cancel()
                sending.cancel()
        finally:
            self._hub.leave(listener)

    async def _send(self, listener: Subscription, send: Send) -> None:
        async for text in listener:
            await send({"type": "http.response.body", "body": text.encode(), "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
