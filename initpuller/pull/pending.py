"""A publication that an earlier run did not finish: finished only if nothing has changed since.

The record on the volume is old. Since then the administrator may have undone the move, and Plex may
have run on the VM. So the agent is asked first (docs/states.md, rows *uncommitted* to *renamed*).
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog

from initpuller.volume.publish.unpublish import unpublish
from initpuller.volume.records.transitions import presumed_committed
from shared.errors import AgentUnreachable, CutoverEnded

if TYPE_CHECKING:
    from initpuller.pull.cutover import Cutover
    from initpuller.pull.options import PullOptions
    from initpuller.pull.passes import Passes
    from initpuller.volume.records.pull_record import PullRecord

_log = structlog.get_logger("puller")


class PendingPublication:
    """Decides what becomes of what an earlier run had verified.

    Args:
        record: of the volume.
        options: what the user wants.
        passes: who asks the agent about a snapshot.
        cutover: who asks the agent about a cutover.
    """

    def __init__(
        self, record: PullRecord, options: PullOptions, passes: Passes, cutover: Cutover
    ) -> None:
        self._record = record
        self._options = options
        self._passes = passes
        self._cutover = cutover

    async def is_due(self) -> bool:
        """Return whether what is staged is to be published; if not, it counts as transferred only.

        The volume's record must say ``committing`` or ``publishing``.

        Raises:
            AgentUnreachable: nobody knows; nothing is published.
            CutoverEnded: the user vouched for a Plex that the agent has started again.
            CutoverRefused: it was committed, and this run must not end the move.
            PlexodusError: the agent does not accept the request.
        """
        options, state = self._options, self._record.current
        if options.rehearse or options.until_ready:
            if state.cutover:
                await self._cutover.withdraw(state.cutover)
            is_due = False
        elif state.phase == "committing":
            is_due = await self._is_committed_now()
        elif state.cutover:
            is_due = await self._is_committed_still()
        else:
            is_due = options.is_vouched and await self._passes.is_unchanged(state.snapshot.id)
        if not is_due:
            _log.warning(
                "what was verified is out of date, resuming", path=self._record.layout.staging
            )
            await asyncio.to_thread(unpublish, self._record)
        return is_due

    async def _is_committed_now(self) -> bool:
        try:
            await self._cutover.commit()
        except AgentUnreachable as error:
            self._take_the_users_word(error)
            self._record.apply(presumed_committed)
        return True

    async def _is_committed_still(self) -> bool:
        try:
            is_committed = await self._cutover.is_committed()
        except AgentUnreachable as error:
            self._take_the_users_word(error)
            return True
        if not is_committed and self._options.is_vouched:
            await asyncio.to_thread(unpublish, self._record)
            raise CutoverEnded(
                "the agent says that this move was undone, so nothing was published: what is staged"
                " is out of date",
                hint="Run pull without --no-cutover. Or stop Plex on the VM, and run this again.",
            )
        return is_committed

    def _take_the_users_word(self, error: AgentUnreachable) -> None:
        """Raise ``error`` unless the user says that Plex is down on the VM."""
        if not self._options.is_vouched:
            raise AgentUnreachable(
                f"nothing was published, because {error.what}",
                path=error.path,
                hint="The library is verified, but the move may have been undone since. Start the"
                " agent and run again. If the VM is gone, or Plex on it is down for good, add"
                " --no-cutover.",
            ) from error
        _log.warning("publishing without the agent: Plex is down on the VM, says --no-cutover")
