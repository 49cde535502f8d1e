"""Real controllers of a cluster, its real scheduler or a stand-in, and a proxy for its network."""

from __future__ import annotations

import json
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from rig.cluster.cluster import TOOLS, start
from rig.cluster.node import NAME
from rig.ports import reserve_port
from rig.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from rig.cluster.cluster import Cluster

_PLACED = {
    "apiVersion": "admissionregistration.k8s.io/v1",
    "kind": "MutatingAdmissionPolicy",
    "metadata": {"name": "placed"},
    "spec": {
        "failurePolicy": "Fail",
        "reinvocationPolicy": "Never",
        "matchConstraints": {
            "resourceRules": [
                {
                    "apiGroups": [""],
                    "apiVersions": ["v1"],
                    "operations": ["CREATE"],
                    "resources": ["pods"],
                }
            ]
        },
        "mutations": [
            {
                "patchType": "ApplyConfiguration",
                "applyConfiguration": {
                    "expression": (
                        "Object{spec: Object.spec{hostNetwork: true, nodeName: '" + NAME + "'}}"
                    )
                },
            }
        ],
    },
}
"""Assigns each Pod to the one node and to the host's network, and changes nothing else."""
_EVERYWHERE = {
    "apiVersion": "admissionregistration.k8s.io/v1",
    "kind": "MutatingAdmissionPolicyBinding",
    "metadata": {"name": "placed"},
    "spec": {"policyName": "placed"},
}


@contextmanager
def running_controllers(cluster: Cluster) -> Iterator[None]:
    """Run the controllers of StatefulSets, Jobs, claims and so on. Pods go to the one node.

    Nothing judges the node: it has no network for pods, and so is never ready.
    """
    with _controllers(cluster, "--controllers=*,-node-lifecycle-controller"):
        for each in (_PLACED, _EVERYWHERE):
            cluster.kubectl("create", "-f", "-", stdin=json.dumps(each))
        yield


@contextmanager
def running_scheduler(cluster: Cluster) -> Iterator[None]:
    """Run all controllers and the scheduler, for nodes with a network for each pod."""
    with _controllers(cluster), ExitStack() as stack:
        start(
            stack, cluster.folder / "scheduler.log",
            [
                TOOLS / "bin" / "kube-scheduler", "--leader-elect=false",
                "--kubeconfig", cluster.environment()["KUBECONFIG"],
                "--bind-address=127.0.0.1", f"--secure-port={reserve_port()}",
            ],
        )  # fmt: skip
        yield


@contextmanager
def _controllers(cluster: Cluster, *options: str) -> Iterator[None]:
    with ExitStack() as stack:
        start(
            stack, cluster.folder / "proxy.log",
            ["socat", f"TCP-LISTEN:443,bind={cluster.service},fork,reuseaddr",
             f"TCP:localhost:{cluster.port}"],
        )  # fmt: skip
        start(
            stack, cluster.folder / "controllers.log",
            [
                TOOLS / "bin" / "kube-controller-manager", "--leader-elect=false",
                "--kubeconfig", cluster.environment()["KUBECONFIG"],
                "--bind-address=127.0.0.1", f"--secure-port={reserve_port()}",
                f"--service-account-private-key-file={cluster.key}",
                f"--root-ca-file={cluster.authority}", *options,
            ],
        )  # fmt: skip
        yield


def make_volume(
    cluster: Cluster,
    folder: Path,
    namespace: str,
    claim: str,
    *,
    nodes: Sequence[str] = (NAME,),
) -> None:
    """Provision a volume for one claim in a folder of all ``nodes``: the kubelet heeds fsGroup."""
    on_node = {"key": "kubernetes.io/hostname", "operator": "In", "values": list(nodes)}
    volume = {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": claim},
        "spec": {
            "capacity": {"storage": "50Gi"},
            "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Retain",
            "local": {"path": str(folder)},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [on_node]}]}},
            "claimRef": {"namespace": namespace, "name": claim},
        },
    }
    cluster.kubectl("create", "-f", "-", stdin=json.dumps(volume))


def wait_for_account(cluster: Cluster, namespace: str) -> None:
    """Wait until controllers have made the CA and the account that pods of a namespace need."""
    name = ("configmap", "kube-root-ca.crt", "-n", namespace)
    wait_until(lambda: "kube-root" in cluster.kubectl("get", *name, check=False), what="the CA")
    name = ("serviceaccount", "default", "-n", namespace)
    wait_until(
        lambda: "default" in cluster.kubectl("get", *name, check=False).split(), what="account"
    )
