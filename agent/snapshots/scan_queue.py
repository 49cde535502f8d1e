"""Scans, one at a time; who asks for the same while one is under way gets its result."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeAlias

from agent.source.activity import Phase
from shared.plex.library import NEVER

if TYPE_CHECKING:
    from agent.snapshots.store import SnapshotStore
    from agent.source.activity import Activity
    from shared.wire.protocol import Kind, Snapshot

_Wanted: TypeAlias = "tuple[tuple[str, ...], Kind, str, bool]"
"""Patterns, kind, base, and whether Plex's own folder gets the folders above it."""


class Scans:
    """Makes snapshots for all clients of one event loop.

    Args:
        store: where they go.
        activity: called when a scan is under way.
    """

    def __init__(self, store: SnapshotStore, activity: Activity) -> None:
        self._store = store
        self._activity = activity
        self._under_way: dict[_Wanted, asyncio.Task[Snapshot]] = {}
        self._one_at_a_time = asyncio.Lock()

    async def scan(
        self,
        exclude: tuple[str, ...] = NEVER,
        kind: Kind = "cold",
        base: str = "",
        *,
        placed: bool = False,
    ) -> Snapshot:
        """A snapshot of the library as it is now; goes on when its caller is cancelled.

        Raises:
            SnapshotGone, SourceUnreadable, OSError: see :meth:`SnapshotStore.scan`.
        """
        wanted = exclude, kind, base, placed
        scan = self._under_way.get(wanted)
        if scan is None:
            scan = asyncio.create_task(self._scan(wanted))
            self._under_way[wanted] = scan
            scan.add_done_callback(lambda _: self._under_way.pop(wanted))
        return await asyncio.shield(scan)

    async def _scan(self, wanted: _Wanted) -> Snapshot:
        exclude, kind, base, placed = wanted
        async with self._one_at_a_time:
            with self._activity.phase(Phase.SCANNING):
                return await asyncio.to_thread(self._store.scan, exclude, kind, base, placed=placed)
