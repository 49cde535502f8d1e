"""A volume that is full or fails or loses bits, a source that fails, a full disk of the VM."""

from __future__ import annotations

import errno
import signal
from typing import TYPE_CHECKING

from campaign.faults import Fault
from campaign.shim import Operation
from campaign.story import When

if TYPE_CHECKING:
    import random
    from pathlib import Path

    from campaign.faults import Evidence
    from campaign.shim import Shim
    from campaign.site import Site

_ABOUT = (Operation.NAME, Operation.OPEN)
"""Calls that neither read nor write content."""


def _flip_staged(site: Site, chance: random.Random) -> bool:
    """Kill the puller, and flip bits of files that it has not verified before the next run."""
    return not _is_verified(site) and _flip(site, chance)


def _flip_verified(site: Site, chance: random.Random) -> bool:
    """Kill the puller between verification and publication, and flip bits of files."""
    return _is_verified(site) and _flip(site, chance)


def _is_verified(site: Site) -> bool:
    """Kill the puller, and return whether a verified library waits in staging."""
    site.signal_puller(signal.SIGKILL)
    if site.process is not None:
        site.process.wait()
    return site.volume.phase() in ("committing", "publishing")


def _flip(site: Site, chance: random.Random) -> bool:
    names = [site.volume.flip(chance) for _ in range(chance.randint(1, 3))]
    site.note(f"bits flipped: {', '.join(names)}")
    return any(names)


def _fill(site: Site, chance: random.Random) -> Evidence:
    """Leave a few blocks, so that a later write fails; there is room again after a while."""
    left = chance.choice([0, 4096, chance.randrange(100_000), chance.randrange(4_000_000)])
    filling = site.volume.fill(left)
    pulls = [site.pulls]

    def repair() -> None:
        site.volume.empty(filling)
        pulls.append(site.pulls)

    site.later(chance.uniform(0.5, 3), "volume has room", repair)
    return lambda: any("NoSpace" in site.failures[each] for each in range(pulls[0], pulls[-1] + 1))


def _fail_volume(site: Site, chance: random.Random) -> bool | Evidence:
    """Have calls below the volume fail with an I/O error, or as on a lost NFS export."""
    operation = chance.choice(list(Operation))
    error = chance.choice([errno.EIO, errno.ESTALE]) if operation in _ABOUT else errno.EIO
    skip = chance.choice([0, chance.randrange(20), chance.randrange(200)])
    times = chance.choice([1, 1, 1_000_000])
    return _fail(site, site.puller_shim, site.volume.place, (operation, skip, times, error))


def _write_short(site: Site, chance: random.Random) -> bool | Evidence:
    """Have writes to the volume write half of their bytes, which POSIX allows."""
    skip, times = chance.randrange(10), chance.choice([1, 10, 1_000_000])
    failing = Operation.WRITE, skip, times, 0
    return _fail(site, site.puller_shim, site.volume.place, failing)


def _fail_source(site: Site, chance: random.Random) -> bool | Evidence:
    """Have calls below the source fail, or reads return half of the bytes."""
    skip, times = chance.choice([0, chance.randrange(300)]), chance.choice([1, 1, 1_000_000])
    operation = chance.choice([Operation.READ, *_ABOUT])
    error = errno.EIO if operation in _ABOUT else chance.choice([errno.EIO, errno.EIO, 0])
    failing = operation, skip, times, error
    return _fail(site, site.vm.shim, site.vm.library, failing)


def _fill_vm(site: Site, chance: random.Random) -> bool | Evidence:
    """Have writes to the agent's state folders fail as on a full disk."""
    skip, times = chance.choice([0, chance.randrange(20)]), chance.choice([1, 3, 1_000_000])
    failing = Operation.WRITE, skip, times, errno.ENOSPC
    return _fail(site, site.vm.shim, site.vm.agent.state, failing)


def _fail_state(site: Site, chance: random.Random) -> bool | Evidence:
    """Have calls below the agent's state folder fail with an I/O error."""
    skip, times = chance.choice([0, chance.randrange(20)]), chance.choice([1, 3, 1_000_000])
    failing = chance.choice(list(Operation)), skip, times, errno.EIO
    return _fail(site, site.vm.shim, site.vm.agent.state, failing)


def _fail(
    site: Site, shim: Shim | None, below: Path, failing: tuple[Operation, int, int, int]
) -> bool | Evidence:
    if shim is None:
        return False
    operation, skip, times, error = failing
    plan = shim.fail(operation, below, skip=skip, times=times, error=error)
    site.note(f"{operation.name} after {skip} calls, {times} times, errno {error}")

    def repair() -> None:
        shim.succeed(plan)
        site.note(f"{plan.count} calls have failed")

    site.later(2.0, "calls succeed again", repair)
    return lambda: plan.count > 0


FAULTS = (
    Fault("bits flipped in staging", _flip_staged),
    Fault("bits flipped after verification", _flip_verified, when=frozenset((When.FENCED,))),
    Fault("volume full", _fill),
    Fault("volume fails (EIO)", _fail_volume, needs_shim=True),
    Fault("short writes", _write_short, needs_shim=True),
    Fault("source fails (EIO)", _fail_source, needs_shim=True),
    Fault("disk of the VM full", _fill_vm, needs_shim=True),
    Fault("state folder fails (EIO)", _fail_state, needs_shim=True),
)
