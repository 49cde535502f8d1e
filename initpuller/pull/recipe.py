"""The recipe: how a library comes onto a volume, from top to bottom."""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from initpuller.plex.facts import read_facts
from initpuller.plex.preferences import preferences_name, with_preferences
from initpuller.pull.cutover import Cutover
from initpuller.pull.passes import Passes
from initpuller.pull.pending import PendingPublication
from initpuller.pull.stop_terms import StopTerms, circumstances
from initpuller.volume import cleanup
from initpuller.volume.decision import Action, OnExisting
from initpuller.volume.inspect import finished, is_out_of_the_way, look, name_taken
from initpuller.volume.publish import publish
from initpuller.volume.publish.edit_file import amend
from initpuller.volume.publish.unpublish import unpublish
from initpuller.volume.reclaim import Discarded, make_room, require_room
from initpuller.volume.records.layout import USUAL_NAME, Layout
from initpuller.volume.records.lock import locked
from initpuller.volume.records.pull_record import PullRecord
from initpuller.volume.records.target import open_layout
from initpuller.workers.pool import Workers
from shared import errors
from shared.plex.library import DATABASE_FOLDER, DATABASES, PREFERENCES, server_folder

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from initpuller.pull.options import PullOptions
    from initpuller.report.progress import PullProgress
    from initpuller.volume.records.receipt import Receipt
    from initpuller.volume.records.state import Phase
    from initpuller.volume.staging.staging import Staging
    from initpuller.workers.pool import Worker
    from shared.wire.protocol import Kind

_log = structlog.get_logger("puller")

_LOCK_SECONDS = 40.0
"""That another puller gets to end: one in a pod that was deleted has thirty (Kubernetes
documentation, "Pod Lifecycle")."""
_GLANCE = 2.0
_ROUNDS = 3
"""Times in one run that a snapshot is lost, or Plex started again, before we are done."""


def is_over(target: str, *, rehearse: bool) -> bool:
    """Whether everything is there: then nothing is done, and nobody is asked.

    Args:
        target: the volume.
        rehearse: a rehearsal will do.

    Raises:
        ConfigurationError: ``target`` is no folder.
        StorageError: the receipt cannot be read.
    """
    layout = open_layout(target)
    receipt = finished(layout, rehearse=rehearse)
    if receipt is None:
        return False
    _log.info("everything is there", receipt=layout.receipt, verified=receipt.verified)
    _sweep(layout, receipt)
    return True


async def pull(options: PullOptions, progress: PullProgress) -> None:
    """Bring the library onto the volume, where :func:`is_over` says that there is something to do.

    Args:
        options: what the user wants.
        progress: where people look.

    Raises:
        PlexodusError: the library's final name is then what it was before.
    """
    layout = open_layout(options.target)
    with ExitStack() as stack:
        await _lock(layout, stack)
        record = PullRecord(layout)
        workers = stack.enter_context(Workers(options.jobs))
        await asyncio.to_thread(make_room, record)
        action = await asyncio.to_thread(
            look,
            record,
            options.on_existing,
            rehearse=options.rehearse,
            depth=options.existing_check,
        )
        if action is Action.SKIP:
            progress.skipped()
        if action is Action.NOTHING or action is Action.SKIP:
            return
        concluded = await asyncio.to_thread(_conclude, record, action, options.on_existing)
        if concluded is not None:
            _reach_the_end(layout, concluded, progress)
            return
        try:
            with progress:
                await _pull(record, options, workers, progress)
        except errors.NoSpace:
            # So that others can write. What is complete goes only if the next run needs its room.
            await asyncio.to_thread(make_room, record, Discarded.INCOMPLETE)
            raise


async def _lock(layout: Layout, stack: ExitStack) -> None:
    """Have the volume for ourselves until ``stack`` unwinds; whoever is about to end may do so.

    Raises:
        VolumeLocked: another puller goes on.
        StorageError: the volume cannot be written.
    """
    deadline = time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            stack.enter_context(locked(layout))
        except errors.VolumeLocked:
            if time.monotonic() > deadline:
                raise
            _log.info("another puller is at work on this volume, waiting", path=layout.target)
            await asyncio.sleep(_GLANCE)
        else:
            return


