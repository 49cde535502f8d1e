"""``/v1/cutover``: Plex is stopped, kept stopped, and stays so or is started again."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

import msgspec
from aiohttp import web

from agent.endpoints.bodies import read_body
from agent.endpoints.patience import patiently
from shared import protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from shared.protocol import CutoverRequest, CutoverStanding


class Control(Protocol):
    """What is needed of who takes the steps."""

    def standing(self) -> CutoverStanding:
        """Where it stands."""

    def begin(self, request: CutoverRequest) -> CutoverStanding:
        """Stop Plex."""

    def renew(self, name: str) -> CutoverStanding:
        """Extend the lease."""

    def commit(self, name: str, snapshot: str) -> CutoverStanding:
        """Put the fence up."""

    def undo(self, name: str, why: str) -> CutoverStanding:
        """Start Plex again."""


class CutoverEndpoints:
    """Passes on what a puller asks for.

    Args:
        control: takes the steps.
        check_library: raises if the library was moved since it was scanned last.
    """

    def __init__(self, control: Control, check_library: Callable[[], None]) -> None:
        self._check_library = check_library
        self._control = control

    def routes(self) -> list[web.RouteDef]:
        """The routes of this file."""
        name = "{cutover:[0-9a-f]{32}}"
        return [
            web.get(protocol.CUTOVER, self.describe),
            web.post(protocol.CUTOVER, self.begin),
            web.put(protocol.lease_path(name), self.renew),
            web.put(protocol.commit_path(name), self.commit),
            web.delete(protocol.cutover_path(name), self.undo),
        ]

    async def describe(self, _request: web.Request) -> web.Response:
        """Where it stands."""
        return _json(await asyncio.to_thread(self._control.standing))

    async def begin(self, request: web.Request) -> web.Response:
        """Plex has stopped when the answer comes."""
        wanted = await read_body(request, protocol.CutoverRequest)
        stop = asyncio.to_thread(self._begin, wanted)
        location = protocol.cutover_path(wanted.id)
        return _json(await patiently(request, stop), 201, {"Location": location})

    def _begin(self, wanted: protocol.CutoverRequest) -> CutoverStanding:
        # A library that was moved since the last scan is found before Plex is stopped for it.
        self._check_library()
        return self._control.begin(wanted)

    async def renew(self, request: web.Request) -> web.Response:
        """The lease holds for its whole time again."""
        return _json(await asyncio.to_thread(self._control.renew, request.match_info["cutover"]))

    async def commit(self, request: web.Request) -> web.Response:
        """Plex stays stopped, whatever happens."""
        wanted = await read_body(request, protocol.CommitRequest)
        name = request.match_info["cutover"]
        return _json(await asyncio.to_thread(self._control.commit, name, wanted.snapshot))

    async def undo(self, request: web.Request) -> web.Response:
        """Plex runs again, if it ran before."""
        name, why = request.match_info["cutover"], "the puller gave up"
        undo = asyncio.to_thread(self._control.undo, name, why)
        return _json(await patiently(request, undo))


def _json(
    standing: CutoverStanding, status: int = 200, headers: dict[str, str] | None = None
) -> web.Response:
    body = msgspec.json.encode(standing)
    return web.Response(status=status, body=body, content_type="application/json", headers=headers)
