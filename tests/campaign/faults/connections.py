"""Connections that are cut, held, reset or refused, and bytes that are changed on their way."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rig.hostile.fault_proxy import Cut, Flip

from campaign.faults import Fault
from campaign.vm import LEASE

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

    from campaign.faults import Evidence
    from campaign.site import Site

_BYTES = 2 * 1024 * 1024
"""Positions in the data of a connection, most of which are reached."""
_HEAD = 4000
"""Bytes that every connection has: handshake and first response."""


def _cut(site: Site, _: random.Random) -> bool:
    return site.network.cut_all()


def _stall(site: Site, chance: random.Random) -> Evidence:
    """Hold all data for less or for more than a lease."""
    network = site.network
    hold = network.hold()
    site.later(_absence(chance), "data flows", lambda: network.release(hold))
    return lambda: hold.held > 0


def _vanish(site: Site, chance: random.Random) -> bool:
    network = site.network
    absence = network.vanish()
    site.later(_absence(chance), "network is back", lambda: network.come_back(absence))
    return absence.had_connections


def _absence(chance: random.Random) -> float:
    """Return seconds: less or more than a lease."""
    return chance.choice([chance.uniform(0.2, 1), chance.uniform(LEASE, LEASE + 2)])


def _reset(site: Site, chance: random.Random) -> Evidence:
    """Reset the next connections at a byte of their handshake, their head, or a frame."""
    heads = [Cut(chance.randrange(_HEAD)) for _ in range(chance.randint(0, 2))]
    return _plan(site, heads, [Cut(chance.randrange(_BYTES)) for _ in range(2)])


def _flip(site: Site, chance: random.Random) -> Evidence:
    """Change a byte of the next connections."""
    heads = [Flip(chance.randrange(_HEAD)) for _ in range(chance.randint(0, 2))]
    return _plan(site, heads, [Flip(chance.randrange(_BYTES)) for _ in range(2)])


def _plan(site: Site, heads: Sequence[Cut | Flip], bodies: Sequence[Cut | Flip]) -> Evidence:
    """Plan faults for the next connections, and cut those that are open."""
    network = site.network
    network.plan(*heads)
    network.plan_for_frames(*bodies)
    network.cut_all()
    planned = {id(fault) for fault in (*heads, *bodies)}  # another fault may equal one of these
    return lambda: any(id(fault) in planned for fault in network.happened)


FAULTS = (
    Fault("connections cut", _cut),
    Fault("network stalled", _stall),
    Fault("network gone", _vanish),
    Fault("connections reset", _reset),
    Fault("bytes flipped in transit", _flip),
)
