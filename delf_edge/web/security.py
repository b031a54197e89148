"""What every request passes before it is handled: host, origin, token, body cap and time limits, response headers.

* A browser page of another site can reach a service on this machine, and with a name that it re-points to 127.0.0.1
  (DNS rebinding) even read from it: only known `Host` names and the service's own `Origin` are served.
* Changes need the token; so does everything under /v1 and /metrics unless both ends are this machine itself. A request
  that a proxy has passed on comes from elsewhere, although the proxy runs on this machine.
* A body is read up to the cap and within a time limit, whatever its header promises.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
from dataclasses import dataclass, field
from urllib.parse import SplitResult, urlsplit

from starlette.exceptions import HTTPException
from starlette.requests import Request

from delf_edge.errors import OptionError
from delf_edge.web.access import SignIns, has_pass

OPEN_PATHS = ("/healthz", "/openapi.json", "/v1/staff/session")
VISITORS_POSTS = ("/v1/identify", "/v1/quality", "/v1/questions")  # the other ones change something
PROXY_HEADERS = ("forwarded", "via", "x-real-ip")  # and all that begin with x-forwarded
DEFAULT_PORTS = {"http": 80, "https": 443}
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' blob:; media-src 'self' blob:; font-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "permissions-policy": "camera=(self), microphone=(), geolocation=()",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}
# The page for phones recognises by itself: it needs WebAssembly and a worker, and may speak to nobody but this service.
VISIT_HEADERS = HEADERS | {
    "content-security-policy": "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'; "
    "style-src 'self'; img-src 'self' blob:; media-src 'self' blob:; connect-src 'self'; manifest-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "cross-origin-embedder-policy": "require-corp",  # with it browsers allow threads
}


@dataclass(frozen=True, slots=True)
class Policy:
    """Who may do what.

    Attributes:
        token: what changes need; at least 16 characters.
        hosts: names in `Host` that are served beside loopback ones; "*" serves all.
        loopback_only: the service listens on this machine alone.
        open_reading: whether everybody who reaches the service may ask and read, without a token.
        sign_ins: the sessions of staff.
        public_url: the address by which browsers reach it through a proxy, as `public_address` returns it. With one,
            nothing counts as local: a proxy need not say that it is one.
        max_body: bytes.
        body_timeout: seconds for a body to arrive.
    """

    token: str
    hosts: frozenset[str] = frozenset()
    loopback_only: bool = True
    public_url: str | None = None
    open_reading: bool = False
    sign_ins: SignIns = field(default_factory=SignIns, compare=False)
    max_body: int = 16 << 20
    body_timeout: float = 15.0

    def check(self, request: Request) -> None:
        """Refuse what may not pass.

        Raises:
            HTTPException: 400 an unknown host, 403 another site's page, 401 a missing or wrong token.
        """
        given = request.headers.get("host", "")
        host = host_of(given)
        public = urlsplit(self.public_url or "")
        if not (is_loopback(host) or host in self.hosts or "*" in self.hosts or host == public.hostname):
            raise HTTPException(400, f"this service is not called {host[:80]!r}; start it with --allow-host")
        origin = request.headers.get("origin")
        if origin is not None and not self._own_origin(origin, given):
            raise HTTPException(403, "another site's page may not use this service")
        path = request.scope["path"]
        if not path.startswith(("/v1/", "/metrics")) or path in OPEN_PATHS:
            return
        if for_staff(request):
            allowed = self.sign_ins.is_staff(request)
        else:
            screen = path.startswith("/v1/") and (self.open_reading or has_pass(request, self.token))
            allowed = self.is_local(request) or screen or self.sign_ins.is_staff(request)
        if not allowed:
            self._check_token(request)

    def is_local(self, request: Request) -> bool:
        """Whether a request comes from this machine, for this machine, and through no proxy."""
        return (
            self.loopback_only
            and self.public_url is None
            and is_loopback(host_of(request.headers.get("host", "")))
            and request.client is not None
            and is_loopback(request.client.host)
            and not through_proxy(request)
        )

    def _own_origin(self, origin: str, host: str) -> bool:
        """Whether a page's origin is this service: at the name that the request gives, or at the public address."""
        asking = _site(origin)
        if asking is None:
            return False
        scheme = asking[0]
        own = [f"{scheme}://{host}", *([self.public_url] if self.public_url else [])]
        return any(_site(url) == asking for url in own)

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


def for_staff(request: Request) -> bool:
    """Whether a request would change something, or asks for what visitors must not see."""
    path: str = request.scope["path"]
    if request.method in ("GET", "HEAD", "OPTIONS"):
        return path.startswith("/v1/staff/")
    return request.method != "POST" or path not in VISITORS_POSTS


def through_proxy(request: Request) -> bool:
    """Whether a proxy has passed a request on: it says so, or it speaks HTTP/1.0, as old proxies do."""
    return request.scope.get("http_version") == "1.0" or any(
        name in PROXY_HEADERS or name.startswith("x-forwarded") for name in request.headers
    )


def public_address(url: str) -> str:
    """A public address in one form: scheme, host, port where it is not the usual one, path without a slash at its end.

    Raises:
        OptionError: it is no http or https address, or has a user, a query or a fragment.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as e:
        raise OptionError(f"--public-url {url!r}: {e}; give an address such as https://guide.example/kiosk") from e
    wrong = parts.scheme not in DEFAULT_PORTS or not parts.hostname or "@" in parts.netloc
    if wrong or parts.query or parts.fragment or not url.isascii() or not url.isprintable() or " " in url:
        raise OptionError(f"--public-url {url!r}: give an address such as https://guide.example/kiosk")
    path = "/" + "/".join(part for part in parts.path.split("/") if part)
    if ".." in path.split("/"):
        raise OptionError(f"--public-url {url!r}: a path without .. is needed")
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname or ""
    shown = "" if port in (None, DEFAULT_PORTS[parts.scheme]) else f":{port}"
    return SplitResult(parts.scheme, host + shown, path.rstrip("/"), "", "").geturl()


def _site(url: str) -> tuple[str, str, int] | None:
    """Scheme, host and port of an address; None for what is none ("null" is the origin of a sandboxed page)."""
    try:
        parts = urlsplit(url)
        if parts.scheme not in DEFAULT_PORTS or not parts.hostname:
            return None
        return parts.scheme, parts.hostname.lower(), parts.port or DEFAULT_PORTS[parts.scheme]
    except ValueError:
        return None


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
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None  # a socket on :: says so
    return (mapped or address).is_loopback
