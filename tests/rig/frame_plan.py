"""The frames of entries that a test has in a list."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shared.frames.plan import FramePlan

if TYPE_CHECKING:
    from collections.abc import Iterable

    from shared.tree.manifest import Entry


def plan(entries: Iterable[Entry]) -> FramePlan:
    """Return the frames of ``entries``, which are in manifest order."""
    frames = FramePlan()
    for entry in entries:
        frames.add(entry)
    return frames
