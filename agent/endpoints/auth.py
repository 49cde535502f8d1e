"""Who may ask: the bearer of the token, as ``Bearer`` or as the password of ``Basic``.

RFC 6750 section 2.1, RFC 7617. The hash is read anew for each request, so that a new token works
at once and the old one stops working.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from typing import TYPE_CHECKING

import aiofiles
from aiohttp import web

from agent.endpoints.credentials import hash_token, token_hash_path
from agent.endpoints.health import OPEN_ROUTES
from agent.endpoints.problems import problem

if TYPE_CHECKING:
    from aiohttp.typedefs import Handler, Middleware

_CHALLENGE = 'Bearer realm="plexodus", Basic realm="plexodus"'


def authentication(state: str) -> Middleware:
    """The middleware that lets nobody without the token pass, but to the health routes."""

    @web.middleware
    async def authenticate(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path in OPEN_ROUTES or await _is_valid(request, state):
            return await handler(request)
        answer = problem(401, "the token is missing or not valid (any more)")
        answer.headers["WWW-Authenticate"] = _CHALLENGE
        return answer

    return authenticate


async def _is_valid(request: web.Request, state: str) -> bool:
    token = _token(request.headers.get("Authorization", ""))
    if token is None:
        return False
    try:
        async with aiofiles.open(token_hash_path(state), "rb") as file:
            known = (await file.read()).strip()
    except FileNotFoundError:
        return False
    return hmac.compare_digest(hash_token(token).encode(), known)


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
