"""The steps of a move in their order, and how far it has come, from the migration log."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Self

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from agent.host.migration_log import MigrationEvent


class Milestone(Enum):
    """A step of a move, by its identifier in JSON and its name for people."""

    title: str

    def __new__(cls, identifier: str, title: str) -> Self:
        """Make the identifier the member's value."""
        member = object.__new__(cls)
        member._value_ = identifier
        member.title = title
        return member

    PAIRED = "paired", "Paired"
    CHECKED = "checked", "Checked"
    COPIED = "copied", "Copied while Plex runs"
    STOPPED = "stopped", "Plex stopped on the VM"
    CHANGES = "changes", "Changes transferred"
    VERIFIED = "verified", "Verified"
    COMMITTED = "committed", "Committed"
    PUBLISHED = "published", "Published on the volume"
    STARTED = "started", "Plex runs in the cluster"


class Stage(Enum):
    """How far a step has come."""

    DONE = "done"
    NOW = "now"
    NEXT = "next"
    LATER = "later"
    LEFT_OUT = "left out"
    """A later step is done without it: nothing was stopped, or the agent was not asked."""


class Step(msgspec.Struct, frozen=True):
    """A step of the move."""

    id: Milestone
    stage: Stage
    at: str
    """When it was done: RFC 3339, UTC; empty before."""
    about: str = ""
    """What the migration log says about it."""

    @property
    def title(self) -> str:
        """The name for people."""
        return self.id.title


_REACHED = {
    "pass": (Milestone.COPIED,),
    "stopped": (Milestone.STOPPED,),
    "unchanged": (Milestone.CHANGES,),
    "committed": (Milestone.CHANGES, Milestone.VERIFIED, Milestone.COMMITTED),
    "done": (Milestone.VERIFIED, Milestone.PUBLISHED),
    "started": (Milestone.STARTED,),
}
"""What an event of the migration log reaches."""
_AFTER_COPY = tuple(Milestone)[3:]
_LOST = {"stop": _AFTER_COPY, "undone": _AFTER_COPY, "pull": _AFTER_COPY}
"""What an event makes undone. A pull that begins after a commit only completes it."""


def timeline(
    known: Mapping[Milestone, str], log: Iterable[MigrationEvent], now: Milestone | None
) -> list[Step]:
    """Return all steps.

    Args:
        known: times of steps that the log does not have.
        log: all events, in their order.
        now: the step that is under way.
    """
    reached = {milestone: (at, "") for milestone, at in known.items()}
    for event in log:
        is_committed = Milestone.COMMITTED in reached
        if not (event.event == "pull" and is_committed):
            for milestone in _LOST.get(event.event, ()):
                reached.pop(milestone, None)
        for milestone in _reached(event, is_stopped=Milestone.STOPPED in reached):
            if milestone not in reached or milestone is Milestone.COPIED:
                reached[milestone] = event.at, event.about
    if now is not None:
        reached.pop(now, None)
    order = list(Milestone)
    last = max((order.index(each) for each in (*reached, *([now] if now else []))), default=-1)
    return [
        Step(each, _stage(number, last, each is now, each in reached), *reached.get(each, ("", "")))
        for number, each in enumerate(order)
    ]


def _reached(event: MigrationEvent, *, is_stopped: bool) -> tuple[Milestone, ...]:
    """Return what an event reaches. A pass while Plex is stopped is not a live one."""
    if event.event == "pass" and is_stopped:
        return (Milestone.CHANGES,)
    return _REACHED.get(event.event, ())


def _stage(number: int, last: int, is_now: bool, is_done: bool) -> Stage:  # noqa: FBT001 - private
    if is_now:
        return Stage.NOW
    if is_done:
        return Stage.DONE
    if number < last:
        return Stage.LEFT_OUT
    return Stage.NEXT if number == last + 1 else Stage.LATER


def trouble(log: Iterable[MigrationEvent]) -> MigrationEvent | None:
    """Return the event that somebody has to look at, if nothing has gone well since."""
    found = None
    for event in log:
        if event.event in ("failed", "refused", "attention", "fence", "undo"):
            found = event
        elif event.event in ("pull", "done", "committed", "migrated", "undone"):
            found = None
    return found
