"""Many servers in one release: no more at once than the fleet allows, and each ends by itself."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest
from rig.cluster.controllers import make_volume
from rig.cluster.kubelet import NAMESPACE
from rig.cluster.story import CHART, Story, controlled_cluster, plex_node
from rig.oracle import rsync_differences, sums_hold
from rig.waiting import wait_until

from bench.plexlibrary import LibraryShape, make_library
from shared.wire.pairing import PAIRING_VARIABLE, parse_pairing

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rig.cluster.cluster import Cluster
    from rig.programs import Agent

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(500)]
SERVERS = [f"server-{number}" for number in range(4)]
STRANGER = "server-1"
"""Its pairing is not valid: a permanent failure."""
MOST = 1
"""More would need a network for each pod: here all have that of the host, and so its ports."""
CLASS = "moves"
SELECTED = ("-l", "plexodus.io/fleet=home")


def values() -> dict[str, Any]:
    """Return the values of a fleet whose servers have been stopped by hand."""
    return {
        "migrations": [{"name": name} for name in SERVERS],
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
        "fleet": {"name": "home", "maxParallel": MOST, "priorityClassName": CLASS},
    }


def pair(cluster: Cluster, name: str, agent: Agent) -> None:
    """Create the Secret of one server."""
    pairing = str(agent.pairing)
    if name == STRANGER:
        pairing = pairing.replace(parse_pairing(pairing).token, "x" * 43)
    given = f"--from-literal={PAIRING_VARIABLE}={pairing}"
    secret = f"plexodus-{name}-pairing"
    cluster.kubectl("create", "secret", "generic", secret, given, "-n", NAMESPACE)


def phases(story: Story) -> dict[str, str]:
    """Return the phase of each server, by the one command that shows them."""
    columns = "NAME:.metadata.labels.plexodus\\.io/migration,PHASE:.data.phase"
    printed = story.kubectl(
        "get", "configmap", *SELECTED, "-o", f"custom-columns={columns}", "--no-headers"
    )
    lines = [line.split() for line in printed.splitlines()]
    return {name: phase for name, phase in lines if phase != "<none>"}


def ended(story: Story, how: str) -> int:
    """Return how many Jobs have this condition."""
    return sum(
        each["type"] == how and each["status"] == "True"
        for job in story.get("jobs", *SELECTED)
        for each in job["status"].get("conditions", [])
    )


def test_fleet_moves_a_few_at_once(new_agent: Callable[[Path], Agent], tmp_path: Path) -> None:
    """Three servers arrive right to the byte, one fails with its reason, and never two run."""
    (tmp_path / "cluster").mkdir()
    source = tmp_path / "Library"
    make_library(source, LibraryShape(300, 8_000_000, 2_000_000))
    with (
        controlled_cluster(tmp_path / "cluster") as cluster,
        plex_node(cluster, tmp_path / "node") as node,
    ):
        story = Story(cluster)
        priority = {
            "apiVersion": "scheduling.k8s.io/v1",
            "kind": "PriorityClass",
            "metadata": {"name": CLASS},
            "value": 0,
        }
        cluster.kubectl("create", "-f", "-", stdin=json.dumps(priority))
        for name in SERVERS:
            agent = new_agent(source)
            agent.pair()
            agent.start()
            volume = tmp_path / name
            volume.mkdir(mode=0o755)
            make_volume(cluster, volume, NAMESPACE, f"config-{name}")
            pair(cluster, name, agent)
        given = tmp_path / "values.json"
        given.write_text(json.dumps(values()))
        cluster.helm("install", "plexodus", CHART, "-n", NAMESPACE, "-f", given)

        most, deadline = 0, time.monotonic() + 400
        while ended(story, "Complete") + ended(story, "Failed") < len(SERVERS):
            assert time.monotonic() < deadline, story.kubectl("get", "jobs,pods,events")
            pods = story.get("pods", *SELECTED)
            most = max(most, sum(pod["status"]["phase"] in ("Pending", "Running") for pod in pods))
            time.sleep(0.5)
        assert most == MOST
        assert (ended(story, "Complete"), ended(story, "Failed")) == (len(SERVERS) - 1, 1)
        arrived = [name for name in SERVERS if name != STRANGER]
        assert phases(story) == dict.fromkeys(arrived, "done") | {STRANGER: "failed"}
        for name in arrived:
            assert rsync_differences(source, tmp_path / name / "Library", owner=False) == []
            assert sums_hold(tmp_path / name)
        assert not (tmp_path / STRANGER / "Library").exists()
        told = story.kubectl("describe", "pods", "-l", f"plexodus.io/migration={STRANGER}")
        assert "AuthenticationError, exit code 10" in told
        cluster.helm("uninstall", "plexodus", "-n", NAMESPACE)
        wait_until(lambda: not node.containers(), what="the end of all pods")
