"""The recipe: how a library comes onto a volume, from top to bottom."""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING

import structlog

from initpuller.cancellation import in_thread, regardless
from initpuller.plex.facts import read_facts
from initpuller.plex.preferences import preferences_name, with_preferences
from initpuller.pull.cutover import Cutover
from initpuller.pull.options import Mode, PullContext, PullOptions
from initpuller.pull.passes import NothingToDo, Passes, Scan
from initpuller.pull.pending import commit, confirm, find_damage, is_due
from initpuller.pull.permission import ASKS, OutOfDate, Permission
from initpuller.pull.stop_terms import StopTerms, circumstances
from initpuller.volume import cleanup
from initpuller.volume.decision import Action, OnExisting
from initpuller.volume.inspect import finished, is_out_of_the_way, look, name_taken
from initpuller.volume.publish import publish
from initpuller.volume.publish.edit_file import amend
from initpuller.volume.publish.recheck import withdraw_damaged
from initpuller.volume.reclaim import Discarded, make_room
from initpuller.volume.records.layout import USUAL_NAME, Layout
from initpuller.volume.records.lock import locked
from initpuller.volume.records.pull_record import PullRecord
from initpuller.volume.records.receipt import load_receipt
from initpuller.volume.records.target import open_layout
from initpuller.volume.records.transitions import unpublished
from initpuller.workers.threads import start_workers
from shared import errors
from shared.plex.library import DATABASE_FOLDER, DATABASES, PREFERENCES, server_folder
from shared.presence import is_there

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from initpuller.pull.passes import Pass
    from initpuller.report.progress import PullProgress
    from initpuller.volume.records.receipt import Receipt
    from initpuller.volume.records.state import Phase
    from initpuller.workers.threads import Worker

_log = structlog.get_logger("puller")

_LOCK_SECONDS = 40.0
"""Time for another puller to end: one in a pod that was deleted has thirty (Kubernetes
documentation, "Pod Lifecycle")."""
_GLANCE = 2.0
"""Seconds between two attempts to get the lock."""
_ROUNDS = 3
"""Attempts in one run: more only if a snapshot is lost, or if Plex was started again."""


async def pull(options: PullOptions, progress: PullProgress) -> None:
    """Put the library onto the volume, unless :func:`published_earlier` finds it there.

    If it raises a PlexodusError, the library's final name is what it was before. The same holds if
    it is cancelled, unless ``progress`` is done.
    """
    record = PullRecord(open_layout(options.target))
    async with AsyncExitStack() as stack:
        stack.enter_context(errors.disk_errors(record.layout.folder))
        await stack.enter_async_context(_locked(record.layout))
        workers = stack.enter_context(start_workers(options.jobs))
        await in_thread(make_room, record)
        action = await in_thread(_inspect, record, options)
        if await _is_decided(action, record, options, progress):
            return
        stack.enter_context(suppress(NothingToDo))
        await stack.enter_async_context(_room_for_others(record))
        stack.enter_context(progress.bar)
        context = await stack.enter_async_context(_connected(record, options, workers, progress))
        passes = await stack.enter_async_context(Passes(context))
        cutover = _cutover(context)
        terms = await in_thread(_stop_terms, options, context.layout.target)
        await _clear_the_way(context, cutover)
        is_delta = True
        for attempts_left in reversed(range(_ROUNDS)):
            try:
                is_ready = await is_due(context, cutover)
                is_ready = is_ready or await _replace_lost(context, passes, cutover)
                match options.mode:
                    case _ if is_ready:
                        pass
                    case Mode.MOVE:
                        await cutover.end_earlier()
                        terms = await cutover.check_repeated(terms)
                        done = await passes.live(Scan("live", is_delta))
                        async with cutover.stopped(terms):
                            scan = Scan("cold", is_stopped=True, done=done)
                            await _transfer_and_verify(context, passes, scan)
                            await commit(context, cutover)
                    case Mode.MOVE_STOPPED:
                        await cutover.require_none()
                        scan = Scan("cold", is_delta)
                        await _transfer_and_verify(context, passes, scan)
                    case Mode.REHEARSE:
                        done = await passes.live(Scan("rehearsal", is_delta))
                        await _transfer_and_verify(context, passes, Scan("rehearsal", done=done))
                        cutover.permission.give()  # a copy of a moment ago stays one
                    case Mode.PRESEED | Mode.PRESEED_STOPPED:
                        await passes.live(Scan("live", is_delta))
                        progress.phase("ready")
                        _log.info("ready: the next pull transfers what has changed by then")
                        return
                await _end(context, cutover)
            except (errors.SnapshotGone, errors.CutoverEnded, errors.SourceChanged) as error:
                is_delta &= await _prepare_retry(context, error, attempts_left)
            else:
                return


