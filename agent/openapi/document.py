"""The document, put together from what the code itself goes by, and its route."""

from __future__ import annotations

from functools import cache

import msgspec
from aiohttp import web

from agent.openapi.components import PARAMETERS, RESPONSES, SCHEMAS, SECURITY_SCHEMES
from agent.openapi.operations import paths
from shared import __version__
from shared.wire import protocol

_ABOUT = """\
What a plexodus agent answers; docs/protocol.md says what it means.

Everything but the health needs the token. Failures are `application/problem+json` (RFC 9457), also
404 for any other path and 405, with `Allow`, for any other method. Only what is not HTTP is refused
in plain text, with 400, and an `Expect` of anything but `100-continue`, with 417. Who asks with
`Prefer: processing` gets a `102 Processing` every five seconds until what takes long is done."""


@cache
def rendered() -> bytes:
    """Return the document as it is served and as it is in docs/openapi.json."""
    document = {
        "openapi": "3.1.0",
        "info": {
            "title": "plexodus agent",
            "version": __version__,
            "description": _ABOUT,
            "license": {"name": "Apache License 2.0", "identifier": "Apache-2.0"},
        },
        "security": [{name: []} for name in SECURITY_SCHEMES],
        "paths": paths(),
        "components": {
            "schemas": SCHEMAS,
            "parameters": PARAMETERS,
            "responses": RESPONSES,
            "securitySchemes": SECURITY_SCHEMES,
        },
    }
    return msgspec.json.format(msgspec.json.encode(document)) + b"\n"


def openapi_routes() -> list[web.RouteDef]:
    """The route of the document."""

    async def openapi(_request: web.Request) -> web.Response:
        return web.Response(body=rendered(), content_type="application/json")

    return [web.get(protocol.OPENAPI, openapi)]
