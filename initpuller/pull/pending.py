"""Questions right before a commit and a publication, also those that an earlier run began.

An earlier run's record on the volume is old. Since then the administrator may have undone the move,
and Plex may have run on the VM. So the agent is asked (docs/states.md, rows *uncommitted* to
*renamed*). The volume may have lost or changed what it held, so all of it is compared again. The
agent is asked after that, because it takes a while. A move that may not be committed yet is not
committed before.
"""

from __future__ import annotations

from contextlib import suppress
from enum import Enum, auto
from typing import TYPE_CHECKING

import structlog

from initpuller.cancellation import in_thread
from initpuller.plex.preferences import preferences_name
from initpuller.pull.earlier_options import require_version, warn_of_ignored
from initpuller.pull.options import Mode, PullContext
from initpuller.pull.permission import ASKS, FRESH_SECONDS, without_a_break
from initpuller.volume.decision import Action
from initpuller.volume.inspect import look, name_taken
from initpuller.volume.publish.recheck import damage, withdraw_damaged
from initpuller.volume.publish.unpublish import is_placed, unpublish
from initpuller.volume.reclaim import require_room
from initpuller.volume.records.transitions import presumed_committed
from shared.errors import (
    AgentUnreachable,
    CutoverEnded,
    IntegrityError,
    PlexodusError,
    SnapshotGone,
    SourceChanged,
)
from shared.timestamps import boottime

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
        PreflightRefused: the pod's Plex is too old for it: no commit then.
        CutoverEnded: the user vouched for a Plex that the agent has started again.
        CutoverRefused: it was committed, and this run must not end the move; or another cutover is
            under way, or committed.
        StorageError: the library cannot be read, or the last records do not fit: no commit then.
        TargetConflict: it has its final name, and is not what was verified; or something else has
            that name: no commit then.
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
    warn_of_ignored(state.receipt, context.options)
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
    """Have what is out of date count as transferred only.

    A library that has its final name may be another by now, which must never get into staging.

    Raises:
        TargetConflict: it is another, or was changed, and is not to be set aside.
    """
    record, layout = context.record, context.layout
    _log.warning("what was verified is out of date, resuming", path=layout.staging)
    receipt = record.current.receipt
    is_final = receipt is not None and await in_thread(is_placed, layout, receipt.library.name)
    if is_final and await find_damage(record):
        await in_thread(withdraw_damaged, record, context.options.on_existing)
    else:
        await in_thread(unpublish, record)


async def commit(context: PullContext, cutover: Cutover) -> None:
    """Have Plex stay stopped for good, unless the library's name has been taken.

    Raises:
        TargetConflict, NoSpace: see :func:`_require_place`; no commit.
        CutoverEnded: Plex runs, or has run, on the VM.
        PlexodusError: it is not known whether the agent has committed; the next run asks.
    """
    await _require_place(context)
    await cutover.commit()
    context.progress.reached("Committed", "Plex stays stopped on the VM")


async def confirm(context: PullContext, cutover: Cutover) -> None:
    """Make sure, right before the rename, that the publication is still wanted.

    If it is not, what is verified counts as transferred only from now on.

    Raises:
        AgentUnreachable: nobody knows; nothing is published.
        CutoverEnded: the move was undone.
        CutoverRefused: the agent may start Plex, or the library has moved to another volume.
        SourceChanged, SnapshotGone: the library on the VM is not what was verified.
    """
    record = context.record
    if cutover.permission.is_valid():
        return
    require = _require_committed if record.current.cutover else _require_unchanged
    try:
        await require(context, cutover)
    except (CutoverEnded, SourceChanged, SnapshotGone):
        if record.current.phase == "publishing":
            await _withdraw(context)
        raise


async def _ask(context: PullContext, cutover: Cutover) -> _Wish:
    """Return whether the agent and the user still want the publication."""
    state, mode = context.record.current, context.options.mode
    if state.phase == "committing":
        return await _commit_now(context, cutover)
    if state.cutover:
        return await _is_committed_still(context, cutover)
    if mode is not Mode.MOVE_STOPPED:
        return _Wish.NO
    try:
        await _require_unchanged(context, cutover)
    except (SourceChanged, SnapshotGone) as error:
        _log.warning("the library has changed since it was verified", reason=str(error))
        return _Wish.NO
    return _Wish.YES


