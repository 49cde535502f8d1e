"""A real Kueue: its own manifests, and its manager in a pod of the cluster."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from rig.cluster.cluster import TOOLS
from rig.cluster.containers import BASE
from rig.cluster.node import build
from rig.hostile.authority import Authority
from rig.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from rig.cluster.cluster import Cluster
    from rig.cluster.node import Node

NAMESPACE = "kueue-system"
_IMAGE = "localhost/kueue:1"
_NOBODY = "65532:65532"


def aggregation_options(folder: Path) -> tuple[str, ...]:
    """Return the API server's options for its requests to others: to webhooks and extensions.

    Every installer of Kubernetes sets them. Without a proxy for the addresses of services, the API
    server asks the pods behind them.
    """
    authority = Authority(folder / "requests")
    certificate, key = authority.issue("proxy")
    return (
        "--enable-aggregator-routing=true",
        f"--client-ca-file={authority.certificate}",
        f"--requestheader-client-ca-file={authority.certificate}",
        "--requestheader-allowed-names=proxy",
        "--requestheader-username-headers=X-Remote-User",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        f"--proxy-client-cert-file={certificate}",
        f"--proxy-client-key-file={key}",
    )


def install_kueue(cluster: Cluster, node: Node) -> None:
    """Apply Kueue's manifests, with an image of the manager that was built here, and wait."""
    manager = {TOOLS / "bin" / "kueue": "/manager"}
    build(_IMAGE, BASE, "--user", _NOBODY, "--entrypoint", '["/manager"]', files=manager)
    node.load(_IMAGE, _IMAGE)
    manifests = (TOOLS / "kueue.yaml").read_text().replace("Policy: Always", "Policy: Never")
    manifests = re.sub(r"(?m)^( *)image: .*", rf"\1image: {_IMAGE}", manifests)
    cluster.kubectl("apply", "--server-side", "-f", "-", stdin=manifests)
    ready = ("deployment/kueue-controller-manager", "--for=condition=Available", "--timeout=60s")
    command = ("kubectl", "wait", *ready, "-n", NAMESPACE)
    # It makes its certificates first, and a kubelet updates a mounted Secret once a minute.
    wait_until(lambda: cluster.tried(*command).returncode == 0, 300, what="Kueue")
