"""From the agent's frames to a verified tree in staging."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import structlog

from initpuller.agent_client.schedule import fetch_frames
from initpuller.cancellation import cancel, in_thread
from initpuller.volume.publish.verify import wrong_sums
from initpuller.volume.staging.unfinished import Unfinished
from initpuller.workers.frame_worker import Assignment, Order
from shared.cancellation import to_its_end
from shared.errors import SnapshotGone, TreeDiffers, printable

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator

    from initpuller.agent_client.schedule import Bring
    from initpuller.pull.options import PullContext
    from initpuller.pull.source_queries import SourceQueries
    from initpuller.volume.staging.blocks import Unpacked
    from initpuller.volume.staging.staging import Staging
    from initpuller.workers.threads import Worker
    from shared.frames.codec import Encoding
    from shared.tree.manifest import Entry

Wrong: TypeAlias = "list[tuple[int, Entry]]"
"""Files whose digest is wrong, with their numbers."""
T = TypeVar("T")
U = TypeVar("U")

_log = structlog.get_logger("puller")

BATCH = 16
"""Unpacked frames that are not journalled yet; a kill costs at most these and those under way."""
_BATCH_SECONDS = 1.0
_SHARE = 4
"""What is at stake gets less towards the end: a kill at 99 % costs a hundredth of the work."""
_DAMAGED = "files on the volume are not what was read, fetching them again"
_LISTED = 1000
"""Differences named in one message."""


class Assembly:
    """One run's work on one staging."""

    def __init__(
        self, work: Staging, queries: SourceQueries, context: PullContext, encoding: Encoding
    ) -> None:
        self._work = work
        self._queries = queries
        self._context = context
        self._encoding = encoding
        self._progress = context.progress
        self._unfinished = Unfinished(work.manifest)
        self.moved_bytes = 0
        """Tar bytes of the frames that were fetched."""
        self._pending: list[tuple[int, str]] = []
        self._left = 0
        self._since = time.monotonic()
        self._committing: asyncio.Future[None] | None = None

    async def run(self, asked: asyncio.Future[None] | None = None) -> None:
        """Fetch, finish, verify. Files whose digest is wrong are fetched again.

        Args:
            asked: :meth:`SourceQueries.sums`, if that was begun with the scan: the agent has proved
                that Plex is stopped from before it to after the commit.

        Raises:
            SourceChanged: the library is not as it was scanned.
            TreeDiffers: the tree is not what the manifest says.
        """
        work = self._work
        await self._fetch()
        differences, wrong = await (self._finish() if asked is None else self._finish_soon(asked))
        await self._refuse_damaged(wrong)
        if wrong:
            _log.warning(_DAMAGED, paths=_named(wrong))
            await self._fetch()
            differences, wrong = await self._finish()
        if wrong:
            damaged = [f"{name}: wrong digest" for name in _named(wrong)]
            raise TreeDiffers(damaged, work.layout.staging)
        if differences:
            await in_thread(work.distrust)
            raise TreeDiffers(differences[:_LISTED], work.layout.staging)

    async def run_live(self) -> bool:
        """Fetch, finish, and compare; fetch again what is damaged since an earlier run.

        With Plex stopped, damage that the delta keeps would cost another stop. Plex may be changing
        files meanwhile: one that an earlier run fetched costs a frame, any other is left to the
        next pass. The agent then has all digests. When Plex is stopped, it needs only those of what
        changed. Return whether staging holds exactly what the manifest says.
        """
        await self._fetch()
        differences, wrong = await self._finish_live()
        await self._refuse_damaged(wrong)
        if doubtful := [each for each in wrong if self._work.may_be_damaged(*each)]:
            _log.warning(_DAMAGED, paths=_named(doubtful))
            await in_thread(self._work.redo, doubtful)
            await self._fetch()
            differences, wrong = await self._finish_live()
            await self._refuse_damaged(wrong)
        return not differences

    async def _finish_live(self) -> tuple[list[str], Wrong]:
        """Do the same as :meth:`_finish`, but neither check the source nor remove a wrong file."""
        self._progress.phase("finishing")
        finishing = in_thread(self._work.finish, self._unfinished)
        differences, _ = await _side_by_side(finishing, self._queries.sums(self._work.manifest))
        return differences, await in_thread(lambda: list(self._wrong()))

    async def _refuse_damaged(self, wrong: Wrong) -> None:
        """Raise SnapshotGone if what a delta keeps is damaged, so that it is fetched again."""
        if kept := [each for each in wrong if each[1].kept]:
            _log.warning("what the delta keeps is damaged on the volume", paths=_named(kept))
            await in_thread(self._work.forget, kept)
            raise SnapshotGone("what the delta keeps is damaged on the volume, fetching it again")

    async def _fetch(self) -> None:
        """Fetch all missing frames onto the volume, and journal them."""
        work, plan = self._work, self._work.manifest.plan
        frames, tar_bytes, entries = await in_thread(self._there)
        self._progress.phase("transferring")
        have_entries = plan.entries - (plan.counted_entries - entries)
        self._progress.expect(plan.tar_bytes, plan.entries, tar_bytes, have_entries)
        self._left = len(plan) - frames
        lanes = [await self._lane(worker) for worker in self._context.workers]
        parts = work.journal.missing_parts(len(lanes))
        try:
            await fetch_frames(self._context.options.retrier, lanes, parts, self._receive)
        finally:
            await to_its_end(self._commit_all())

    def _there(self) -> tuple[int, int, int]:
        """Return how many frames are journaled, with their tar bytes and entries.

        Count these and not the missing ones: a short manifest may declare millions.
        """
        frames = tar_bytes = entries = 0
        for number in self._work.journal.safe():
            frame = self._work.manifest.plan[number]
            frames += 1
            tar_bytes += frame.size
            entries += frame.count if frame.block == 0 else 0
        return frames, tar_bytes, entries

    async def _lane(self, worker: Worker) -> Bring[Unpacked]:
        """Return a function that has ``worker`` fetch a frame of this snapshot."""
        work, manifest = self._work, self._work.manifest
        await worker.assign(
            Assignment(
                pairing=self._context.client.pairing,
                idle=self._context.client.idle,
                encoding=self._encoding,
                snapshot=manifest.name,
                manifest=manifest.path,
                staging=work.layout.staging,
                digests=work.layout.digests(manifest.name),
                entries=manifest.plan.entries,
                policy=work.policy,
            )
        )

        async def bring(number: int, following: int | None) -> Unpacked:
            frame, journal = manifest.plan[number], work.journal
            location = manifest.location(frame.first, frame.count)
            ahead = following if following is None or journal.tag(following) is None else None
            return await worker.bring(Order(frame, location, journal.tag(number), ahead))

        return bring

    async def _finish_soon(self, asked: asyncio.Future[None]) -> tuple[list[str], Wrong]:
        """Do the same as :meth:`_finish`, while the earlier request for digests is answered."""
        self._progress.phase("verifying")

        async def finish() -> tuple[list[str], Wrong]:
            differences = await in_thread(self._work.finish, self._unfinished)
            await asked
            return differences, await in_thread(self._drop_wrong)

        found, _ = await _side_by_side(finish(), self._queries.check())
        return found

    async def _finish(self) -> tuple[list[str], Wrong]:
        """Finish and verify the tree while the agent completes its digests and checks its own.

        Returns:
            Attributes that are wrong, and the files with a wrong digest, which are removed.
        """
        self._progress.phase("verifying")
        finishing = in_thread(self._work.finish, self._unfinished)
        differences, _ = await _side_by_side(finishing, self._queries.sums(self._work.manifest))
        dropping = in_thread(self._drop_wrong)
        wrong, _ = await _side_by_side(dropping, self._queries.check())
        return differences, wrong

    def _drop_wrong(self) -> Wrong:
        """Remove the files that are not what the agent read."""
        wrong = list(self._wrong())
        if wrong:
            self._work.redo(wrong)
        return wrong

    def _wrong(self) -> Iterator[tuple[int, Entry]]:
        work = self._work
        return wrong_sums(work.manifest, work.digests, work.layout.sums(work.manifest.name))

    async def _receive(self, number: int, unpacked: Unpacked) -> None:
        """Journal frames in batches, files on disk before the record.

        Half a batch is made durable while the other half arrives; a slow disk is waited for.
        """
        if not unpacked.is_held:
            self.moved_bytes += self._work.manifest.plan[number].size
        self._unfinished.add(number, unpacked)
        self._pending.append((number, unpacked.digest))
        self._left -= 1
        if self._committing is not None:
            if not self._committing.done() and len(self._pending) < BATCH // 2:
                return
            await asyncio.shield(self._committing)
        is_old = time.monotonic() - self._since > _BATCH_SECONDS
        if is_old or len(self._pending) >= min(BATCH // 2, self._left // _SHARE):
            self._committing = asyncio.ensure_future(self._commit())

    async def _commit_all(self) -> None:
        if self._committing is not None:
            await self._committing
        await self._commit()

    async def _commit(self) -> None:
        batch, self._pending = self._pending, []
        if not batch:
            return
        await in_thread(self._work.commit, batch)
        self._since = time.monotonic()
        for number, _ in batch:
            frame = self._work.manifest.plan[number]
            self._progress.advance(frame.size, frame.count if frame.block == 0 else 0)


def _named(wrong: Wrong) -> list[str]:
    return [printable(entry.path) for _, entry in wrong[:_LISTED]]


async def _side_by_side(here: Coroutine[Any, Any, T], there: Coroutine[Any, Any, U]) -> tuple[T, U]:
    """Await what threads and the agent do at the same time; never leave a thread running."""
    done, asked = asyncio.ensure_future(here), asyncio.ensure_future(there)
    try:
        return await done, await asked
    finally:
        await cancel(done, asked)
