"""Cutovers on a VM: a real systemd, a Plex that writes all the time, kills and reboots.

Each story ends as it is promised: committed, Plex down, the volume whole; or not committed, and
Plex running, without anyone's help.
"""

from __future__ import annotations

import json
import random
import subprocess
import time
from typing import TYPE_CHECKING

import pytest
from rig.oracle import rsync_differences, sums_hold
from rig.plex.vm import (
    AGENT,
    PLEX,
    SETTINGS,
    UNIT,
    give_plex,
    give_settings,
    have_plex_write,
    install_agent,
    is_running,
    pair_and_start,
    phase,
)
from rig.programs import Puller
from rig.virtual_machine import VirtualMachine
from rig.volume import RECEIPT_FILES, left_of_pull

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.vm

LEASE = 4
KILLS = 20
CHANCE = random.Random(20261123)  # noqa: S311 - the same moments each time, as far as clocks go


@pytest.fixture(scope="module")
def vm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VirtualMachine]:
    """Start a VM with the package, and a Plex at work that starts at boot."""
    with VirtualMachine(tmp_path_factory.mktemp("vm") / "root") as machine:
        give_plex(machine)
        install_agent(machine)
        give_settings(machine, f"lease_seconds = {LEASE}")
        have_plex_write(machine)
        yield machine


@pytest.fixture(scope="module")
def pairing(vm: VirtualMachine) -> str:
    """Return the pairing string of a running service."""
    return pair_and_start(vm)


@pytest.fixture
def puller(vm: VirtualMachine, pairing: str, tmp_path: Path) -> Iterator[Puller]:
    """Return a puller outside of the VM with an empty target. Plex runs before and after."""
    (tmp_path / "config").mkdir()
    yield Puller(tmp_path / "config", tmp_path / "puller.log", pairing, cutover=True)
    vm.run("plexodus-agent", "undo")
    vm.wait_for(f"systemctl is-active {UNIT}")


def library(vm: VirtualMachine) -> Path:
    """Return the source, seen from outside."""
    return vm.root / PLEX.lstrip("/") / "Library"


def moved(vm: VirtualMachine, puller: Puller) -> None:
    """Require a commit, a stopped Plex, and an identical source and target."""
    assert phase(vm) == "committed"
    assert not is_running(vm)
    assert rsync_differences(library(vm), puller.target / "Library") == []
    assert sums_hold(puller.target)
    assert left_of_pull(puller.target) == RECEIPT_FILES


def settled(vm: VirtualMachine) -> str:
    """Return the phase once no process works on it."""
    deadline = time.monotonic() + 3 * LEASE + 20
    while (found := phase(vm)) not in {"idle", "committed"} or (
        found == "idle" and not is_running(vm)
    ):
        assert time.monotonic() < deadline, found
        time.sleep(0.2)
    return found


def as_promised(vm: VirtualMachine, puller: Puller) -> str:
    """Require one of the two ends, and that the next pull completes the move."""
    found = settled(vm)
    if found == "idle":
        assert is_running(vm)
        assert not (puller.target / "Library").exists()
    else:
        assert not is_running(vm)
    done = puller.pull()
    assert done.code == 0, done.text
    moved(vm, puller)
    return found


def test_moved_while_it_writes_and_the_vm_rebooted(vm: VirtualMachine, puller: Puller) -> None:
    """The fence holds over a reboot and against a start by hand."""
    done = puller.pull()
    assert done.code == 0, done.text
    moved(vm, puller)
    story = vm.run("plexodus-agent", "log").stdout
    print(story)  # noqa: T201 - people ask for it
    parts = [
        *("started on", "Library database: sound", "Live pass", "Stopping Plex", "is stopped"),
        *("Cold pass, verified", "Committed snapshot", "Published"),
    ]
    places = [story.index(part) for part in parts]
    assert places == sorted(places)

    vm.run("systemctl", "start", UNIT)  # skipped, as Plex's own package needs it at an upgrade
    assert not is_running(vm)
    said = vm.run("systemctl", "status", UNIT, check=False).stdout
    assert "/fence was not met" in said
    vm.reboot()
    vm.wait_for(f"systemctl is-active {AGENT}")
    assert not is_running(vm)
    moved(vm, puller)
    screen = vm.run("plexodus-agent", "status").stdout
    print(screen)  # noqa: T201 - people ask for it
    assert "Plex stays stopped here" in screen
    assert puller.pull().code == 0  # nothing to be done

    vm.run("plexodus-agent", "undo")
    assert is_running(vm)
    vm.reboot()
    vm.wait_for(f"systemctl is-active {AGENT} {UNIT}")


def test_rebooted_while_plex_is_stopped(vm: VirtualMachine, puller: Puller) -> None:
    """Plex runs after the boot, nothing is committed, and the interrupted pull completes."""
    process = puller.begin()
    vm.wait_for(f"test $(systemctl show -P ActiveState {UNIT}) = inactive")
    process.kill()
    process.wait()
    vm.reboot()
    vm.wait_for(f"systemctl is-active {AGENT}")
    assert as_promised(vm, puller) == "idle"


