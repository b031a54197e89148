"""The OpenAPI document, written by hand: a test holds it against the routes and against what they answer."""

from __future__ import annotations

from typing import Any

import delf_edge
from delf_edge.web.openapi_staff import staff_paths

_BYTES = {"type": "string", "format": "binary"}
NUMBER, TEXT, WHOLE, YES_NO = {"type": "number"}, {"type": "string"}, {"type": "integer"}, {"type": "boolean"}


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


def _list(items: Any) -> dict[str, Any]:
    return {"type": "array", "items": items}


def _or_null(kind: str) -> dict[str, Any]:
    return {"type": [kind, "null"]}


def _photo(**fields: Any) -> dict[str, Any]:
    """A photo as the body, or in a form with the text fields that the query has too."""
    form = {**_object(photo=_BYTES, **fields), "required": ["photo"]}
    kinds = ("image/jpeg", "application/octet-stream", "image/*")
    content = {**{kind: {"schema": _BYTES} for kind in kinds}, "multipart/form-data": {"schema": form}}
    return {"required": True, "content": content}


def _query(name: str, text: str, kind: str = "string", required: bool = False) -> dict[str, Any]:
    return {"name": name, "in": "query", "required": required, "description": text, "schema": {"type": kind}}


def _operation(
    name: str,
    summary: str,
    schema: dict[str, Any] | None,
    *,
    errors: str = "",
    kind: str = "application/json",
    **more: Any,
) -> dict[str, Any]:
    content = {kind: {"schema": schema or {"type": "string"}}}
    responses: dict[str, Any] = {"200": {"description": "done", "content": content}}
    error = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    responses |= {code: {"description": _MEANING[code], "content": error} for code in errors.split()}
    return {"operationId": name, "summary": summary, "responses": responses, **more}


_MEANING = {
    "400": "a wrong or missing parameter, or an empty body",
    "401": "the token is missing or wrong",
    "403": "the database is read-only, or the request comes from another site's page",
    "404": "there is no such image or landmark",
    "408": "the body did not arrive in time",
    "409": "another photo has this name; nothing was changed",
    "413": "the body or the photo is too large",
    "415": "the body is not a photo that can be read",
    "429": "too many wrong PINs; Retry-After says when the next try counts",
    "503": "the queue is full; try again in a moment",
    "507": "the disk is full; nothing was changed",
}
_PHOTO_ERRORS = "400 401 408 413 415 503"
_MATCH = _object(
    image_id=WHOLE, name=TEXT, landmark=TEXT, score=NUMBER, probability=NUMBER, n_inliers=WHOLE, similarity=NUMBER
)
_POINTS = _list(_list(NUMBER))
_PROOF = {
    **_object(
        image_id=WHOLE,
        name=TEXT,
        landmark=TEXT,
        query_size=_list(WHOLE),
        stored_size=_list(WHOLE),
        query_points=_POINTS,
        stored_points=_POINTS,
    ),
    "type": ["object", "null"],
}
_EVENT = _object(
    kind=TEXT,
    landmark=_or_null("string"),
    previous=_or_null("string"),
    probability=_or_null("number"),
    image=_or_null("string"),
)
_INFO = {
    **_object(
        slug=TEXT,
        name=TEXT,
        title=TEXT,
        language=_or_null("string"),
        summary=_or_null("string"),
        link=_or_null("string"),
        audio=_or_null("string"),
        kind=_or_null("string"),
        collection=_or_null("string"),
        latitude=_or_null("number"),
        longitude=_or_null("number"),
        external_ids={"type": "object", "additionalProperties": TEXT},
        media=_list(TEXT),
    ),
    "type": ["object", "null"],
}
_RECORD = _object(
    slug=TEXT,
    name=TEXT,
    kind=_or_null("string"),
    collection=_or_null("string"),
    latitude=_or_null("number"),
    longitude=_or_null("number"),
    external_ids={"type": "object", "additionalProperties": TEXT},
    metadata={"type": "object"},
    texts={
        "type": "object",
        "additionalProperties": _object(title=TEXT, summary=TEXT, body=TEXT, audio=TEXT, link=TEXT),
    },
    media=_list(_object(id=WHOLE, name=TEXT, type=TEXT, sha256=TEXT, path=TEXT, credit=TEXT)),
    images=WHOLE,
    language=_or_null("string"),
    title=TEXT,
    summary=_or_null("string"),
    audio=_or_null("string"),
    link=_or_null("string"),
    body_html=_or_null("string"),
)
_ANSWER = _object(
    landmark=_or_null("string"),
    probability=NUMBER,
    n_inliers=WHOLE,
    reason=TEXT,
    matches=_list(_MATCH),
    milliseconds={"type": "object", "additionalProperties": NUMBER},
    proof=_PROOF,
    info=_INFO,
    skipped=YES_NO,
    verdict={"enum": ["look", "black", "blown out", "flat", "blurred", "unchanged"]},
    state={"enum": ["looking", "unknown", "present"]},
    present=_list(TEXT),
    events=_list(_EVENT),
)
_QUALITY = _object(
    score=WHOLE,
    parts={"type": "object", "additionalProperties": NUMBER},
    reasons=_list(TEXT),
    confused_with=_or_null("string"),
)
_LANDMARKS = _object(
    landmarks=_list(
        _object(
            name=TEXT,
            slug=_or_null("string"),
            latitude=_or_null("number"),
            longitude=_or_null("number"),
            images=_list(_object(id=WHOLE, name=TEXT, width=WHOLE, height=WHOLE)),
        )
    ),
    read_only=YES_NO,
)
_ADDED = _object(image_id=WHOLE, name=TEXT, landmark=TEXT, status=TEXT, n_features=WHOLE)
_REMOVED = _object(removed=_list(WHOLE))
_HEALTH = _object(status=TEXT, version=TEXT, revision=WHOLE, packs=_list(TEXT), pack_problems=_list(TEXT))
_ID = [{"name": "id", "in": "path", "required": True, "schema": WHOLE}]
_SLUG: list[dict[str, Any]] = [{"name": "slug", "in": "path", "required": True, "schema": TEXT}]
_TOKEN: list[dict[str, list[str]]] = [{"token": []}]


