"""The service: a few routes over a `Recognizer`, and the page.

Photos are the bodies of requests, names are query parameters; no client ever names a path on this machine. The
recogniser works in the threads of `Jobs`, everything else in the event loop.
"""

from __future__ import annotations

import asyncio
import dataclasses
import importlib.resources
import logging
import re
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Match as RouteMatch
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

import delf_edge
from delf_edge.camera.sources import Frame
from delf_edge.camera.watcher import CameraOptions, Event
from delf_edge.diagnostics.reference_quality import assess
from delf_edge.errors import (
    DelfEdgeError,
    ImageError,
    ImageTooLargeError,
    NotFoundError,
    OptionError,
    ReadOnlyError,
    StoreBusyError,
    StoreFullError,
)
from delf_edge.geo import parse_position
from delf_edge.images.decode import content_hash, load_image, make_thumbnail, probe_size, read_photo
from delf_edge.query.pipeline import Explanation
from delf_edge.recognizer import Recognizer
from delf_edge.storage.combined import CombinedStore
from delf_edge.web.event_stream import Hub, Sessions
from delf_edge.web.metrics import Metrics, resident_bytes
from delf_edge.web.openapi import document
from delf_edge.web.security import HEADERS, Policy
from delf_edge.web.work_queue import BusyError, Jobs

