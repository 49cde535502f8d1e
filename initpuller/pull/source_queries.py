"""The questions to the agent about the whole library of one snapshot, beside its frames."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from initpuller.pull.context import PullContext
    from shared.wire.protocol import Snapshot


class SourceQueries:
    """Asks the agent about one snapshot.

    Args:
        context: of the run.
        snapshot: the snapshot.
        sums_bytes: limit of the length of SHA256SUMS, by the manifest, which was checked.
    """

    def __init__(self, context: PullContext, snapshot: Snapshot, sums_bytes: int) -> None:
        self._client = context.client
        self._retrier = context.options.retrier
        self._path = context.layout.sums(snapshot.id)
        self._snapshot = snapshot
        self._sums_bytes = sums_bytes

    async def sums(self) -> None:
        """Download the digest of each file, as the agent read it.

        Raises:
            SourceChanged: the library is not as it was scanned.
            PlexodusError: whatever else stops a pull.
        """
        await self._retrier.run(
            "the digests",
            lambda: self._client.sums(self._snapshot, self._path, self._sums_bytes),
        )

    async def check(self) -> None:
        """Have the agent check that the library is as it was scanned, unless Plex runs.

        Raises:
            SourceChanged, PlexodusError: as for :meth:`sums`.
        """
        if self._snapshot.kind != "cold":
            return
        await self._retrier.run(
            "the check of the source", lambda: self._client.check(self._snapshot.id)
        )
