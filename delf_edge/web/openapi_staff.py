"""The part of the OpenAPI document about `staff_routes` and the visitors' screen; `openapi` puts it in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

TEXT, WHOLE, YES_NO, NUMBER = {"type": "string"}, {"type": "integer"}, {"type": "boolean"}, {"type": "number"}


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


def _list(items: Any) -> dict[str, Any]:
    return {"type": "array", "items": items}


def _in_path(*names: str) -> list[dict[str, Any]]:
    return [{"name": name, "in": "path", "required": True, "schema": TEXT} for name in names]


def _in_query(**texts: str) -> list[dict[str, Any]]:
    return [{"name": name, "in": "query", "description": text, "schema": TEXT} for name, text in texts.items()]


def _body(schema: dict[str, Any], kind: str = "application/json") -> dict[str, Any]:
    return {"required": True, "content": {kind: {"schema": schema}}}


_SESSION = _object(staff=YES_NO, pin=YES_NO)
_QUALITY = {
    **_object(score=WHOLE, reasons=_list(TEXT), parts={"type": "object", "additionalProperties": NUMBER}),
    "type": ["object", "null"],
}
_PHOTO = _object(id=WHOLE, name=TEXT, width=WHOLE, height=WHOLE, quality=_QUALITY)
_LINT = _object(running=YES_NO, done=WHOLE, total=WHOLE, findings=_list({"type": "object"}))
_DAY = _object(day=TEXT, asked=WHOLE, found=WHOLE, unknown=WHOLE, hours=_list(WHOLE))
_STATISTICS = _object(days=_list(_DAY), landmarks=_list(_object(landmark=TEXT, found=WHOLE)))
_QUESTIONS = _object(questions=_list(_object(id=TEXT, time=TEXT)), days=WHOLE, limit=WHOLE)
_SHOWN = _object(slug=TEXT, name=TEXT, title=TEXT, language=TEXT, image=WHOLE, picture=TEXT)
_STATUS = _object(
    status=TEXT,
    version=TEXT,
    title={"type": ["string", "null"]},
    started=TEXT,
    bundle=TEXT,
    database={"type": "object"},
    packs=_list(TEXT),
    pack_problems=_list(TEXT),
    last_frame={"type": ["string", "null"]},
    seconds_since_frame={"type": ["number", "null"]},
    cameras=WHOLE,
    today=_object(found=WHOLE, unknown=WHOLE),
    questions=WHOLE,
)


def staff_paths(
    operation: Callable[..., dict[str, Any]], record: dict[str, Any], photo: dict[str, Any]
) -> dict[str, Any]:
    """The paths.

    Args:
        operation: makes one operation: id, summary, schema of the answer, errors, more.
        record: schema of what is known of a landmark.
        photo: the request body of a photo.
    """
    token: list[dict[str, list[str]]] = [{"token": []}]
    slug = _in_path("slug")
    place = {**record, "properties": {**record["properties"], "photos": _list(_PHOTO), "read_only": YES_NO}}
    change = _object(name=TEXT, texts={"type": "object", "additionalProperties": {"type": "object"}})
    staff = {"security": token}
    days = _in_query(first="a day, such as 2026-11-28", last="a day; default: today")
    created = operation(
        "leaveQuestion",
        "Leave a picture that was not recognised for staff.",
        _object(id=TEXT, days=WHOLE),
        errors="400 401 404 413 415 503 507",
        requestBody=photo,
    )
    created["responses"]["201"] = created["responses"].pop("200")
    return {
        "/v1/showcase": {
            "get": operation(
                "showcase",
                "Some of the places, with a title in the language of Accept-Language.",
                _object(known=WHOLE, places=_list(_SHOWN)),
                errors="400 401 503",
                parameters=_in_query(count="how many, 24 at most"),
            )
        },
        "/v1/status": {
            "get": operation(
                "status", "How this kiosk is: version, database, bundle, last frame.", _STATUS, errors="401 503"
            )
        },
        "/v1/pass": {
            "post": operation(
                "pass",
                "Let this browser ask and read from now on (cookie).",
                _object(reading=YES_NO),
                errors="401",
                **staff,
            )
        },
        "/v1/questions": {"post": created},
        "/v1/staff/session": {
            "get": operation("session", "Whether this browser is signed in.", _SESSION),
            "post": operation(
                "signIn",
                "Sign in as staff (cookie).",
                _SESSION,
                errors="400 401 429",
                requestBody=_body(_object(secret=TEXT)),
            ),
            "delete": operation("signOut", "Sign out.", _SESSION),
        },
        "/v1/staff/landmarks/{slug}": {
            "get": operation(
                "place",
                "A landmark with its photos and their quality.",
                place,
                errors="401 404 503",
                parameters=slug,
                **staff,
            )
        },
        "/v1/landmarks/{slug}": {
            "patch": operation(
                "changePlace",
                "Change the name and texts of a landmark; null clears a text.",
                place,
                errors="400 401 403 404 503 507",
                parameters=slug,
                requestBody=_body(change),
                **staff,
            ),
            "delete": operation(
                "removePlace",
                "Remove a landmark with its photos and texts.",
                _object(removed=_list(WHOLE)),
                errors="401 403 404 503 507",
                parameters=slug,
                **staff,
            ),
        },
        "/v1/landmarks/{slug}/merge": {
            "post": operation(
                "mergePlace",
                "Make two landmarks one.",
                place,
                errors="400 401 403 404 503 507",
                parameters=[
                    *slug,
                    *_in_query(
                        into="slug of the one that stays", prefer="whose text stays where both have one: old or new"
                    ),
                ],
                **staff,
            )
        },
        "/v1/landmarks/{slug}/media/{name}": {
            "put": operation(
                "putMedium",
                "Add a picture or sound, or replace that of the same name.",
                place,
                errors="400 401 403 404 413 503 507",
                parameters=[*_in_path("slug", "name"), *_in_query(credit="whom to name")],
                requestBody=_body({"type": "string", "format": "binary"}, "*/*"),
                **staff,
            )
        },
        "/v1/staff/lint": {
            "get": operation(
                "lint", "How far the check of all photos is, and what it found.", _LINT, errors="401", **staff
            ),
            "post": operation("startLint", "Begin a check of all photos.", _LINT, errors="401", **staff),
            "delete": operation("stopLint", "Stop it.", _LINT, errors="401", **staff),
        },
        "/v1/staff/statistics": {
            "get": operation(
                "statistics", "Counts a day and hour.", _STATISTICS, errors="400 401 503", parameters=days, **staff
            )
        },
        "/v1/staff/statistics.csv": {
            "get": operation(
                "statisticsTable",
                "The same as a table.",
                None,
                errors="400 401 503",
                kind="text/csv",
                parameters=days,
                **staff,
            )
        },
        "/v1/staff/questions": {
            "get": operation(
                "questions", "The pictures that visitors have left.", _QUESTIONS, errors="401 404 503", **staff
            )
        },
        "/v1/staff/questions/{id}": {
            "get": operation(
                "question",
                "One of them.",
                None,
                errors="401 404 503",
                kind="image/jpeg",
                parameters=_in_path("id"),
                **staff,
            ),
            "delete": operation(
                "removeQuestion",
                "Remove one of them.",
                _object(removed=TEXT),
                errors="401 404 503",
                parameters=_in_path("id"),
                **staff,
            ),
        },
    }
