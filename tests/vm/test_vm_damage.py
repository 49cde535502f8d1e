"""Slow stops, and state folders that are restored or elsewhere, on a real systemd.

In the end Plex runs, or has moved and stays down.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from rig.plex import container_engine
from rig.plex.vm import (
    AGENT,
    PROGRAM,
    SETTINGS,
    SUPPORT,
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

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.vm

STATE = "/var/lib/plexodus"
ENGINE = "/usr/local/lib/container_engine.py"
SOCKET = "/run/engine.sock"
STOP_SECONDS = 3
SLOW = 8
"""Seconds that a slow stop takes: longer than the agent waits for it."""
ENGINE_SERVICE = f"""\
[Service]
ExecStart=/opt/plexodus/bin/python3 {ENGINE} serve {SOCKET} {SLOW} /bin/sh -c \
    'exec setpriv --reuid plex --regid plex --clear-groups -- \
    /opt/plexodus/bin/python3 {PROGRAM} "{SUPPORT}/Plex Media Server"'
"""
ALIVE = f"grep -qszx '{PROGRAM.replace('standin', '[s]tandin')}' /proc/[0-9]*/cmdline"
"""Whether there is a process of Plex: neither grep nor the engine has that as one argument."""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VirtualMachine]:
    """Start a VM with the package, and a Plex at work that starts at boot."""
    with VirtualMachine(tmp_path_factory.mktemp("vm") / "root") as machine:
        give_plex(machine)
        install_agent(machine)
        have_plex_write(machine)
        machine.shell(f"cp {SETTINGS} /root/settings; plexodus-agent pair > /dev/null")
        yield machine


@pytest.fixture
def vm(base: VirtualMachine) -> Iterator[VirtualMachine]:
    """Return that VM with the package's settings and without a cutover, before and after."""
    yield base
    base.shell(
        f"cp /root/settings {SETTINGS}; rm -rf /run/systemd/system/*.d; systemctl daemon-reload;"
        f" systemctl stop engine 2>/dev/null || true; systemctl restart {AGENT};"
        f" plexodus-agent undo; systemctl start {UNIT}"
    )


def new_puller(vm: VirtualMachine, folder: Path) -> Puller:
    """Return a puller outside of the VM with an empty target, and start the service."""
    pairing = pair_and_start(vm)
    (folder / "config").mkdir()
    return Puller(folder / "config", folder / "puller.log", pairing, cutover=True)


def slow_unit(vm: VirtualMachine) -> None:
    """Have the unit take long to stop."""
    drop_in = f"/run/systemd/system/{UNIT}.d/slow.conf"
    vm.shell(
        f"mkdir -p $(dirname {drop_in});"
        f" printf '[Service]\\nExecStop=/bin/sleep {SLOW}\\n' > {drop_in}; systemctl daemon-reload"
    )
    give_settings(vm, f"stop_seconds = {STOP_SECONDS}")


def container(vm: VirtualMachine) -> None:
    """Have Plex run in a container that takes long to stop."""
    vm.write(ENGINE, Path(container_engine.__file__).read_text())
    vm.write("/etc/systemd/system/engine.service", ENGINE_SERVICE)
    vm.shell(f"systemctl stop {UNIT}; systemctl daemon-reload; systemctl start engine")
    vm.wait_for(f"test -e {SOCKET} && {ALIVE}")
    words = {
        verb: f'["/opt/plexodus/bin/python3", "{ENGINE}", "{verb}", "{SOCKET}"]'
        for verb in ("stop", "start")
    }
    lines = [f"{verb}_command = {command}" for verb, command in words.items()]
    give_settings(vm, *lines, f"stop_seconds = {STOP_SECONDS}")


def runs_for_good(vm: VirtualMachine) -> None:
    """Require that Plex runs once all stops have ended, without a cutover."""
    time.sleep(SLOW)  # whatever was still stopping has stopped
    deadline = time.monotonic() + 150
    while phase(vm) != "idle" or vm.run("bash", "-c", ALIVE, check=False).returncode != 0:
        assert time.monotonic() < deadline, vm.run("plexodus-agent", "status").stdout
        time.sleep(0.5)


@pytest.mark.parametrize("plex", [slow_unit, container])
def test_stop_takes_longer_than_the_agent_waits(
    vm: VirtualMachine, tmp_path: Path, plex: Callable[[VirtualMachine], None]
) -> None:
    """Plex is started after the slow stop has ended, and not before."""
    plex(vm)
    puller = new_puller(vm, tmp_path)
    done = puller.pull(timeout=200)
    assert done.code == 17, done.text
    runs_for_good(vm)
    assert not (puller.target / "Library").exists()


