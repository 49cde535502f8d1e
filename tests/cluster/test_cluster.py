"""The charts in a real API server, and a pull in a container as the Pod's kubelet would run it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from rig.cluster.cluster import TOOLS, Cluster, running_cluster
from rig.cluster.kubelet import NAMESPACE, POD, Kubelet, make_pod
from rig.oracle import rsync_differences

from bench.plexlibrary import SERVER, LibraryShape, make_library

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rig.programs import Agent

pytestmark = pytest.mark.cluster

ROOT = Path(__file__).parent.parent.parent
CHART = ROOT / "charts" / "plexodus"
VALUES = ROOT / "charts" / "values"
STANDIN = ROOT / "tests" / "charts" / "plex-media-server"
STATUS = "plexodus-plex-status"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """With both charts in it, as the values files have them, and the StatefulSet's Pod."""
    with running_cluster(tmp_path_factory.mktemp("cluster")) as cluster:
        cluster.kubectl("create", "namespace", NAMESPACE)
        cluster.kubectl("apply", "--server-side", "-f", TOOLS / "crds")
        given = ("-n", NAMESPACE, "-f", VALUES / "plexodus.yaml")
        cluster.helm("install", "plexodus", CHART, *given)
        given = ("-n", NAMESPACE, "-f", VALUES / "init-container.yaml")
        cluster.helm("install", "plex", STANDIN, *given)
        make_pod(cluster)
        yield cluster


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """Return the library of a small Plex."""
    library = tmp_path / "vm" / "Library"
    make_library(library, LibraryShape(1_500, 30_000_000, 6_000_000))
    return library


@pytest.fixture
def kubelet(cluster: Cluster, agent: Agent, target: Path, tmp_path: Path) -> Kubelet:
    """Of a node with an empty volume, and no Event of another test."""
    cluster.kubectl("delete", "events", "--all", "-n", NAMESPACE)
    return Kubelet(cluster, tmp_path / "kubelet", agent, target)


def reasons(cluster: Cluster) -> list[str]:
    """Of our Events about the Pod, in order."""
    of_ours = "reportingComponent=plexodus-puller"
    found = cluster.get("events", "-n", NAMESPACE, "--field-selector", of_ours)
    found.sort(key=lambda event: event["eventTime"])
    return [event["reason"] for event in found]


def test_pull_shows_in_the_cluster(
    cluster: Cluster, kubelet: Kubelet, library: Path, target: Path
) -> None:
    """Events and the status tell its story; 'describe' shows it to people."""
    done = kubelet.run()

    assert done.returncode == 0, done.stderr
    assert rsync_differences(library, target / "Library", owner=False) == []
    assert {(each.lstat().st_uid, each.lstat().st_gid) for each in target.glob("Library/**/*")} == {
        (1000, 1000)
    }
    assert reasons(cluster) == ["Started", "Verified", "Published"]
    status = cluster.get("configmap", STATUS, "-n", NAMESPACE)["data"]
    assert (status["phase"], status["percent"], status["error"]) == ("done", "100", "")
    assert status["pod"] == POD
    described = cluster.kubectl("describe", "pod", POD, "-n", NAMESPACE)
    listed = cluster.kubectl("get", "events", "-n", NAMESPACE)
    print(described, listed)  # noqa: T201 - what people look at
    assert "byte for byte as on the VM" in described
    assert "Published" in listed


def test_failure_shows_in_the_cluster(cluster: Cluster, kubelet: Kubelet, target: Path) -> None:
    """With reason and advice: as an Event, in the status, as the container's last word."""
    (target / "Library").mkdir()
    done = kubelet.run("--on-existing", "fail")
    assert done.returncode == 14
    assert reasons(cluster) == ["Failed"]
    status = cluster.get("configmap", STATUS, "-n", NAMESPACE)["data"]
    assert status["phase"] == "failed"
    described = cluster.kubectl("describe", "pod", POD, "-n", NAMESPACE)
    assert "Permanent TargetConflict, exit code 14: " in described
    assert status["error"] in described


