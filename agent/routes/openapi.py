"""``/openapi.json``: the HTTP interface as an OpenAPI 3.1 document, the file beside this module."""

from __future__ import annotations

from pathlib import Path

from aiohttp import web

from shared.wire import protocol


def openapi_routes() -> list[web.RouteDef]:
    """Return the route of the document."""
    document = Path(__file__).with_name("openapi.json").read_bytes()

    async def openapi(_request: web.Request) -> web.Response:
        return web.Response(body=document, content_type="application/json")

    return [web.get(protocol.OPENAPI, openapi)]
