"""Power that is lost: processes end, and a disk forgets what was not flushed."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from campaign.faults import Fault, Side
from campaign.faults.processes import reboot
from campaign.survival import lost_on_vm, lost_on_volume, promises

if TYPE_CHECKING:
    import random

    from campaign.site import Site


def _cut_node(site: Site, chance: random.Random) -> bool:
    """Cut the power of the puller's machine, and judge the volume as the next pull finds it."""
    disk = site.volume.disk
    if disk is None:
        return False
    before = promises(site)
    was_running = site.signal_puller(signal.SIGKILL)
    remains = site.cut_power(disk, chance, site.wait_for_puller)
    for damage in lost_on_volume(site, before):
        site.violate(f"after a power cut of the node: {damage}")
    return was_running or remains.unflushed > 0


def _cut_vm(site: Site, chance: random.Random) -> bool:
    """Cut the power of the VM, and judge the state folders as the agent finds them at boot."""
    disk = site.vm.disk
    if disk is None:
        return False

    def cut() -> None:
        before = promises(site)
        site.vm.signal_agent(signal.SIGKILL)
        site.cut_power(disk, chance, site.vm.cut_power)
        for damage in lost_on_vm(site, before):
            site.violate(f"after a power cut of the VM: {damage}")

    return reboot(site, chance, cut)


FAULTS = (
    Fault("power lost on the node", _cut_node, loses_power=Side.NODE, after_move=True),
    Fault("power lost on the VM", _cut_vm, loses_power=Side.VM, after_move=True),
)