def test_older_plex_in_the_pod(cluster: Cluster, kubelet: Kubelet, library: Path) -> None:
    """The image is read from the own Pod's spec: an older one than the VM's is refused."""
    log = library / SERVER / "Logs" / "Plex Media Server.log"
    log.parent.mkdir(exist_ok=True)
    log.write_text("Nov 24, 2026 10:00:00 [1] INFO - Plex Media Server v1.42.0.1000-abcdef012\n")
    done = kubelet.run()
    assert done.returncode == 12
    described = cluster.kubectl("describe", "pod", POD, "-n", NAMESPACE)
    assert "Permanent PreflightRefused, exit code 12: version: " in described


def test_pull_without_rights(
    cluster: Cluster, kubelet: Kubelet, library: Path, target: Path
) -> None:
    """The binding is gone: the pull is not."""
    found = cluster.kubectl("get", "rolebinding", "plexodus", "-n", NAMESPACE, "-o", "json")
    cluster.kubectl("delete", "rolebinding", "plexodus", "-n", NAMESPACE)
    try:
        done = kubelet.run()
    finally:
        kept = json.loads(found)
        for key in ("resourceVersion", "uid", "managedFields"):
            kept["metadata"].pop(key, None)
        cluster.kubectl("create", "-f", "-", stdin=json.dumps(kept))
    assert done.returncode == 0
    assert rsync_differences(library, target / "Library", owner=False) == []
    assert done.stderr.count("cannot publish Events or status") == 1
    assert reasons(cluster) == []


def test_api_server_is_not_there(kubelet: Kubelet, library: Path, target: Path) -> None:
    """The pull is not held up."""
    done = kubelet.run(port=1)
    assert done.returncode == 0
    assert rsync_differences(library, target / "Library", owner=False) == []


@pytest.mark.parametrize(
    ("allowed", "wanted"),
    [
        (True, f"get pod/{POD}"),
        (True, f"patch configmap/{STATUS}"),
        (True, "create events.events.k8s.io"),
        (False, "get pod/another"),
        (False, "list pods"),
        (False, f"patch pod/{POD}"),
        (False, f"delete pod/{POD}"),
        (False, f"create pod/{POD} --subresource=exec"),
        (False, "get secrets"),
        (False, "list secrets"),
        (False, "get secret/plexodus-plex-pairing"),
        (False, "patch configmap/plexodus-plex-settings"),
        (False, "create configmaps"),
        (False, f"get configmap/{STATUS}"),
        (False, "list events.events.k8s.io"),
        (False, "create serviceaccounts/token"),
        (False, "create events.events.k8s.io -n default"),
        (False, "get nodes"),
    ],
)
def test_what_the_account_may_do(cluster: Cluster, *, allowed: bool, wanted: str) -> None:
    """Asked with its own token: what the puller needs, and nothing else."""
    token = cluster.token(NAMESPACE, "plexodus")
    where = () if " -n " in wanted else ("-n", NAMESPACE)
    said = cluster.kubectl("auth", "can-i", *wanted.split(), *where, token=token, check=False)
    assert said.split()[0] == ("yes" if allowed else "no"), said


def test_refusals_are_the_servers(cluster: Cluster) -> None:
    """Tried, not asked: another's status, and the pairing."""
    token = cluster.token(NAMESPACE, "plexodus")
    for command in (
        ("get", "secrets"),
        ("patch", "configmap", "plexodus-plex-settings", "-p", '{"data":{"a":"b"}}'),
        ("annotate", "pod", POD, "a=b"),
    ):
        said = cluster.tried("kubectl", *command, "-n", NAMESPACE, token=token)
        assert said.returncode != 0
        assert "is forbidden" in said.stderr


