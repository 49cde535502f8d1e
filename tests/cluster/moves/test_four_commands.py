"""From the installation of the package to Plex in its pod: the plan's README, and nothing else."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest
from rig.cluster.cluster import ROOT, TOOLS
from rig.cluster.controllers import make_volume
from rig.cluster.kubelet import NAMESPACE
from rig.cluster.story import (
    CLAIM,
    MEDIA_CLAIM,
    STANDIN,
    VERSION,
    Story,
    controlled_cluster,
    plex_node,
)
from rig.oracle import rsync_differences, sums_hold
from rig.plex.vm import (
    PLEX,
    UNIT,
    give_plex,
    have_plex_write,
    install_agent,
    install_plex_package,
    is_running,
    phase,
)
from rig.programs import clean_environment
from rig.virtual_machine import VirtualMachine
from rig.waiting import wait_until

from bench.plexlibrary import LibraryShape, make_library

if TYPE_CHECKING:
    from pathlib import Path

    from rig.cluster.cluster import Cluster

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]

MEDIA = "--media /srv=media:/srv"
_SECTION = re.compile(r"^## (.+)\n((?:(?!## ).*\n?)*)", re.MULTILINE)
_BLOCK = re.compile(r"```\n(.*?)```", re.DOTALL)


def commands(readme: str, section: str) -> list[str]:
    """Return the commands in a section of the plan's README."""
    [text] = [text for title, text in _SECTION.findall(readme) if title == section]
    lines = [line.strip() for block in _BLOCK.findall(text) for line in block.splitlines()]
    return [line for line in lines if line]


class Reader:
    """An administrator who has the plan's folder, and two shells."""

    def __init__(self, vm: VirtualMachine, cluster: Cluster, clone: Path) -> None:
        self._vm, self._clone = vm, clone
        self._environment = clean_environment() | cluster.environment()
        self._environment["PATH"] = f"{TOOLS / 'bin'}:{os.environ['PATH']}"

    def on_vm(self, command: str) -> str:
        """Run a command as root in the VM."""
        return self._vm.shell(command)

    def in_cluster(self, command: str) -> str:
        """Run a command in the clone, where kubectl and helm are."""
        done = subprocess.run(
            ["bash", "-c", command.replace("plex/plex-media-server", str(STANDIN))],
            check=False,
            capture_output=True,
            text=True,
            cwd=self._clone,
            env=self._environment,
            timeout=240,
        )
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout


def test_four_commands_move_a_library(tmp_path: Path) -> None:
    """The plan is made on a booted VM; its commands move the library, undo it, and no more."""
    (tmp_path / "cluster").mkdir()
    volume, media, clone = (tmp_path / name for name in ("volume", "media", "clone"))
    volume.mkdir()
    clone.mkdir()
    (clone / "charts").symlink_to(ROOT / "charts")
    with (
        VirtualMachine(tmp_path / "root") as vm,
        controlled_cluster(tmp_path / "cluster", namespace=False) as cluster,
        plex_node(cluster, tmp_path / "node"),
    ):
        give_plex(vm)
        source = vm.root / PLEX.lstrip("/") / "Library"
        shutil.rmtree(source)
        make_library(source, LibraryShape(1_500, 30_000_000, 6_000_000))
        vm.run("chown", "-R", "plex:plex", PLEX)
        install_plex_package(vm, VERSION)
        install_agent(vm)
        have_plex_write(vm)
        make_volume(cluster, volume, NAMESPACE, CLAIM)
        media.mkdir()
        make_volume(cluster, media, NAMESPACE, "media")
        reader, story = Reader(vm, cluster, clone), Story(cluster)
        reader.on_vm(f"plexodus-agent plan --directory /root/plan {MEDIA}")
        shutil.copytree(vm.root / "root" / "plan", clone / "plan")
        readme = (clone / "plan" / "README.md").read_text()

        pair, namespace, *releases = commands(readme, "Move")[:4]
        reader.on_vm(pair)
        shutil.move(vm.root / "root" / "pairing.yaml", clone)
        reader.in_cluster(namespace)
        cluster.kubectl("create", "-n", NAMESPACE, "-f", "-", stdin=MEDIA_CLAIM)
        for command in releases:
            reader.in_cluster(command)
        story.wait_for_plex()
        assert phase(vm) == "committed"
        assert not is_running(vm)
        assert rsync_differences(source, volume / "Library", owner=False) == []
        assert sums_hold(volume)
        report = f"is served by Plex {VERSION}"
        wait_until(lambda: report in reader.on_vm("plexodus-agent log"), what=report)

        for command in commands(readme, "Undo"):
            reader.in_cluster(command)
        reader.on_vm("plexodus-agent undo")
        vm.wait_for(f"systemctl is-active {UNIT}")
        assert story.get("pods") == []
