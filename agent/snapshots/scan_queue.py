"""Scans, one at a time. Identical requests share the scan that is under way."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec

from agent.source.activity import Phase

if TYPE_CHECKING:
    from agent.snapshots.cold_source import ColdSource
    from agent.snapshots.store import SnapshotStore
    from agent.source.activity import Activity
    from shared.wire.protocol import Snapshot, SnapshotRequest


class Scans:
    """Makes snapshots in ``store`` for all clients of one event loop; ``cold`` guards some."""

    def __init__(self, store: SnapshotStore, cold: ColdSource, activity: Activity) -> None:
        self._store = store
        self._cold = cold
        self._activity = activity
        self._under_way: dict[bytes, asyncio.Task[Snapshot]] = {}
        self._one_at_a_time = asyncio.Lock()

    async def scan(self, request: SnapshotRequest) -> Snapshot:
        """Return a snapshot of the library as it is now. The scan outlives a cancelled caller.

        Raises:
            SourceChanged: If it is cold and Plex runs, see :meth:`ColdSource.refuse_running`.
            SnapshotGone, SourceUnreadable, OSError: See :meth:`SnapshotStore.scan`.
        """
        key = msgspec.json.encode(request)
        scan = self._under_way.get(key)
        if scan is None:
            scan = self._under_way[key] = asyncio.create_task(self._scan(request))
            scan.add_done_callback(lambda _: self._under_way.pop(key))
        about = await asyncio.shield(scan)
        if request.kind == "cold":  # apart, because it may wait: nobody joins a walk of long ago
            await self._cold.refuse_running(await asyncio.to_thread(self._store.open, about.id))
        return about

    async def _scan(self, request: SnapshotRequest) -> Snapshot:
        async with self._one_at_a_time:
            with self._activity.phase(Phase.SCANNING):
                return await asyncio.to_thread(self._store.scan, request)
