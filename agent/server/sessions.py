"""Sessions of browsers: a cookie that whoever shows the token gets, instead of the token itself.

The cookie is a Fernet token, which has its time and a signature. The key comes from the hash of the
pairing's token, so a new pairing ends all sessions, and a restart of the agent ends none.
"""

from __future__ import annotations

import base64
import hmac
import secrets
from typing import TYPE_CHECKING

from cryptography.fernet import Fernet, InvalidToken

if TYPE_CHECKING:
    from aiohttp import web

    from agent.server.auth import TokenFile

COOKIE = "__Host-plexodus"
"""The prefix has browsers refuse a cookie of another host, or without ``Secure`` (RFC 6265bis)."""
CSRF = "csrf"
"""Field of a form with the session's CSRF token."""
_SECONDS = 12 * 3600
_PURPOSE = b"plexodus session"


class Sessions:
    """The sessions of all browsers, none of which is kept here."""

    def __init__(self, tokens: TokenFile) -> None:
        self._tokens = tokens

    def begin(self, response: web.StreamResponse) -> None:
        """Give the browser that gets ``response`` a session."""
        cookie = Fernet(self._key()).encrypt(secrets.token_bytes(16)).decode()
        response.set_cookie(
            COOKIE, cookie, max_age=_SECONDS, secure=True, httponly=True, samesite="Strict"
        )

    @staticmethod
    def end(response: web.StreamResponse) -> None:
        """Have the browser forget its session."""
        response.del_cookie(COOKIE, secure=True, httponly=True, samesite="Strict")

    def is_valid(self, request: web.Request) -> bool:
        """Return whether ``request`` has the cookie of a session that has not expired."""
        try:
            Fernet(self._key()).decrypt(_cookie(request), ttl=_SECONDS)
        except InvalidToken:
            return False
        return True

    def csrf_token(self, request: web.Request) -> str:
        """Return the token that forms of this session have to send."""
        return hmac.digest(self._key(), _cookie(request), "sha256").hex()

    def is_csrf_token(self, request: web.Request, token: str) -> bool:
        """Return whether ``token`` is that of this session."""
        return hmac.compare_digest(self.csrf_token(request).encode(), token.encode())

    def _key(self) -> bytes:
        known = self._tokens.hash() or secrets.token_bytes(32)
        secret = hmac.digest(known, _PURPOSE, "sha256")
        return base64.urlsafe_b64encode(secret)


def _cookie(request: web.Request) -> bytes:
    return request.cookies.get(COOKIE, "").encode("utf-8", "surrogateescape")