async def _pull(
    record: PullRecord, options: PullOptions, workers: list[Worker], progress: PullProgress
) -> None:
    # aiohttp takes longer to import than all else that a run needs which finds everything done.
    from initpuller.agent_client.client import AgentClient  # noqa: PLC0415
    from initpuller.agent_client.cutover import CutoverClient  # noqa: PLC0415

    async with AgentClient(options.pairing, options.idle) as client:
        layout = record.layout
        passes = Passes(record, options, client, workers, progress)
        terms = await asyncio.to_thread(_stop_terms, options, layout.target)
        cutover = Cutover(record, CutoverClient(client), options.retrier, terms)
        move = Move(record, options, passes, cutover, progress, client.tell)
        try:
            published = await move.until_over()
        except errors.AgentUnreachable:
            raise
        except errors.PlexodusError as error:
            await client.tell("failed", f"Pull failed: {error.what}")
            raise
        finally:
            await passes.close()
        if published is not None:
            down = cutover.downtime()
            took = f"; Plex was down for {down:.1f} s" if down is not None else ""
            what = "Rehearsal published:" if published.rehearsal else "Published"
            about = f"{what} {layout.library(published.library.name)}, snapshot"
            await client.tell("done", f"{about} {published.snapshot}{took}")


@dataclass(frozen=True)
class Move:
    """One run, from the first look at the agent to the receipt."""

    record: PullRecord
    options: PullOptions
    passes: Passes
    cutover: Cutover
    progress: PullProgress
    tell: Callable[[str, str], Awaitable[None]]
    """Adds an event to the migration log."""

    async def until_over(self) -> Receipt | None:
        """Everything, once more where what was brought is out of date; what was published.

        Raises:
            PlexodusError: the library's final name is then what it was before.
        """
        await self._clear_the_way()
        is_delta = True
        for attempt in range(_ROUNDS):
            try:
                return await self._round(is_delta=is_delta)
            except errors.SnapshotGone as error:
                if attempt == _ROUNDS - 1:
                    raise
                is_delta = False
                _log.warning("scanning again, the whole library", reason=str(error))
                await self.tell("again", f"Scanning the whole library again: {error.what}")
            except (errors.CutoverEnded, errors.SourceChanged) as error:
                # Changed while Plex was stopped for us: somebody has started it.
                if attempt == _ROUNDS - 1 or not self.options.cutover:
                    raise
                _log.warning("once more: Plex runs on the VM", reason=str(error))
                await self.tell("again", f"Once more, since Plex runs: {error.what}")
        return None

    async def _clear_the_way(self) -> None:
        """End a cutover that can come to nothing, and drop a journal whose staging is gone.

        Raises:
            TargetConflict: something that is not ours took the library's name during the move.
            PlexodusError: the volume cannot be read, or Plex does not start.
        """
        options, layout = self.options, self.record.layout
        action = await asyncio.to_thread(
            look, self.record, options.on_existing, rehearse=options.rehearse
        )
        if action not in (Action.REFUSE_TAKEN, Action.BEGIN_ANEW):
            return
        state = self.record.state
        await self.cutover.release()
        if action is Action.BEGIN_ANEW:
            await asyncio.to_thread(_drop, self.record)
            return
        name = state.snapshot.library.name if state is not None else USUAL_NAME
        raise name_taken(layout.library(name))

    async def _round(self, *, is_delta: bool) -> Receipt | None:
        state = self.record.state
        if state is not None and state.receipt is not None and not state.receipt.rehearsal:
            pending = PendingPublication(self.record, self.options, self.passes, self.cutover)
            if await pending.is_due():
                return await self._publish()
        if self.options.until_ready:
            await self.passes.live(is_delta=is_delta)
            self.progress.phase("ready")
            _log.info("ready: the next pull brings what has changed by then")
            return None
        if self.options.rehearse:
            if not await self.passes.live("rehearsal", is_delta=is_delta):
                return None
            return await self._bring("publishing", "rehearsal", is_delta=True)
        if not self.options.cutover:
            return await self._bring("publishing", is_delta=is_delta)
        await self.cutover.end_earlier()
        await self.cutover.check_repeated()
        if not await self.passes.live(is_delta=is_delta):
            return None
        async with self.cutover.stopped():
            return await self._bring("committing", is_delta=True)

    async def _bring(self, phase: Phase, kind: Kind = "cold", *, is_delta: bool) -> Receipt | None:
        """Scan, fetch, unpack, verify, publish; None if nothing is to be done."""
        is_stopped = phase == "committing"
        work = await self.passes.begin(kind, is_delta=is_delta, is_stopped=is_stopped)
        if work is None:
            return None
        try:
            await self.passes.bring(work)
            self.progress.phase("publishing")
            await asyncio.to_thread(_prepare, work, phase, self.options, self.passes)
        finally:
            work.close()
        if is_stopped:
            await self._commit()
        return await self._publish()

    async def _commit(self) -> None:
        """Have Plex stay stopped for good, unless the library's name has been taken.

        Raises:
            TargetConflict: it has; nothing was committed.
            NoSpace: what follows could not be written down.
            CutoverEnded: Plex runs, or has run, on the VM.
            PlexodusError: nobody knows; the next run asks.
        """
        name, on_existing = self.record.current.snapshot.library.name, self.options.on_existing
        action = await asyncio.to_thread(look, self.record, on_existing, name)
        if action is Action.REFUSE_TAKEN:
            raise name_taken(self.record.layout.library(name))
        await asyncio.to_thread(require_room, self.record.layout)
        await self.cutover.commit()
        if not await self.cutover.is_committed():
            await asyncio.to_thread(unpublish, self.record)
            raise errors.CutoverEnded("the move was undone on the VM right after the commit")
        self.progress.reached("Committed", "Plex stays stopped on the VM")

    async def _publish(self) -> Receipt:
        await asyncio.to_thread(publish.displace, self.record, self.options.on_existing)
        receipt = await asyncio.to_thread(publish.publish, self.record)
        _reach_the_end(self.record.layout, receipt, self.progress)
        return receipt


def _stop_terms(options: PullOptions, volume: str) -> StopTerms:
    preferences = sorted(options.preferences.items())
    what = options.ownership, options.exclude, preferences, options.on_existing.value
    known = circumstances(volume, options.pairing, repr(what))
    return StopTerms(options.max_downtime, options.retry_failed, known, volume)


def _conclude(record: PullRecord, action: Action, on_existing: OnExisting) -> Receipt | None:
    """Publish a rehearsal that is verified: it is a copy of a moment ago, whenever that was."""
    state = record.state
    if state is None or state.receipt is None or not state.receipt.rehearsal:
        return None
    if action not in (Action.PUBLISH, Action.WRITE_RECEIPT):
        return None
    publish.displace(record, on_existing)
    return publish.publish(record)


def _prepare(work: Staging, phase: Phase, options: PullOptions, passes: Passes) -> None:
    """Set the preferences that the user wants, and record what is about to be published."""
    name, preferences = work.state.snapshot.library.name, options.preferences
    if preferences:
        amend(work, preferences_name(name), lambda content: with_preferences(content, preferences))
    facts, server = None, server_folder(name)
    needed = (PREFERENCES, os.path.join(DATABASE_FOLDER, DATABASES[0]))
    if server and all(work.regular_file(os.path.join(server, each)) for each in needed):
        facts = read_facts(os.path.join(work.layout.staging, server), passes.version)
    is_wanted = options.on_existing is OnExisting.SET_ASIDE
    displace = is_wanted or is_out_of_the_way(work.layout, name)
    observed = publish.Observations(preferences, passes.databases, facts)
    publish.prepare(work, phase, observed, displace=displace)


def _reach_the_end(layout: Layout, receipt: Receipt, progress: PullProgress) -> None:
    library = layout.library(receipt.library.name)
    _log.info(
        "published",
        library=library,
        receipt=layout.receipt,
        entries=receipt.entries,
        bytes=receipt.content_bytes,
        set_aside=receipt.set_aside,
    )
    what = "A rehearsal" if receipt.rehearsal else "All"
    progress.reached(
        "Published", f"{what} of {receipt.entries} entries is there as {library}, verified"
    )
    progress.done()


def _drop(record: PullRecord) -> None:
    try:
        cleanup.drop_work(record)
    except OSError as error:
        raise errors.storage_error(error, record.layout.folder) from error


def _sweep(layout: Layout, receipt: Receipt) -> None:
    """Remove what a run that was killed right after its receipt has left."""
    if not os.path.lexists(layout.state):
        return
    try:
        with locked(layout):
            cleanup.remove_leftovers(PullRecord(layout), receipt)
    except (errors.PlexodusError, OSError) as error:  # the library is whole all the same
        _log.warning("leftovers of the pull stay", path=layout.folder, reason=str(error))
