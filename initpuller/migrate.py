"""The recipe: how a library comes onto a volume, from top to bottom."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

import structlog

from initpuller.passes import Passes
from initpuller.plex.facts import read_facts
from initpuller.plex.preferences import preferences_name, with_preferences
from initpuller.report.progress import PullProgress
from initpuller.volume import leftovers, publish
from initpuller.volume.amend import amend
from initpuller.volume.decision import Action, OnExisting
from initpuller.volume.findings import finished, look
from initpuller.volume.layout import Layout, locked, open_layout
from initpuller.volume.records import load_state
from initpuller.workers import Workers
from shared import errors
from shared.plexlibrary import DATABASE_FOLDER, DATABASES, PREFERENCES, server_folder

if TYPE_CHECKING:
    from initpuller.passes import PullOptions
    from initpuller.volume.records import Receipt
    from initpuller.volume.staging import Staging
    from initpuller.workers import Worker

_log = structlog.get_logger("puller")

_SCANS = 3
"""Times in one run that a snapshot is made which the agent then loses."""


async def pull(options: PullOptions) -> None:
    """Bring the library onto the volume, or find that it is there.

    Raises:
        PlexodusError: the library's final name is then what it was before.
    """
    layout = open_layout(options.target)
    receipt = finished(layout)  # nothing else runs yet
    if receipt is not None:
        _log.info("everything is there", receipt=layout.receipt, verified=receipt.verified)
        await asyncio.to_thread(_sweep, layout)
        return
    with locked(layout), Workers(options.jobs) as workers:
        action = await asyncio.to_thread(look, layout, options.on_existing)
        if action is Action.NOTHING or action is Action.SKIP:
            return
        if await asyncio.to_thread(_conclude, layout, action):
            return
        with PullProgress() as progress:
            await _pull(layout, options, workers, progress)


async def _pull(
    layout: Layout, options: PullOptions, workers: list[Worker], progress: PullProgress
) -> None:
    # aiohttp takes longer to import than all else that a run needs which finds everything done.
    from initpuller.wire.client import AgentClient  # noqa: PLC0415

    async with AgentClient(options.pairing, options.idle) as client:
        passes = Passes(layout, options, client, workers, progress)
        try:
            published = await _until_over(layout, options, passes, progress)
        except errors.AgentUnreachable:
            raise
        except errors.PlexodusError as error:
            await client.tell("failed", f"Pull failed: {error.what}")
            raise
        if published is not None:
            about = f"Published {layout.library(published.library.name)}, snapshot"
            await client.tell("done", f"{about} {published.snapshot}")


async def _until_over(
    layout: Layout, options: PullOptions, passes: Passes, progress: PullProgress
) -> Receipt | None:
    """Everything, once more from the scan on where a snapshot is lost; what was published."""
    for attempt in range(_SCANS):
        try:
            if not options.until_ready:
                return await _transfer(layout, options, passes, progress, is_delta=attempt == 0)
            await passes.live(is_delta=attempt == 0)
            _log.info("ready: the next pull brings what has changed by then")
        except errors.SnapshotGone as error:
            if attempt == _SCANS - 1:
                raise
            _log.warning("scanning again, the whole library", reason=str(error))
        else:
            return None
    return None


def _conclude(layout: Layout, action: Action) -> bool:
    """Do what can be done without the agent; whether that was all there was to do."""
    state = load_state(layout)
    if state is None:
        return False
    if action is Action.BEGIN_ANEW:
        _drop(layout)
    if state.receipt is None or action not in (Action.PUBLISH, Action.WRITE_RECEIPT):
        return False
    step = publish.publish if action is Action.PUBLISH else publish.seal
    step(layout, state, state.receipt)
    _published(layout, state.receipt)
    return True


async def _transfer(
    layout: Layout,
    options: PullOptions,
    passes: Passes,
    progress: PullProgress,
    *,
    is_delta: bool,
) -> Receipt | None:
    """Scan, fetch, unpack, verify, publish; None if nothing is to be done."""
    work = await passes.begin("cold", is_delta=is_delta)
    if work is None:
        return None
    try:
        await passes.bring(work)
        progress.phase("publishing")
        receipt = await asyncio.to_thread(_prepare, work, options, passes.version)
    finally:
        work.close()
    await asyncio.to_thread(publish.publish, layout, work.state, receipt)
    _published(layout, receipt)
    progress.done()
    return receipt


def _prepare(work: Staging, options: PullOptions, version: str | None) -> Receipt:
    """Change what the user wants changed, and write down what has come."""
    name, preferences = work.state.snapshot.library.name, options.preferences
    if preferences:
        amend(work, preferences_name(name), lambda content: with_preferences(content, preferences))
    facts, server = None, server_folder(name)
    needed = (PREFERENCES, os.path.join(DATABASE_FOLDER, DATABASES[0]))
    if server and all(work.regular_file(os.path.join(server, each)) for each in needed):
        facts = read_facts(os.path.join(work.layout.staging, server), version)
    displace = options.on_existing is OnExisting.SET_ASIDE
    return publish.prepare(work, preferences, facts, displace=displace)


def _published(layout: Layout, receipt: Receipt) -> None:
    _log.info(
        "published",
        library=layout.library(receipt.library.name),
        receipt=layout.receipt,
        entries=receipt.entries,
        bytes=receipt.content_bytes,
        set_aside=receipt.set_aside,
    )


def _drop(layout: Layout) -> None:
    try:
        leftovers.drop_work(layout)
    except OSError as error:
        raise errors.storage_error(error, layout.folder) from error


def _sweep(layout: Layout) -> None:
    """Remove what a run that was killed right after its receipt has left."""
    if not os.path.lexists(layout.state):
        return
    try:
        with locked(layout):
            leftovers.remove_leftovers(layout)
    except (errors.PlexodusError, OSError) as error:  # the library is whole all the same
        _log.warning("leftovers of the pull stay", path=layout.folder, reason=str(error))
