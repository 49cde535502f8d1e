"""A fleet of 500 servers in one release: nothing of Helm, the API or the chart gives up before."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

import pytest
from rig.cluster.cluster import ROOT, TOOLS, Cluster, running_cluster

from bench.fleet_chart import fleet_values, measure

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.cluster

CHART = ROOT / "charts" / "plexodus"
RELEASE, NAMESPACE = "home", "media"
SERVERS = 500
VALUES = fleet_values(SERVERS)
NAMES = [each["name"] for each in VALUES["migrations"]]


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

    stored = cluster.get("secret", f"sh.helm.release.v1.{RELEASE}.v1", "-n", NAMESPACE)
    size = len(base64.b64decode(stored["data"]["release"]))
    assert size == pytest.approx(measure([SERVERS], 1)[0].release_bytes, rel=0.05)

    changed = json.loads(json.dumps(VALUES))
    changed["migrations"][7]["settings"] = {"PLEXODUS_JOBS": 1}
    _helm(cluster, "upgrade", tmp_path, changed)
    after = _jobs(cluster)
    assert sorted(after) == NAMES
    differ = [
        name for name in NAMES if after[name]["metadata"]["uid"] != jobs[name]["metadata"]["uid"]
    ]
    assert differ == [NAMES[7]]
