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
    """Start a cluster with both charts, installed with the values files, and Plex's Pod."""
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
    """Return a kubelet of a node with an empty volume. Events of other tests are deleted."""
    cluster.kubectl("delete", "events", "--all", "-n", NAMESPACE)
    return Kubelet(cluster, tmp_path / "kubelet", agent, target)


def reasons(cluster: Cluster) -> list[str]:
    """Return the reasons of our Events about the Pod, in order."""
    of_ours = "reportingComponent=plexodus-puller"
    found = cluster.get("events", "-n", NAMESPACE, "--field-selector", of_ours)
    found.sort(key=lambda event: event["eventTime"])
    return [event["reason"] for event in found]


def test_pull_shows_in_the_cluster(
    cluster: Cluster, kubelet: Kubelet, library: Path, target: Path
) -> None:
    """A pull publishes Events and its status, and ``kubectl describe`` shows them."""
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
    print(described, listed)  # noqa: T201 - shows what administrators see
    assert "byte for byte as on the VM" in described
    assert "Published" in listed


def test_failure_shows_in_the_cluster(cluster: Cluster, kubelet: Kubelet, target: Path) -> None:
    """A failure is in an Event, in the status, and in the container's termination message."""
    (target / "Library").mkdir()
    (target / "Library" / "not ours").touch()
    done = kubelet.run("--on-existing", "fail")
    assert done.returncode == 14
    assert reasons(cluster) == ["Failed"]
    status = cluster.get("configmap", STATUS, "-n", NAMESPACE)["data"]
    assert status["phase"] == "failed"
    described = cluster.kubectl("describe", "pod", POD, "-n", NAMESPACE)
    assert "Permanent TargetConflict, exit code 14: " in described
    assert status["error"] in described


def test_older_plex_in_the_pod_is_refused(
    cluster: Cluster, kubelet: Kubelet, library: Path
) -> None:
    """A pull exits 12 if the image in the Pod's spec has an older Plex than the VM."""
    log = library / SERVER / "Logs" / "Plex Media Server.log"
    log.parent.mkdir(exist_ok=True)
    log.write_text("Nov 24, 2026 10:00:00 [1] INFO - Plex Media Server v1.42.0.1000-abcdef012\n")
    done = kubelet.run()
    assert done.returncode == 12
    described = cluster.kubectl("describe", "pod", POD, "-n", NAMESPACE)
    assert "Permanent PreflightRefused, exit code 12: version: " in described


def test_pull_without_rights_in_the_cluster_succeeds(
    cluster: Cluster, kubelet: Kubelet, library: Path, target: Path
) -> None:
    """Without its RoleBinding, the pull succeeds and reports once that it cannot publish Events."""
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


def test_pull_without_an_api_server_succeeds(kubelet: Kubelet, library: Path, target: Path) -> None:
    """If the API server is unreachable, the pull succeeds."""
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
def test_account_has_only_the_rights_of_the_puller(
    cluster: Cluster, *, allowed: bool, wanted: str
) -> None:
    """``kubectl auth can-i`` allows the account what the puller needs, and nothing else."""
    token = cluster.token(NAMESPACE, "plexodus")
    where = () if " -n " in wanted else ("-n", NAMESPACE)
    said = cluster.kubectl("auth", "can-i", *wanted.split(), *where, token=token, check=False)
    assert said.split()[0] == ("yes" if allowed else "no"), said


def test_server_refuses_secrets_and_foreign_objects_to_the_account(cluster: Cluster) -> None:
    """The account's attempts to read Secrets and to change foreign objects are forbidden."""
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
    """An upgrade of the chart keeps the data that the puller wrote into the status."""
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
def test_server_accepts_the_values_files(cluster: Cluster, path: str) -> None:
    """The API server strictly accepts the manifests of each values file, also as a Pod.

    It validates a Pod more closely than a StatefulSet's template.
    """
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


def test_server_accepts_the_flux_example(cluster: Cluster) -> None:
    """The API server accepts the example by the CustomResourceDefinitions that Flux publishes."""
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
def test_job_fits_its_level_of_pod_security(
    cluster: Cluster, context: dict[str, Any], level: str
) -> None:
    """A Job is admitted to a namespace of its level. A Job as root is refused by the next level."""
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
