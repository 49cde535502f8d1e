"""What the agent is asked about the whole library of one snapshot, beside its frames."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from initpuller.agent_client.client import AgentClient
    from initpuller.agent_client.retry import Retrier
    from initpuller.volume.records.layout import Layout
    from shared.wire.protocol import Snapshot


class SourceLook:
    """Asks about one snapshot.

    Args:
        client: the agent.
        retrier: how to try again.
        layout: where its digests go.
        snapshot: which.
        sums_bytes: the most bytes of SHA256SUMS, by the manifest, which was checked.
    """

    def __init__(
        self,
        client: AgentClient,
        retrier: Retrier,
        layout: Layout,
        snapshot: Snapshot,
        sums_bytes: int,
    ) -> None:
        self._client = client
        self._retrier = retrier
        self._path = layout.sums(snapshot.id)
        self._snapshot = snapshot
        self._sums_bytes = sums_bytes

    async def sums(self) -> None:
        """Bring the digest of each file, as the agent read it.

        Raises:
            SourceChanged: the library is not as it was scanned.
            PlexodusError: whatever else stops a pull.
        """
        await self._retrier.run(
            "the digests",
            lambda: self._client.sums(self._snapshot, self._path, self._sums_bytes),
        )

    async def check(self) -> None:
        """Have the agent look whether the library is as it was scanned; it need not, if Plex runs.

        Raises:
            SourceChanged, PlexodusError: as for :meth:`sums`.
        """
        if self._snapshot.kind != "cold":
            return
        await self._retrier.run(
            "the check of the source", lambda: self._client.check(self._snapshot.id)
        )
