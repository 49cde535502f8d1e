"""What a run does, by what it finds: the state table of docs/states.md, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from initpuller.volume.records import Phase


class OnExisting(Enum):
    """What to do about a library that is there and not of our making."""

    SKIP = "skip"
    FAIL = "fail"
    SET_ASIDE = "set-aside"


class Action(Enum):
    """What a run does."""

    NOTHING = "everything is done: exit 0, the agent is not asked"
    SKIP = "leave what is there, warn, exit 0"
    REFUSE_EXISTING = "a library that is not ours is there: conflict"
    REFUSE_LOST = "the receipt's library is gone: conflict"
    TRANSFER = "begin, or go on with, the transfer"
    BEGIN_ANEW = "drop the journal, whose staging is gone, and transfer"
    COMMIT = "everything is verified: the agent is asked whether Plex stays stopped for good"
    PUBLISH = "everything is verified: rename, then receipt; the agent is not needed"
    WRITE_RECEIPT = "renamed already: write the receipt; the agent is not needed"


@dataclass(frozen=True)
class Findings:
    """What lies on the volume."""

    receipt: bool
    library: bool
    """Something has the library's final name."""
    phase: Phase | None
    staged: bool
    """The library is in staging."""
    displaces: bool
    """The publication under way had been told to set aside what is in its place."""


def decide(found: Findings, on_existing: OnExisting) -> Action:
    """The row of the table that ``found`` is in."""
    if found.receipt:
        return Action.NOTHING if found.library else Action.REFUSE_LOST
    if found.phase == "publishing":
        return _decide_publishing(found, on_existing)
    is_free = found.displaces or not found.library or on_existing is OnExisting.SET_ASIDE
    if found.phase == "committing" and found.staged and is_free:
        return Action.COMMIT
    if found.library and on_existing is not OnExisting.SET_ASIDE:
        return _existing(on_existing)
    if found.phase is not None and not found.staged:
        return Action.BEGIN_ANEW
    return Action.TRANSFER


def _decide_publishing(found: Findings, on_existing: OnExisting) -> Action:
    if not found.staged:
        return Action.WRITE_RECEIPT if found.library else Action.BEGIN_ANEW
    if found.library and not found.displaces and on_existing is not OnExisting.SET_ASIDE:
        return _existing(on_existing)
    return Action.PUBLISH


def _existing(on_existing: OnExisting) -> Action:
    return Action.SKIP if on_existing is OnExisting.SKIP else Action.REFUSE_EXISTING
