"""Sessions of browsers: a cookie that whoever shows the token gets, instead of the token itself.

The cookie is a Fernet token: the client's address, the time, and a signature. The key comes from a
secret file and the hash of the pairing's token. So a new pairing ends all sessions, a restart of
the agent ends none, and a copy of the hash opens nothing.

::

    STATE/session.key    32 random bytes, made when a browser signs in first
"""

from __future__ import annotations

import base64
import hmac
import os
import secrets
import threading
from typing import TYPE_CHECKING

from cryptography.fernet import Fernet, InvalidToken

from agent.server.connections import party
from shared.durable import write_durably

if TYPE_CHECKING:
    from aiohttp import web

    from agent.server.auth import TokenFile

COOKIE = "__Host-plexodus"
"""The prefix has browsers refuse a cookie of another host, or without ``Secure`` (RFC 6265bis)."""
CSRF = "csrf"
"""Field of a form with the session's CSRF token."""
_SECONDS = 12 * 3600
_KEY_FILE = "session.key"
_KEY_BYTES = 32


class Sessions:
    """The sessions of all browsers, none of which is kept here."""

    def __init__(self, state: str, tokens: TokenFile) -> None:
        self._path = os.path.join(state, _KEY_FILE)
        self._tokens = tokens
        self._making = threading.Lock()

    def begin(self, request: web.Request, response: web.StreamResponse) -> None:
        """Give the browser that gets ``response`` a session.

        Raises:
            OSError: The secret file cannot be made.
        """
        cookie = Fernet(self._key(may_make=True)).encrypt(_client(request)).decode()
        response.set_cookie(
            COOKIE, cookie, max_age=_SECONDS, secure=True, httponly=True, samesite="Strict"
        )

    @staticmethod
    def end(response: web.StreamResponse) -> None:
        """Have the browser forget its session."""
        response.del_cookie(COOKIE, secure=True, httponly=True, samesite="Strict")

    def is_valid(self, request: web.Request) -> bool:
        """Return whether ``request`` has the cookie of a session that this client got lately."""
        try:
            client = Fernet(self._key()).decrypt(_cookie(request), ttl=_SECONDS)
        except (InvalidToken, OSError):
            return False
        return hmac.compare_digest(client, _client(request))

    def csrf_token(self, request: web.Request) -> str:
        """Return the token that forms of this session have to send."""
        return hmac.digest(self._key(), _cookie(request), "sha256").hex()

    def is_csrf_token(self, request: web.Request, token: str) -> bool:
        """Return whether ``token`` is that of this session."""
        return hmac.compare_digest(self.csrf_token(request).encode(), token.encode())

    def _key(self, *, may_make: bool = False) -> bytes:
        known = self._tokens.hash() or secrets.token_bytes(_KEY_BYTES)
        with self._making:
            if may_make and not os.path.exists(self._path):
                write_durably(self._path, secrets.token_bytes(_KEY_BYTES))
        with open(self._path, "rb") as file:
            return base64.urlsafe_b64encode(hmac.digest(file.read(), known, "sha256"))


def _cookie(request: web.Request) -> bytes:
    return request.cookies.get(COOKIE, "").encode("utf-8", "surrogateescape")


def _client(request: web.Request) -> bytes:
    return party(request.remote or "").encode()
