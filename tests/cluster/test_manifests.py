"""The ways beside the official chart and Flux say the same as those, and a cluster takes them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from rig.cluster.cluster import Cluster, running_cluster
from rig.cluster.kubelet import NAMESPACE
from rig.cluster.story import APP_TEMPLATE, CHART, OTHER_CLAIM, OTHER_POD, STANDIN, VALUES
from rig.plans import without_gaps

from agent.plan.options import Output
from shared import __version__

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_ARGO = VALUES / "gitops" / "argocd"
_RESTRICTED = "pod-security.kubernetes.io/enforce=restricted"


def _all(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(path.read_text()))


def _one(kind: str, objects: list[dict[str, Any]]) -> dict[str, Any]:
    [found] = [each for each in objects if each["kind"] == kind]
    return found


def _values(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((VALUES / f"{name}.yaml").read_text())
    return found


def test_plain_manifests_run_the_containers_of_the_official_chart() -> None:
    """The containers and volumes of plexodus are those of init-container.yaml, but one name."""
    values = _values("init-container")
    spec = _one("StatefulSet", _all(VALUES / "kustomize" / "plex.yaml"))["spec"]
    pod = spec["template"]["spec"]
    text = json.dumps(values["extraInitContainers"]).replace('"pms-config"', '"config"')
    assert pod["initContainers"] == json.loads(text)
    assert pod["volumes"][1:] == values["extraVolumes"]
    assert pod["serviceAccountName"] == values["serviceAccount"]["name"]
    assert pod["automountServiceAccountToken"] is False
    [plex] = pod["containers"]
    assert {each["name"]: each["value"] for each in plex["env"]} == values["extraEnv"]
    assert {each["name"] for each in plex["volumeMounts"]} == {"config", "transcode"}
    size = spec["volumeClaimTemplates"][0]["spec"]["resources"]["requests"]["storage"]
    assert size == values["pms"]["configStorage"]
    [image] = yaml.safe_load((VALUES / "kustomize" / "kustomization.yaml").read_text())["images"]
    assert image["newTag"] == values["image"]["tag"]


def test_app_template_runs_the_containers_of_the_official_chart_without_root() -> None:
    """Only the user differs, the form of some fields, and how volumes are mounted."""
    theirs = {each["name"]: each for each in _values("init-container")["extraInitContainers"]}
    values = _values("app-template")
    ours = values["controllers"]["plex"]["initContainers"]
    assert list(ours) == list(theirs) == ["plexodus", "plexodus-watch"]
    for name, container in ours.items():
        expected = theirs[name]
        image = container["image"]
        assert f"{image['repository']}:{image['tag']}" == expected["image"]
        environment = [
            {"name": key, **(value if isinstance(value, dict) else {"value": value})}
            for key, value in container["env"].items()
        ]
        assert environment == expected["env"]
        for key in ("args", "envFrom", "resources", "ports", "restartPolicy"):
            assert container.get(key) == expected.get(key), key
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        mounts = {
            (volume, each["path"], each["readOnly"])
            for volume, held in values["persistence"].items()
            for each in held["advancedMounts"]["plex"][name]
        }
        assert mounts == {
            (each["name"].removeprefix("plexodus-"), each["mountPath"], each["readOnly"])
            for each in expected["volumeMounts"]
            if each["name"] != "pms-config"
        }
    liveness = ours["plexodus-watch"]["probes"]["liveness"]["spec"]
    assert liveness == theirs["plexodus-watch"]["livenessProbe"]
    expected_volumes = {
        each.pop("name"): each for each in _values("init-container")["extraVolumes"]
    }
    volumes = {
        f"plexodus-{name}": held["volumeSpec"] for name, held in values["persistence"].items()
    }
    assert volumes == expected_volumes
    for held in values["persistence"].values():
        assert set(held["advancedMounts"]["plex"]) == {"plexodus", "plexodus-watch"}


def test_job_without_root_seeds_the_claim_of_app_template() -> None:
    """It writes as the same user to the volume that the pod of app-template.yaml mounts."""
    [migration] = _values("restricted")["migrations"]
    pod = _values("app-template")
    [claim] = pod["controllers"]["plex"]["statefulset"]["volumeClaimTemplates"]
    assert migration["podName"] == OTHER_POD
    assert migration["job"]["claim"]["name"] == OTHER_CLAIM == f"{claim['name']}-{OTHER_POD}"
    assert migration["job"]["claim"]["size"] == claim["size"]
    user = dict(pod["defaultPodOptions"]["securityContext"])
    assert user.pop("seccompProfile") == {"type": "RuntimeDefault"}  # the chart's own default
    assert migration["job"]["podSecurityContext"] == user


def test_argo_applications_take_the_files_and_the_release_of_this_repository() -> None:
    """Values of that name exist, the tag is the release, and nothing but a person syncs Plex."""
    plexodus, plex = (_all(_ARGO / f"{name}.yaml")[0]["spec"] for name in ("plexodus", "plex"))
    assert plexodus["sources"][0]["targetRevision"] == f"v{__version__}"
    assert (CHART.parents[1] / plexodus["sources"][0]["path"]) == CHART
    for spec in (plexodus, plex):
        [file] = spec["sources"][0]["helm"]["valueFiles"]
        where, name = file.rsplit("/", 1)
        assert where == "$cluster/plex"
        assert (VALUES / name).is_file()
        assert spec["sources"][1]["ref"] == "cluster"
    assert "syncPolicy" not in plex


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Start an API server with a namespace that takes no pod with more rights than it needs."""
    with running_cluster(tmp_path_factory.mktemp("cluster")) as cluster:
        cluster.kubectl("create", "namespace", NAMESPACE)
        cluster.kubectl("label", "namespace", NAMESPACE, _RESTRICTED)
        cluster.kubectl("create", "serviceaccount", "plexodus", "-n", NAMESPACE)
        yield cluster