_LOG = logging.getLogger("delf_edge.web")
_SCRIPTS = ("app.js", "service.js", "stage.js", "look.js", "teach.js", "places.js")
_STATIC = {
    "/": ("index.html", "text/html"),
    "/app.css": ("app.css", "text/css"),
    **{f"/{name}": (name, "text/javascript") for name in _SCRIPTS},
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
_STATUS: tuple[tuple[type[Exception], int], ...] = (  # the first that fits
    (BusyError, 503),
    (StoreBusyError, 503),
    (StoreFullError, 507),
    (ReadOnlyError, 403),
    (ImageTooLargeError, 413),
    (ImageError, 415),
    (NotFoundError, 404),
    (OptionError, 400),
    (DelfEdgeError, 500),
)
_SESSION = re.compile(r"[A-Za-z0-9_-]{8,64}")


@dataclasses.dataclass(frozen=True, slots=True)
class ServiceOptions:
    """How the service works.

    Attributes:
        policy: who may do what.
        workers: photos worked on at the same time.
        queue: photos that may wait; the next one gets 503.
        uploads: bodies that may arrive at the same time, which bounds the memory they take; the next one gets 503.
        timeout: seconds that a photo waits for its turn, and again as many that the work on it may take; then 503.
        max_pixels: a photo with more gets 413.
        camera: how frames of a session are watched.
    """

    policy: Policy
    workers: int = 1
    queue: int = 8
    uploads: int = 16
    timeout: float = 20.0
    max_pixels: int = 50_000_000
    camera: CameraOptions = dataclasses.field(default_factory=CameraOptions)


class Service:
    """The state behind the routes; `create_app` makes one."""

    def __init__(self, places: Recognizer, options: ServiceOptions) -> None:
        self.places, self.options, self.policy = places, options, options.policy
        self.jobs = Jobs(options.workers, options.queue, options.timeout)
        self.hub, self.metrics = Hub(), Metrics()
        self.sessions = Sessions(places, options.camera)
        self._uploads = 0

    # ------------------------------------------------------------------ asking

    async def identify(self, request: Request) -> Response:
        """POST /v1/identify."""
        session = request.query_params.get("session")
        if session is not None and not _SESSION.fullmatch(session):
            raise HTTPException(400, "session is 8 to 64 letters, digits, - or _")
        data = await self._photo(request)
        began = time.perf_counter()
        if session is None:
            explanation = await self.jobs.run(lambda: self.places.explain(data))
            result = _answer(explanation)
        else:
            result = await self.jobs.run(lambda: self._watch(session, data))
            for event in result["events"]:
                self.hub.publish(event["kind"], {**event, "session": session})
        self.metrics.observe(time.perf_counter() - began)
        outcome = "skipped" if result.get("skipped") else "unknown" if result["landmark"] is None else "found"
        self.metrics.answers[outcome] += 1
        return JSONResponse(result)

    def _watch(self, session: str, data: bytes) -> dict[str, Any]:
        """A frame of a browser's camera: the answer, and what the frames so far amount to."""
        image = load_image(data)
        watcher, lock = self.sessions.get(session)
        with lock:
            asked = watcher.counts.asked
            events = watcher.step(Frame(image.pixels, "RGB", time.monotonic()))
            looked = watcher.counts.asked > asked
            result = _answer(watcher.latest if looked else None)
            result |= {
                "skipped": not looked,
                "verdict": watcher.verdict,
                "state": watcher.voter.state,
                "present": list(watcher.voter.present),
                "events": [_event(event) for event in events],
            }
        return result

    async def quality(self, request: Request) -> Response:
        """POST /v1/quality."""
        data = await self._photo(request)
        landmark = _name(request, "landmark", required=False)
        report = await self.jobs.run(lambda: assess(self.places, data, landmark=landmark or None))
        return JSONResponse(report.as_json())

    async def landmarks(self, request: Request) -> Response:
        """GET /v1/landmarks."""
        return JSONResponse(await self.jobs.run(self._landmarks))

    def _landmarks(self) -> dict[str, Any]:
        with self.places.steady() as store:
            return self._listed(store)

    def _listed(self, store: CombinedStore) -> dict[str, Any]:
        images: dict[str, list[dict[str, Any]]] = {}
        for image in store.images():
            facts = {"id": image.image_id, "name": image.name, "width": image.size[0], "height": image.size[1]}
            images.setdefault(image.landmark, []).append(facts)
        rows = [
            {
                "name": landmark.name,
                "latitude": landmark.latitude,
                "longitude": landmark.longitude,
                "images": images.get(landmark.name, []),
            }
            for landmark in store.landmarks()
        ]
        return {"landmarks": rows, "read_only": not self.places.store.writable}

    async def thumbnail(self, request: Request) -> Response:
        """GET /v1/images/{id}/thumbnail."""
        image_id = request.path_params["id"]
        jpeg = await self.jobs.run(partial(self._thumbnail, image_id))
        return Response(jpeg, media_type="image/jpeg", headers={"cache-control": "private, max-age=3600"})

    def _thumbnail(self, image_id: int) -> bytes:
        """The stored one, or one of the indexed file, if that is still the very same photo."""
        with self.places.steady() as store:
            jpeg = store.thumbnail(image_id)
            if jpeg is not None:
                return jpeg
            image = store.image(image_id)
        path = image.metadata.get("path")
        if isinstance(path, str):
            try:
                data = read_photo(path)
                if content_hash(data) == image.content_hash:
                    return make_thumbnail(load_image(data))
            except ImageError:
                pass  # moved or gone: as good as none
        raise NotFoundError(f"image {image_id} has no thumbnail")

    # ------------------------------------------------------------------ changing

    async def add(self, request: Request) -> Response:
        """POST /v1/images."""
        landmark, name = _name(request, "landmark"), _name(request, "name", required=False)
        place = _position(request)
        data = await self._photo(request)
        name = name or f"{landmark}/{content_hash(data).hex()[:12]}"
        result = await self.jobs.run(lambda: self._add(data, landmark, name, place))
        self.hub.publish("enrolled", {"landmark": landmark, "image": name})
        return JSONResponse(result, 201 if result["status"] == "added" else 200)

    def _add(self, data: bytes, landmark: str, name: str, place: tuple[float, float] | None) -> dict[str, Any]:
        added = self.places.add(data, landmark=landmark, name=name, thumbnail=True)
        if place is not None:
            known = next((x for x in self.places.store.landmarks() if x.name == landmark), None)
            metadata = known.metadata if known is not None else None
            self.places.store.set_landmark(landmark, metadata=metadata, latitude=place[0], longitude=place[1])
        return dataclasses.asdict(added)

    async def remove(self, request: Request) -> Response:
        """DELETE /v1/images/{id}."""
        image_id = request.path_params["id"]
        await self.jobs.run(partial(self.places.remove, image_id))
        self.hub.publish("removed", {"ids": [image_id]})
        return JSONResponse({"removed": [image_id]})

    async def remove_landmark(self, request: Request) -> Response:
        """DELETE /v1/images?landmark=NAME."""
        landmark = _name(request, "landmark")
        removed = await self.jobs.run(partial(self.places.remove_landmark, landmark))
        self.hub.publish("removed", {"landmark": landmark, "ids": removed})
        return JSONResponse({"removed": removed})

    async def _photo(self, request: Request) -> bytes:
        """The body, if it can be a photo: what is too large is refused before anything waits for it."""
        if self._uploads >= self.options.uploads:
            raise BusyError("too many uploads at once; try again in a moment")
        self._uploads += 1
        try:
            data = await self.policy.body(request)
        finally:
            self._uploads -= 1
        width, height, _ = probe_size(data)
        if width * height > self.options.max_pixels:
            raise ImageTooLargeError(
                f"the photo has {width} x {height} pixels, at most {self.options.max_pixels} are taken; shrink it"
            )
        return data

    # ------------------------------------------------------------------ operation

    async def watch_idle(self) -> None:
        """What a browser's camera saw last leaves, although the browser is gone or its camera is unplugged."""
        while True:
            await asyncio.sleep(1.0)
            for session, event in self.sessions.idle(self.options.camera.signal):
                self.hub.publish(event.kind, {**_event(event), "session": session})

    async def follow_packs(self) -> None:
        """Switched packs are taken up while nobody asks, too."""
        while True:
            await asyncio.sleep(1.0)
            await asyncio.to_thread(self.places.refresh_packs)

    async def events(self, request: Request) -> Response:
        """GET /v1/events."""
        headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
        return StreamingResponse(self.hub.subscribe(), media_type="text/event-stream", headers=headers)

    @property
    def healthy(self) -> bool:
        """Whether jobs come to an end: a job of three times the timeout is stuck."""
        return self.jobs.oldest < 3 * self.options.timeout

    async def health(self, request: Request) -> Response:
        """GET /healthz."""
        try:
            revision = self.places.store.revision()
        except DelfEdgeError as e:
            return JSONResponse({"status": "failing", "reason": str(e)}, 503)
        status = "ok" if self.healthy else "stuck"
        body: dict[str, Any] = {"status": status, "version": delf_edge.__version__, "revision": revision}
        body["packs"] = [pack.path.name for pack in self.places.combined.packs]
        body["pack_problems"] = list(self.places.pack_problems)
        return JSONResponse(body, 200 if self.healthy else 503)

    async def prometheus(self, request: Request) -> Response:
        """GET /metrics."""
        gauges = {
            "delf_edge_jobs": ("Photos that are worked on or wait.", self.jobs.pending),
            "delf_edge_jobs_refused": ("Photos that were turned away since the start.", self.jobs.refused),
            "delf_edge_listeners": ("Open event streams.", len(self.hub)),
            "delf_edge_sessions": ("Browser cameras being watched.", len(self.sessions)),
            "delf_edge_images": ("Images in the database.", len(self.places.store)),
            "delf_edge_packs": ("Packs that are searched.", len(self.places.combined.packs)),
            "delf_edge_pack_switches": ("Times that packs were taken up since the start.", self.places.pack_switches),
            "delf_edge_pack_problems": ("Packs whose version in use cannot be used.", len(self.places.pack_problems)),
            "delf_edge_damaged_rows": ("Damaged rows met since the start.", len(self.places.store.damaged)),
            "process_resident_memory_bytes": ("RAM of this process.", resident_bytes()),
        }
        return PlainTextResponse(self.metrics.text(gauges, self.hub.sent), media_type="text/plain; version=0.0.4")

    async def openapi(self, request: Request) -> Response:
        """GET /openapi.json."""
        return JSONResponse(document())

    async def static(self, request: Request) -> Response:
        """The page; a few files, each by its own route."""
        name, kind = _STATIC[request.url.path]
        data = importlib.resources.files("delf_edge.web").joinpath("static", name).read_bytes()
        return Response(data, media_type=kind, headers={"cache-control": "no-cache"})

    def routes(self) -> list[Route]:
        """All routes."""
        return [
            Route("/v1/identify", self.identify, methods=["POST"]),
            Route("/v1/quality", self.quality, methods=["POST"]),
            Route("/v1/images", self.add, methods=["POST"]),
            Route("/v1/images", self.remove_landmark, methods=["DELETE"]),
            Route("/v1/images/{id:int}", self.remove, methods=["DELETE"]),
            Route("/v1/images/{id:int}/thumbnail", self.thumbnail, methods=["GET"]),
            Route("/v1/landmarks", self.landmarks, methods=["GET"]),
            Route("/v1/events", self.events, methods=["GET"]),
            Route("/healthz", self.health, methods=["GET"]),
            Route("/metrics", self.prometheus, methods=["GET"]),
            Route("/openapi.json", self.openapi, methods=["GET"]),
            *(Route(path, self.static, methods=["GET"]) for path in _STATIC),
        ]


def create_app(
    places: Recognizer,
    options: ServiceOptions,
    *,
    beside: Callable[[Service], Coroutine[Any, Any, None]] | None = None,
) -> Starlette:
    """The ASGI application over an open database, which stays the caller's to close.

    Args:
        places: the database.
        options: see `ServiceOptions`.
        beside: runs in the event loop as long as the service does; for an app that reacts to `Service.hub`.

    Returns:
        The application; its `Service` is `app.state.service`.
    """
    service = Service(places, options)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        tasks = [asyncio.ensure_future(service.watch_idle()), asyncio.ensure_future(service.follow_packs())]
        if beside is not None:
            tasks.append(asyncio.ensure_future(beside(service)))
        yield
        service.hub.close()
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        await asyncio.to_thread(service.jobs.close)

    app = Starlette(
        routes=service.routes(),
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
        self._routes = service.routes()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = 500
        started = False

        async def send_more(message: Message) -> None:
            nonlocal status, started
            if message["type"] == "http.response.start":
                status, started = message["status"], True
                extra = HEADERS | ({"retry-after": "1"} if status == 503 else {})
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
        except Exception:
            _LOG.exception("%s %s failed", scope["method"], scope["path"])
            if not started:
                await _error(500, "internal error; the service's log says more")(scope, receive, send_more)
        finally:
            route = next((r.path for r in self._routes if r.matches(scope)[0] != RouteMatch.NONE), "other")
            method = scope["method"] if scope["method"] in ("GET", "POST", "DELETE", "HEAD") else "other"
            self._service.metrics.requests[route, method, status] += 1


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


def _name(request: Request, parameter: str, *, required: bool = True) -> str:
    """A name from the query: printable, at most 200 characters. It names a row, never a file."""
    value = request.query_params.get(parameter, "").strip()
    if not value and required:
        raise HTTPException(400, f"the query parameter {parameter} is missing")
    if len(value) > 200 or not value.isprintable():
        raise HTTPException(400, f"{parameter} has at most 200 printable characters")
    return value


def _position(request: Request) -> tuple[float, float] | None:
    """(latitude, longitude) from the query, or None; checked before anything is stored."""
    try:
        return parse_position(*(request.query_params.get(parameter) for parameter in ("latitude", "longitude")))
    except OptionError as e:
        raise HTTPException(400, str(e)) from None


def _answer(explanation: Explanation | None) -> dict[str, Any]:
    """An answer as JSON; with proof: points in pixels of the photo as sent (or decoded smaller), and of the stored."""
    if explanation is None:
        return {"landmark": None, "probability": 0.0, "n_inliers": 0, "reason": "", "matches": [], "proof": None}
    answer, stored = explanation.answer, explanation.stored
    proof = None
    if stored is not None and len(explanation.query_keypoints):
        proof = {
            "image_id": stored.image_id,
            "name": stored.name,
            "landmark": stored.landmark,
            "query_size": list(explanation.image.size),
            "stored_size": list(stored.size),
            "query_points": explanation.query_keypoints.round(1).tolist(),
            "stored_points": explanation.stored_keypoints.round(1).tolist(),
        }
    return {
        "landmark": answer.landmark,
        "probability": answer.probability,
        "n_inliers": answer.n_inliers,
        "reason": answer.reason,
        "matches": [dataclasses.asdict(match) for match in answer.matches],
        "milliseconds": {stage: round(ms, 2) for stage, ms in answer.milliseconds.items()},
        "proof": proof,
    }


def _event(event: Event) -> dict[str, Any]:
    answer = event.proof.answer if event.proof is not None else None
    return {
        "kind": event.kind,
        "landmark": event.landmark,
        "previous": event.previous,
        "probability": None if answer is None else answer.probability,
        "image": None if answer is None else answer.image,
    }
