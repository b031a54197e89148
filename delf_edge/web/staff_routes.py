"""The routes of the staff's page: signing in, places and their texts, checks, statistics, pictures left by visitors."""

from __future__ import annotations

import base64
import datetime
from functools import partial
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from delf_edge.errors import DelfEdgeError, NotFoundError
from delf_edge.files import parse_json
from delf_edge.images.decode import load_image
from delf_edge.recognizer import Recognizer
from delf_edge.storage.records import StoredImage
from delf_edge.storage.statistics import MAX_DAYS
from delf_edge.web import access
from delf_edge.web.questions import Questions
from delf_edge.web.service import Service

_FIELDS = ("title", "summary", "body", "link", "audio")


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


async def _json(request: Request) -> dict[str, Any]:
    try:
        found = parse_json((await _service(request).policy.body(request)).decode())
    except (ValueError, DelfEdgeError):
        raise HTTPException(400, "the body is no JSON") from None
    if not isinstance(found, dict):
        raise HTTPException(400, "the body is no JSON object")
    return found


# ---------------------------------------------------------------------- signing in


async def session(request: Request) -> Response:
    """GET, POST, DELETE /v1/staff/session."""
    service = _service(request)
    policy, sign_ins = service.policy, service.policy.sign_ins
    if request.method in ("GET", "HEAD"):
        return JSONResponse({"staff": sign_ins.is_staff(request), "pin": sign_ins.pin is not None})
    if request.method == "DELETE":
        sign_ins.sign_out(request)
        response = JSONResponse({"staff": False})
        access.set_cookie(response, request, access.STAFF_COOKIE, "", 0, policy.public_url)
        return response
    secret = (await _json(request)).get("secret")
    if not isinstance(secret, str):
        raise HTTPException(400, "secret is missing: the PIN or the token")
    value = sign_ins.sign_in(secret, policy.token)
    response = JSONResponse({"staff": True})
    access.set_cookie(response, request, access.STAFF_COOKIE, value, access.STAFF_SECONDS, policy.public_url)
    return response


async def give_visitor_pass(request: Request) -> Response:
    """POST /v1/pass: from now on this browser may ask and read without the token."""
    policy = _service(request).policy
    response = JSONResponse({"reading": True})
    value = access.visitor_pass(policy.token)
    access.set_cookie(response, request, access.PASS_COOKIE, value, access.PASS_SECONDS, policy.public_url)
    return response


# ---------------------------------------------------------------------- places


async def place(request: Request) -> Response:
    """GET /v1/staff/landmarks/{slug}: all that is known of it, and its photos with what is known of their quality."""
    service = _service(request)
    return JSONResponse(await service.jobs.run(partial(_place, service, request.path_params["slug"])))


def _place(service: Service, slug: str) -> dict[str, Any]:
    recognizer = service.recognizer
    with recognizer.steady() as store:
        record = recognizer.catalogue.get(slug)
        images = store.images_by_id(store.image_ids(record.name))
    shown = [_image(image, service.checks.findings) for image in sorted(images, key=lambda image: image.image_id)]
    return {**record.as_json(), "photos": shown, "read_only": not recognizer.store.writable}


def _image(image: StoredImage, findings: dict[int, dict[str, Any]]) -> dict[str, Any]:
    facts = {"id": image.image_id, "name": image.name, "width": image.size[0], "height": image.size[1]}
    return {**facts, "quality": findings.get(image.image_id)}


async def change_place(request: Request) -> Response:
    """PATCH /v1/landmarks/{slug}."""
    service, slug = _service(request), request.path_params["slug"]
    given = await _json(request)
    for key in given.keys() - {"name", "texts"}:
        raise HTTPException(400, f"{key[:40]!r} cannot be changed here; name and texts can")
    texts = given.get("texts", {})
    fine = isinstance(texts, dict) and all(isinstance(fields, dict) for fields in texts.values())
    if not fine or any(field not in _FIELDS for fields in texts.values() for field in fields):
        raise HTTPException(400, f"texts is language: {{field: text}}; the fields are {', '.join(_FIELDS)}")
    name = given.get("name")
    if name is not None and not isinstance(name, str):
        raise HTTPException(400, "name is a text")
    await service.jobs.run(partial(_change, service.recognizer, slug, name, texts))
    service.hub.publish("edited", {"slug": slug})
    return JSONResponse(await service.jobs.run(partial(_place, service, slug)))


def _change(recognizer: Recognizer, slug: str, name: str | None, texts: dict[str, Any]) -> None:
    catalogue = recognizer.catalogue
    record = catalogue.get(slug)
    if texts:
        catalogue.set(slug, {"texts": texts})
    if name is not None and name.strip() != record.name:
        catalogue.rename(slug, name.strip())


async def merge(request: Request) -> Response:
    """POST /v1/landmarks/{slug}/merge."""
    service, slug = _service(request), request.path_params["slug"]
    into, prefer = request.query_params.get("into", ""), request.query_params.get("prefer")
    if not into or prefer not in (None, "old", "new"):
        raise HTTPException(400, "into is the slug of the place that stays; prefer is old or new")
    catalogue = service.recognizer.catalogue
    kept = await service.jobs.run(lambda: catalogue.merge(slug, into, prefer=prefer))  # type: ignore[arg-type]
    service.hub.publish("edited", {"slug": kept.slug, "merged": slug})
    return JSONResponse(await service.jobs.run(partial(_place, service, kept.slug)))


