"""Send a file of the state folder as a response: all of it or one range, with conditions."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from aiohttp import hdrs, web

from agent.server import conditions
from shared.async_file import opened
from shared.wire.byte_range import UNIT, content_range, resolve

if TYPE_CHECKING:
    from agent.server.rate_limit import Outflow

_PIECE = 256 * 1024
"""Bytes that are read and sent at once."""


async def send_file(
    request: web.Request, path: str, media_type: str, outflow: Outflow
) -> web.StreamResponse:
    """Send the file ``path``, or the range of it that ``request`` asks for.

    The file may be replaced by another one meanwhile, but is never changed in place.

    Raises:
        OSError: the file cannot be read.
    """
    async with opened(path, "rb") as file:
        about = os.fstat(file.fileno())
        tag = f"{about.st_mtime_ns:x}-{about.st_size:x}"
        headers: dict[str, str] = {
            hdrs.ETAG: f'"{tag}"',
            hdrs.ACCEPT_RANGES: UNIT,
            hdrs.CACHE_CONTROL: "private, no-cache",
        }
        if (refusal := conditions.refused(request, tag, headers)) is not None:
            return refusal
        response = web.StreamResponse(headers=headers)
        response.content_type = media_type
        part = range(about.st_size)
        if (asked := conditions.asked_range(request, tag)) is not None:
            found = resolve(asked, about.st_size)
            if found is None:
                return conditions.unsatisfiable(about.st_size, headers)
            part = found
            response.set_status(206)
            response.headers[hdrs.CONTENT_RANGE] = content_range(part, about.st_size)
        response.content_length = len(part)
        await response.prepare(request)
        if request.method == hdrs.METH_HEAD:
            return response
        await file.seek(part.start)
        for start in range(0, len(part), _PIECE):
            piece = await file.read(min(_PIECE, len(part) - start))
            await outflow.send(response, piece)
        await response.write_eof()
        return response
