"""Authentication: the token as ``Bearer``, or as the password of ``Basic``; a browser's session.

RFC 6750 section 2.1, RFC 7617. The file with the token's hash is read again when it was replaced,
so a new token works at once and the old one stops working. A session opens only routes that change
nothing, and the page, whose forms have a token. What a browser sends for another site is refused.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import os
from collections import OrderedDict
from typing import TYPE_CHECKING

from aiohttp import hdrs, web

from agent.server.connections import connection_of, party
from agent.server.credentials import hash_token, token_hash_path
from shared.wire import protocol

if TYPE_CHECKING:
    from aiohttp.typedefs import Handler, Middleware

    from agent.server.sessions import Sessions

OPEN_ROUTES = frozenset(
    {
        *(protocol.HEALTHZ, protocol.READYZ),
        *(protocol.PAGE, protocol.PAGE_STYLE, protocol.PAGE_SCRIPT),
        *(protocol.SIGN_IN, protocol.SIGN_OUT, protocol.PAGE_UNDO),
    }
)
"""Routes that are answered without a token. Those of the page check the session themselves."""
SESSION_ROUTES = frozenset({protocol.EVENTS, protocol.LOG})
"""Routes that a session may read."""
_SITE, _OWN_SITES = "Sec-Fetch-Site", frozenset({"none", "same-origin"})
_READS = frozenset({hdrs.METH_GET, hdrs.METH_HEAD})
_BEARER = 'Bearer realm="plexodus"'
"""Browsers ask their user for Basic, but not for this."""
_CHALLENGE = f'{_BEARER}, Basic realm="plexodus"'
_FREE = 3
"""Number of wrong tokens that are answered at once: a puller may still have the old pairing."""
_FIRST_DELAY, _LONGEST_DELAY = 0.25, 8.0
_FORGIVEN = 300.0
"""Seconds without a wrong token after which a client's count starts at zero."""
_REMEMBERED = 1024


class WrongTokens:
    """Counts the wrong tokens of each client, and sets how long it waits for a response.

    Guessing 256 bits is hopeless at any speed. The delay limits the load and the log lines.
    """

    def __init__(self) -> None:
        self.seen = 0
        """Number of wrong tokens of all clients."""
        self._clients: OrderedDict[str, tuple[int, float]] = OrderedDict()

    def delay(self, client: str, now: float) -> float:
        """Count a wrong token of ``client`` at ``now``, and return the seconds to wait."""
        self.seen += 1
        count, last = self._clients.pop(client, (0, now))
        count = 1 if now - last > _FORGIVEN else count + 1
        self._clients[client] = count, now
        if len(self._clients) > _REMEMBERED:
            self._clients.popitem(last=False)
        if count <= _FREE:
            return 0.0
        return min(_FIRST_DELAY * 2.0 ** min(count - _FREE - 1, 16), _LONGEST_DELAY)


class TokenFile:
    """The hash of the valid token, in the state folder."""

    def __init__(self, state: str) -> None:
        self._path = token_hash_path(state)
        self._read: tuple[int, int] | None = None
        self._hash = b""

    def is_valid(self, token: bytes) -> bool:
        """Return whether ``token`` is the valid one.

        Raises:
            OSError: As :meth:`hash`.
        """
        known = self.hash()
        return known is not None and hmac.compare_digest(hash_token(token).encode(), known)

    def hash(self) -> bytes | None:
        """Return the hash of the valid token, hexadecimal; None if there is no pairing.

        Raises:
            OSError: If the file cannot be read. A token is not wrong because of that.
        """
        try:
            found = os.stat(self._path)
            if self._read != (found.st_ino, found.st_mtime_ns):
                with open(self._path, "rb") as file:  # 65 bytes, once a pairing
                    self._hash = file.read().strip()
                self._read = found.st_ino, found.st_mtime_ns
        except FileNotFoundError:
            return None
        return self._hash


class Doorkeeper:
    """Decides who is trusted: with the token, or with a session.

    Args:
        tokens: the valid token.
        wrong: counts the others.
        sessions: of browsers.
    """

    def __init__(self, tokens: TokenFile, wrong: WrongTokens, sessions: Sessions) -> None:
        self._tokens, self._wrong = tokens, wrong
        self.sessions = sessions

    async def admits(self, request: web.Request, token: bytes) -> bool:
        """Return whether ``token`` is valid. The answer takes the longer, the more were wrong."""
        if self._tokens.is_valid(token):
            _trust(request)
            return True
        now = asyncio.get_running_loop().time()
        await asyncio.sleep(self._wrong.delay(party(request.remote or ""), now))
        return False

    def has_session(self, request: web.Request) -> bool:
        """Return whether ``request`` comes from a browser with a session."""
        if not self.sessions.is_valid(request):
            return False
        _trust(request)
        return True


def _trust(request: web.Request) -> None:
    if (connection := connection_of(request)) is not None:
        connection.is_trusted = True


def authentication(door: Doorkeeper) -> Middleware:
    """Return the middleware that refuses strangers, except on :data:`OPEN_ROUTES`."""

    @web.middleware
    async def authenticate(request: web.Request, handler: Handler) -> web.StreamResponse:
        _refuse_other_sites(request)
        if request.path in OPEN_ROUTES:
            return await handler(request)
        token = _token(request.headers.get(hdrs.AUTHORIZATION, ""))
        if token is not None and await door.admits(request, token):
            return await handler(request)
        is_read = request.path in SESSION_ROUTES and request.method in _READS
        if token is None and is_read and door.has_session(request):
            return await handler(request)
        raise web.HTTPUnauthorized(
            headers={hdrs.WWW_AUTHENTICATE: _BEARER if _SITE in request.headers else _CHALLENGE},
            reason="the token is missing or not valid (any more)",
        )

    return authenticate


def _refuse_other_sites(request: web.Request) -> None:
    """Refuse what another site has a browser send (Fetch Metadata), except a link to the page.

    Raises:
        HTTPForbidden: Another site, or another port of this host, has caused the request.
    """
    is_link = request.path == protocol.PAGE and request.method in _READS
    if request.headers.get(_SITE, "none") not in _OWN_SITES and not is_link:
        raise web.HTTPForbidden(reason="another site has sent this request")


def _token(header: str) -> bytes | None:
    scheme, _, value = header.partition(" ")
    if scheme.lower() == "bearer":
        return value.strip().encode("utf-8", "surrogateescape")
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(value.strip(), validate=True).partition(b":")[2]
        except (binascii.Error, ValueError):
            return None
    return None