def test_upgrade_leaves_the_status(cluster: Cluster) -> None:
    """An upgrade of the chart does not remove the puller's data."""
    patch = '{"data":{"phase":"transferring"}}'
    cluster.kubectl("patch", "configmap", STATUS, "-n", NAMESPACE, "-p", patch)
    given = ("-n", NAMESPACE, "-f", VALUES / "plexodus.yaml")
    cluster.helm("upgrade", "plexodus", CHART, *given, "--set", "dashboard.enabled=true")
    found = cluster.get("configmap", STATUS, "-n", NAMESPACE)
    assert found["data"]["phase"] == "transferring"


@pytest.mark.parametrize(
    "path",
    ["init-container.yaml", "sidecar.yaml", "script.yaml", "after.yaml"],
    ids=lambda path: path,
)
def test_server_takes_the_values(cluster: Cluster, path: str) -> None:
    """Strictly, and as a Pod, too, which is looked at more closely than a template."""
    command = ("template", "other", STANDIN, "-n", NAMESPACE, "-f", VALUES / path)
    rendered = cluster.helm(*command)
    strictly = ("--dry-run=server", "--validate=strict", "-n", NAMESPACE, "-f", "-")
    cluster.kubectl("create", *strictly, stdin=rendered)
    for each in yaml.safe_load_all(rendered):
        if each["kind"] == "StatefulSet":
            pod = {"apiVersion": "v1", "kind": "Pod", **each["spec"]["template"]}
            pod["metadata"]["name"] = "other"
            claim = {"claimName": "pms-config-other"}
            pod["spec"].setdefault("volumes", []).append(
                {"name": "pms-config", "persistentVolumeClaim": claim}
            )
            pod["spec"]["serviceAccountName"] = "plexodus"
            cluster.kubectl("create", *strictly, stdin=json.dumps(pod))


def test_server_takes_the_flux_example(cluster: Cluster) -> None:
    """Against the definitions that Flux publishes."""
    folder = VALUES / "gitops" / "base" / "plex"
    rendered = cluster.kubectl("kustomize", folder)
    cluster.kubectl("apply", "--dry-run=server", "--validate=strict", "-f", "-", stdin=rendered)


@pytest.mark.parametrize(
    ("context", "level"),
    [
        ({}, "baseline"),
        (
            {
                "runAsUser": 1000,
                "runAsNonRoot": True,
                "readOnlyRootFilesystem": True,
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
            },
            "restricted",
        ),
    ],
    ids=["as root", "as 1000"],
)
def test_pod_security(cluster: Cluster, context: dict[str, Any], level: str) -> None:
    """Jobs fit into a namespace of this level; as root with chown, not into the next one."""
    namespace = f"is-{level}"
    cluster.kubectl("create", "namespace", namespace)
    label = f"pod-security.kubernetes.io/enforce={level}"
    cluster.kubectl("label", "namespace", namespace, label)
    job: dict[str, Any] = {"enabled": True, "claim": {"name": "config"}}
    job |= {"securityContext": context} if context else {}
    file = cluster.folder / f"{level}.yaml"
    file.write_text(json.dumps({"migrations": [{"name": "plex", "job": job}]}))
    cluster.helm("install", "plexodus", CHART, "-n", namespace, "-f", file)
    [found] = cluster.get("jobs", "-n", namespace)
    pod = {"apiVersion": "v1", "kind": "Pod", **found["spec"]["template"]}
    pod["metadata"] = {"name": "plexodus"}
    create = ("create", "--dry-run=server", "-n", namespace, "-f", "-")
    said = cluster.tried("kubectl", *create, stdin=json.dumps(pod))
    assert said.returncode == 0, said.stderr
    if level == "baseline":
        cluster.kubectl("label", "--overwrite", "namespace", namespace,
                        "pod-security.kubernetes.io/enforce=restricted")  # fmt: skip
        said = cluster.tried("kubectl", *create, stdin=json.dumps(pod))
        assert "violates PodSecurity" in said.stderr
