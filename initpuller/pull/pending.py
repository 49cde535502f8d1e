"""A publication that an earlier run did not finish: finished only if nothing has changed since.

The record on the volume is old. Since then the administrator may have undone the move, and Plex may
have run on the VM. So the agent is asked (docs/states.md, rows *uncommitted* to *renamed*). The
volume may have lost or changed what it held, so all of it is compared again. The agent is asked
after that, because it takes a while. A move that may not be committed yet is not committed before.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import TYPE_CHECKING

import structlog

from initpuller.cancellation import in_thread
from initpuller.plex.preferences import preferences_name
from initpuller.pull.options import Mode, PullContext
from initpuller.volume.publish.recheck import damage, withdraw_damaged
from initpuller.volume.publish.unpublish import unpublish
from initpuller.volume.records.transitions import presumed_committed
from shared.errors import (
    AgentUnreachable,
    CutoverEnded,
    IntegrityError,
    SnapshotGone,
    SourceChanged,
)

if TYPE_CHECKING:
    from initpuller.pull.cutover import Cutover
    from initpuller.volume.records.pull_record import PullRecord

_log = structlog.get_logger("puller")

_LISTED = 1000
"""Files named in one message."""


class _Wish(Enum):
    """The answer to whether the publication is still wanted."""

    NO = auto()
    YES = auto()
    """By the agent."""
    VOUCHED = auto()
    """By the user alone: the agent cannot be reached."""


async def is_due(context: PullContext, cutover: Cutover) -> bool:
    """Return whether the volume holds a verified library that is to be published now.

    If it holds one that is out of date or damaged, that counts as transferred only from now on.

    Raises:
        AgentUnreachable: nobody knows; nothing is published.
        CutoverEnded: the user vouched for a Plex that the agent has started again.
        CutoverRefused: it was committed, and this run must not end the move; or another cutover is
            under way.
        StorageError: the library cannot be read; the next run tries again.
        TargetConflict: it has its final name, and is not what was verified.
        IntegrityError: it is damaged, and the agent cannot be reached.
    """
    state, mode = context.record.state, context.options.mode
    if state is None:
        return False
    is_other = mode is Mode.REHEARSE or mode.is_preseed
    if is_other and state.cutover:
        await cutover.withdraw(state.cutover)
    if state.receipt is None or state.receipt.rehearsal:
        return False
    if is_other:
        wish = _Wish.YES
    elif state.phase == "committing" and mode is Mode.MOVE:
        wish = await _is_open(cutover)
    else:
        wish = await _ask(context, cutover)
    if is_other or wish is _Wish.NO:
        await _withdraw(context)
        return False
    if damaged := await find_damage(context.record):
        if wish is _Wish.VOUCHED:
            raise IntegrityError(
                "the verified library is damaged, and the agent, which has the files, is away",
                path=context.layout.target,
                hint="Start the agent and run again, or repair these and run again:"
                + "".join(f"\n  {line}" for line in damaged[:_LISTED]),
            )
        await in_thread(withdraw_damaged, context.record, context.options.on_existing)
        return False
    if await _ask(context, cutover) is _Wish.NO:
        await _withdraw(context)
        return False
    return True


async def find_damage(record: PullRecord) -> list[str]:
    """Compare the library that an earlier run verified again; return a line a difference.

    Raises:
        StorageError: the volume cannot be read.
    """
    receipt = record.planned
    amended = preferences_name(receipt.library.name) if receipt.preferences else ""
    _log.info("comparing what an earlier run verified again", path=record.layout.target)
    damaged = await in_thread(damage, record, amended)
    if damaged:
        _log.warning("the library has changed on the volume since", differences=damaged[:_LISTED])
    return damaged


async def _withdraw(context: PullContext) -> None:
    path = context.layout.staging
    _log.warning("what was verified is out of date, resuming", path=path)
    await in_thread(unpublish, context.record)


async def _ask(context: PullContext, cutover: Cutover) -> _Wish:
    """Return whether the agent and the user still want the publication."""
    state, mode = context.record.current, context.options.mode
    if state.phase == "committing":
        return await _commit_now(context, cutover)
    if state.cutover:
        return await _is_committed_still(context, cutover)
    if mode is not Mode.MOVE_STOPPED:
        return _Wish.NO
    await cutover.require_none()
    return _Wish.YES if await _is_unchanged(context, state.snapshot.id) else _Wish.NO


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


async def _is_open(cutover: Cutover) -> _Wish:
    """Return whether a commit is still possible: to ask for it is to commit, which is for later."""
    try:
        return _Wish.YES if await cutover.may_be_committed() else _Wish.NO
    except AgentUnreachable as error:
        raise _unpublished(error) from error


async def _commit_now(context: PullContext, cutover: Cutover) -> _Wish:
    try:
        await cutover.commit()
    except AgentUnreachable as error:
        _take_the_users_word(context, error)
        context.record.apply(presumed_committed)
        return _Wish.VOUCHED
    return _Wish.YES


async def _is_committed_still(context: PullContext, cutover: Cutover) -> _Wish:
    try:
        is_committed = await cutover.is_committed()
    except AgentUnreachable as error:
        _take_the_users_word(context, error)
        return _Wish.VOUCHED
    if not is_committed and context.options.mode is Mode.MOVE_STOPPED:
        await in_thread(unpublish, context.record)
        raise CutoverEnded(
            "the agent says that this move was undone, so nothing was published: what is staged"
            " is out of date",
            hint="Run pull without --no-cutover. Or stop Plex on the VM, and run this again.",
        )
    return _Wish.YES if is_committed else _Wish.NO


def _take_the_users_word(context: PullContext, error: AgentUnreachable) -> None:
    """Raise ``error`` unless the user says that Plex is down on the VM."""
    if context.options.mode is not Mode.MOVE_STOPPED:
        raise _unpublished(error) from error
    _log.warning("publishing without the agent: Plex is down on the VM, says --no-cutover")


def _unpublished(error: AgentUnreachable) -> AgentUnreachable:
    return AgentUnreachable(
        f"nothing was published, because {error.what}",
        path=error.path,
        hint="The library is verified, but the move may have been undone since. Start the agent and"
        " run again. If the VM is gone, or Plex on it is down for good, add --no-cutover.",
    )
