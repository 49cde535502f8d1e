"""Decide what a run does, by what it finds: the state table of docs/states.md."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from initpuller.volume.records.state import Phase


class OnExisting(Enum):
    """The action for a library that is there and that no pull put there."""

    SKIP = "skip"
    FAIL = "fail"
    SET_ASIDE = "set-aside"


class Action(Enum):
    """The action of a run."""

    NOTHING = "everything is done: exit 0, the agent is not asked"
    SKIP = "leave what is there, warn, exit 0"
    REFUSE_EXISTING = "a library that is not ours is there: conflict"
    REFUSE_TAKEN = "the name was taken during the move: have Plex started again, then conflict"
    REFUSE_LOST = "the receipt's library is gone: conflict"
    TAKE_BACK = "a rehearsal is there: transfer, and take it back when the agent has scanned"
    TRANSFER = "begin, or resume, the transfer"
    BEGIN_ANEW = "drop the journal, whose staging is gone, and transfer"
    COMMIT = "everything is verified: the agent is asked whether Plex stays stopped for good"
    PUBLISH = "everything is verified: if that is still so, rename, then receipt"
    WRITE_RECEIPT = "renamed already: if it is still right, write the receipt"


@dataclass(frozen=True)
class Findings:
    """The findings on the volume."""

    receipt: bool
    library: bool
    """Something has the library's final name."""
    phase: Phase | None
    staged: bool
    """The library is in staging."""
    displaces: bool
    """The publication under way is to set aside what is in its place."""
    names_cutover: bool = False
    """Plex on the VM was stopped for this move, at least once."""
    returns: bool = False
    """What was published, or is about to be, is a rehearsal that this run does not want there."""


def decide(found: Findings, on_existing: OnExisting) -> Action:
    """Return the action of the row that ``found`` is in."""
    if found.returns:
        return Action.TAKE_BACK
    if found.receipt:
        return Action.NOTHING if found.library else Action.REFUSE_LOST
    if found.phase == "publishing":
        return _decide_publishing(found, on_existing)
    is_free = found.displaces or not found.library or on_existing is OnExisting.SET_ASIDE
    if found.phase == "committing" and found.staged and is_free:
        return Action.COMMIT
    if found.library and on_existing is not OnExisting.SET_ASIDE:
        return _existing(found, on_existing)
    if found.phase is not None and not found.staged:
        return Action.BEGIN_ANEW
    return Action.TRANSFER


def _decide_publishing(found: Findings, on_existing: OnExisting) -> Action:
    if not found.staged:
        return Action.WRITE_RECEIPT if found.library else Action.BEGIN_ANEW
    if found.library and not found.displaces and on_existing is not OnExisting.SET_ASIDE:
        return Action.REFUSE_TAKEN
    return Action.PUBLISH


def _existing(found: Findings, on_existing: OnExisting) -> Action:
    """Return the action beside a foreign library: exit 0 only if Plex was not stopped for it."""
    if found.names_cutover or found.phase == "committing":
        return Action.REFUSE_TAKEN
    return Action.SKIP if on_existing is OnExisting.SKIP else Action.REFUSE_EXISTING