async def _require_unchanged(context: PullContext, cutover: Cutover) -> None:
    """Make sure that the library on the VM is what was verified, and that Plex will not be started.

    A person has stopped Plex, so nothing keeps it stopped between two questions: the last answers
    have to be fresh. The check takes as long as a walk of the library, so it is not the last.
    """
    client, snapshot = context.client, context.record.current.snapshot.id
    retrier, before = context.options.retrier, await cutover.require_none()
    for _ in range(ASKS):
        check = retrier.run("the check of the source", lambda: client.check(snapshot))
        is_known = await without_a_break(check)
        answered = boottime()
        after = await cutover.require_none()
        if is_known and before == after and boottime() - answered < FRESH_SECONDS:
            cutover.permission.give(answered)
            return
        before = after
    raise AgentUnreachable(
        f"the agent took more than {FRESH_SECONDS:.0f} s to say whether Plex may be started, each"
        " time",
        hint="Run again when the network and both machines have less to do.",
    )


async def _is_open(cutover: Cutover) -> _Wish:
    """Return whether a commit is still possible: to ask for it is to commit, which is for later."""
    try:
        return _Wish.YES if await cutover.may_be_committed() else _Wish.NO
    except AgentUnreachable as error:
        raise _unpublished(error) from error


async def _commit_now(context: PullContext, cutover: Cutover) -> _Wish:
    """Commit what an earlier run has verified; if that cannot be published, have Plex started.

    The same goes for a Plex in the pod that is too old for it.
    """
    try:
        await require_version(context.record.planned, context.options)
        await _require_place(context)
    except PlexodusError as error:
        if not await _was_committed(cutover):
            await cutover.release()
            raise
        _log.warning("the agent has committed already, publishing anyway", reason=str(error))
    try:
        await cutover.commit()
    except AgentUnreachable as error:
        _take_the_users_word(context, cutover, error)
        context.record.apply(presumed_committed)
        return _Wish.VOUCHED
    return _Wish.YES


async def _require_place(context: PullContext) -> None:
    """Make sure, right before a commit, that the library can be published after it.

    Raises:
        TargetConflict: its name was taken.
        NoSpace: the last records do not fit.
    """
    record = context.record
    name = record.current.snapshot.library.name
    action = await in_thread(look, record, context.options.on_existing, name)
    if action is Action.REFUSE_TAKEN:
        raise name_taken(record.layout.library(name))
    await in_thread(require_room, record.layout)


async def _was_committed(cutover: Cutover) -> bool:
    """Return whether the agent says that it has committed already: then Plex stays stopped."""
    with suppress(AgentUnreachable):
        return await cutover.is_kept()
    return False


async def _require_committed(context: PullContext, cutover: Cutover) -> None:
    if await _is_committed_still(context, cutover) is _Wish.NO:
        raise CutoverEnded("the move was undone on the VM right after the commit")


async def _is_committed_still(context: PullContext, cutover: Cutover) -> _Wish:
    try:
        is_committed = await cutover.is_committed()
    except AgentUnreachable as error:
        _take_the_users_word(context, cutover, error)
        return _Wish.VOUCHED
    if not is_committed and context.options.mode is Mode.MOVE_STOPPED:
        await _withdraw(context)
        raise CutoverEnded(
            "the agent says that this move was undone, so nothing was published: what is staged"
            " is out of date",
            hint="Run pull without --no-cutover. Or stop Plex on the VM, and run this again.",
        )
    return _Wish.YES if is_committed else _Wish.NO


def _take_the_users_word(context: PullContext, cutover: Cutover, error: AgentUnreachable) -> None:
    """Raise ``error`` unless the user says that Plex is down on the VM, for a moment."""
    if context.options.mode is not Mode.MOVE_STOPPED:
        raise _unpublished(error) from error
    cutover.permission.give(boottime())
    _log.warning("publishing without the agent: Plex is down on the VM, says --no-cutover")


def _unpublished(error: AgentUnreachable) -> AgentUnreachable:
    return AgentUnreachable(
        f"nothing was published, because {error.what}",
        path=error.path,
        hint="The library is verified, but the move may have been undone since. Start the agent and"
        " run again. If the VM is gone, or Plex on it is down for good, add --no-cutover.",
    )
