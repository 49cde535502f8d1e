"""Failures as ``application/problem+json`` (RFC 9457), and one log line for each request."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import msgspec
import structlog
from aiohttp import hdrs, web

from agent.server.connections import connection_of
from shared import errors
from shared.digest import is_hex
from shared.program.logs import without_secrets
from shared.wire import protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aiohttp.typedefs import Handler

_log = structlog.get_logger("agent")

SENT = web.ResponseKey("sent", bool)
"""Set on a streamed response when all of it is written: a client that has it may be gone then."""
UNEVENTFUL = web.ResponseKey("uneventful", bool)
"""Set on a response of which there are many, and which says nothing: it is not logged."""
_HUNG_UP = 499
"""The status that nginx logs when the client has disconnected."""
_LOGGED = 1000
"""Characters of a method or path that are logged."""

_KINDS: tuple[tuple[type[Exception], int, str], ...] = (
    (errors.SourceChanged, 409, protocol.SOURCE_CHANGED),
    (errors.SourceUnreadable, 409, protocol.SOURCE_UNREADABLE),
    (errors.ManifestTooLarge, 409, protocol.ABOUT_BLANK),  # a puller retries after 500
    (errors.SnapshotGone, 404, protocol.NO_SUCH_SNAPSHOT),
    (errors.CutoverEnded, 409, protocol.CUTOVER_ENDED),
    (errors.CutoverRefused, 409, protocol.CUTOVER_REFUSED),
    (errors.StorageError, 507, protocol.STORAGE),
)


def problem(
    status: int,
    title: str,
    *,
    kind: str = protocol.ABOUT_BLANK,
    paths: Sequence[str] = (),
    detail: str = "",
) -> web.Response:
    """Return a failure as a response."""
    body = protocol.Problem(kind, title, status, detail, list(paths))
    return web.Response(
        status=status, body=msgspec.json.encode(body), content_type=protocol.PROBLEM_TYPE
    )


async def forbid_storing(_request: web.BaseRequest, response: web.StreamResponse) -> None:
    """Forbid caches to store responses that do not mention them: they would guess a lifetime."""
    response.headers.setdefault(hdrs.CACHE_CONTROL, "no-store")


@web.middleware
async def log_request(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Log one line for each request, never its headers, and not all lines of strangers.

    All lines that the request causes name its snapshot and frame.
    """
    with structlog.contextvars.bound_contextvars(**_subject(request)):
        return await _logged(request, handler)


async def _logged(request: web.Request, handler: Handler) -> web.StreamResponse:
    started = time.monotonic()
    status, is_uneventful = _HUNG_UP, False
    if (connection := connection_of(request)) is not None:
        connection.begin()
    try:
        response = await handler(request)
        is_open = request.transport is not None and not request.transport.is_closing()
        if is_open or response.get(SENT):
            status = response.status
        is_uneventful = response.get(UNEVENTFUL, False)
    finally:
        if connection is not None:
            connection.end()
        left_out = 0 if connection is None else connection.lines_left_out()
        if left_out is not None and not is_uneventful:
            more = {"left_out": left_out} if left_out else {}
            _log.info(
                "request",
                method=without_secrets(request.method)[:_LOGGED],
                path=without_secrets(request.path)[:_LOGGED],
                status=status,
                peer=request.remote,
                ms=round((time.monotonic() - started) * 1000),
                **more,
            )
    return response


def _subject(request: web.Request) -> dict[str, str | int]:
    """Return the log fields that name the snapshot and frame of a request, if it has them."""
    subject: dict[str, str | int] = {}
    if is_hex(snapshot := request.match_info.get("snapshot", "")):
        subject["snapshot"] = snapshot
        if "number" in request.match_info:
            subject["frame"] = int(request.match_info["number"])
    return subject


@web.middleware
async def errors_to_problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn each failure of a handler into a problem; log unknown ones with their traceback.

    A response that has begun is aborted instead: the problem would become part of its body.
    """
    answer = await _answer(request, handler)
    if not answer.prepared and request.writer.output_size > 0 and request.transport is not None:
        request.transport.abort()
    return answer


async def _answer(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except web.HTTPException as error:
        answer = web.Response(status=error.status)
        if not isinstance(error, web.HTTPNotModified):
            answer = problem(error.status, error.reason)
        known = error.headers.items()
        answer.headers.update({name: value for name, value in known if name != hdrs.CONTENT_TYPE})
        return answer
    except ConnectionError:
        # Nobody reads it, but a raised error would be logged as a failure.
        return web.Response(status=_HUNG_UP)
    except (errors.PlexodusError, OSError) as error:
        return _known(error, request)
    except Exception:  # noqa: BLE001 - the last line of defense: log all of it, answer vaguely
        _log.exception("unexpected failure", path=request.path)
        return problem(500, "the agent failed unexpectedly, its log says more")


def _known(error: errors.PlexodusError | OSError, request: web.Request) -> web.Response:
    if isinstance(error, FileNotFoundError) and _is_of_snapshot(error, request):
        error = errors.SnapshotGone("newer snapshots have replaced this one, scan again")
    if isinstance(error, OSError):
        error = errors.storage_error(error, "the agent's state folder")
    _log.warning("refused", path=request.path, reason=str(error))
    for kind, status, name in _KINDS:
        if isinstance(error, kind):
            paths = [] if error.path is None else [error.path]
            if isinstance(error, errors.SourceUnreadable):
                paths = error.paths
            return problem(status, error.what, kind=name, paths=paths, detail=error.hint)
    return problem(500, error.what)


def _is_of_snapshot(error: OSError, request: web.Request) -> bool:
    """Return whether ``error`` is about a file of the snapshot that ``request`` is about.

    A snapshot that is in use may be removed. Then a long piece of work does not find its files.
    """
    name = request.match_info.get("snapshot", "")
    return is_hex(name) and f"/{name}/" in f"{error.filename}/"
