"""What every request passes before it is handled: host, origin, token, body cap and time limits, response headers.

* A browser page of another site can reach a service on this machine, and with a name that it re-points to 127.0.0.1
  (DNS rebinding) even read from it: only known `Host` names and the service's own `Origin` are served.
* Changes need the token; so does everything under /v1 and /metrics unless both ends are this machine itself.
* A body is read up to the cap and within a time limit, whatever its header promises.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.exceptions import HTTPException
from starlette.requests import Request

OPEN_PATHS = ("/healthz", "/openapi.json")
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' blob:; media-src 'self' blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "permissions-policy": "camera=(self), microphone=(), geolocation=()",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}


@dataclass(frozen=True, slots=True)
class Policy:
    """Who may do what.

    Attributes:
        token: what changes need; at least 16 characters.
        hosts: names in `Host` that are served beside loopback ones; "*" serves all.
        loopback_only: the service listens on this machine alone.
        max_body: bytes.
        body_timeout: seconds for a body to arrive.
    """

    token: str
    hosts: frozenset[str] = frozenset()
    loopback_only: bool = True
    max_body: int = 16 << 20
    body_timeout: float = 15.0

    def check(self, request: Request) -> None:
        """Refuse what may not pass.

        Raises:
            HTTPException: 400 an unknown host, 403 another site's page, 401 a missing or wrong token.
        """
        host = host_of(request.headers.get("host", ""))
        local_name = is_loopback(host)
        if not (local_name or host in self.hosts or "*" in self.hosts):
            raise HTTPException(400, f"this service is not called {host[:80]!r}; start it with --allow-host")
        origin = request.headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != request.headers.get("host"):
            raise HTTPException(403, "another site's page may not use this service")
        path = request.url.path
        if not path.startswith(("/v1/", "/metrics")) or path in OPEN_PATHS:
            return
        local = self.loopback_only and local_name and request.client is not None and is_loopback(request.client.host)
        if not local or changes(request):
            self._check_token(request)

    def _check_token(self, request: Request) -> None:
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        right = hmac.compare_digest(given.encode("utf-8", "replace"), self.token.encode())
        if scheme.lower() != "bearer" or not right:
            raise HTTPException(
                401, "this needs the token: Authorization: Bearer ...", headers={"www-authenticate": "Bearer"}
            )

    async def body(self, request: Request) -> bytes:
        """The body of a request.

        Raises:
            HTTPException: 413 larger than the cap, 408 too slow, 400 empty.
        """
        try:
            length = int(request.headers.get("content-length", "0"))
        except ValueError:
            raise HTTPException(400, "Content-Length is not a number") from None
        too_large = HTTPException(413, f"the body is larger than {self.max_body} bytes; shrink the photo")
        if length > self.max_body:
            raise too_large
        parts: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(self.body_timeout):
                async for part in request.stream():
                    size += len(part)
                    if size > self.max_body:
                        raise too_large
                    parts.append(part)
        except TimeoutError:
            raise HTTPException(408, f"the body did not arrive within {self.body_timeout:.0f} s") from None
        if not size:
            raise HTTPException(400, "the body is empty; send the bytes of a photo")
        return b"".join(parts)


def changes(request: Request) -> bool:
    """Whether a request would change the database."""
    return request.method == "DELETE" or (request.method == "POST" and request.url.path == "/v1/images")


def host_of(header: str) -> str:
    """The name or address in a `Host` header, without its port."""
    try:
        return (urlsplit(f"//{header}").hostname or "").lower()
    except ValueError:
        return ""


def is_loopback(host: str) -> bool:
    """Whether a name or address means this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
