"""Requests that are not HTTP: they get a 400 that repeats none of it, and a short log line.

aiohttp answers such a request with the line that it could not read, which may hold the token, and
logs that line with a traceback.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import structlog
from aiohttp import web
from aiohttp.http import HttpProcessingError
from aiohttp.web_protocol import RequestHandler

from agent.server.problems import problem

if TYPE_CHECKING:
    from aiohttp.web_server import Server

    from shared.program.logs import LogLimit

_log = structlog.get_logger("agent")

_CLIENTS_FAULT = (HttpProcessingError, web.RequestPayloadError, ConnectionError)
_BAD_REQUEST = 400


class AgentRequestHandler(RequestHandler):
    """Speaks HTTP on one connection; ``limit`` is that of log lines about other requests."""

    __slots__ = ("_limit",)

    def __init__(self, server: Server, limit: LogLimit) -> None:
        loop = asyncio.get_running_loop()
        super().__init__(server, loop=loop, access_log=None)  # type: ignore[arg-type]  # no log
        self._limit = limit

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 - it holds what the client sent
    ) -> web.StreamResponse:
        """Return the response to a request that is not HTTP, or on which a handler failed.

        Raises:
            ConnectionError: a part of another response has been sent.
        """
        self._note(exc)
        if request.writer.output_size > 0:
            raise ConnectionError("an answer has begun already")
        is_malformed = status == _BAD_REQUEST
        title = "the request is not valid HTTP" if is_malformed else "the agent cannot answer"
        answer = problem(status, title)
        answer.force_close()
        return answer

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send a response. One of aiohttp's own, such as 417, would repeat a header."""
        if isinstance(resp, web.HTTPException):
            resp = problem(resp.status, resp.reason)
            resp.force_close()
        return await super().finish_response(request, resp, start_time)

    def log_exception(self, *_args: Any, **known: Any) -> None:  # noqa: ANN401 - as in aiohttp
        """Log what aiohttp could not handle."""
        self._note(known.get("exc_info"))

    def _note(self, error: BaseException | None) -> None:
        """Log a client's mistake in a line without its words, and a failure of ours whole."""
        left_out = self._limit.admit(time.monotonic())
        if left_out is None:
            return
        peer = self.transport.get_extra_info("peername") if self.transport is not None else None
        about = {
            "peer": peer[0] if peer else "",
            "kind": type(error).__name__,
            "left_out": left_out,
        }
        if isinstance(error, _CLIENTS_FAULT):
            _log.warning("malformed request", **about)
        else:
            _log.error("unexpected failure", exc_info=error, **about)
