"""polkit does not let the agent stop or start Plex, as polkit 0.105 does, which reads no rules."""

from __future__ import annotations

import configparser
from typing import TYPE_CHECKING

import pytest
from rig.plex.vm import UNIT, give_plex, install_agent, is_running, pair_and_start, phase
from rig.programs import Puller
from rig.virtual_machine import REPOSITORY, VirtualMachine

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.vm

RULES = "/usr/share/polkit-1/rules.d/50-plexodus.rules"


@pytest.fixture(scope="module")
def vm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VirtualMachine]:
    """Start a VM with the package and a running Plex."""
    with VirtualMachine(tmp_path_factory.mktemp("vm") / "root") as machine:
        give_plex(machine)
        install_agent(machine)
        machine.run("systemctl", "start", UNIT)
        yield machine


@pytest.fixture
def puller(vm: VirtualMachine, tmp_path: Path) -> Puller:
    """Return a puller outside of the VM, with an empty target."""
    (tmp_path / "config").mkdir()
    pairing = pair_and_start(vm)
    return Puller(tmp_path / "config", tmp_path / "puller.log", pairing, cutover=True)


@pytest.fixture
def without_rule(vm: VirtualMachine) -> Iterator[None]:
    """Remove the rule, as if polkit did not read it."""
    take_rule(vm)
    yield
    give_rule(vm)


def take_rule(vm: VirtualMachine) -> None:
    """Remove the package's rule, so that polkit refuses."""
    vm.shell(
        f"mv {RULES} /root/rules; systemctl reset-failed polkit || true; systemctl restart polkit"
    )


def give_rule(vm: VirtualMachine) -> None:
    """Restore the package's rule."""
    vm.shell(
        f"mv /root/rules {RULES}; systemctl reset-failed polkit || true; systemctl restart polkit"
    )


def process(vm: VirtualMachine) -> str:
    """Return Plex's process id."""
    assert is_running(vm)
    return vm.show(UNIT, "MainPID")


def test_polkit_refuses(vm: VirtualMachine, puller: Puller, without_rule: None) -> None:
    """A refusal by polkit ends the pull before a frame is sent, and Plex keeps running."""
    before = process(vm)
    done = puller.pull()
    assert done.code == 17, done.text
    assert "may not stop plexmediaserver.service" in done.reason()
    assert not (puller.target / ".plexodus" / "staging").exists()
    assert process(vm) == before
    assert phase(vm) == "idle"
    said = vm.run("plexodus-agent", "preflight").stdout  # by root, about the agent's user
    assert "may not stop plexmediaserver.service" in said
    assert "polkit-0.105.pkla" in said
    assert process(vm) == before


def test_polkit_begins_to_refuse_during_the_pull(vm: VirtualMachine, puller: Puller) -> None:
    """If the rule disappears after the preflight, Plex is not stopped."""
    before = process(vm)
    assert puller.pull("--until", "ready").code == 0
    pull = puller.begin()
    vm.wait_for("grep -q 'Pull until done' /var/lib/plexodus/migration.log")
    take_rule(vm)
    done = puller.finished(pull)
    give_rule(vm)
    assert done.code == 17, done.text
    assert process(vm) == before
    assert phase(vm) == "idle"


def test_undo_by_root_where_polkit_refuses(vm: VirtualMachine, puller: Puller) -> None:
    """Root can undo without a rule, and the service can still use its files."""
    assert puller.pull().code == 0
    take_rule(vm)
    vm.run("plexodus-agent", "undo")
    process(vm)
    owners = set(vm.shell("stat -c %U /var/lib/plexodus/*").split())
    assert owners == {"plexodus"}
    give_rule(vm)
    assert phase(vm) == "idle"


def test_right_for_one_user_in_the_syntax_of_an_old_polkit() -> None:
    """The file for polkit 0.105 allows one user one action."""
    parser = configparser.RawConfigParser()
    parser.read_string((REPOSITORY / "agent" / "systemd" / "polkit-0.105.pkla").read_text())
    [section] = parser.sections()
    assert dict(parser[section]) == {
        "identity": "unix-user:plexodus",
        "action": "org.freedesktop.systemd1.manage-units",
        "resultany": "yes",
        "resultinactive": "yes",
        "resultactive": "yes",
    }
