"""After the move: packages are upgraded, removed, purged, installed again, and the VM rebooted.

The tests share one VM, whose Plex is from a package, as most are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from rig.plex.vm import (
    AGENT,
    DROP_IN,
    MAKE_LIBRARY,
    SETTINGS,
    UNIT,
    give_settings,
    install_agent,
    install_plex_package,
    is_running,
    pair_and_start,
    phase,
)
from rig.programs import Puller
from rig.virtual_machine import VirtualMachine

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.vm

BLOCK = f"/etc/systemd/system/{UNIT}.d/50-plexodus-moved.conf"


@pytest.fixture(scope="module")
def vm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VirtualMachine]:
    """Start a VM with Plex's package."""
    with VirtualMachine(tmp_path_factory.mktemp("vm") / "root") as machine:
        machine.write(f"/etc/systemd/system/{UNIT}.d/folder.conf", DROP_IN)
        machine.shell(MAKE_LIBRARY)
        install_plex_package(machine, "1")
        yield machine


@pytest.fixture
def moved(vm: VirtualMachine, tmp_path: Path) -> Iterator[VirtualMachine]:
    """Install the package and move the library. Plex runs before and after."""
    install_agent(vm)
    move(vm, tmp_path)
    yield vm
    install_agent(vm)
    vm.run("plexodus-agent", "undo")
    assert is_running(vm)


def move(vm: VirtualMachine, folder: Path) -> None:
    """Let a new pull commit."""
    pairing = pair_and_start(vm)
    (folder / "config").mkdir()
    puller = Puller(folder / "config", folder / "puller.log", pairing, cutover=True)
    done = puller.pull()
    assert done.code == 0, done.text
    assert phase(vm) == "committed"
    assert not is_running(vm)


def package_state(vm: VirtualMachine, name: str) -> str:
    """Return the state of a package by dpkg."""
    return vm.run("dpkg-query", "-W", "-f=${db:Status-Abbrev}", name).stdout.strip()


def test_plex_upgraded_while_the_fence_is_up(moved: VirtualMachine) -> None:
    """Plex's package is configured, its start is skipped, and Plex stays down."""
    install_plex_package(moved, "2")
    assert package_state(moved, "plexmediaserver") == "ii"
    assert not is_running(moved)
    moved.reboot()
    moved.wait_for(f"systemctl is-active {AGENT}")
    assert not is_running(moved)
    said = moved.run("systemctl", "status", UNIT, check=False).stdout
    assert "/fence was not met" in said


def test_agent_upgraded_after_the_move(moved: VirtualMachine) -> None:
    """The fence survives an upgrade of the agent, and Plex stays down."""
    install_agent(moved)
    moved.run("systemctl", "start", UNIT)
    assert not is_running(moved)
    assert phase(moved) == "committed"


def test_purged_and_plex_upgraded(moved: VirtualMachine) -> None:
    """After a purge, an upgrade of Plex does not start it, also not at the next boot.

    The commands in the file that was left behind are the way back.
    """
    moved.run("apt-get", "purge", "-y", "-qq", "plexodus-agent")
    moved.shell("! test -e /var/lib/plexodus")
    install_plex_package(moved, "3")
    assert package_state(moved, "plexmediaserver") == "ii"
    assert not is_running(moved)
    moved.reboot()
    assert not is_running(moved)
    text = moved.shell(f"cat {BLOCK}")
    commands = [line.removeprefix("#   ") for line in text.splitlines() if line.startswith("#   ")]
    assert len(commands) == 3
    moved.shell("; ".join(commands))
    assert is_running(moved)


def test_purged_with_settings_that_cannot_be_read(moved: VirtualMachine) -> None:
    """Plex stays down by the record, although the settings are unreadable."""
    moved.shell(f"echo nonsense >> {SETTINGS}")
    moved.run("apt-get", "purge", "-y", "-qq", "plexodus-agent")
    moved.shell(f"test -e {BLOCK}; ! test -e {SETTINGS}")
    moved.run("systemctl", "start", UNIT)
    assert not is_running(moved)


def test_purged_installed_again_and_undone(moved: VirtualMachine) -> None:
    """A reinstalled agent finds what keeps Plex down, and ``undo`` removes it."""
    moved.run("apt-get", "purge", "-y", "-qq", "plexodus-agent")
    install_agent(moved)
    assert not is_running(moved)
    moved.run("plexodus-agent", "undo")
    assert is_running(moved)
    moved.shell(f"! test -e {BLOCK}")


def test_removed_installed_again_and_undone(moved: VirtualMachine) -> None:
    """After an undo Plex runs, also after the next reboot."""
    moved.run("apt-get", "remove", "-y", "-qq", "plexodus-agent")
    moved.run("systemctl", "start", UNIT)
    assert not is_running(moved)
    install_agent(moved)
    moved.run("plexodus-agent", "undo")
    assert is_running(moved)
    moved.reboot()
    assert is_running(moved)


@pytest.mark.parametrize("line", ["unit\t=\t'my-plex'", '"unit" = "my-plex.service"'])
def test_purged_with_a_unit_of_another_name(vm: VirtualMachine, tmp_path: Path, line: str) -> None:
    """The moved unit stays down, though its file is the administrator's own."""
    vm.shell(
        f"systemctl stop {UNIT}; cd /etc/systemd/system;"
        f" cp /lib/systemd/system/{UNIT} my-plex.service; cp -r {UNIT}.d my-plex.service.d;"
        " printf '[Unit]\\nConditionPathExists=!/var/lib/plexodus/fence\\n'"
        " > my-plex.service.d/fence.conf; systemctl daemon-reload; systemctl enable --now my-plex"
    )
    install_agent(vm)
    rules = "/usr/share/polkit-1/rules.d/50-plexodus.rules"
    own = "/etc/polkit-1/rules.d/50-plexodus-my-plex.service.rules"
    vm.shell(f"sed 's/plexmediaserver.service/my-plex.service/' {rules} > {own}; sleep 1")
    give_settings(vm, line)
    move(vm, tmp_path)
    assert not is_running(vm, "my-plex.service")
    vm.run("apt-get", "purge", "-y", "-qq", "plexodus-agent")
    vm.shell("! test -e /var/lib/plexodus/fence; systemctl start my-plex")
    vm.reboot()
    assert not is_running(vm, "my-plex.service")
    assert is_running(vm)  # the other one is not ours to stop
    vm.shell(
        f"systemctl disable my-plex; rm -r /etc/systemd/system/my-plex.service* {own};"
        " systemctl daemon-reload"
    )
