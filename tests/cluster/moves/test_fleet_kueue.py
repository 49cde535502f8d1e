"""Forty servers by a real Kueue, five at once, while a node is lost: all that can arrive does."""

from __future__ import annotations

import json
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
from rig.cluster.audit import requests_by_pod, requests_by_program
from rig.cluster.cluster import TOOLS
from rig.cluster.fleet import (
    NODES,
    SELECTED,
    Fleet,
    Server,
    documented,
    fleet_values,
    running_fleet,
    wrong,
)
from rig.cluster.fleet_report import Figures, write_report
from rig.cluster.kubelet import NAMESPACE
from rig.cluster.kueue import install_kueue
from rig.cluster.pod_watch import PodWatch, watched_pods
from rig.cluster.story import CHART
from rig.memory import Peaks

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from rig.cluster.node import Node
    from rig.programs import Agent

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1500)]
SERVERS = [f"server-{number:02}" for number in range(40)]
MOST = 5
"""The quota of docs/fleet.md."""
STRANGER, MISTAKE, OLD = "server-03", "server-11", "server-27"
REASONS = {
    STRANGER: "pair",
    MISTAKE: "'--jobs': 99 is not in the range",
    OLD: "1.30.0",
}
"""Servers that cannot be moved, and a word of the reason that their status must have."""
SETTINGS: dict[str, dict[str, object]] = {
    MISTAKE: {"PLEXODUS_JOBS": 99},
    OLD: {"PLEXODUS_PLEX_VERSION": "1.30.0.6486-629d58034"},
}
LOST_AFTER = 10
"""Servers that have arrived when the second node is lost."""


def test_forty_servers_five_at_once_and_a_lost_node(
    new_agent: Callable[[Path], Agent], tmp_path: Path
) -> None:
    """37 libraries arrive right to the byte, 3 servers fail with a reason, and never six run.

    An upgrade of the release disturbs none of them: not what runs, what waits or what has ended.
    """
    with running_fleet(tmp_path) as fleet, fleet.node(0) as first, ExitStack() as later:
        install_kueue(fleet.cluster, first)
        second = later.enter_context(fleet.node(1))
        fleet.cluster.kubectl("apply", "-f", "-", stdin=documented("kind: ClusterQueue"))
        servers = [
            fleet.server(name, new_agent(tmp_path / "vms" / name / "Library"), number)
            for number, name in enumerate(SERVERS)
        ]
        stranger = servers[SERVERS.index(STRANGER)]
        fleet.cluster.kubectl("delete", "secret", f"plexodus-{STRANGER}-pairing", "-n", NAMESPACE)
        fleet.pair(STRANGER, wrong(stranger.agent.pairing))
        given = tmp_path / "values.json"
        _write_values(given, SETTINGS)
        watch = later.enter_context(watched_pods(fleet.cluster, NAMESPACE))
        peaks = Peaks()

        begun = time.monotonic()
        fleet.cluster.helm("install", "plexodus", CHART, "-n", NAMESPACE, "-f", given)
        _wait(fleet, (first, second), peaks, lambda: _can_be_lost(fleet, watch))
        fleet.cluster.helm("upgrade", "plexodus", CHART, "-n", NAMESPACE, "-f", given)
        second.lose()
        fleet.cluster.kubectl("delete", "node", second.name)
        _wait(fleet, (first,), peaks, lambda: _over(fleet) == len(SERVERS))
        seconds = time.monotonic() - begun

        _judge(fleet, servers, watch)
        _report(fleet, servers, peaks, seconds)

        jobs = _jobs(fleet)
        _write_values(given, {OLD: SETTINGS[OLD]})
        fleet.cluster.helm("upgrade", "plexodus", CHART, "-n", NAMESPACE, "-f", given)
        _wait(fleet, (first,), peaks, lambda: fleet.ended("Complete") == len(SERVERS) - 2)
        assert {name for name, uid in _jobs(fleet).items() if uid != jobs[name]} == {MISTAKE}
        assert servers[SERVERS.index(MISTAKE)].arrived()
        fleet.cluster.helm("uninstall", "plexodus", "-n", NAMESPACE)


def _write_values(path: Path, settings: dict[str, dict[str, object]]) -> None:
    path.write_text(json.dumps(fleet_values(SERVERS, {"queue": "moves"}, settings)))


def _jobs(fleet: Fleet) -> dict[str, str]:
    """Return the UID of each server's Job."""
    found = [each["metadata"] for each in fleet.cluster.get("jobs", *SELECTED, "-n", NAMESPACE)]
    uids = {each["labels"]["plexodus.io/migration"]: each["uid"] for each in found}
    assert len(uids) == len(found) == len(SERVERS)
    return uids


def _wait(fleet: Fleet, nodes: Sequence[Node], peaks: Peaks, is_over: Callable[[], bool]) -> None:
    """Wait, and read the peaks of all processes meanwhile."""
    deadline = time.monotonic() + 1000
    while not is_over():
        assert time.monotonic() < deadline, fleet.cluster.kubectl("get", "jobs,pods,events", "-A")
        for node in nodes:
            for pid in (*node.processes(), *node.shims()):
                peaks.see(pid)
        time.sleep(1)


def _can_be_lost(fleet: Fleet, watch: PodWatch) -> bool:
    """Return whether some servers have arrived and the second node is at work on another."""
    return fleet.ended("Complete") >= LOST_AFTER and any(
        pod["spec"].get("nodeName") == NODES[1] and pod["status"].get("phase") == "Running"
        for pod in watch.pods().values()
    )


def _over(fleet: Fleet) -> int:
    return fleet.ended("Complete") + fleet.ended("Failed")


def _judge(fleet: Fleet, servers: Sequence[Server], watch: PodWatch) -> None:
    """Compare volumes with libraries, statuses with reasons, and pods with the limit."""
    assert watch.most() == MOST
    assert [each.name for each in servers if not each.arrived()] == sorted(REASONS)
    states = fleet.states()
    for name, word in REASONS.items():
        phase, error = states.pop(name)
        assert phase == "failed"
        assert word in error
    assert {phase for phase, _ in states.values()} == {"done"}
    assert len(states) == len(SERVERS) - len(REASONS)
    assert any(
        each["type"] == "DisruptionTarget"
        for pod in watch.pods().values()
        for each in pod["status"].get("conditions", [])
    ), "no pod was lost with the node"


def _report(fleet: Fleet, servers: Sequence[Server], peaks: Peaks, seconds: float) -> None:
    """Write the figures of docs/fleet.md into a file."""
    for server in servers:
        peaks.see(server.agent.pid, "plexodus-agent")
    peaks.see_programs(TOOLS / "bin")
    folder = fleet.cluster.folder
    memory = peaks.largest()
    pods = requests_by_pod(folder, f"{NAMESPACE}:plexodus")
    programs = requests_by_program(folder)
    write_report(Figures(len(servers), seconds, pods, programs, memory))
    assert {"containerd", "containerd-shim-runc-v2"} <= memory.keys(), memory
