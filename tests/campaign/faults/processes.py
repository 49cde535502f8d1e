"""Processes that are killed, ended or frozen, and a reboot of the VM."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from campaign.faults import Fault
from campaign.story import Mode
from campaign.vm import LEASE

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from campaign.site import Site


def _kill_puller(site: Site, _: random.Random) -> bool:
    return site.signal_puller(signal.SIGKILL)


def _end_puller(site: Site, _: random.Random) -> bool:
    return site.signal_puller(signal.SIGTERM)


def _freeze_puller(site: Site, chance: random.Random) -> bool:
    """Freeze it for less or for more than a lease."""
    seconds = chance.choice([chance.uniform(0.1, 1), chance.uniform(LEASE, LEASE + 2)])
    if not site.signal_puller(signal.SIGSTOP):
        return False
    process = site.process

    def thaw() -> None:
        if process is site.process:
            site.signal_puller(signal.SIGCONT)

    site.later(seconds, "puller resumes", thaw)
    return True


def _kill_agent(site: Site, chance: random.Random) -> bool:
    seconds = chance.choice([chance.uniform(0, 1), chance.uniform(LEASE, LEASE + 1)])
    if not site.vm.is_up:
        return False
    site.check_agent()
    site.vm.kill_agent()
    site.later(seconds, "agent starts", site.start_agent)
    return True


def _end_agent(site: Site, chance: random.Random) -> bool:
    """End it in an orderly way: Plex must run then, unless it is stopped for good."""
    vm, seconds = site.vm, chance.uniform(0, 1)
    if not vm.is_up:
        return False
    site.check_agent()
    code = vm.end_agent()
    if code != 0:
        site.violate(f"the agent ended with {code} after SIGTERM")
    is_idle = vm.record()["phase"] == "idle"
    if is_idle and site.story.mode is not Mode.STOPPED and not vm.plex.processes():
        site.violate("the agent has ended, nothing is committed, and Plex does not run")
    site.later(seconds, "agent starts", site.start_agent)
    return True


def _freeze_agent(site: Site, chance: random.Random) -> bool:
    seconds = chance.choice([chance.uniform(0.1, 1), chance.uniform(LEASE, LEASE + 1)])
    if not site.vm.is_up:
        return False
    site.vm.signal_agent(signal.SIGSTOP)
    site.later(seconds, "agent resumes", lambda: site.vm.signal_agent(signal.SIGCONT))
    return True


def _reboot(site: Site, chance: random.Random) -> bool:
    """Kill all processes of the VM at once; what they have written stays."""
    return reboot(site, chance, site.vm.cut_power)


def reboot(site: Site, chance: random.Random, end: Callable[[], None]) -> bool:
    """End everything on the VM; Plex and the agent start at boot, in either order."""
    vm = site.vm
    if not vm.is_up:
        return False
    uptime, plex_first = chance.uniform(1, 90), chance.random() < 0.5
    seconds = chance.uniform(0.1, 1.5)  # what ``end`` draws is no function of the seed alone
    if site.story.mode is Mode.STOPPED:
        site.watch.is_excused = True
    site.check_agent()
    end()

    def boot() -> None:
        vm.restart_clock(uptime)
        if plex_first:
            vm.plex.start()
        site.start_agent()
        if not plex_first:
            vm.plex.start()

    site.later(seconds, "VM boots", boot)
    return True


FAULTS = (
    Fault("puller killed", _kill_puller),
    Fault("puller ended", _end_puller),
    Fault("puller frozen", _freeze_puller),
    Fault("agent killed", _kill_agent, after_move=True),
    Fault("agent ended", _end_agent, after_move=True),
    Fault("agent frozen", _freeze_agent, after_move=True),
    Fault("VM rebooted", _reboot, after_move=True),
)
