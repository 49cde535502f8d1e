"""Real controllers of a cluster, and stand-ins for its scheduler and its network."""

from __future__ import annotations

import json
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from rig.cluster.cluster import SERVICE, TOOLS, start
from rig.cluster.node import NAME
from rig.ports import reserve_port
from rig.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
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
    """Run the controllers of StatefulSets, Jobs, claims and so on. Pods go to the one node."""
    with ExitStack() as stack:
        start(
            stack, cluster.folder / "proxy.log",
            ["socat", f"TCP-LISTEN:443,bind={SERVICE},fork,reuseaddr",
             f"TCP:localhost:{cluster.port}"],
        )  # fmt: skip
        start(
            stack, cluster.folder / "controllers.log",
            [
                TOOLS / "bin" / "kube-controller-manager", "--leader-elect=false",
                "--kubeconfig", cluster.environment()["KUBECONFIG"],
                "--bind-address=127.0.0.1", f"--secure-port={reserve_port()}",
                f"--service-account-private-key-file={cluster.key}",
                f"--root-ca-file={cluster.authority}",
                "--controllers=*,-node-lifecycle-controller",
            ],
        )  # fmt: skip
        for each in (_PLACED, _EVERYWHERE):
            cluster.kubectl("create", "-f", "-", stdin=json.dumps(each))
        yield


def make_volume(cluster: Cluster, folder: Path, namespace: str, claim: str) -> None:
    """Provision a volume for one claim in a folder of the node, where the kubelet heeds fsGroup."""
    on_node = {"key": "kubernetes.io/hostname", "operator": "In", "values": [NAME]}
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
