"""The runbook's commands on the VM, in order."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest
from rig.cluster.runbook import commands
from rig.oracle import rsync_differences
from rig.plex.vm import PLEX, agent_package, give_plex
from rig.programs import Puller
from rig.virtual_machine import VirtualMachine

from shared.wire.pairing import PAIRING_VARIABLE

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.vm

UNIT = "plexmediaserver"


def test_commands_of_the_runbook_succeed_on_the_vm(tmp_path: Path) -> None:
    """Each command succeeds, with the move between them, and the undo starts Plex."""
    with VirtualMachine(tmp_path / "root") as vm:
        give_plex(vm)
        shutil.copy(agent_package(), vm.root / "root")
        vm.shell(f"apt-get update -qq; apt-get install -y -qq curl; systemctl start {UNIT}")
        pairing = ""
        for command in commands("vm"):
            if command == "rm /root/pairing":
                pairing = (vm.root / "root" / "pairing").read_text()
            if command == "plexodus-agent log":
                move(vm, tmp_path, pairing)
            said = vm.shell(f"cd; {command}")
            if command == "plexodus-agent log":
                assert "committed" in said.lower()
            if command.startswith("systemctl start"):
                vm.wait_for("curl -fsSk https://localhost:8443/readyz")
        assert vm.show(f"{UNIT}.service", "ActiveState") == "active"


def move(vm: VirtualMachine, folder: Path, printed: str) -> None:
    """Pull as the pod would, with the pairing from the ``printed`` command."""
    [line] = [line for line in printed.splitlines() if line.startswith(PAIRING_VARIABLE)]
    target = folder / "config"
    target.mkdir()
    puller = Puller(target, folder / "puller.log", line.partition("=")[2], cutover=True)
    done = puller.pull()
    assert done.code == 0, done.text
    assert vm.show(f"{UNIT}.service", "ActiveState") == "inactive"
    library = vm.root / PLEX.lstrip("/") / "Library"
    assert rsync_differences(library, target / "Library") == []
