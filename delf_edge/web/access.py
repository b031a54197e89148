"""Who has signed in: staff by a PIN or the token, and visitors' screens that may ask from another machine.

* Staff get a session in memory, behind a cookie that scripts cannot read. It ends ten minutes after its last request,
  and with the service.
* A visitors' screen gets a pass behind a cookie: it may ask and read, and change nothing. The pass is made from the
  token, so that it outlives a restart of the service, and ends when the token is changed.
* Wrong PINs make everybody wait: a PIN is short, and the screen is public.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

STAFF_COOKIE, PASS_COOKIE = "delf_edge_staff", "delf_edge_pass"
STAFF_SECONDS = 600.0  # without a request
PASS_SECONDS = 400 * 24 * 3600  # as long as browsers keep a cookie
MIN_PIN = 6  # digits
_FREE_TRIES = 5  # wrong PINs before anybody has to wait
_FIRST_WAIT, _LONGEST_WAIT = 30.0, 900.0  # seconds
_MOST_SESSIONS = 16


@dataclass(slots=True)
class SignIns:
    """The sessions of staff, and how often a PIN was wrong.

    Attributes:
        pin: what staff may type instead of the token; None: there is none.
        clock: seconds, never going back.
    """

    pin: str | None = None
    clock: Callable[[], float] = time.monotonic
    _sessions: dict[str, float] = field(default_factory=dict)
    _wrong: int = 0
    _wait_until: float = 0.0

    def sign_in(self, secret: str, token: str) -> str:
        """Begin a session of staff; returns what its cookie holds.

        Args:
            secret: the PIN or the token.
            token: the right token. It is long, so a right one passes while wrong PINs make others wait.

        Raises:
            HTTPException: 401 wrong, 429 too many wrong ones.
        """
        now = self.clock()
        if not _same(secret, token):
            if now < self._wait_until:
                wait = str(int(self._wait_until - now) + 1)
                raise HTTPException(429, f"too many wrong PINs; try again in {wait} s", headers={"retry-after": wait})
            if self.pin is None or not _same(secret, self.pin):
                self._wrong += 1
                if self._wrong >= _FREE_TRIES:
                    waits = min(self._wrong - _FREE_TRIES, 10)
                    self._wait_until = now + min(_FIRST_WAIT * 2**waits, _LONGEST_WAIT)
                raise HTTPException(401, "this is neither the PIN nor the token")
        self._wrong, self._wait_until = 0, 0.0
        self._sessions = {key: used for key, used in self._sessions.items() if now - used < STAFF_SECONDS}
        while len(self._sessions) >= _MOST_SESSIONS:
            del self._sessions[min(self._sessions, key=lambda key: self._sessions[key])]
        session = secrets.token_urlsafe(24)
        self._sessions[session] = now
        return session

    def is_staff(self, request: Request) -> bool:
        """Whether a request comes from a session of staff; it then lasts ten minutes more."""
        session, now = request.cookies.get(STAFF_COOKIE, ""), self.clock()
        if now - self._sessions.get(session, -STAFF_SECONDS) >= STAFF_SECONDS:
            self._sessions.pop(session, None)
            return False
        self._sessions[session] = now
        return True

    def sign_out(self, request: Request) -> None:
        """End the session of a request, if it has one."""
        self._sessions.pop(request.cookies.get(STAFF_COOKIE, ""), None)


def has_pass(request: Request, token: str) -> bool:
    """Whether a request comes from a screen that has a pass for visitors."""
    return _same(request.cookies.get(PASS_COOKIE, ""), visitor_pass(token))


def visitor_pass(token: str) -> str:
    """What the cookie of a visitors' screen holds; the token cannot be found out from it."""
    return hmac.new(token.encode(), b"delf-edge visitors' screen", hashlib.sha256).hexdigest()


def set_cookie(
    response: Response, request: Request, name: str, value: str, seconds: float, public_url: str | None
) -> None:
    """Put a cookie into a response: for this service's pages alone, and out of the reach of scripts."""
    secure = request.url.scheme == "https" or (public_url or "").startswith("https:")
    response.set_cookie(name, value, max_age=int(seconds), secure=secure, httponly=True, samesite="strict")


def _same(given: str, right: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "replace"), right.encode())