async def remove_place(request: Request) -> Response:
    """DELETE /v1/landmarks/{slug}."""
    service, slug = _service(request), request.path_params["slug"]

    def remove() -> tuple[str, list[int]]:
        name = service.recognizer.catalogue.get(slug).name
        return name, service.recognizer.remove_landmark(name)

    name, removed = await service.jobs.run(remove)
    service.hub.publish("removed", {"landmark": name, "ids": removed})
    return JSONResponse({"removed": removed})


async def put_medium(request: Request) -> Response:
    """PUT /v1/landmarks/{slug}/media/{name}."""
    service, path = _service(request), request.path_params
    data = await service.policy.body(request)
    item = {"name": path["name"], "data": base64.b64encode(data).decode(), "credit": request.query_params.get("credit")}
    catalogue = service.recognizer.catalogue
    await service.jobs.run(partial(catalogue.set, path["slug"], {"media": [item]}))
    service.hub.publish("edited", {"slug": path["slug"]})
    return JSONResponse(await service.jobs.run(partial(_place, service, path["slug"])))


# ---------------------------------------------------------------------- checks and statistics


async def check_all_photos(request: Request) -> Response:
    """GET, POST, DELETE /v1/staff/lint."""
    checks = _service(request).checks
    if request.method == "POST":
        checks.start()
    if request.method == "DELETE":
        checks.stop()
    return JSONResponse(checks.as_json())


async def statistics(request: Request) -> Response:
    """GET /v1/staff/statistics and /v1/staff/statistics.csv."""
    service = _service(request)
    today = datetime.date.today()
    try:
        last = datetime.date.fromisoformat(request.query_params.get("last", today.isoformat()))
        given = request.query_params.get("first")
        first = datetime.date.fromisoformat(given) if given else last - datetime.timedelta(6)
    except (ValueError, OverflowError):
        raise HTTPException(400, "first and last are days, such as 2026-11-28") from None
    if not 0 <= (last - first).days < MAX_DAYS:
        raise HTTPException(400, f"first comes before last, {MAX_DAYS} days at most")
    if request.scope["path"].endswith(".csv"):
        table = await service.jobs.run(partial(service.statistics.csv, first, last))
        headers = {"content-disposition": f'attachment; filename="statistics-{first}-{last}.csv"'}
        return PlainTextResponse(table, media_type="text/csv", headers=headers)
    return JSONResponse(await service.jobs.run(partial(service.statistics.summary, first, last)))


# ---------------------------------------------------------------------- pictures that visitors have left


def _questions(request: Request) -> Questions:
    questions = _service(request).questions
    if questions is None:
        raise NotFoundError(
            "no pictures are kept here; `delf-edge serve --keep-questions` keeps those that visitors leave"
        )
    return questions


async def leave_question(request: Request) -> Response:
    """POST /v1/questions: a visitor leaves a picture for staff."""
    service, questions = _service(request), _questions(request)
    upload = await service.read_photo(request)

    def keep() -> str:
        load_image(upload.data, limits=service.limits)  # what is no picture is refused
        return questions.add(upload.data)

    return JSONResponse({"id": await service.jobs.run(keep), "days": questions.days}, 201)


async def list_questions(request: Request) -> Response:
    """GET /v1/staff/questions."""
    questions = _questions(request)
    found = await _service(request).jobs.run(questions.entries)
    return JSONResponse({"questions": found, "days": questions.days, "limit": questions.limit})


async def question(request: Request) -> Response:
    """GET, DELETE /v1/staff/questions/{id}."""
    questions, key = _questions(request), request.path_params["id"]
    if request.method == "DELETE":
        await _service(request).jobs.run(partial(questions.remove, key))
        return JSONResponse({"removed": key})
    photo = await _service(request).jobs.run(partial(questions.photo, key))
    return Response(photo, media_type="image/jpeg", headers={"cache-control": "no-store"})


STAFF_ROUTES = [
    Route("/v1/staff/session", session, methods=["GET", "POST", "DELETE"]),
    Route("/v1/pass", give_visitor_pass, methods=["POST"]),
    Route("/v1/staff/landmarks/{slug}", place, methods=["GET"]),
    Route("/v1/landmarks/{slug}", change_place, methods=["PATCH"]),
    Route("/v1/landmarks/{slug}", remove_place, methods=["DELETE"]),
    Route("/v1/landmarks/{slug}/merge", merge, methods=["POST"]),
    Route("/v1/landmarks/{slug}/media/{name}", put_medium, methods=["PUT"]),
    Route("/v1/staff/lint", check_all_photos, methods=["GET", "POST", "DELETE"]),
    Route("/v1/staff/statistics", statistics, methods=["GET"]),
    Route("/v1/staff/statistics.csv", statistics, methods=["GET"]),
    Route("/v1/questions", leave_question, methods=["POST"]),
    Route("/v1/staff/questions", list_questions, methods=["GET"]),
    Route("/v1/staff/questions/{id}", question, methods=["GET", "DELETE"]),
]
