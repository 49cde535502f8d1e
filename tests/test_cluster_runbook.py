"""The runbook's commands in the cluster, in their order, against a real API server."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from rig.cluster import TOOLS, running_cluster
from rig.kubelet import NAMESPACE, POD, make_pod
from rig.programs import clean_environment, program
from rig.runbook import commands

if TYPE_CHECKING:
    from rig.cluster import Cluster

pytestmark = pytest.mark.cluster

ROOT = Path(__file__).parent.parent
STANDIN = ROOT / "tests" / "charts" / "plex-media-server"
CLAIM = f"pms-config-{POD}"


def test_runbook_in_the_cluster(tmp_path: Path) -> None:
    """Each ends well, in a shell in a clone of this repository."""
    with running_cluster(tmp_path) as cluster:
        shell = Shell(cluster)
        for command in commands("cluster"):
            before(cluster, command)
            said = shell.run(command.replace("plex/plex-media-server", str(STANDIN)))
            if command.startswith("kubectl config set-context"):
                shell.run(made_secret(tmp_path))
            if command.startswith("helm upgrade --install plex "):
                make_pod(cluster)
            if command.startswith("kubectl describe pod"):
                assert "plexodus-plex-settings" in said
        left = [each["metadata"]["name"] for each in cluster.get("secrets", "-n", NAMESPACE)]
        assert not [name for name in left if "plexodus" in name]


def before(cluster: Cluster, command: str) -> None:
    """What controllers have done by then, which are not there."""
    if command.startswith("kubectl delete pvc"):
        listed = cluster.get("pvc", "-n", NAMESPACE)
        names = [each["metadata"]["name"] for each in listed]
        assert names == [CLAIM]  # the one that step 4 made, and kept
        unused = '{"metadata":{"finalizers":null}}'  # as no Pod has it any more
        cluster.kubectl("patch", "pvc", CLAIM, "-n", NAMESPACE, "-p", unused)


def made_secret(folder: Path) -> str:
    """The command that the agent prints for people to paste."""
    pair = ("pair", "--state", folder / "state", "--address", "192.0.2.10:8443")
    named = ("--output", "kubectl", "--name", "plexodus-plex-pairing")
    return program("plexodus-agent", *pair, *named).stdout


class Shell:
    """A user's, with the clients and the right to do everything."""

    def __init__(self, cluster: Cluster) -> None:
        config = shutil.copy(cluster.environment()["KUBECONFIG"], cluster.folder / "users-config")
        self._environment = clean_environment() | cluster.environment()
        self._environment["KUBECONFIG"] = str(config)  # whose namespace is set once
        self._environment["PATH"] = f"{TOOLS / 'bin'}:{os.environ['PATH']}"

    def run(self, command: str) -> str:
        """What it prints; it ends well."""
        done = subprocess.run(
            ["bash", "-euc", command],
            check=False,
            capture_output=True,
            text=True,
            cwd=ROOT,
            env=self._environment,
            timeout=120,
        )
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout
