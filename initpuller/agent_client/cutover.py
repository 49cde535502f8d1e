"""What the puller asks the agent about Plex on the VM: stop it, keep it so, for good, or not."""

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

    Args:
        client: how it is reached.
    """

    def __init__(self, client: AgentClient) -> None:
        self._client = client

    async def standing(self) -> CutoverStanding:
        """Where the cutover stands.

        Raises:
            AgentUnreachable, AuthenticationError, ProtocolViolation.
        """
        return await self._ask("GET", protocol.CUTOVER)

    async def stop(self, request: protocol.CutoverRequest) -> CutoverStanding:
        """Have Plex stopped; asked again with the same name, nothing more happens.

        Raises:
            CutoverRefused: it cannot be, and runs as before.
            CutoverEnded: the one of this name is over.
            AgentUnreachable, AuthenticationError, ProtocolViolation.
        """
        return await self._ask("POST", protocol.CUTOVER, request, error_responses.CREATED)

    async def renew(self, name: str) -> CutoverStanding:
        """Have it kept stopped for the whole time of a lease again.

        Raises:
            CutoverEnded: Plex runs again.
            AgentUnreachable, AuthenticationError, ProtocolViolation.
        """
        return await self._ask("PUT", protocol.lease_path(name))

    async def commit(self, name: str, snapshot: str) -> CutoverStanding:
        """Have it kept stopped for good; asked again, nothing more happens.

        Raises:
            CutoverEnded: Plex runs, or has run: ``snapshot`` is out of date.
            AgentUnreachable, AuthenticationError, SnapshotGone, ProtocolViolation.
        """
        return await self._ask("PUT", protocol.commit_path(name), protocol.CommitRequest(snapshot))

    async def undo(self, name: str, failure: StopFailure | None = None) -> CutoverStanding:
        """Have it started again, because of ``failure`` if a retry would meet that again.

        Raises:
            CutoverEnded: the one of this name is over, or committed.
            CutoverRefused: it does not start; the agent tries again.
            AgentUnreachable, AuthenticationError, ProtocolViolation.
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