def _refusal(cluster: Cluster, template: dict[str, Any]) -> str:
    """Return what the API server says against a pod of ``template``; empty if it takes the pod."""
    pod = {"apiVersion": "v1", "kind": "Pod", "spec": template["spec"]}
    pod["metadata"] = {"name": "tried", "namespace": NAMESPACE}
    claim = {"name": "config", "persistentVolumeClaim": {"claimName": OTHER_CLAIM}}
    named = {each["name"] for each in template["spec"]["volumes"]}
    pod["spec"]["volumes"] += [] if "config" in named else [claim, claim | {"name": "pms-config"}]
    done = cluster.tried("kubectl", "create", "--dry-run=server", "-f", "-", stdin=json.dumps(pod))
    return "" if done.returncode == 0 else str(done.stderr)


@pytest.mark.cluster
def test_restricted_namespace_takes_pods_without_root_and_no_others(cluster: Cluster) -> None:
    """Otherwise a controller would repeat an Event that nobody reads, and Plex never start."""
    namespace = ("-n", NAMESPACE)

    def rendered(release: str, chart: Path, name: str) -> list[dict[str, Any]]:
        out = cluster.helm("template", release, chart, *namespace, "-f", VALUES / f"{name}.yaml")
        return [each for each in yaml.safe_load_all(out) if each]

    plex = _one("StatefulSet", rendered("plex", APP_TEMPLATE, "app-template"))
    job = _one("Job", rendered("plexodus", CHART, "restricted"))
    assert _refusal(cluster, plex["spec"]["template"]) == ""
    assert _refusal(cluster, job["spec"]["template"]) == ""
    root = _one("StatefulSet", rendered("plex", STANDIN, "init-container"))
    assert "runAsNonRoot" in _refusal(cluster, root["spec"]["template"])
    root = _one("Job", rendered("plexodus", CHART, "preseed"))
    assert "runAsNonRoot" in _refusal(cluster, root["spec"]["template"])


@pytest.mark.cluster
def test_plain_manifests_of_plexodus_are_those_of_its_chart(cluster: Cluster) -> None:
    """Rights, settings and names are what the chart renders, without its labels."""
    pod = "migrations[0].podName=plex-0"
    given = ("-n", NAMESPACE, "-f", VALUES / "plexodus.yaml", "--set", pod)
    chart = cluster.helm("template", "plexodus", CHART, *given)
    folder = cluster.kubectl("kustomize", VALUES / "kustomize")

    def bare(text: str) -> dict[tuple[str, str], Any]:
        found = {}
        for each in yaml.safe_load_all(text):
            if each and "plexodus" in each["metadata"]["name"]:
                named = each["kind"], each["metadata"]["name"]
                each["metadata"] = each["metadata"]["name"]
                found[named] = each
        return found

    assert bare(folder) == bare(chart)
    assert len(bare(folder)) == 5


@pytest.mark.cluster
def test_plain_job_of_a_plan_is_that_of_the_chart(cluster: Cluster, tmp_path: Path) -> None:
    """It differs in the claim's name and the chart's labels, and the API server takes it."""
    plan = without_gaps(Output.KUSTOMIZE)
    claim, job = yaml.safe_load_all(plan["preseed/job.yaml"])
    values = tmp_path / "preseed.yaml"
    values.write_text(without_gaps(Output.HELM)["preseed.yaml"])
    named = f"migrations[0].job.claim.name={claim['metadata']['name']}"
    given = ("-n", NAMESPACE, "-f", values, "--set", named)
    out = cluster.helm("template", "plexodus-living-room", CHART, *given)
    chart = [each for each in yaml.safe_load_all(out) if each]
    assert claim["spec"] == _one("PersistentVolumeClaim", chart)["spec"]
    expected = _one("Job", chart)["spec"]
    # A Job of the chart cannot have the name of one with other settings.
    del expected["template"]["metadata"]["annotations"]["plexodus.io/settings"]
    assert job["spec"] == expected
    for name, text in plan.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text.replace("home", NAMESPACE))
    for command in (("-k", tmp_path / "preseed"), ("-k", tmp_path)):
        cluster.kubectl("apply", "--dry-run=server", *command)


@pytest.mark.cluster
def test_mesh_values_let_the_puller_past_the_proxy(cluster: Cluster) -> None:
    """The ports of the agent and of the API server are on Plex's pod, for either mesh."""
    files = ("-f", VALUES / "init-container.yaml", "-f", VALUES / "mesh.yaml")
    out = cluster.helm("template", "plex", STANDIN, "-n", NAMESPACE, *files)
    pod = _one("StatefulSet", [each for each in yaml.safe_load_all(out) if each])
    annotations = pod["spec"]["template"]["metadata"]["annotations"]
    assert annotations == {
        "traffic.sidecar.istio.io/excludeOutboundPorts": "8443,443,6443",
        "traffic.sidecar.istio.io/excludeInboundPorts": "8444",
        "config.linkerd.io/skip-outbound-ports": "8443,443,6443",
        "config.linkerd.io/skip-inbound-ports": "8444",
    }
