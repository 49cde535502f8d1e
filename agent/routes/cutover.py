"""``/v1/cutover``: the stop of Plex, its lease, and the commit or undo."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from aiohttp import web

from agent.server.bodies import json_response, read_body
from agent.server.interim_responses import patiently
from shared.wire import protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.cutover.control import CutoverControl
    from shared.wire.protocol import CutoverRequest, CutoverStanding

P = ParamSpec("P")
T = TypeVar("T")

_SETTLE_SECONDS = 90.0
"""Time for an earlier undo to see Plex running, before another stop is refused."""
_GLANCE = 0.5
_THREADS = 8
"""Threads for steps of the cutover. Scans and checks, which may fill all others, use none."""


class CutoverEndpoints:
    """The requests of a puller that concern the cutover.

    ``check_library`` raises an error if the library was moved since its last scan.
    """

    def __init__(self, control: CutoverControl, check_library: Callable[[], None]) -> None:
        self._control = control
        self._check_library = check_library
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="cutover")

    def routes(self) -> list[web.RouteDef]:
        """Return the routes of this file."""
        name = "{cutover:[0-9a-f]{32}}"
        return [
            web.get(protocol.CUTOVER, self.describe),
            web.post(protocol.CUTOVER, self.begin),
            web.put(protocol.cutover_path(name, "/lease"), self.renew),
            web.put(protocol.cutover_path(name, "/commit"), self.commit),
            web.delete(protocol.cutover_path(name), self.undo),
        ]

    async def _run(self, step: Callable[P, T], *args: P.args, **options: P.kwargs) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, partial(step, *args, **options))

    async def describe(self, _request: web.Request) -> web.Response:
        """Return the state of the cutover."""
        return json_response(await self._run(self._control.confirmed))

    async def begin(self, request: web.Request) -> web.Response:
        """Stop Plex, and respond once it has stopped."""
        wanted = await read_body(request, protocol.CutoverRequest)
        standing = await patiently(request, self._stop(request, wanted))
        return json_response(standing, 201, {"Location": protocol.cutover_path(wanted.id)})

    async def _stop(self, request: web.Request, wanted: CutoverRequest) -> CutoverStanding:
        """Wait for the end of an earlier undo, then stop Plex.

        Raises:
            ConnectionResetError: If the puller has gone. One that was killed cannot say so, and a
                live one repeats its request.
        """
        for _ in range(int(_SETTLE_SECONDS / _GLANCE)):
            if (await self._run(self._control.standing)).phase != "undoing":
                break
            await asyncio.sleep(_GLANCE)
        if request.transport is None or request.transport.is_closing():
            raise ConnectionResetError("the puller has gone, so Plex is not stopped for it")
        return await self._run(self._begin, wanted)

    def _begin(self, wanted: CutoverRequest) -> CutoverStanding:
        # Detect a library that was moved since the last scan before Plex is stopped for it.
        self._check_library()
        return self._control.begin(wanted)

    async def renew(self, request: web.Request) -> web.Response:
        """Extend the lease to its full time."""
        name = request.match_info["cutover"]
        return json_response(await self._run(self._control.renew, name))

    async def commit(self, request: web.Request) -> web.Response:
        """Commit the cutover, so that Plex stays stopped for good."""
        wanted = await read_body(request, protocol.CommitRequest)
        name = request.match_info["cutover"]
        return json_response(await self._run(self._control.commit, name, wanted.snapshot))

    async def undo(self, request: web.Request) -> web.Response:
        """Start Plex again if it ran before. The phase becomes idle once Plex is seen running."""
        failure = None
        if request.can_read_body:
            failure = (await read_body(request, protocol.UndoRequest)).failure
        why = "the puller gave up" if failure is None else f"the pull failed: {failure.what}"
        undo = self._run(self._control.undo, request.match_info["cutover"], why, failure)
        return json_response(await patiently(request, undo))
