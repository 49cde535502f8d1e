"""Actions of people at the wrong moment: Plex started, the move undone, a clock set."""

from __future__ import annotations

from typing import TYPE_CHECKING

from campaign.faults import Fault
from campaign.story import Mode, When

if TYPE_CHECKING:
    import random

    from campaign.site import Site

_HOURS = 3600
_DAYS = 86_400
_OF_CUTOVER = frozenset((When.STOPPED, When.FENCED, When.PUBLISHED))
"""Before these, a cutover has not stopped Plex."""


def _start_plex(site: Site, _: random.Random) -> bool:
    """Start Plex while it does not run; without a cutover, nothing prevents that."""
    if site.vm.plex.processes():
        return False
    if site.story.mode is Mode.STOPPED:
        site.watch.is_excused = True
    site.vm.plex.start()
    return True


def _undo(site: Site, _: random.Random) -> bool:
    """Undo the cutover. Before it begins, the command may change nothing, and is no evidence."""
    if site.story.mode is Mode.STOPPED:
        return False
    has_begun = bool(site.vm.record()["phase"] != "idle")
    site.vm.undo()
    return has_begun


def _set_clock(site: Site, chance: random.Random) -> bool:
    """Set the wall clock of the VM or of the puller's machine, until the end of the story."""
    shim = chance.choice([site.vm.shim, site.puller_shim])
    if shim is None:
        return False
    seconds = chance.choice(
        [chance.randint(-20 * _HOURS, -1), chance.randint(1, 30 * _DAYS), chance.choice([-1, 1])]
    )
    site.note(f"clock {seconds:+} s")
    shim.shift_clock(seconds)
    return True


FAULTS = (
    Fault("Plex started by a person", _start_plex, after_move=True, when=_OF_CUTOVER),
    Fault("undo by a person", _undo, after_move=True),
    Fault("clock set", _set_clock, needs_shim=True, after_move=True),
)
