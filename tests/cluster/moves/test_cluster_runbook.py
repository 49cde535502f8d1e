"""The runbook's commands in the cluster, in order, with real controllers and a real node."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest
from rig.cluster.cluster import ROOT, TOOLS
from rig.cluster.controllers import make_volume, wait_for_account
from rig.cluster.kubelet import NAMESPACE
from rig.cluster.runbook import commands
from rig.cluster.story import CLAIM, STANDIN, Story, controlled_cluster, plex_node
from rig.oracle import rsync_differences
from rig.plex.commands import plex_commands
from rig.programs import Agent, clean_environment, program, running
from rig.waiting import wait_until

from bench.plexlibrary import SERVER, LibraryShape, make_library

if TYPE_CHECKING:
    from pathlib import Path

    from rig.cluster.cluster import Cluster

pytestmark = pytest.mark.cluster

SCALED = "kubectl scale statefulset plex-plex-media-server --replicas="


def test_commands_of_the_runbook_succeed_in_the_cluster(tmp_path: Path) -> None:
    """Each command succeeds in a clone of this repository and has the effect the runbook states."""
    library = tmp_path / "vm" / "Library"
    make_library(library, LibraryShape(1_500, 30_000_000, 6_000_000))
    agent = Agent(tmp_path / "state", library, tmp_path / "agent.log")
    (tmp_path / "cluster").mkdir()
    with (
        plex_commands(tmp_path / "plex", library / SERVER) as plex,
        controlled_cluster(tmp_path / "cluster", namespace=False) as cluster,
        plex_node(cluster, tmp_path / "node"),
    ):
        agent.pair()
        agent.settings = plex.settings(tmp_path)
        with running(agent):
            reader = Reader(tmp_path, cluster, agent)
            for command in commands("cluster"):
                reader.follow(command)
        assert not plex.is_running()
    assert reader.scaled == ["0", "1", "0", "1"]
    assert rsync_differences(library, reader.volume / "Library", owner=False) == []


class Reader:
    """A reader who follows the runbook's commands and the text between them."""

    def __init__(self, folder: Path, cluster: Cluster, agent: Agent) -> None:
        self.scaled: list[str] = []
        """Number of replicas of each scaling so far."""
        self._folder = folder
        self._cluster = cluster
        self._agent = agent
        self._story = Story(cluster)
        (folder / "one").mkdir()
        self.volume = folder / "one"
        config = shutil.copy(cluster.environment()["KUBECONFIG"], folder / "users-config")
        self._environment = clean_environment() | cluster.environment()
        self._environment["KUBECONFIG"] = str(config)  # whose namespace is set once
        self._environment["PATH"] = f"{TOOLS / 'bin'}:{os.environ['PATH']}"

    def follow(self, command: str) -> None:
        """Run a command, and do or check what the text around it says."""
        if command.startswith("kubectl delete pvc"):
            self._undo()  # the move is discarded, so Plex is started on the VM first
        if command == f"{SCALED}1" and len(self.scaled) == 1:
            self._another_volume()
        said = self._run(command.replace("plex/plex-media-server", str(STANDIN)))
        for beginning, see in (
            ("kubectl config set-context", self._see_namespace),
            ("helm upgrade plexodus charts/plexodus -f charts/values/preseed", self._see_ready),
            ("helm upgrade --install plex ", self._see_plex),
            ("kubectl delete pod", self._see_plex),
            (SCALED, self._see_scaled),
        ):
            if command.startswith(beginning):
                see(command)
        for beginning, word in (
            ("kubectl describe pod", "Published"),
            ("kubectl get job", "ready"),
        ):
            assert word in said or not command.startswith(beginning), said

    def _see_namespace(self, _command: str) -> None:
        wait_for_account(self._cluster, NAMESPACE)
        make_volume(self._cluster, self.volume, NAMESPACE, CLAIM)
        self._run(self._printed_by_the_agent())

    def _see_ready(self, _command: str) -> None:
        wait_until(lambda: self._story.phase() == "ready", 120, what="most of it")

    def _see_plex(self, _command: str) -> None:
        self._story.wait_for_plex()

    def _see_scaled(self, command: str) -> None:
        self.scaled.append(command.removeprefix(SCALED))
        if self.scaled[-1] == "1":
            self._story.wait_for_plex()

    def _run(self, command: str) -> str:
        """Return the output of a command."""
        done = subprocess.run(
            ["bash", "-euc", command],
            check=False,
            capture_output=True,
            text=True,
            cwd=ROOT,
            env=self._environment,
            timeout=180,
        )
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    def _printed_by_the_agent(self) -> str:
        """Return the command to paste into the cluster's shell. Earlier pairings become invalid."""
        port = self._agent.port
        pair = ("pair", "--state", self._agent.state, "--address", f"127.0.0.1:{port}")
        named = ("--output", "kubectl", "--name", "plexodus-plex-pairing")
        return program("plexodus-agent", *pair, *named).stdout

    def _undo(self) -> None:
        settings = ("--config", str(self._agent.settings), "--state", self._agent.state)
        assert program("plexodus-agent", "undo", *settings).returncode == 0

    def _another_volume(self) -> None:
        """Provision a new volume for a new claim."""
        self._cluster.kubectl("delete", "pv", CLAIM)
        self.volume = self._folder / "two"
        self.volume.mkdir()
        make_volume(self._cluster, self.volume, NAMESPACE, CLAIM)
