"""Each way to break something, by its name."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from campaign.site import Site
    from campaign.story import When

    Evidence: TypeAlias = Callable[[], bool]
    Strike: TypeAlias = Callable[[Site, random.Random], bool | Evidence]


class Side(Enum):
    """A machine whose power can be cut."""

    NODE = "node"
    """That of the puller, with the volume."""
    VM = "vm"
    """That of the agent, with its state folders."""


@dataclass(frozen=True)
class Fault:
    """One way to break something.

    Args:
        name: what happens, for tables.
        strike: does it; returns whether it took place. If only the end of the story shows that, it
            returns a function for then.
        needs_shim: whether it fails calls of the C library.
        loses_power: the machine whose disk forgets what was not flushed.
        after_move: whether it can also happen when the move is complete.
        when: the events that its moment is counted from if the mode has a cutover; otherwise any.
    """

    name: str
    strike: Strike
    needs_shim: bool = False
    loses_power: Side | None = None
    after_move: bool = False
    when: frozenset[When] = frozenset()
