"""The Pod of Plex's chart on a real node, while Plex runs on the VM until the cutover."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from rig.cluster import pod_plex
from rig.cluster.cluster import Cluster, running_cluster
from rig.cluster.containers import BASE, image
from rig.cluster.kubelet import NAMESPACE, POD
from rig.cluster.node import NAME, Node, build, running_node
from rig.oracle import rsync_differences
from rig.plex import server as plex_server
from rig.waiting import wait_until

from bench.plexlibrary import LibraryShape, make_library
from shared import __version__
from shared.wire.pairing import PAIRING_VARIABLE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rig.plex.commands import PlexCommands
    from rig.programs import Agent

pytestmark = pytest.mark.cluster

ROOT = Path(__file__).parent.parent.parent.parent
VALUES = ROOT / "charts" / "values"
STANDIN = ROOT / "tests" / "charts" / "plex-media-server"
PLEX = "plexinc/pms-docker:1.40.1.8227-c0dd5a73e"
PAIRING = "plexodus-plex-pairing"
VERSION = PLEX.partition(":")[2]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Start a cluster with both charts, and with the objects that a controller would make."""
    with running_cluster(tmp_path_factory.mktemp("cluster")) as cluster:
        cluster.kubectl("create", "namespace", NAMESPACE)
        trust = f"--from-file=ca.crt={cluster.authority}"
        cluster.kubectl("create", "configmap", "kube-root-ca.crt", trust, "-n", NAMESPACE)
        values = ("-n", NAMESPACE, "-f", VALUES / "plexodus.yaml")
        cluster.helm("install", "plexodus", ROOT / "charts" / "plexodus", *values)
        values = ("-n", NAMESPACE, "-f", VALUES / "init-container.yaml")
        cluster.helm("install", "plex", STANDIN, *values)
        yield cluster


@pytest.fixture(scope="module")
def node(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """Start a node with our image and a stand-in for Plex's image."""
    files = {
        Path(plex_server.__file__ or ""): "/rig/plex/",
        Path(pod_plex.__file__ or ""): "/rig/cluster/",
    }
    started = json.dumps(["python3", "-m", "rig.cluster.pod_plex", VERSION])
    build("localhost/podplex:1", BASE, "--entrypoint", started, files=files)
    with running_node(cluster, tmp_path_factory.mktemp("node") / "node") as node:
        node.load(image("puller"), f"plexodus-puller:{__version__}")
        node.load("localhost/podplex:1", PLEX)
        yield node


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """Return the library of a small Plex."""
    library = tmp_path / "vm" / "Library"
    make_library(library, LibraryShape(1_500, 30_000_000, 6_000_000))
    return library


@pytest.fixture
def pod(cluster: Cluster, node: Node, agent: Agent, target: Path) -> Iterator[Pod]:
    """The Pod of the StatefulSet, on the node, with ``target`` as its volume."""
    pairing = f"--from-literal={PAIRING_VARIABLE}={agent.pairing}"
    cluster.kubectl("create", "secret", "generic", PAIRING, pairing, "-n", NAMESPACE)
    pod = Pod(cluster, target)
    yield pod
    cluster.kubectl("delete", "pod", POD, "-n", NAMESPACE, "--grace-period=1")
    cluster.kubectl("delete", "secret", PAIRING, "-n", NAMESPACE)
    wait_until(lambda: not node.containers(), what="the end of the pod")


class Pod:
    """The Pod of the StatefulSet's controller, and its state."""

    def __init__(self, cluster: Cluster, volume: Path) -> None:
        self._cluster = cluster
        found = cluster.get("statefulset", POD.removesuffix("-0"), "-n", NAMESPACE)
        template = found["spec"]["template"]
        spec = template["spec"] | {"nodeName": NAME, "hostNetwork": True}
        spec["volumes"].append({"name": "pms-config", "hostPath": {"path": str(volume)}})
        # There is no proxy for the service's address.
        server = {"KUBERNETES_SERVICE_HOST": "localhost", "KUBERNETES_SERVICE_PORT": cluster.port}
        for container in spec["initContainers"]:
            container["env"] += [{"name": n, "value": str(v)} for n, v in server.items()]
        metadata = {"name": POD, "namespace": NAMESPACE, **template["metadata"]}
        self._manifest = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}

    def create(self) -> None:
        """Create the Pod."""
        self._cluster.kubectl("create", "-f", "-", stdin=json.dumps(self._manifest))

    def status(self, container: str) -> dict[str, Any]:
        """Return the status of one of its containers; empty if kubelet has not reported it yet."""
        found = self._cluster.get("pod", POD, "-n", NAMESPACE)["status"]
        each = found.get("initContainerStatuses", []) + found.get("containerStatuses", [])
        return next((status for status in each if status["name"] == container), {})

    def described(self) -> str:
        """Return the output of ``kubectl describe``."""
        return self._cluster.kubectl("describe", "pod", POD, "-n", NAMESPACE)


def _watched() -> dict[str, Any]:
    """Return the response of the sidecar, or the error as its phase."""
    try:
        with urllib.request.urlopen("http://127.0.0.1:8444/progress", timeout=10) as answer:
            found = json.loads(answer.read())
    except OSError as error:
        return {"phase": str(error)}
    assert isinstance(found, dict)
    return found


def test_plex_starts_in_the_pod_only_after_the_move(
    cluster: Cluster, pod: Pod, plex: PlexCommands, library: Path, target: Path
) -> None:
    """Plex and the sidecar start only after the init container has published the library."""
    pod.create()

    wait_until(lambda: pod.status("pms").get("ready", False), 120, what="Plex in the pod")

    ended = pod.status("plexodus")["state"]["terminated"]
    assert ended["exitCode"] == 0
    assert plex.story == ["start", "stop"]
    assert rsync_differences(library, target / "Library", owner=False) == []
    assert {(each.lstat().st_uid, each.lstat().st_gid) for each in target.glob("Library/**/*")} == {
        (1000, 1000)
    }
    told = cluster.get(
        "events", "-n", NAMESPACE, "--field-selector", "reportingComponent=plexodus-puller"
    )
    told.sort(key=lambda event: event["eventTime"])
    reasons = [event["reason"] for event in told]
    assert reasons == ["Started", "Verified", "Committed", "Published"]
    wait_until(
        lambda: _watched()["phase"] in ("migrated", "attention"), 120, what="the sidecar's result"
    )
    assert _watched()["phase"] == "migrated", _watched()
    assert pod.status("plexodus-watch")["restartCount"] == 0
    status = cluster.get("configmap", "plexodus-plex-status", "-n", NAMESPACE)["data"]
    assert status["phase"] == "done"
    events = ("get", "events", "-n", NAMESPACE, "--sort-by=.metadata.creationTimestamp")
    print(pod.described(), cluster.kubectl(*events), sep="\n")  # noqa: T201 - what users see


def test_failed_pull_keeps_plex_in_the_pod_from_starting(
    pod: Pod, plex: PlexCommands, target: Path
) -> None:
    """After a failed pull, Plex runs on the VM only, and kubelet shows the termination message."""
    server = target / "Library" / "Application Support" / "Plex Media Server"
    server.mkdir(parents=True)
    (server / "not ours").touch()
    pod.create()

    wait_until(
        lambda: (
            "terminated" in (pod.status("plexodus").get("lastState") or {})
            or "terminated" in (pod.status("plexodus").get("state") or {})
        ),
        60,
        what="a failure",
    )

    described = pod.described()
    assert "Permanent TargetConflict, exit code 14: " in described
    assert "Failed" in described
    assert "running" not in pod.status("pms").get("state", {})
    assert plex.story == ["start"]
