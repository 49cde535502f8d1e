"""A network for each pod: a bridge of this machine, by the CNI project's own plugins."""

from __future__ import annotations

import ipaddress
import json
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rig.cluster.cluster import TOOLS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_BRIDGE = "plexodus0"
_NETWORK = ipaddress.ip_network("198.18.0.0/16")
"""For tests between networks (RFC 2544), so that no real host has such an address."""
_GATEWAY, _SERVICE, _SERVERS, _PODS = "198.18.0.1", "198.18.255.1", 256, 4096
_PODS_A_NODE = 1024
_HARDWARE = "02:00:5e:00:53:01"
"""Without one of its own, a bridge takes another one when a pod ends, and loses packets until all
pods have noticed."""


@dataclass(frozen=True)
class PodNetwork:
    """The bridge, with this machine's addresses on it."""

    service: str = _SERVICE
    """Address of the API for pods, and the first of the cluster's services."""

    def server(self, number: int) -> str:
        """Add an address to the bridge for one server, and return it."""
        address = str(_NETWORK[_SERVERS + number])
        _ip("addr", "add", f"{address}/32", "dev", _BRIDGE)
        return address

    def configure(self, folder: Path, node: int) -> str:
        """Write the configuration of one node's pods, and return containerd's part for it."""
        conf = folder / f"cni-{node}"
        conf.mkdir()
        first = _PODS + node * _PODS_A_NODE
        addresses = {
            "subnet": str(_NETWORK),
            "rangeStart": str(_NETWORK[first]),
            "rangeEnd": str(_NETWORK[first + _PODS_A_NODE - 1]),
            "gateway": _GATEWAY,
        }
        ipam = {
            "type": "host-local",
            "dataDir": str(folder / f"addresses-{node}"),
            "ranges": [[addresses]],
            "routes": [{"dst": "0.0.0.0/0"}],
        }
        plugin = {"type": "bridge", "bridge": _BRIDGE, "ipam": ipam}
        network = {"cniVersion": "1.0.0", "name": "pods", "plugins": [plugin]}
        (conf / "pods.conflist").write_text(json.dumps(network))
        return f"""\
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{TOOLS}/bin"
    conf_dir = "{conf}"
"""


@contextmanager
def pod_network() -> Iterator[PodNetwork]:
    """Create the bridge, and remove it at the end. Only one can exist at a time."""
    _ip("link", "add", _BRIDGE, "address", _HARDWARE, "type", "bridge")
    try:
        _ip("addr", "add", f"{_GATEWAY}/{_NETWORK.prefixlen}", "dev", _BRIDGE)
        _ip("addr", "add", f"{_SERVICE}/32", "dev", _BRIDGE)
        _ip("link", "set", _BRIDGE, "up")
        yield PodNetwork()
    finally:
        _ip("link", "del", _BRIDGE)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)
