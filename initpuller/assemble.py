"""From the agent's frames to a verified tree in staging."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import structlog

from initpuller.volume.verify import tree_differences, wrong_sums
from initpuller.wire.fetch import fetch_frames
from shared.errors import TreeDiffers, printable

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from initpuller.report.progress import PullProgress
    from initpuller.volume.staging import Staging
    from initpuller.wire.backoff import Retrier
    from initpuller.wire.client import AgentClient
    from shared.digest import Buffer

_log = structlog.get_logger("puller")

BATCH = 16
"""Unpacked frames that are not journalled yet; a kill costs at most these and those under way."""
_BATCH_SECONDS = 1.0
_LISTED = 1000
"""Differences named in one message."""


class Assembly:
    """One run's work on one staging.

    Args:
        work: the staging.
        client: the agent.
        retrier: how to try again.
        jobs: frames under way at the same time.
        progress: where people look.
    """

    def __init__(
        self,
        work: Staging,
        client: AgentClient,
        retrier: Retrier,
        jobs: int,
        progress: PullProgress,
    ) -> None:
        self._work = work
        self._client = client
        self._retrier = retrier
        self._jobs = jobs
        self._progress = progress
        self._pending: list[tuple[int, str]] = []
        self._at_stake = 0
        self._since = time.monotonic()
        self._lock = asyncio.Lock()

    async def run(self) -> None:
        """Fetch, finish, verify. Files whose digest is wrong are fetched once more.

        Raises:
            SourceChanged: the library is not as it was scanned.
            TreeDiffers: the tree is not what it shall be.
            PlexodusError: whatever else stops a pull.
        """
        for is_last in (False, True):
            await self._fetch()
            await self._finish()
            if await self._digests_are_right(is_last=is_last):
                break
        work = self._work
        differences = await asyncio.to_thread(
            lambda: list(tree_differences(work.fd, work.manifest, work.ownership))
        )
        if differences:
            await asyncio.to_thread(work.distrust)
            raise TreeDiffers(differences[:_LISTED], work.layout.staging)

    async def _fetch(self) -> None:
        """Bring all missing frames onto the volume, and journal them."""
        work, plan = self._work, self._work.manifest.plan
        missing = list(work.journal.missing())
        total = sum(frame.size for frame in plan)
        absent = [plan[number] for number in missing]
        self._progress.phase("transferring")
        self._progress.expect(
            total,
            plan.entries,
            total - sum(frame.size for frame in absent),
            plan.entries - sum(frame.count for frame in absent if frame.block == 0),
        )
        name = work.manifest.name
        try:
            await fetch_frames(
                self._client, self._retrier, name, plan, missing, self._jobs, self._receive
            )
        finally:
            await self._commit()

    async def _finish(self) -> None:
        """Finish the tree while the agent looks whether its own has changed."""
        self._progress.phase("assembling")
        name = self._work.manifest.name
        check = self._retrier.run("the check of the source", lambda: self._client.check(name))
        unchanged = asyncio.ensure_future(check)
        try:
            await to_its_end(asyncio.to_thread(self._work.finish))
            await unchanged
        finally:
            unchanged.cancel()

    async def _digests_are_right(self, *, is_last: bool) -> bool:
        work = self._work
        path = work.layout.sums(work.manifest.name)
        self._progress.phase("verifying")
        await self._retrier.run("the digests", lambda: self._client.sums(work.state.snapshot, path))
        wrong = await asyncio.to_thread(lambda: list(wrong_sums(work.manifest, work.digests, path)))
        if not wrong:
            return True
        names = [printable(entry.path) for _, entry in wrong[:_LISTED]]
        await asyncio.to_thread(work.redo, [number for number, _ in wrong])
        if is_last:
            raise TreeDiffers([f"{name}: wrong digest" for name in names], work.layout.staging)
        _log.warning("files on the volume are not what was read, fetching them again", paths=names)
        return False

    async def _receive(self, number: int, tar: Buffer, digest: str) -> None:
        """Unpack a frame; journal in batches, files on disk before the record.

        Half a batch is made durable while the other half arrives; a slow disk is waited for.
        """
        await to_its_end(asyncio.to_thread(self._work.unpack, number, tar))
        self._pending.append((number, digest))
        self._at_stake += 1
        is_old = time.monotonic() - self._since > _BATCH_SECONDS
        is_half = len(self._pending) >= BATCH // 2 and not self._lock.locked()
        if self._at_stake >= BATCH or is_half or is_old:
            await self._commit()

    async def _commit(self) -> None:
        async with self._lock:
            batch, self._pending = self._pending, []
            self._since = time.monotonic()
            if not batch:
                return
            await to_its_end(asyncio.to_thread(self._work.commit, batch))
            self._at_stake -= len(batch)
            for number, _ in batch:
                frame = self._work.manifest.plan[number]
                self._progress.advance(frame.size, frame.count if frame.block == 0 else 0)


async def to_its_end(work: Coroutine[None, None, None]) -> None:
    """Await ``work`` to its end, however often cancelled: a thread cannot be stopped half way."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait({task})
        raise
