"""A publication that an earlier run did not finish: finished only if nothing has changed since.

The record on the volume is old. Since then the administrator may have undone the move, and Plex may
have run on the VM. So the agent is asked first (docs/states.md, rows *uncommitted* to *renamed*).
The volume may have lost or changed what it held, so every file is read again. The agent is asked
after that, too, because it takes a while.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog

from initpuller.pull.options import Mode, PullContext
from initpuller.volume.publish.recheck import damage
from initpuller.volume.publish.unpublish import unpublish
from initpuller.volume.records.transitions import presumed_committed
from shared.errors import AgentUnreachable, CutoverEnded, SnapshotGone, SourceChanged

if TYPE_CHECKING:
    from initpuller.pull.cutover import Cutover
    from initpuller.volume.records.pull_record import PullRecord

_log = structlog.get_logger("puller")

_LISTED = 1000
"""Files named in one message."""


async def is_due(context: PullContext, cutover: Cutover) -> bool:
    """Return whether the volume holds a verified library that is to be published now.

    If it holds one that is out of date, that counts as transferred only from now on.

    Raises:
        AgentUnreachable: nobody knows; nothing is published.
        CutoverEnded: the user vouched for a Plex that the agent has started again.
        CutoverRefused: it was committed, and this run must not end the move.
    """
    state = context.record.state
    if state is None or state.receipt is None or state.receipt.rehearsal:
        return False
    due = (
        await _is_wanted(context, cutover)
        and await is_sound(context.record)
        and await _is_wanted(context, cutover)
    )
    if not due:
        path = context.layout.staging
        _log.warning("what was verified is out of date, resuming", path=path)
        await asyncio.to_thread(unpublish, context.record)
    return due


async def is_sound(record: PullRecord) -> bool:
    """Read the library again that an earlier run verified; return whether it is still that.

    Raises:
        StorageError: the volume cannot be read.
    """
    _log.info("reading what an earlier run verified again", path=record.layout.target)
    damaged = await asyncio.to_thread(damage, record)
    if damaged:
        _log.warning("files have changed on the volume since", files=damaged[:_LISTED])
    return not damaged


async def _is_wanted(context: PullContext, cutover: Cutover) -> bool:
    """Return whether the agent and the user still want the publication."""
    state, mode = context.record.current, context.options.mode
    if mode is Mode.REHEARSE or mode.is_preseed:
        if state.cutover:
            await cutover.withdraw(state.cutover)
        return False
    if state.phase == "committing":
        return await _is_committed_now(context, cutover)
    if state.cutover:
        return await _is_committed_still(context, cutover)
    return mode is Mode.MOVE_STOPPED and await _is_unchanged(context, state.snapshot.id)


async def _is_unchanged(context: PullContext, snapshot: str) -> bool:
    """Return whether the library on the VM is still as a snapshot with Plex stopped says."""
    try:
        await context.options.retrier.run(
            "the check of the source", lambda: context.client.check(snapshot)
        )
    except (SourceChanged, SnapshotGone) as error:
        _log.warning("the library has changed since it was verified", reason=str(error))
        return False
    return True


async def _is_committed_now(context: PullContext, cutover: Cutover) -> bool:
    try:
        await cutover.commit()
    except AgentUnreachable as error:
        _take_the_users_word(context, error)
        context.record.apply(presumed_committed)
    return True


async def _is_committed_still(context: PullContext, cutover: Cutover) -> bool:
    try:
        is_committed = await cutover.is_committed()
    except AgentUnreachable as error:
        _take_the_users_word(context, error)
        return True
    if not is_committed and context.options.mode is Mode.MOVE_STOPPED:
        await asyncio.to_thread(unpublish, context.record)
        raise CutoverEnded(
            "the agent says that this move was undone, so nothing was published: what is staged"
            " is out of date",
            hint="Run pull without --no-cutover. Or stop Plex on the VM, and run this again.",
        )
    return is_committed


def _take_the_users_word(context: PullContext, error: AgentUnreachable) -> None:
    """Raise ``error`` unless the user says that Plex is down on the VM."""
    if context.options.mode is not Mode.MOVE_STOPPED:
        raise AgentUnreachable(
            f"nothing was published, because {error.what}",
            path=error.path,
            hint="The library is verified, but the move may have been undone since. Start the"
            " agent and run again. If the VM is gone, or Plex on it is down for good, add"
            " --no-cutover.",
        ) from error
    _log.warning("publishing without the agent: Plex is down on the VM, says --no-cutover")
