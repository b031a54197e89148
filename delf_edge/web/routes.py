"""The routes: what each of them takes, does and answers.

Photos are the bodies of requests, names are query parameters; no client ever names a path on this machine. The
recogniser works in the threads of `Jobs`, everything else in the event loop.
"""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

import delf_edge
from delf_edge.camera.sources import Frame
from delf_edge.catalogue.languages import parse_accept_language
from delf_edge.catalogue.reader import MediaBytes, describe
from delf_edge.catalogue.records import LandmarkRecord
from delf_edge.diagnostics.reference_quality import assess
from delf_edge.errors import DelfEdgeError, ImageError, NotFoundError, OptionError
from delf_edge.geo import parse_position
from delf_edge.images.decode import content_hash, load_image, make_thumbnail
from delf_edge.images.photo_source import read_photo
from delf_edge.query.options import IdentifyOptions
from delf_edge.recognizer import Recognizer
from delf_edge.web.answers import answer_json, event_json
from delf_edge.web.event_stream import EventStreamResponse
from delf_edge.web.openapi import document
from delf_edge.web.qr import qr_svg
from delf_edge.web.service import Service
from delf_edge.web.uploads import Upload
from delf_edge.web.visit import TYPES

_SESSION = re.compile(r"[A-Za-z0-9_-]{8,64}")
_STATIC = Path(__file__).resolve().parent / "static"
_SCRIPTS = ("app.js", "service.js", "stage.js", "look.js", "teach.js", "places.js")
_PAGE = {
    "/": ("index.html", "text/html"),
    "/app.css": ("app.css", "text/css"),
    **{f"/{name}": (name, "text/javascript") for name in _SCRIPTS},
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


# ---------------------------------------------------------------------- recognition


async def post_identify(request: Request) -> Response:
    """POST /v1/identify."""
    service = _service(request)
    upload = await service.read_photo(request, ("session",))
    data, session = upload.data, _values(request, upload).get("session")
    if session is not None and not _SESSION.fullmatch(session):
        raise HTTPException(400, "session is 8 to 64 letters, digits, - or _")
    began = time.perf_counter()
    if session is None:
        options = IdentifyOptions(languages=_languages(request))
        result = answer_json(await service.jobs.run(partial(service.recognizer.explain, data, options=options)))
    else:
        result = await service.jobs.run(partial(_watch, service, session, data))
        for event in result["events"]:
            service.hub.publish(event["kind"], {**event, "session": session})
    service.metrics.seconds.observe(time.perf_counter() - began)
    outcome = "skipped" if result.get("skipped") else "unknown" if result["landmark"] is None else "found"
    service.metrics.answers.labels(outcome).inc()
    return JSONResponse(result)


def _watch(service: Service, session: str, data: bytes) -> dict[str, Any]:
    """A frame of a browser's camera: the answer, and what the frames so far amount to."""
    image = load_image(data, limits=service.limits)
    watcher, lock = service.sessions.get(session)
    with lock:
        asked_before = watcher.counts.asked
        events = watcher.step(Frame(image.pixels, "RGB", time.monotonic()))
        asked = watcher.counts.asked > asked_before
        return answer_json(watcher.latest if asked else None) | {
            "skipped": not asked,
            "verdict": watcher.verdict,
            "state": watcher.voter.state,
            "present": list(watcher.voter.present),
            "events": [event_json(event) for event in events],
        }


async def quality(request: Request) -> Response:
    """POST /v1/quality."""
    service = _service(request)
    upload = await service.read_photo(request, ("landmark",))
    landmark = _name(_values(request, upload), "landmark", required=False)
    report = await service.jobs.run(lambda: assess(service.recognizer, upload.data, landmark=landmark or None))
    return JSONResponse(report.as_json())


# ---------------------------------------------------------------------- what is stored


async def landmarks(request: Request) -> Response:
    """GET /v1/landmarks."""
    service = _service(request)
    return JSONResponse(await service.jobs.run(partial(_landmarks, service.recognizer)))


def _landmarks(recognizer: Recognizer) -> dict[str, Any]:
    images: dict[str, list[dict[str, Any]]] = {}
    with recognizer.steady() as store:
        for image in store.images():
            facts = {"id": image.image_id, "name": image.name, "width": image.size[0], "height": image.size[1]}
            images.setdefault(image.landmark, []).append(facts)
        places = store.landmarks()
        slugs = recognizer.catalogue.slugs()
        rows = [
            {
                "name": landmark.name,
                "slug": slugs.get(landmark.name),
                "latitude": landmark.latitude,
                "longitude": landmark.longitude,
                "images": images.get(landmark.name, []),
            }
            for landmark in places
        ]
    return {"landmarks": rows, "read_only": not recognizer.store.writable}


async def landmark(request: Request) -> Response:
    """GET /v1/landmarks/{slug}."""
    service = _service(request)
    found = await service.jobs.run(partial(_landmark, service.recognizer, request.path_params["slug"]))
    info = describe(found, _languages(request))
    body = {**found.as_json(), "language": info.language, "title": info.title, "summary": info.summary}
    headers = {"vary": "accept-language", "cache-control": "no-cache"}
    if info.language is not None:
        headers["content-language"] = info.language
    return JSONResponse(body, headers=headers)


def _landmark(recognizer: Recognizer, slug: str) -> LandmarkRecord:
    with recognizer.steady():
        return recognizer.catalogue.get(slug)


async def medium(request: Request) -> Response:
    """GET /v1/landmarks/{slug}/media/{name}."""
    service, path = _service(request), request.path_params
    found = await service.jobs.run(partial(_medium, service.recognizer, path["slug"], path["name"]))
    tag = f'"{found.item.sha256[:32]}"'
    headers = {"etag": tag, "cache-control": "private, no-cache"}
    given = [part.strip().removeprefix("W/") for part in request.headers.get("if-none-match", "").split(",")]
    if tag in given or given == ["*"]:
        return Response(status_code=304, headers=headers)
    return Response(found.data, media_type=found.item.type, headers=headers)


def _medium(recognizer: Recognizer, slug: str, name: str) -> MediaBytes:
    with recognizer.steady():
        return recognizer.catalogue.media(slug, name)


def _languages(request: Request) -> tuple[str, ...]:
    """The languages that a client wants, the most wanted first."""
    return tuple(parse_accept_language(request.headers.get("accept-language", "")))


async def thumbnail(request: Request) -> Response:
    """GET /v1/images/{id}/thumbnail."""
    service = _service(request)
    jpeg = await service.jobs.run(partial(_thumbnail, service.recognizer, request.path_params["id"]))
    return Response(jpeg, media_type="image/jpeg", headers={"cache-control": "private, max-age=3600"})


def _thumbnail(recognizer: Recognizer, image_id: int) -> bytes:
    """The stored one, or one of the indexed file, if that is still the very same photo."""
    with recognizer.steady() as store:
        jpeg = store.thumbnail(image_id)
        if jpeg is not None:
            return jpeg
        image = store.image(image_id)
    path = image.metadata.get("path")
    if isinstance(path, str):
        try:
            data = read_photo(path)
            if content_hash(data) == image.content_hash:
                return make_thumbnail(load_image(data, limits=recognizer.limits))
        except ImageError:
            pass  # moved or gone: as good as none
    raise NotFoundError(f"image {image_id} has no thumbnail")


async def add(request: Request) -> Response:
    """POST /v1/images."""
    service = _service(request)
    upload = await service.read_photo(request, ("landmark", "name", "latitude", "longitude", "replace"))
    data, values = upload.data, _values(request, upload)
    landmark, name = _name(values, "landmark"), _name(values, "name", required=False)
    position, replace = _position(values), _yes(values, "replace")
    name = name or f"{landmark}/{content_hash(data).hex()[:12]}"
    result = await service.jobs.run(lambda: _add(service.recognizer, data, landmark, name, position, replace))
    service.hub.publish("enrolled", {"landmark": landmark, "image": name})
    return JSONResponse(result, 201 if result["status"] == "added" else 200)


def _add(
    recognizer: Recognizer, data: bytes, landmark: str, name: str, position: tuple[float, float] | None, replace: bool
) -> dict[str, Any]:
    added = recognizer.add(data, landmark=landmark, name=name, thumbnail=True, replace=replace)
    if position is not None:
        known = next((x for x in recognizer.store.landmarks() if x.name == landmark), None)
        metadata = known.metadata if known is not None else None
        recognizer.store.set_landmark(landmark, metadata=metadata, latitude=position[0], longitude=position[1])
    return dataclasses.asdict(added)


async def delete_image(request: Request) -> Response:
    """DELETE /v1/images/{id}."""
    service, image_id = _service(request), request.path_params["id"]
    await service.jobs.run(partial(service.recognizer.remove, image_id))
    service.hub.publish("removed", {"ids": [image_id]})
    return JSONResponse({"removed": [image_id]})


async def remove_landmark(request: Request) -> Response:
    """DELETE /v1/images?landmark=NAME."""
    service, landmark = _service(request), _name(request.query_params, "landmark")
    removed = await service.jobs.run(partial(service.recognizer.remove_landmark, landmark))
    service.hub.publish("removed", {"landmark": landmark, "ids": removed})
    return JSONResponse({"removed": removed})


# ---------------------------------------------------------------------- operation


async def events(request: Request) -> Response:
    """GET /v1/events."""
    if request.method == "HEAD":
        return Response(media_type="text/event-stream", headers={"cache-control": "no-store"})
    given = request.headers.get("last-event-id", "")
    last = int(given) if re.fullmatch(r"[0-9]{1,18}", given) else None
    return EventStreamResponse(_service(request).hub, last)


async def health(request: Request) -> Response:
    """GET /healthz."""
    service = _service(request)
    try:
        revision = service.recognizer.store.revision()
    except DelfEdgeError as e:
        return JSONResponse({"status": "failing", "reason": str(e)}, 503)
    body = {
        "status": "ok" if service.healthy else "stuck",
        "version": delf_edge.__version__,
        "revision": revision,
        "packs": [pack.path.name for pack in service.recognizer.combined.packs],
        "pack_problems": list(service.recognizer.pack_problems),
    }
    return JSONResponse(body, 200 if service.healthy else 503)


async def metrics(request: Request) -> Response:
    """GET /metrics."""
    return PlainTextResponse(_service(request).metrics.text(), media_type="text/plain; version=0.0.4")


async def openapi(request: Request) -> Response:
    """GET /openapi.json."""
    return JSONResponse(document())


async def page(request: Request) -> Response:
    """The page; a few files, each by its own route, with the type that is written here: a machine's own may differ."""
    name, kind = _PAGE[request.url.path]
    return FileResponse(_STATIC / name, media_type=kind, headers={"cache-control": "no-cache"})


async def visit(request: Request) -> Response:
    """GET /visit/...: the page for visitors' phones, without a token: whoever has its address may know the places."""
    service, name = _service(request), request.path_params["path"] or "index.html"
    if service.options.visit is None:
        raise NotFoundError("there is no page for phones here; start the service with --visit")
    if name == "qr.svg":
        return Response(qr_svg(service.options.visit.url), media_type="image/svg+xml")
    path = await service.jobs.run(partial(service.options.visit.file, name))
    return FileResponse(path, media_type=TYPES.get(path.suffix), headers={"cache-control": "no-cache"})


async def to_visit(request: Request) -> Response:
    """GET /visit: the address with a slash; a relative one, which holds below a proxy's path, too."""
    return Response(status_code=307, headers={"location": "visit/"})


ROUTES = [
    Route("/v1/identify", post_identify, methods=["POST"]),
    Route("/v1/quality", quality, methods=["POST"]),
    Route("/v1/images", add, methods=["POST"]),
    Route("/v1/images", remove_landmark, methods=["DELETE"]),
    Route("/v1/images/{id:int}", delete_image, methods=["DELETE"]),
    Route("/v1/images/{id:int}/thumbnail", thumbnail, methods=["GET"]),
    Route("/v1/landmarks", landmarks, methods=["GET"]),
    Route("/v1/landmarks/{slug}", landmark, methods=["GET"]),
    Route("/v1/landmarks/{slug}/media/{name}", medium, methods=["GET"]),
    Route("/v1/events", events, methods=["GET"]),
    Route("/healthz", health, methods=["GET"]),
    Route("/metrics", metrics, methods=["GET"]),
    Route("/openapi.json", openapi, methods=["GET"]),
    *(Route(path, page, methods=["GET"]) for path in _PAGE),
    Route("/visit", to_visit, methods=["GET"]),
    Route("/visit/{path:path}", visit, methods=["GET"]),
]


def _values(request: Request, upload: Upload) -> Mapping[str, str]:
    """What the query and the form say; no name is in both."""
    return {**request.query_params, **upload.fields}


def _name(values: Mapping[str, str], parameter: str, *, required: bool = True) -> str:
    """A name: printable, at most 200 characters. It names a row, never a file."""
    value = values.get(parameter, "").strip()
    if not value and required:
        raise HTTPException(400, f"the query parameter {parameter} is missing")
    if len(value) > 200 or not value.isprintable():
        raise HTTPException(400, f"{parameter} has at most 200 printable characters")
    return value


def _yes(values: Mapping[str, str], parameter: str) -> bool:
    """A parameter that is true or false; false where it is missing."""
    value = values.get(parameter, "false").lower()
    if value not in ("true", "false", "1", "0"):
        raise HTTPException(400, f"{parameter} is true or false")
    return value in ("true", "1")


def _position(values: Mapping[str, str]) -> tuple[float, float] | None:
    """(latitude, longitude), or None; checked before anything is stored."""
    try:
        return parse_position(*(values.get(parameter) for parameter in ("latitude", "longitude")))
    except OptionError as e:
        raise HTTPException(400, str(e)) from None
