"""The steps of a move in their order, and how far each has come."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Self

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping


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


AFTER_COPY = tuple(Milestone)[3:]
"""Steps of one attempt. What was copied outlasts it."""


def steps(reached: Mapping[Milestone, tuple[str, str]], now: Milestone | None) -> list[Step]:
    """Return all steps, given time and words of those that are done, and the one under way."""
    order = list(Milestone)
    seen = [order.index(each) for each in reached] + ([order.index(now)] if now else [])
    last = max(seen, default=-1)
    return [
        Step(each, Stage.NOW, "")
        if each is now
        else Step(each, _stage(number, last, is_done=each in reached), *reached.get(each, ("", "")))
        for number, each in enumerate(order)
    ]


def _stage(number: int, last: int, *, is_done: bool) -> Stage:
    if is_done:
        return Stage.DONE
    if number < last:
        return Stage.LEFT_OUT
    return Stage.NEXT if number == last + 1 else Stage.LATER
