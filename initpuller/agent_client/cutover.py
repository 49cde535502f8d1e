"""Requests for the cutover: stop Plex on the VM, renew the lease, commit, undo."""

from __future__ import annotations

from typing import TYPE_CHECKING

from initpuller.agent_client import error_responses
from shared.wire import protocol

if TYPE_CHECKING:
    import msgspec

    from initpuller.agent_client.client import AgentClient
    from shared.wire.protocol import CutoverStanding, StopFailure


class CutoverClient:
    """``/v1/cutover`` of a paired agent.

    Each request returns the state of the cutover, and may be repeated. Besides the errors of
    :class:`AgentClient`, methods raise CutoverEnded if the cutover of this name is over.
    """

    def __init__(self, client: AgentClient) -> None:
        self._client = client

    async def standing(self) -> CutoverStanding:
        """Return the state of the cutover."""
        return await self._ask("GET", protocol.CUTOVER)

    async def stop(self, request: protocol.CutoverRequest) -> CutoverStanding:
        """Stop Plex.

        Raises:
            CutoverRefused: Plex cannot be stopped, and runs as before.
        """
        return await self._ask("POST", protocol.CUTOVER, request, error_responses.CREATED)

    async def renew(self, name: str) -> CutoverStanding:
        """Renew the lease: Plex stays stopped for the lease's full time from now on."""
        return await self._ask("PUT", protocol.cutover_path(name, "/lease"))

    async def commit(self, name: str, snapshot: str) -> CutoverStanding:
        """Commit: Plex stays stopped for good.

        Raises:
            CutoverEnded: Plex runs, or has run since, so ``snapshot`` is out of date.
            SnapshotGone.
        """
        return await self._ask(
            "PUT", protocol.cutover_path(name, "/commit"), protocol.CommitRequest(snapshot)
        )

    async def undo(self, name: str, failure: StopFailure | None = None) -> CutoverStanding:
        """Start Plex again; ``failure`` is the reason, if a retry would fail in the same way.

        Raises:
            CutoverEnded: the cutover of this name is over, or committed.
            CutoverRefused: Plex does not start; the agent retries.
        """
        body = None if failure is None else protocol.UndoRequest(failure)
        return await self._ask("DELETE", protocol.cutover_path(name), body)

    async def _ask(
        self,
        method: str,
        route: str,
        body: msgspec.Struct | None = None,
        expected: int = error_responses.OK,
    ) -> CutoverStanding:
        return await self._client.ask(method, route, protocol.CutoverStanding, expected, body)
