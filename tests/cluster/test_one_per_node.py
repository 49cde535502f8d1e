"""A fleet with one pod on each node, in a real scheduler. The nodes are only objects of the API."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from rig.cluster.cluster import running_cluster
from rig.cluster.controllers import make_volume, running_scheduler, wait_for_account
from rig.cluster.fleet import NODES, fleet_values
from rig.cluster.kubelet import NAMESPACE
from rig.cluster.pod_watch import watched_pods
from rig.cluster.story import CHART
from rig.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from rig.cluster.cluster import Cluster
    from rig.cluster.pod_watch import PodWatch

pytestmark = pytest.mark.cluster

SERVERS = ("anna", "ben", "chris")
ROOM = {"cpu": "8", "memory": "8Gi", "pods": "110"}
"""What each node has: enough for all pods of the fleet."""
REASON = "2 node(s) didn't match pod anti-affinity rules"
"""The scheduler's words for a pod that both nodes refuse for the same reason."""


def test_no_node_has_two_pods_of_the_fleet(tmp_path: Path) -> None:
    """Of three servers on two nodes, one waits as Unschedulable until the pod of another ends."""
    with running_cluster(tmp_path) as cluster, running_scheduler(cluster):
        cluster.kubectl("create", "namespace", NAMESPACE)
        wait_for_account(cluster, NAMESPACE)
        for name in NODES:
            _add_node(cluster, name)
        for name in SERVERS:
            make_volume(cluster, tmp_path / name, NAMESPACE, f"config-{name}", nodes=NODES)
        given = tmp_path / "values.json"
        # Nothing renews the state of such a node, so it has the taints of a node that is lost.
        tolerant = {"tolerations": [{"operator": "Exists"}]}
        given.write_text(json.dumps(fleet_values(SERVERS, {"onePerNode": True}, {}) | tolerant))
        with watched_pods(cluster, NAMESPACE) as watch:
            cluster.helm("install", "plexodus", CHART, "-n", NAMESPACE, "-f", given)
            # The scheduler refuses a pod because of others that it has not yet assigned in the API.
            wait_until(
                lambda: _refused(watch) and len(_placed(watch)) == len(NODES),
                60, what="a pod that no node takes", every=0.1,
            )  # fmt: skip
            placed = _placed(watch)
            assert sorted(placed.values()) == sorted(NODES)
            [waiting] = _refused(watch)

            ended, freed = next(iter(placed.items()))
            _end(cluster, ended)
            wait_until(lambda: waiting in _placed(watch), 60, what="a node for it", every=0.1)
            assert _placed(watch) == placed | {waiting: freed}
            assert watch.most_on_a_node() == 1
            assert watch.most() == len(SERVERS)


def _add_node(cluster: Cluster, name: str) -> None:
    """Create a node without a kubelet: pods are assigned to it, and none starts."""
    node = {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        "status": {"capacity": ROOM, "allocatable": ROOM},
    }
    cluster.kubectl("create", "-f", "-", stdin=json.dumps(node))


def _end(cluster: Cluster, pod: str) -> None:
    """Report that a pod has succeeded, as its kubelet would."""
    command = ("patch", "pod", pod, "-n", NAMESPACE, "--subresource=status", "--type=merge")
    cluster.kubectl(*command, "-p", json.dumps({"status": {"phase": "Succeeded"}}))


def _placed(watch: PodWatch) -> dict[str, str]:
    """Return the node of each pod that has one."""
    found = {name: pod["spec"].get("nodeName") for name, pod in watch.pods().items()}
    return {name: node for name, node in found.items() if node}


def _refused(watch: PodWatch) -> list[str]:
    """Return the pods that wait, because both nodes have a pod of the fleet."""
    return [name for name, pod in watch.pods().items() if _is_refused(pod)]


def _is_refused(pod: dict[str, Any]) -> bool:
    return pod["status"]["phase"] == "Pending" and any(
        (each["type"], each["status"], each.get("reason"))
        == ("PodScheduled", "False", "Unschedulable")
        and REASON in each["message"]
        for each in pod["status"].get("conditions", [])
    )