@pytest.mark.parametrize("how", ["stop", "kill --signal=KILL", "restart"])
def test_agent_ends_while_plex_is_stopped(vm: VirtualMachine, puller: Puller, how: str) -> None:
    """However the agent ends, it or systemd starts Plex."""
    process = puller.begin()
    vm.wait_for(f"test $(systemctl show -P ActiveState {UNIT}) = inactive")
    vm.shell(f"systemctl {how} {AGENT}")
    vm.wait_for(f"systemctl is-active {UNIT} || test -e /var/lib/plexodus/fence")
    vm.run("systemctl", "start", AGENT)
    puller.finished(process)
    as_promised(vm, puller)


def test_plex_does_not_stop_in_time(vm: VirtualMachine, puller: Puller) -> None:
    """The cutover is refused and undone, and Plex keeps running."""
    drop_in = f"/run/systemd/system/{UNIT}.d/stubborn.conf"
    stubborn = "[Service]\\nKillSignal=SIGCONT\\nTimeoutStopSec=60\\n"
    vm.shell(
        f"mkdir -p $(dirname {drop_in}); printf '{stubborn}' > {drop_in};"
        f" echo 'stop_seconds = 3' | sed -i '1r /dev/stdin' {SETTINGS};"
        f" systemctl daemon-reload; systemctl restart {AGENT}"
    )
    done = puller.pull(timeout=200)
    assert done.code == 17, done.text
    assert not (puller.target / "Library").exists()
    pid = vm.show(UNIT, "MainPID")
    vm.shell(
        f"rm {drop_in}; sed -i /^stop_seconds/d {SETTINGS}; systemctl daemon-reload;"
        f" kill -TERM {pid}; systemctl restart {AGENT}"
    )
    assert as_promised(vm, puller) == "idle"


def test_processes_that_are_left(vm: VirtualMachine, puller: Puller) -> None:
    """A transcoder that outlives its server does not count as a stopped Plex."""
    program = "/usr/lib/plexmediaserver/Plex Transcoder"
    vm.shell(f"cp /bin/sleep '{program}'; systemd-run --unit=transcoder '{program}' 300")
    done = puller.pull()
    assert done.code == 17, done.text
    assert "Plex Transcoder" in done.reason()
    assert is_running(vm)
    vm.run("systemctl", "stop", "transcoder")
    assert as_promised(vm, puller) == "idle"


def test_without_a_fence(vm: VirtualMachine, puller: Puller) -> None:
    """Without a fence nothing is stopped or moved, and the remedy is reported."""
    conf = "/lib/systemd/system/plexmediaserver.service.d/50-plexodus-fence.conf"
    vm.shell(f"mv {conf} /root/fence; systemctl daemon-reload")
    done = puller.pull()
    vm.shell(f"mv /root/fence {conf}; systemctl daemon-reload")
    assert done.code == 17, done.text
    assert "ConditionPathExists=!/var/lib/plexodus/fence" in done.reason()
    assert is_running(vm)


def one_pull(vm: VirtualMachine, puller: Puller) -> float:
    """Return the seconds of an undisturbed pull."""
    began = time.monotonic()
    assert puller.pull().code == 0
    seconds = time.monotonic() - began
    moved(vm, puller)
    return seconds


def fresh(puller: Puller) -> None:
    """Return an empty volume again."""
    for each in puller.target.iterdir():
        subprocess.run(["rm", "-rf", each], check=True)


def wait_for_a_moment(vm: VirtualMachine, number: int, seconds: float) -> None:
    """Wait for a random moment of a pull, every other time after the stop of Plex."""
    if number % 2:
        time.sleep(CHANCE.uniform(0.3, seconds))
        return
    record = vm.root / "var" / "lib" / "plexodus" / "cutover.json"
    deadline = time.monotonic() + 30
    while json.loads(record.read_text())["phase"] == "idle":
        assert time.monotonic() < deadline
        time.sleep(0.002)
    time.sleep(CHANCE.uniform(0, 0.4))


def test_puller_killed_at_any_moment(vm: VirtualMachine, puller: Puller) -> None:
    """After each kill one of the two ends holds, and the next pull moves it."""
    seconds, ends = one_pull(vm, puller), []
    for number in range(KILLS):
        vm.run("plexodus-agent", "undo")
        fresh(puller)
        process = puller.begin()
        wait_for_a_moment(vm, number, seconds)
        process.kill()
        process.wait()
        ends.append(as_promised(vm, puller))
    print(f"puller killed {KILLS} times: {ends.count('committed')} committed")  # noqa: T201


def test_agent_killed_at_any_moment(vm: VirtualMachine, puller: Puller) -> None:
    """After each kill systemd restarts the agent, and the pull resumes or ends safely."""
    seconds, codes = one_pull(vm, puller), []
    for number in range(KILLS):
        vm.run("plexodus-agent", "undo")
        vm.run("systemctl", "reset-failed", AGENT, check=False)
        fresh(puller)
        process = puller.begin()
        wait_for_a_moment(vm, number, seconds)
        vm.shell(f"kill -KILL $(systemctl show -P MainPID {AGENT})")
        codes.append(puller.finished(process).code)
        vm.wait_for(f"systemctl is-active {AGENT}")
        as_promised(vm, puller)
    print(f"agent killed {KILLS} times: exit codes {codes}")  # noqa: T201 - a figure people ask for
