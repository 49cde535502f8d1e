"""Many servers, and a cluster that moves them: a scheduler, and nodes with a network a pod."""

from __future__ import annotations

import re
import shlex
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.plexlibrary import LibraryShape, make_library
from rig.cluster.audit import audit_options
from rig.cluster.cluster import ROOT, running_cluster
from rig.cluster.containers import image
from rig.cluster.controllers import make_volume, running_scheduler, wait_for_account
from rig.cluster.kubelet import NAMESPACE
from rig.cluster.kueue import aggregation_options
from rig.cluster.node import running_node
from rig.cluster.pod_network import pod_network
from rig.oracle import rsync_differences, sums_hold
from shared import __version__
from shared.wire.pairing import PAIRING_VARIABLE, parse_pairing

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from rig.cluster.cluster import Cluster
    from rig.cluster.node import Node
    from rig.cluster.pod_network import PodNetwork
    from rig.programs import Agent

NODES = ("first", "second")
SELECTED = ("-l", "plexodus.io/fleet=home")
_BLOCK = re.compile(r"^```\w*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_AGENT_PORT = 8443


@dataclass(frozen=True)
class Server:
    """A server that is moved, with its agent and the folder of its volume."""

    name: str
    agent: Agent
    volume: Path

    def arrived(self) -> bool:
        """Return whether rsync and sha256sum find the whole library on the volume."""
        moved = self.volume / "Library"
        return (
            moved.is_dir()
            and rsync_differences(self.agent.library, moved, owner=False) == []
            and sums_hold(self.volume)
        )


@dataclass(frozen=True)
class Fleet:
    """The cluster and the network of its pods, which reach the servers there."""

    cluster: Cluster
    network: PodNetwork
    folder: Path

    @contextmanager
    def node(self, number: int) -> Iterator[Node]:
        """Start a node that is ready and has our image."""
        name = NODES[number]
        network = self.network.configure(self.folder, number)
        with running_node(self.cluster, self.folder / name, name, network) as node:
            node.load(image("puller"), f"plexodus-puller:{__version__}")
            self.cluster.kubectl("wait", f"node/{name}", "--for=condition=Ready", "--timeout=90s")
            yield node

    def server(self, name: str, agent: Agent, number: int) -> Server:
        """Start a server with a library of its own, and create its volume and its pairing."""
        make_library(agent.library, LibraryShape(300, 8_000_000, 2_000_000, seed=number))
        agent.address, agent.port = self.network.server(number), _AGENT_PORT
        agent.pair()
        agent.start()
        volume = self.folder / name
        volume.mkdir(mode=0o755)
        make_volume(self.cluster, volume, NAMESPACE, f"config-{name}", nodes=NODES)
        self.pair(name, agent.pairing)
        return Server(name, agent, volume)

    def pair(self, name: str, pairing: str) -> None:
        """Create the Secret of one server."""
        given = f"--from-literal={PAIRING_VARIABLE}={pairing}"
        secret = f"plexodus-{name}-pairing"
        self.cluster.kubectl("create", "secret", "generic", secret, given, "-n", NAMESPACE)

    def ended(self, how: str) -> int:
        """Return how many Jobs have this condition."""
        return sum(
            each["type"] == how and each["status"] == "True"
            for job in self.cluster.get("jobs", *SELECTED, "-n", NAMESPACE)
            for each in job["status"].get("conditions", [])
        )

    def states(self) -> dict[str, tuple[str, str]]:
        """Return phase and error of each server, by the one command of docs/fleet.md."""
        _, *command = shlex.split(documented("kubectl get configmap"))
        printed = self.cluster.kubectl(*command, "-n", NAMESPACE)
        titles, *rows = printed.splitlines()
        phase, percent, error = (titles.index(each) for each in ("PHASE", "PERCENT", "ERROR"))
        return {
            row.split()[0]: (row[phase:percent].strip(), row[error:].strip())
            for row in rows
            if row[:phase].strip() != "<none>"
        }


def documented(start: str) -> str:
    """Return the block of docs/fleet.md that has a line with this start."""
    blocks = _BLOCK.findall((ROOT / "docs" / "fleet.md").read_text())
    [found] = [each for each in blocks if re.search(f"^{re.escape(start)}", each, re.MULTILINE)]
    return str(found)


def wrong(pairing: str) -> str:
    """Return a pairing with a token that the agent does not accept."""
    return pairing.replace(parse_pairing(pairing).token, "x" * 43)


def fleet_values(
    names: Sequence[str], fleet: Mapping[str, object], settings: Mapping[str, Mapping[str, object]]
) -> dict[str, Any]:
    """Return the chart's values for servers that were stopped by hand, and their own settings."""
    return {
        "migrations": [{"name": name, "settings": settings.get(name, {})} for name in names],
        "defaults": {
            "settings": {
                "PLEXODUS_NO_CUTOVER": True,
                "PLEXODUS_PLEX_VERSION": "1.40.1.8227-c0dd5a73e",
            },
            "job": {
                "enabled": True,
                "until": "done",
                "claim": {"name": "config-{name}", "create": True, "size": "1Gi"},
            },
        },
        "fleet": {"name": "home", **fleet},
        # Both nodes are this machine, and one of them must do for all.
        "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"memory": "1Gi"}},
    }


@contextmanager
def running_fleet(folder: Path) -> Iterator[Fleet]:
    """Start a cluster without nodes, whose API server keeps an audit log."""
    files = folder / "cluster"
    files.mkdir()
    with pod_network() as network:
        options = (*audit_options(files), *aggregation_options(files))
        with (
            running_cluster(files, network.service, options) as cluster,
            running_scheduler(cluster),
        ):
            cluster.kubectl("create", "namespace", NAMESPACE)
            wait_for_account(cluster, NAMESPACE)
            yield Fleet(cluster, network, folder)