def document() -> dict[str, Any]:
    """The whole document, OpenAPI 3.1."""
    add = _operation(
        "add",
        "Add a photo of a landmark (the same photo again only updates it); 201 where it is new.",
        _ADDED,
        errors=f"{_PHOTO_ERRORS} 403 409 507",
        requestBody=_photo(landmark=TEXT, name=TEXT, latitude=NUMBER, longitude=NUMBER, replace=YES_NO),
        security=_TOKEN,
        parameters=[
            _query("landmark", "the place it shows; here or in the form"),
            _query("name", "unique name of the image; default: the landmark and the photo's hash"),
            _query("replace", "remove another photo that has this name; else that is error 409", "boolean"),
            _query("latitude", "degrees, of the landmark; with longitude", "number"),
            _query("longitude", "degrees", "number"),
        ],
    )
    add["responses"]["201"] = add["responses"]["200"]
    paths = {
        "/v1/identify": {
            "post": _operation(
                "identify",
                "Name the place that a photo shows; with a session, what the frames of a camera amount to.",
                _ANSWER,
                errors=_PHOTO_ERRORS,
                requestBody=_photo(session=TEXT),
                parameters=[_query("session", "8 to 64 letters, digits, - or _: one camera")],
            )
        },
        "/v1/quality": {
            "post": _operation(
                "quality",
                "How good a reference a photo would be, 0 to 100, and why.",
                _QUALITY,
                errors=_PHOTO_ERRORS,
                requestBody=_photo(landmark=TEXT),
                parameters=[_query("landmark", "the place it shows, if that is in the database already")],
            )
        },
        "/v1/images": {
            "post": add,
            "delete": _operation(
                "removeLandmark",
                "Remove all images of a landmark.",
                _REMOVED,
                errors="400 401 403 404 503 507",
                security=_TOKEN,
                parameters=[_query("landmark", "its name", required=True)],
            ),
        },
        "/v1/images/{id}": {
            "delete": _operation(
                "removeImage",
                "Remove an image.",
                _REMOVED,
                errors="401 403 404 503 507",
                security=_TOKEN,
                parameters=_ID,
            )
        },
        "/v1/images/{id}/thumbnail": {
            "get": _operation(
                "thumbnail", "A small JPEG of an image.", None, errors="401 404 503", kind="image/jpeg", parameters=_ID
            )
        },
        "/v1/landmarks": {
            "get": _operation("landmarks", "All landmarks and their images.", _LANDMARKS, errors="401 503")
        },
        "/v1/landmarks/{slug}": {
            "get": _operation(
                "landmark",
                "What is known of a landmark; title and summary in the best language of Accept-Language.",
                _RECORD,
                errors="401 404 503",
                parameters=_SLUG,
            )
        },
        "/v1/landmarks/{slug}/media/{name}": {
            "get": _operation(
                "medium",
                "A picture or sound of a landmark, with its type and an ETag.",
                None,
                errors="401 404 503",
                kind="*/*",
                parameters=[*_SLUG, {"name": "name", "in": "path", "required": True, "schema": TEXT}],
            )
        },
        "/v1/events": {
            "get": _operation(
                "events",
                "Server-sent events: appeared, changed, left, enrolled, edited, removed.",
                None,
                errors="401 503",
                kind="text/event-stream",
            )
        },
        "/healthz": {"get": _operation("health", "Whether the service works.", _HEALTH, errors="503")},
        "/metrics": {"get": _operation("metrics", "Metrics for Prometheus.", None, errors="401", kind="text/plain")},
        "/openapi.json": {"get": _operation("openapi", "This document.", {"type": "object"})},
    }
    for path, operations in staff_paths(_operation, _RECORD, _photo()).items():
        paths[path] = {**paths.get(path, {}), **operations}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "delf-edge",
            "version": delf_edge.__version__,
            "description": "Changes need the token; so does everything under /v1 and /metrics from another machine.",
        },
        "paths": paths,
        "components": {
            "schemas": {"Error": _object(error=TEXT)},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }
