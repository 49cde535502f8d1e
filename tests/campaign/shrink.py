"""Drops faults from a story that fails, until it does not fail any more."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from campaign.machine import Outcome
    from campaign.story import Story

_TRIES = 2
"""Runs of each shorter story: not every one fails each time."""


def shortest(story: Story, failed: Outcome, run: Callable[[Story], Outcome]) -> Outcome:
    """Return the result of the shortest story found that still breaks the promise.

    Args:
        story: the story.
        failed: its result.
        run: runs a story.
    """
    kept, best = list(story.kept), failed
    for each in story.kept:
        fewer = [other for other in kept if other != each]
        for _ in range(_TRIES):
            outcome = run(story.only(fewer))
            if outcome.violations:
                kept, best = fewer, outcome
                break
    return best