@pytest.mark.parametrize("plex", [slow_unit, container])
def test_agent_killed_during_a_slow_stop(
    vm: VirtualMachine, tmp_path: Path, plex: Callable[[VirtualMachine], None]
) -> None:
    """A restarted agent notices the unfinished stop, and starts Plex after it."""
    plex(vm)
    give_settings(vm, "lease_seconds = 300")
    process = new_puller(vm, tmp_path).begin()
    vm.wait_for(f"grep -q stopping {STATE}/cutover.json", 60)
    process.kill()
    process.wait()
    vm.shell(f"kill -KILL $(systemctl show -P MainPID {AGENT})")
    vm.wait_for(f"systemctl is-active {AGENT}")
    runs_for_good(vm)


def backed_up(vm: VirtualMachine, folder: Path, phase_then: str) -> Puller:
    """Return a backup of the state folder from before a pull that is now in ``phase_then``."""
    give_settings(vm, "lease_seconds = 300")
    puller = new_puller(vm, folder)
    vm.shell(f"rm -rf /root/backup; cp -a {STATE} /root/backup")
    process = puller.begin()
    vm.wait_for(f'grep -q \'"phase":"{phase_then}"\' {STATE}/cutover.json', 60)
    if phase_then == "committed":
        assert puller.finished(process).code == 0
    else:
        process.kill()
        process.wait()
    return puller


RESTORE = (
    f"kill -STOP $(systemctl show -P MainPID {AGENT});"  # it must not write meanwhile
    f" find {STATE} -mindepth 1 -delete; cp -a /root/backup/. {STATE}/"
)


def test_state_restored_while_plex_is_stopped(vm: VirtualMachine, tmp_path: Path) -> None:
    """Plex runs again, although the record of the stop is lost."""
    backed_up(vm, tmp_path, "stopped")
    assert not is_running(vm)
    vm.shell(f"{RESTORE}; kill -KILL $(systemctl show -P MainPID {AGENT})")
    runs_for_good(vm)


def test_state_restored_while_plex_is_stopped_and_the_vm_off(
    vm: VirtualMachine, tmp_path: Path
) -> None:
    """The boot starts Plex as before the cutover."""
    backed_up(vm, tmp_path, "stopped")
    vm.shell(RESTORE)
    vm.reboot()
    vm.wait_for(f"systemctl is-active {AGENT}")
    runs_for_good(vm)


@pytest.mark.parametrize("after", ["restart", "reboot"])
def test_state_restored_after_the_commit(vm: VirtualMachine, tmp_path: Path, after: str) -> None:
    """Plex stays down at boot and on a start by hand, and ``undo`` works."""
    backed_up(vm, tmp_path, "committed")
    if after == "restart":
        vm.shell(f"{RESTORE}; systemctl restart {AGENT}")
    else:
        vm.shell(RESTORE)
        vm.reboot()
    vm.wait_for(f"systemctl is-active {AGENT}")
    vm.run("systemctl", "start", UNIT, check=False)
    vm.wait_for(f"! systemctl is-active {UNIT}", 60)
    vm.run("plexodus-agent", "undo")
    runs_for_good(vm)
    assert is_running(vm)


def test_settings_broken_with_a_state_folder_elsewhere(vm: VirtualMachine, tmp_path: Path) -> None:
    """After the agent ends, systemd's command finds the record and starts Plex."""
    elsewhere = f"{STATE}/elsewhere"
    vm.shell(
        f"install -d -m 700 -o plexodus -g plexodus {elsewhere};"
        f" mkdir -p /run/systemd/system/{UNIT}.d;"
        f" printf '[Unit]\\nConditionPathExists=!{elsewhere}/fence\\n'"
        f" > /run/systemd/system/{UNIT}.d/fence.conf; systemctl daemon-reload"
    )
    give_settings(vm, f'state = "{elsewhere}"', "lease_seconds = 300")
    process = new_puller(vm, tmp_path).begin()
    vm.wait_for(f'grep -q \'"phase":"stopped"\' {elsewhere}/cutover.json', 60)
    process.kill()
    process.wait()
    vm.shell(f"echo nonsense >> {SETTINGS}; kill -KILL $(systemctl show -P MainPID {AGENT})")
    vm.wait_for(f"systemctl is-active {UNIT}")
