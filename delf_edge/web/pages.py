"""The pages: the visitors' at `/`, the staff's at `/staff`, their files, and what a house says of its kiosk."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

import delf_edge
from delf_edge.web.branding import Branding, known_languages
from delf_edge.web.media_types import TYPES
from delf_edge.web.service import Service

_STATIC = Path(__file__).resolve().parent / "static"
_FRESH = {"cache-control": "no-cache"}


def _files() -> dict[str, Path]:
    """Address -> file of everything that the pages are made of."""
    found = {f"/{path.relative_to(_STATIC).as_posix()}": path for path in sorted(_STATIC.rglob("*")) if path.is_file()}
    pages = {"/": found.pop("/index.html"), "/staff": found.pop("/staff.html")}
    return pages | {address: path for address, path in found.items() if path.suffix in TYPES}


_FILES = _files()


async def page(request: Request) -> Response:
    """A page or one of its files, each by its own route."""
    path = _FILES[request.scope["path"]]
    return FileResponse(path, media_type=TYPES[path.suffix], headers=_FRESH)


async def kiosk(request: Request) -> Response:
    """GET /kiosk.json: what the pages are to show; no secret is in it, so it needs no token."""
    service: Service = request.app.state.service
    return JSONResponse(describe_kiosk(service), headers=_FRESH)


def describe_kiosk(service: Service) -> dict[str, Any]:
    """What `/kiosk.json` answers."""
    options, branding = service.options, service.options.branding
    body: dict[str, Any] = {
        "version": delf_edge.__version__,
        "kiosk": options.kiosk,
        "title": branding.title,
        "logo": "brand/logo" if "logo" in branding.files else None,
        "language": branding.language,
        "languages": list(branding.languages or known_languages()),
        "idle_seconds": branding.idle_seconds,
        "details": branding.details,
        "texts": {language: dict(texts) for language, texts in branding.texts.items()},
        "camera": dataclasses.asdict(branding.camera),
        "pin": service.policy.sign_ins.pin is not None,
        "visit": options.visit is not None and options.visit.for_phones,
        "questions": None if service.questions is None else {"days": service.questions.days},
    }
    return body | {"build": _build(branding, body)}


def _build(branding: Branding, body: dict[str, Any]) -> str:
    """Changes whenever the pages or the branding do: a page that runs for weeks then loads itself anew."""
    state = hashlib.sha256(repr(body).encode() + branding.css.encode())
    for path in (*_FILES.values(), *(file for file, _ in branding.files.values())):
        state.update(f"{path.name} {path.stat().st_size} {path.stat().st_mtime_ns}".encode())
    return state.hexdigest()[:16]


async def brand(request: Request) -> Response:
    """GET /brand/{name}: the logo, fonts, and the rules of a branding file."""
    service: Service = request.app.state.service
    branding, name = service.options.branding, request.path_params["name"]
    if name == "brand.css":
        return Response(branding.css, media_type="text/css", headers=_FRESH)
    if name not in branding.files:
        raise HTTPException(404, "there is no such file of the branding")
    path, kind = branding.files[name]
    return FileResponse(path, media_type=kind, headers=_FRESH)


PAGES = [
    Route("/kiosk.json", kiosk, methods=["GET"]),
    Route("/brand/{name}", brand, methods=["GET"]),
    *(Route(path, page, methods=["GET"]) for path in _FILES),
]
