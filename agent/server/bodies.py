"""The JSON body of a request, within its limits of size and time."""

from __future__ import annotations

import asyncio
from typing import TypeVar

import msgspec
from aiohttp import web
from aiohttp.http import HttpProcessingError

from agent.server.connections import connection_of
from shared.errors import printable

T = TypeVar("T")


async def read_body(request: web.Request, kind: type[T]) -> T:
    """The body as a ``kind``.

    Raises:
        HTTPRequestTimeout: it takes too long.
        HTTPBadRequest: it is none.
        ConnectionResetError: the client has gone.
    """
    connection = connection_of(request)
    if connection is None:
        raise ConnectionResetError
    try:
        async with asyncio.timeout(connection.limits.body_seconds):
            body = await request.read()
        return msgspec.json.decode(body, type=kind)
    except TimeoutError:
        raise web.HTTPRequestTimeout(reason="the request's body takes too long") from None
    except (web.RequestPayloadError, HttpProcessingError) as error:  # they hold what was sent
        reason = "the request's body is not encoded as its headers say"
        raise web.HTTPBadRequest(reason=reason) from error
    except (msgspec.MsgspecError, UnicodeError) as error:
        reason = printable(f"the request's body cannot be used ({error})")
        raise web.HTTPBadRequest(reason=reason) from error
