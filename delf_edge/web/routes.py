"""The routes: what each of them takes, does and answers.

Photos are the bodies of requests, names are query parameters; no client ever names a path on this machine. The
recogniser works in the threads of `Jobs`, everything else in the event loop.
"""

from __future__ import annotations

import asyncio
import dataclasses
import datetime
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
from delf_edge.web.markdown import safe_html
from delf_edge.web.media_types import TYPES
from delf_edge.web.openapi import document
from delf_edge.web.pages import PAGES
from delf_edge.web.qr import qr_svg
from delf_edge.web.service import Service
from delf_edge.web.staff_routes import STAFF_ROUTES
from delf_edge.web.uploads import Upload

_SESSION = re.compile(r"[A-Za-z0-9_-]{8,64}")
_MOST_SHOWN = 24


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
        result = await service.jobs.run(partial(_ask, service, data, options))
    else:
        service.last_frame = time.time()
        result = await service.jobs.run(partial(_watch, service, session, data))
        for event in result["events"]:
            service.hub.publish(event["kind"], {**event, "session": session})
    service.metrics.seconds.observe(time.perf_counter() - began)
    outcome = "skipped" if result.get("skipped") else "unknown" if result["landmark"] is None else "found"
    service.metrics.answers.labels(outcome).inc()
    return JSONResponse(result)


def _ask(service: Service, data: bytes, options: IdentifyOptions) -> dict[str, Any]:
    """A single photo: its answer, which is counted."""
    result = answer_json(service.recognizer.explain(data, options=options))
    service.statistics.count("unknown" if result["landmark"] is None else "found", result["landmark"] or "")
    return result


def _watch(service: Service, session: str, data: bytes) -> dict[str, Any]:
    """A frame of a browser's camera: the answer, and what the frames so far amount to."""
    image = load_image(data, limits=service.limits)
    watcher, lock = service.sessions.get(session)
    with lock:
        asked_before, state_before = watcher.counts.asked, watcher.voter.state
        events = watcher.step(Frame(image.pixels, "RGB", time.monotonic()))
        asked = watcher.counts.asked > asked_before
        for event in events:
            if event.kind in ("appeared", "changed") and event.landmark is not None:
                service.statistics.count("found", event.landmark)
        if watcher.voter.state == "unknown" != state_before:
            service.statistics.count("unknown")
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
    own = found.texts.get(info.language or "")
    body = {
        **found.as_json(),
        "language": info.language,
        "title": info.title,
        "summary": info.summary,
        "audio": info.audio,
        "link": info.link,
        "body_html": safe_html(own.body) if own is not None and own.body else None,
    }
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


# ---------------------------------------------------------------------- for the visitors' screen


async def showcase(request: Request) -> Response:
    """GET /v1/showcase."""
    service = _service(request)
    try:
        count = int(request.query_params.get("count", "12"))
    except ValueError:
        raise HTTPException(400, "count is a number") from None
    if not 0 < count <= _MOST_SHOWN:
        raise HTTPException(400, f"count is from 1 to {_MOST_SHOWN}")
    found = await service.jobs.run(partial(_showcase, service.recognizer, _languages(request), count))
    return JSONResponse(found, headers={"vary": "accept-language", "cache-control": "no-cache"})


def _showcase(recognizer: Recognizer, languages: tuple[str, ...], count: int) -> dict[str, Any]:
    """Places from all over the list, each with a picture: the catalogue's, if it has one, and a stored photo."""
    with recognizer.steady() as store:
        known = [place.name for place in store.landmarks() if place.n_images]
        chosen = [known[i * len(known) // min(count, len(known))] for i in range(min(count, len(known)))]
        places = []
        for name in chosen:
            record = recognizer.catalogue.find(name)
            info = describe(record, languages)
            picture = next((item.name for item in record.media if item.type.startswith("image/")), None)
            image = next(iter(store.image_ids(name)), None)
            facts = {"slug": info.slug, "name": name, "title": info.title, "language": info.language}
            places.append({**facts, "image": image, "picture": picture})
    return {"known": len(known), "places": places}


# ---------------------------------------------------------------------- operation


async def status(request: Request) -> Response:
    """GET /v1/status."""
    service = _service(request)
    body = await service.jobs.run(partial(_status, service))
    return JSONResponse({"status": "ok" if service.healthy else "stuck", **body})


def _status(service: Service) -> dict[str, Any]:
    recognizer, frame = service.recognizer, service.last_frame
    info = recognizer.info()
    return {
        "version": delf_edge.__version__,
        "title": service.options.branding.title,
        "started": _iso(service.started),
        "bundle": recognizer.bundle.id,
        "database": {
            "name": Path(info.path).name,
            "uuid": info.uuid,
            "revision": info.revision,
            "images": info.n_images,
            "landmarks": info.n_landmarks,
            "bytes": info.bytes,
            "read_only": info.read_only,
        },
        "packs": [pack.path.name for pack in recognizer.combined.packs],
        "pack_problems": list(recognizer.pack_problems),
        "last_frame": _iso(frame) if frame else None,
        "seconds_since_frame": round(time.time() - frame, 1) if frame else None,
        "cameras": len(service.sessions),
        "today": dict(service.statistics.today()),
        "questions": 0 if service.questions is None else len(service.questions.entries()),
    }


def _iso(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat(timespec="seconds")


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


async def visit(request: Request) -> Response:
    """GET /visit/...: the page for visitors' phones, without a token: whoever has its address may know the places."""
    service, name = _service(request), request.path_params["path"] or "index.html"
    if service.options.visit is None:
        raise NotFoundError("there is no page for phones here; start the service with --visit")
    if name == "qr.svg":
        return Response(qr_svg(service.options.visit.url), media_type="image/svg+xml")
    # Not a job: a phone that loads the page must not wait for photos, nor take their places in the queue.
    path = await asyncio.to_thread(service.options.visit.file, name)
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
    Route("/v1/showcase", showcase, methods=["GET"]),
    Route("/v1/status", status, methods=["GET"]),
    *STAFF_ROUTES,
    *PAGES,
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
