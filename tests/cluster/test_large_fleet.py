"""A fleet of 500 servers in one release: nothing of Helm, the API or the chart gives up before."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from rig.cluster.cluster import ROOT, TOOLS, Cluster, running_cluster

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.cluster

CHART = ROOT / "charts" / "plexodus"
RELEASE, NAMESPACE = "home", "media"
SERVERS = 500
NAMES = [f"server-{number:03}" for number in range(SERVERS)]
VALUES: dict[str, Any] = {
    "migrations": [{"name": name} for name in NAMES],
    "defaults": {
        "pairing": {"existingSecret": "{name}-pairing"},
        "settings": {"PLEXODUS_PLEX_VERSION": "1.40.1.8227-c0dd5a73e"},
        "job": {
            "enabled": True,
            "until": "done",
            "claim": {"name": "config-{name}", "create": True, "size": "50Gi"},
        },
    },
    "fleet": {"name": "home", "queue": "moves"},
    "podMonitor": {"enabled": True},
    "prometheusRule": {"enabled": True},
    "dashboard": {"enabled": True},
}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Start an API server without controllers: Jobs stay as the chart has made them."""
    with running_cluster(tmp_path_factory.mktemp("cluster")) as cluster:
        cluster.kubectl("create", "namespace", NAMESPACE)
        cluster.kubectl("apply", "--server-side", "-f", TOOLS / "crds")
        yield cluster


def _helm(cluster: Cluster, command: str, folder: Path, values: dict[str, Any]) -> None:
    path = folder / "values.json"
    path.write_text(json.dumps(values))
    cluster.helm(command, RELEASE, CHART, "-n", NAMESPACE, "-f", path)


def _jobs(cluster: Cluster) -> dict[str, dict[str, Any]]:
    """Return the Jobs by the name of their migration; none has two."""
    found = cluster.get("jobs", "-n", NAMESPACE)
    jobs = {each["metadata"]["labels"]["plexodus.io/migration"]: each for each in found}
    assert len(jobs) == len(found)
    return jobs


def test_each_server_has_its_own_job_and_status(cluster: Cluster, tmp_path: Path) -> None:
    """An upgrade that changes one server makes one new Job, and leaves the others alone."""
    _helm(cluster, "install", tmp_path, VALUES)
    jobs = _jobs(cluster)
    assert sorted(jobs) == NAMES
    assert all(each["spec"]["suspend"] for each in jobs.values())
    claims = {
        name: volume["persistentVolumeClaim"]["claimName"]
        for name, job in jobs.items()
        for volume in job["spec"]["template"]["spec"]["volumes"]
        if "persistentVolumeClaim" in volume
    }
    assert claims == {name: f"config-{name}" for name in NAMES}
    listed = cluster.kubectl(
        *("get", "configmap", "-n", NAMESPACE, "-l", "plexodus.io/fleet=home", "--no-headers"),
        *("-o", r"custom-columns=SERVER:.metadata.labels.plexodus\.io/migration"),
    )
    assert listed.split() == NAMES

    changed = json.loads(json.dumps(VALUES))
    changed["migrations"][7]["settings"] = {"PLEXODUS_JOBS": 1}
    _helm(cluster, "upgrade", tmp_path, changed)
    after = _jobs(cluster)
    assert sorted(after) == NAMES
    differ = [
        name for name in NAMES if after[name]["metadata"]["uid"] != jobs[name]["metadata"]["uid"]
    ]
    assert differ == [NAMES[7]]
