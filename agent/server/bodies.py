"""JSON bodies: of a request, within its limits of size and time, and of a response."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import parse_qsl

import msgspec
from aiohttp import web
from aiohttp.http import HttpProcessingError

from agent.server.connections import connection_of
from shared import typed_json
from shared.errors import printable

if TYPE_CHECKING:
    from collections.abc import Mapping

T = TypeVar("T")


async def read_body(request: web.Request, kind: type[T]) -> T:
    """Return the body of ``request``, decoded as a ``kind``.

    Raises:
        HTTPRequestTimeout: the body takes too long.
        HTTPBadRequest: the body is not a ``kind``.
        ConnectionResetError: the client has gone.
    """
    body = await _body(request)
    try:
        return typed_json.convert(_with_integers(typed_json.decode(body, object)), kind)
    except (msgspec.DecodeError, RecursionError) as error:
        reason = printable(f"the request's body cannot be used ({error})")
        raise web.HTTPBadRequest(reason=reason) from error


async def read_form(request: web.Request) -> dict[str, str]:
    """Return the fields of a form that a browser sends as ``application/x-www-form-urlencoded``.

    Raises:
        HTTPRequestTimeout, HTTPBadRequest, ConnectionResetError: as :func:`read_body`.
    """
    return dict(parse_qsl((await _body(request)).decode(errors="replace")))


async def _body(request: web.Request) -> bytes:
    connection = connection_of(request)
    if connection is None:
        raise ConnectionResetError
    try:
        async with asyncio.timeout(connection.limits.body_seconds):
            return await request.read()
    except TimeoutError:
        raise web.HTTPRequestTimeout(reason="the request's body takes too long") from None
    except (web.RequestPayloadError, HttpProcessingError) as error:  # they hold what was sent
        reason = "the request's body is not encoded as its headers say"
        raise web.HTTPBadRequest(reason=reason) from error


def json_response(
    body: msgspec.Struct | dict[str, object],
    status: int = 200,
    headers: Mapping[str, str] | None = None,
) -> web.Response:
    """Return ``body`` as a JSON response."""
    return web.Response(
        status=status,
        body=msgspec.json.encode(body),
        content_type="application/json",
        headers=headers,
    )


def _with_integers(value: Any) -> Any:  # noqa: ANN401 - any JSON
    """Return decoded JSON with an integer for each number like 246.0.

    To JSON Schema, and so to a client that reads openapi.json, such a number is an integer.
    """
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {name: _with_integers(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_with_integers(each) for each in value]
    return value
