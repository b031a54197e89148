"""The service as an ASGI application: routes, policy, errors as JSON, and what runs beside."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from delf_edge.errors import (
    DelfEdgeError,
    ImageError,
    ImageTooLargeError,
    NameTakenError,
    NotFoundError,
    OptionError,
    ReadOnlyError,
    StoreBusyError,
    StoreFullError,
)
from delf_edge.recognizer import Recognizer
from delf_edge.web.routes import ROUTES
from delf_edge.web.security import HEADERS, VISIT_HEADERS
from delf_edge.web.service import Service as Service
from delf_edge.web.service import ServiceOptions as ServiceOptions
from delf_edge.web.work_queue import BusyError

_LOG = logging.getLogger("delf_edge.web")
_STATUS: tuple[tuple[type[Exception], int], ...] = (  # the first that fits
    (BusyError, 503),
    (StoreBusyError, 503),
    (StoreFullError, 507),
    (ReadOnlyError, 403),
    (ImageTooLargeError, 413),
    (ImageError, 415),
    (NotFoundError, 404),
    (NameTakenError, 409),
    (OptionError, 400),
    (DelfEdgeError, 500),
)


def create_app(
    recognizer: Recognizer,
    options: ServiceOptions,
    *,
    beside: Callable[[Service], Coroutine[Any, Any, None]] | None = None,
) -> Starlette:
    """The ASGI application over an open database, which stays the caller's to close.

    Args:
        recognizer: the database.
        options: see `ServiceOptions`.
        beside: runs in the event loop as long as the service does; for an app that reacts to `Service.hub`.

    Returns:
        The application; its `Service` is `app.state.service`.
    """
    service = Service(recognizer, options)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        tasks = [asyncio.ensure_future(service.watch_idle()), asyncio.ensure_future(service.follow_packs())]
        if beside is not None:
            tasks.append(asyncio.ensure_future(beside(service)))
        yield
        service.hub.close()
        service.checks.stop()
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        await asyncio.to_thread(service.jobs.close)
        service.statistics.close()

    app = Starlette(
        routes=ROUTES,
        lifespan=lifespan,
        middleware=[Middleware(_Outermost, service=service)],
        exception_handlers={HTTPException: _http_error, **{kind: _known_error for kind, _ in _STATUS}},
    )
    app.state.service = service
    return app


class _Outermost:
    """Policy before a request, headers and a count after it, and one line for what nobody expected."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app, self._service = app, service
        self._prefix = urlsplit(service.policy.public_url or "").path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope = self._below_prefix(scope)
        status = 500
        started = False
        visit = scope["path"].startswith("/visit/")

        async def send_more(message: Message) -> None:
            nonlocal status, started
            if message["type"] == "http.response.start":
                status, started = message["status"], True
                extra = (VISIT_HEADERS if visit else HEADERS) | ({"retry-after": "1"} if status == 503 else {})
                message["headers"] = [*message["headers"], *((k.encode(), v.encode()) for k, v in extra.items())]
            await send(message)

        request = Request(scope, receive)
        try:
            if not scope["query_string"].isascii():  # Starlette fails on bytes that are not UTF-8
                raise HTTPException(400, "a query is ASCII; encode what is not")
            self._service.policy.check(request)
            await self._app(scope, receive, send_more)
        except HTTPException as e:
            await _http_error(request, e)(scope, receive, send_more)
        except ClientDisconnect:
            status = 499  # a page was closed while it sent a frame: nobody waits for an answer
        except Exception:
            _LOG.exception("%s %s failed", scope["method"], scope["path"])
            if not started:
                await _error(500, "internal error; the service's log says more")(scope, receive, send_more)
        finally:
            route = next((r.path for r in ROUTES if r.matches(scope)[0] != Match.NONE), "other")
            method = (
                scope["method"] if scope["method"] in ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD") else "other"
            )
            self._service.metrics.requests.labels(route, method, status).inc()

    def _below_prefix(self, scope: Scope) -> Scope:
        """The scope with a path of this service, whether or not the proxy has taken the public path away."""
        path: str = scope["path"]
        if not self._prefix or not (path == self._prefix or path.startswith(self._prefix + "/")):
            return scope
        return {**scope, "path": path.removeprefix(self._prefix) or "/"}


def _error(status: int, message: str, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"error": message}, status, headers)


def _http_error(request: Request, e: Exception) -> Response:
    if not isinstance(e, HTTPException):
        raise e
    return _error(e.status_code, str(e.detail), dict(e.headers) if e.headers else None)


def _known_error(request: Request, e: Exception) -> Response:
    status = next(status for kind, status in _STATUS if isinstance(e, kind))
    if status == 500:
        _LOG.error("%s %s: %s", request.method, request.url.path, e)
    return _error(status, str(e))