def published_earlier(target: str, *, rehearse: bool) -> Receipt | None:
    """Return the receipt if everything is there: then nothing is done, and no agent is asked.

    Args:
        target: the volume.
        rehearse: whether a rehearsal will do.

    Raises:
        ConfigurationError: ``target`` is no folder.
        StorageError: the receipt cannot be read.
    """
    layout = open_layout(target)
    with errors.storage_errors(layout.folder), ExitStack() as stack:
        if is_left := is_there(layout.state):
            # A puller that is at work may be about to take its receipt back.
            try:
                stack.enter_context(locked(layout))
            except errors.VolumeLocked:
                return None
            except errors.StorageError as error:  # then no puller can be at work here, either
                _log.warning("leftovers of the pull stay", path=layout.folder, reason=str(error))
                is_left = False
        receipt = finished(layout, rehearse=rehearse)
        # With the library in staging, it is half taken back, whatever has its name now.
        if receipt is None or is_there(layout.staged(receipt.library.name)):
            return None
        _log.info("everything is there", receipt=layout.receipt, verified=receipt.verified)
        if is_left:
            _sweep(layout, receipt)
        return receipt


@asynccontextmanager
async def _locked(layout: Layout) -> AsyncIterator[None]:
    """Hold the volume's lock; wait a while for another puller to end."""
    deadline = time.monotonic() + _LOCK_SECONDS
    with ExitStack() as stack:
        while True:
            try:
                stack.enter_context(locked(layout))
                break
            except errors.VolumeLocked:
                if time.monotonic() > deadline:
                    raise
                _log.info("another puller is at work on this volume, waiting", path=layout.target)
                await asyncio.sleep(_GLANCE)
        yield


def _inspect(record: PullRecord, options: PullOptions) -> Action:
    """Return what this run does, given what is on the volume."""
    is_rehearsal, depth = options.mode is Mode.REHEARSE, options.existing_check
    return look(record, options.on_existing, rehearse=is_rehearsal, depth=depth)


async def _is_decided(
    action: Action, record: PullRecord, options: PullOptions, progress: PullProgress
) -> bool:
    """Do what needs no agent; return whether that is all.

    A rehearsal that is verified needs none: a copy of a moment ago stays one.
    """
    if action is Action.SKIP:
        progress.skipped()
    if action is Action.NOTHING and (there := load_receipt(record.layout)) is not None:
        progress.earlier(there.snapshot, there.entries)  # this run has waited for the lock
    if action in (Action.NOTHING, Action.SKIP):
        return True
    receipt = record.state.receipt if record.state is not None else None
    is_verified = action in (Action.PUBLISH, Action.WRITE_RECEIPT)
    if not is_verified or receipt is None or not receipt.rehearsal:
        return False
    if await find_damage(record):
        await in_thread(withdraw_damaged, record, options.on_existing)
        return False
    permission = Permission(record)
    permission.give()
    published = await regardless(in_thread(_publish, record, options, permission))
    _report(record.layout, published, progress)
    return True


@asynccontextmanager
async def _room_for_others(record: PullRecord) -> AsyncIterator[None]:
    """If the volume runs full inside, discard incomplete files so that others can write.

    Complete files are discarded only if the next run needs their space.
    """
    try:
        yield
    except errors.NoSpace:
        await in_thread(make_room, record, Discarded.INCOMPLETE)
        raise


@asynccontextmanager
async def _connected(
    record: PullRecord, options: PullOptions, workers: list[Worker], progress: PullProgress
) -> AsyncIterator[PullContext]:
    """Connect to the agent; a failure inside gets into the migration log on the VM."""
    # aiohttp takes longer to import than all else that a run needs which finds everything done.
    from initpuller.agent_client.client import AgentClient  # noqa: PLC0415

    async with AgentClient(options.pairing, options.idle) as client:
        try:
            yield PullContext(record, options, client, workers, progress)
        except errors.AgentUnreachable:
            raise
        except errors.PlexodusError as error:
            await client.tell("failed", f"Pull failed: {error.what}")
            raise


def _cutover(context: PullContext) -> Cutover:
    from initpuller.agent_client.cutover import CutoverClient  # noqa: PLC0415 - as for AgentClient

    return Cutover(context.record, CutoverClient(context.client), context.options.retrier)


def _stop_terms(options: PullOptions, volume: str) -> StopTerms:
    preferences = sorted(options.preferences.items())
    what = options.ownership, options.exclude, preferences, options.on_existing.value
    known = circumstances(volume, options.pairing, repr(what))
    return StopTerms(options.max_downtime, options.retry_failed, known, volume)


async def _clear_the_way(context: PullContext, cutover: Cutover) -> None:
    """End a cutover that cannot be completed, and drop a journal whose staging is gone.

    Raise TargetConflict if something that is not ours took the library's name during the move.
    """
    options, record = context.options, context.record
    rehearse = options.mode is Mode.REHEARSE
    action = await in_thread(look, record, options.on_existing, rehearse=rehearse)
    if action not in (Action.REFUSE_TAKEN, Action.BEGIN_ANEW):
        return
    await cutover.release()
    if action is Action.BEGIN_ANEW:
        await in_thread(_forget_staging, record)
        return
    state = record.state
    name = state.snapshot.library.name if state is not None else USUAL_NAME
    raise name_taken(record.layout.library(name))


