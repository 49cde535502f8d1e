"""The steps of an administrator's move, in a cluster with controllers, a node and the charts."""

from __future__ import annotations

import json
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rig.cluster import pod_plex
from rig.cluster.cluster import ROOT, running_cluster
from rig.cluster.containers import BASE, image
from rig.cluster.controllers import make_volume, running_controllers, wait_for_account
from rig.cluster.kubelet import NAMESPACE, POD
from rig.cluster.node import build, running_node
from rig.plex import server as plex_server
from rig.waiting import wait_until
from shared import __version__
from shared.wire.pairing import PAIRING_VARIABLE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rig.cluster.cluster import Cluster
    from rig.cluster.node import Node

CHART = ROOT / "charts" / "plexodus"
VALUES = ROOT / "charts" / "values"
STANDIN = ROOT / "tests" / "charts" / "plex-media-server"
APP_TEMPLATE = ROOT / "tests" / "charts" / "app-template"
CLAIM = f"pms-config-{POD}"
OTHER_POD, OTHER_CLAIM = "plex-0", "config-plex-0"
"""Names without the official chart."""
PAIRING = "plexodus-plex-pairing"
VERSION, OLDER = "1.40.1.8227-c0dd5a73e", "1.30.0.6486-629d58034"
ROOTLESS = "registry.example.org/plex-rootless:1.40.1.8227"
MEDIA_CLAIM = json.dumps(
    {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "media"},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}},
            "storageClassName": "",
        },
    }
)
"""A claim for the media, as whoever has the volume writes it."""
JOBS = ("jobs", "-l", "plexodus.io/migration=plex")


@contextmanager
def controlled_cluster(folder: Path, *, namespace: bool = True) -> Iterator[Cluster]:
    """Start a cluster with its controllers, and with the namespace if wanted."""
    with running_cluster(folder) as cluster, running_controllers(cluster):
        if namespace:
            cluster.kubectl("create", "namespace", NAMESPACE)
            wait_for_account(cluster, NAMESPACE)
        yield cluster


@contextmanager
def plex_node(cluster: Cluster, folder: Path) -> Iterator[Node]:
    """Start a node with our image, and with stand-ins for two versions of Plex's image."""
    files = {
        Path(plex_server.__file__ or ""): "/rig/plex/",
        Path(pod_plex.__file__ or ""): "/rig/cluster/",
    }
    started = json.dumps(["python3", "-m", "rig.cluster.pod_plex", VERSION])
    build("localhost/podplex:1", BASE, "--entrypoint", started, files=files)
    with running_node(cluster, folder) as node:
        node.load(image("puller"), f"plexodus-puller:{__version__}")
        for version in (VERSION, OLDER):
            node.load("localhost/podplex:1", f"plexinc/pms-docker:{version}")
        node.load("localhost/podplex:1", ROOTLESS)
        yield node


@contextmanager
def plex_volume(cluster: Cluster, node: Node, folder: Path, claim: str = CLAIM) -> Iterator[None]:
    """Provide the volume of Plex's claim; remove plexodus and Plex from the cluster at the end."""
    folder.chmod(0o755)
    make_volume(cluster, folder, NAMESPACE, claim)
    yield
    for release in ("plex", "plexodus"):
        cluster.tried("helm", "uninstall", release, "-n", NAMESPACE)
    cluster.kubectl("delete", "secret", PAIRING, "-n", NAMESPACE, "--ignore-not-found")
    cluster.kubectl("delete", "pods", "--all", "-n", NAMESPACE, "--grace-period=1")
    cluster.kubectl("delete", "pvc", "--all", "-n", NAMESPACE)
    cluster.kubectl("delete", "pv", claim)
    wait_until(lambda: not node.containers(), what="the end of all pods")


class Story:
    """The steps of an administrator, in the order of the runbook.

    Args:
        cluster: where they are taken.
        pod: the name of Plex's pod.
        plex: the name of Plex's container.
    """

    def __init__(self, cluster: Cluster, pod: str = POD, plex: str = "pms") -> None:
        self._cluster = cluster
        self._pod = pod
        self._plex = plex

    def pair(self, string: str) -> None:
        """Create the Secret with the pairing."""
        pairing = f"--from-literal={PAIRING_VARIABLE}={string}"
        self.kubectl("create", "secret", "generic", PAIRING, pairing)

    def plexodus(self, name: str, *options: str) -> None:
        """Install or upgrade our chart with a values file."""
        given = ("-n", NAMESPACE, "-f", VALUES / f"{name}.yaml", *options)
        self._cluster.helm("upgrade", "--install", "plexodus", CHART, *given)

    def plex(self, name: str, *options: str, chart: Path = STANDIN) -> None:
        """Install or upgrade the stand-in for Plex's chart with a values file."""
        given = ("-n", NAMESPACE, "-f", VALUES / f"{name}.yaml", *options)
        self._cluster.helm("upgrade", "--install", "plex", chart, *given)

    def kubectl(self, *arguments: object) -> str:
        """Return the output of kubectl in the namespace."""
        return self._cluster.kubectl(*arguments, "-n", NAMESPACE)

    def get(self, *arguments: object) -> Any:  # noqa: ANN401 - whatever was asked for
        """Return an object or a list's items from the namespace."""
        return self._cluster.get(*arguments, "-n", NAMESPACE)

    def phase(self) -> str:
        """Return the phase in the status."""
        found = self.get("configmap", "plexodus-plex-status").get("data", {})
        return str(found.get("phase", ""))

    def error(self) -> str:
        """Return the error in the status."""
        found = self.get("configmap", "plexodus-plex-status").get("data", {})
        return str(found.get("error", ""))

    def container(self, name: str) -> dict[str, Any]:
        """Return the status of a container of Plex's pod; empty before it exists."""
        for pod in self.get("pods", "--field-selector", f"metadata.name={self._pod}"):
            status = pod["status"]
            each = status.get("initContainerStatuses", []) + status.get("containerStatuses", [])
            for found in each:
                if found["name"] == name:
                    return dict(found)
        return {}

    def wait_for_plex(self) -> None:
        """Wait until Plex runs in its pod."""
        wait_until(
            lambda: self.container(self._plex).get("ready", False), 180, what="Plex in the pod"
        )

    def conditions(self) -> list[tuple[str, str]]:
        """Return type and reason of the true conditions of all Jobs."""
        held = [each for job in self.get(*JOBS) for each in job["status"].get("conditions", [])]
        return [(each["type"], each.get("reason", "")) for each in held if each["status"] == "True"]
