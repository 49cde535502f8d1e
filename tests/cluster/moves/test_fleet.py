"""Many servers in one release: no more at once than the fleet allows, and each ends by itself."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from rig.cluster.fleet import Fleet, fleet_values, running_fleet, wrong
from rig.cluster.kubelet import NAMESPACE
from rig.cluster.pod_watch import watched_pods
from rig.cluster.story import CHART
from rig.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rig.programs import Agent

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(500)]
SERVERS = [f"server-{number}" for number in range(5)]
STRANGER = "server-1"
"""Its pairing is not valid: a permanent failure."""
MOST = 2
CLASS = "moves"
"""The PriorityClass of docs/fleet.md."""


def test_fleet_moves_a_few_at_once(new_agent: Callable[[Path], Agent], tmp_path: Path) -> None:
    """By a quota, four servers arrive right to the byte, one fails, and never three run."""
    with running_fleet(tmp_path) as fleet, fleet.node(0) as node:
        cluster = fleet.cluster
        cluster.kubectl("create", "priorityclass", CLASS, "--value=0")
        servers = [
            fleet.server(name, new_agent(tmp_path / "vms" / name / "Library"), number)
            for number, name in enumerate(SERVERS)
        ]
        cluster.kubectl("delete", "secret", f"plexodus-{STRANGER}-pairing", "-n", NAMESPACE)
        fleet.pair(STRANGER, wrong(servers[1].agent.pairing))
        limit = {"maxParallel": MOST, "priorityClassName": CLASS}
        given = tmp_path / "values.json"
        given.write_text(json.dumps(fleet_values(SERVERS, limit, {})))
        with watched_pods(cluster, NAMESPACE) as watch:
            cluster.helm("install", "plexodus", CHART, "-n", NAMESPACE, "-f", given)
            wait_until(lambda: _are_over(fleet), 400, what="the end of all Jobs", every=1)
            assert watch.most() == MOST
        assert (fleet.ended("Complete"), fleet.ended("Failed")) == (len(SERVERS) - 1, 1)
        assert [each.name for each in servers if not each.arrived()] == [STRANGER]
        states = fleet.states()
        assert states.pop(STRANGER)[0] == "failed"
        assert {phase for phase, _ in states.values()} == {"done"}
        cluster.helm("uninstall", "plexodus", "-n", NAMESPACE)
        wait_until(lambda: not node.containers(), what="the end of all pods")


def _are_over(fleet: Fleet) -> bool:
    return fleet.ended("Complete") + fleet.ended("Failed") == len(SERVERS)