def _forget_staging(record: PullRecord) -> None:
    """Drop the records of a staging that is gone, except for the name of a cutover.

    The agent may have committed it: then Plex stays stopped until this pull is done.
    """
    with errors.storage_errors(record.layout.folder):
        if not record.current.cutover:
            cleanup.drop_work(record)
            return
        if record.current.phase != "transferring":
            record.apply(unpublished)
        cleanup.drop_records(record.layout)


async def _replace_lost(context: PullContext, passes: Passes, cutover: Cutover) -> bool:
    """Transfer what a volume has lost for which the agent has committed: Plex stays stopped.

    Return whether that was done: if not, Plex is not stopped for this pull yet.
    """
    if not await cutover.is_kept():
        return False
    _log.warning("Plex stays stopped: transferring what the volume has lost")
    whole = Scan("cold", is_delta=False, is_stopped=True)
    await _transfer_and_verify(context, passes, whole)
    await commit(context, cutover)
    return True


async def _transfer_and_verify(context: PullContext, passes: Passes, scan: Scan) -> None:
    """Scan, transfer what is missing, verify, and record what is about to be published."""
    phase: Phase = "committing" if scan.is_stopped else "publishing"
    async with await passes.begin(scan) as work:
        await passes.bring(work)
        databases = await passes.databases()
        context.progress.phase("publishing")
        await in_thread(_prepare, work, phase, databases, context.options)


def _prepare(work: Pass, phase: Phase, databases: dict[str, str], options: PullOptions) -> None:
    """Set the preferences that the user wants, and record what is about to be published."""
    staging, preferences = work.staging, options.preferences
    name, layout = staging.state.snapshot.library.name, staging.layout
    if preferences:
        amend(staging, preferences_name(name), partial(with_preferences, settings=preferences))
    facts, server = None, server_folder(name)
    needed = (PREFERENCES, os.path.join(DATABASE_FOLDER, DATABASES[0]))
    if server and all(staging.regular_file(os.path.join(server, each)) for each in needed):
        facts = read_facts(os.path.join(layout.staging, server), work.source.plex_version)
    is_wanted = options.on_existing is OnExisting.SET_ASIDE
    displace = is_wanted or is_out_of_the_way(layout, name)
    observed = publish.Observations(preferences, databases, facts)
    publish.prepare(staging, phase, observed, displace=displace)


async def _published(context: PullContext, cutover: Cutover) -> Receipt:
    """Publish what is verified, by an answer of the agent that is fresh at the rename.

    Everything that takes long is done before. The errors are those of a publication, and of
    :func:`confirm`.
    """
    asks_left = ASKS
    while True:
        await confirm(context, cutover)
        try:
            publishing = in_thread(_publish, context.record, context.options, cutover.permission)
            return await regardless(publishing)
        except OutOfDate:
            asks_left -= 1
            if not asks_left:
                raise
            _log.warning("the agent's answer is out of date, asking again")


async def _prepare_retry(
    context: PullContext, error: errors.PlexodusError, attempts_left: int
) -> bool:
    """Report a failure that another attempt may not meet; return whether it may ask for a delta.

    Raise ``error`` itself if there is no other attempt.
    """
    is_gone = isinstance(error, errors.SnapshotGone)
    # Any other of these errors with Plex stopped by the agent: Plex may have run since.
    if not attempts_left or not (is_gone or context.options.mode.is_for_cutover):
        raise error
    if is_gone:
        _log.warning("scanning again, the whole library", reason=str(error))
        about = f"Scanning the whole library again: {error.what}"
    else:
        _log.warning("retrying: Plex may have run during the cutover", reason=str(error))
        about = f"Retrying, because Plex may have run: {error.what}"
    await context.client.tell("again", about)
    return not is_gone


def _publish(record: PullRecord, options: PullOptions, permission: Permission) -> Receipt:
    publish.displace(record, options.on_existing)
    permission.require()
    return publish.publish(record, permission.require)


def _report(layout: Layout, receipt: Receipt, progress: PullProgress) -> None:
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
    about = f"{what} of {receipt.entries} entries is there as {library}, verified"
    progress.reached("Published", about)
    progress.done()


async def _end(context: PullContext, cutover: Cutover) -> None:
    """Publish; then add the end of the pull to the migration log on the VM."""
    receipt = await _published(context, cutover)
    _report(context.layout, receipt, context.progress)
    down = context.progress.down = cutover.downtime()
    took = f"; Plex was down for {down:.1f} s" if down is not None else ""
    library = context.layout.library(receipt.library.name)
    event, what = (
        ("rehearsed", "Rehearsal published:") if receipt.rehearsal else ("done", "Published")
    )
    await context.client.tell(event, f"{what} {library}, snapshot {receipt.snapshot}{took}")


def _sweep(layout: Layout, receipt: Receipt) -> None:
    """Remove what a run that was killed right after its receipt has left."""
    try:
        cleanup.remove_leftovers(PullRecord(layout), receipt)
    except (errors.PlexodusError, OSError) as error:  # the library is still whole
        _log.warning("leftovers of the pull stay", path=layout.folder, reason=str(error))
