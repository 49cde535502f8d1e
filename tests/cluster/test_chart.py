"""Our chart and the values files for Plex's chart are valid, strict and consistent."""

from __future__ import annotations

import json
import re
import runpy
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from rig.cluster.api_schemas import LOCATION, write_schemas
from rig.cluster.cluster import TOOLS
from rig.plans import without_gaps

from agent.plan.options import Output
from initpuller.commands.pull import pull
from initpuller.commands.watch import watch
from shared import __version__
from shared.program.command_line import known_variables

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parent.parent.parent
CHART = ROOT / "charts" / "plexodus"
VALUES = ROOT / "charts" / "values"
STANDIN = ROOT / "tests" / "charts" / "plex-media-server"
APP_TEMPLATE = ROOT / "tests" / "charts" / "app-template"
CLAIM = {"name": "config", "create": True, "size": "50Gi"}
JOB = {"enabled": True, "deadlineSeconds": 86400, "claim": CLAIM}
EVERYTHING = {
    "migrations": [
        {
            "name": "plex",
            "pairing": {"string": "plexodus://t@192.0.2.1:8443?fp=00"},
            "job": JOB,
            "podLabels": {"app": "plex"},
        },
        {"name": "other", "settings": {"PLEXODUS_JOBS": 4}, "podName": "other-0"},
    ],
    "podMonitor": {"enabled": True},
    "prometheusRule": {"enabled": True},
    "dashboard": {"enabled": True},
    "networkPolicy": {"enabled": True, "plexPods": True, "agents": ["192.0.2.1/32"]},
    "imagePullSecrets": [{"name": "registry"}],
}


def tool(name: str, *arguments: object, stdin: str | None = None) -> str:
    """Return the output of a program that ``make test-cluster`` has installed."""
    done = subprocess.run(
        [TOOLS / "bin" / name, *map(str, arguments)],
        check=False,
        capture_output=True,
        text=True,
        input=stdin,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def write_plan(folder: Path, output: Output) -> dict[str, str]:
    """Write a plan without gaps, and return the text of each file."""
    plan = without_gaps(output)
    for name, text in plan.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    return plan


@pytest.fixture(scope="module")
def conform(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], dict[str, Any]]:
    """Return kubeconform's strict result for manifests, each of a known kind."""
    schemas = tmp_path_factory.mktemp("schemas")
    write_schemas(schemas, TOOLS / "swagger.json", TOOLS / "crds")

    def run(manifests: str) -> dict[str, Any]:
        location = f"{schemas}/{LOCATION}"
        out = tool("kubeconform", "-summary", "-output=json", "-schema-location", location,
                   "-strict", stdin=manifests)  # fmt: skip
        found: dict[str, Any] = json.loads(out)["summary"]
        return found

    return run


def test_schema_is_that_of_the_values() -> None:
    """values.schema.json is what ``make charts`` generates from the comments in values.yaml."""
    schema = runpy.run_path(str(ROOT / "charts" / "make_schema.py"))["schema"]
    assert json.loads((CHART / "values.schema.json").read_text()) == schema(CHART)


def test_chart_and_image_tags_have_the_version_of_the_release() -> None:
    """The chart's version, its appVersion and all image tags equal the release's version."""
    about = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert about["version"] == about["appVersion"] == __version__
    for path in VALUES.rglob("*.yaml"):
        for line in path.read_text().splitlines():
            if "image: " in line and "plexodus-puller" in line:
                assert line.endswith(f"plexodus-puller:{__version__}"), path


def test_flux_release_has_the_same_values() -> None:
    """The GitOps example is the recommended file, except the registry and the storage class."""
    text = (VALUES / "gitops" / "base" / "plex" / "release.yaml").read_text()
    text = text.replace("registry.example.org/", "")
    values = yaml.safe_load(text)["spec"]["values"]
    assert values["pms"].pop("storageClassName") == "local-path"
    assert values == yaml.safe_load((VALUES / "init-container.yaml").read_text())


def test_sidecar_is_the_same_for_older_clusters() -> None:
    """sidecar.yaml equals the recommended file, except that 'watch' is an ordinary container."""
    values = yaml.safe_load((VALUES / "sidecar.yaml").read_text())
    [watch] = values.pop("extraContainers")
    values["extraInitContainers"].append(watch | {"restartPolicy": "Always"})
    assert values == yaml.safe_load((VALUES / "init-container.yaml").read_text())


def test_preseed_job_has_the_settings_of_the_move() -> None:
    """preseed.yaml and plexodus.yaml configure the same migration, apart from the Job."""
    [seeded] = yaml.safe_load((VALUES / "preseed.yaml").read_text())["migrations"]
    del seeded["job"]
    assert [seeded] == yaml.safe_load((VALUES / "plexodus.yaml").read_text())["migrations"]


def test_values_for_after_the_move_do_not_mention_plexodus() -> None:
    """after.yaml lacks everything of plexodus, so pods start without our chart and Secret."""
    values = yaml.safe_load((VALUES / "init-container.yaml").read_text())
    for name in ("serviceAccount", "extraInitContainers", "extraVolumes"):
        del values[name]
    assert "plexodus" not in json.dumps(values)
    assert values == yaml.safe_load((VALUES / "after.yaml").read_text())


def test_chart_accepts_exactly_the_settings_of_pull_and_watch() -> None:
    """The chart accepts the variables of pull and watch, except the pairing and its own ones."""
    schema = json.loads((CHART / "values.schema.json").read_text())
    settings = schema["$defs"]["migration"]["properties"]["settings"]["propertyNames"]["enum"]
    taken = known_variables(pull) | known_variables(watch)
    ours = {"TARGET", "PAIRING_FILE", "LISTEN", "UNTIL", "STATUS_CONFIGMAP"}
    assert set(settings) == taken - {f"PLEXODUS_{each}" for each in ours}
    assert settings == sorted(settings)


def test_plexs_own_container_sees_no_secret() -> None:
    """The pairing and the account's token are mounted only into the containers of plexodus."""
    for name in ("init-container.yaml", "sidecar.yaml"):
        values = yaml.safe_load((VALUES / name).read_text())
        assert "extraVolumeMounts" not in values
        assert values["serviceAccount"]["automountServiceAccountToken"] is False
        ours = values["extraInitContainers"] + values.get("extraContainers", [])
        assert [len(each["volumeMounts"]) for each in ours] == [3, 3]
        assert all(each["securityContext"]["readOnlyRootFilesystem"] for each in ours)


@pytest.mark.cluster
def test_unit_tests_of_the_templates_pass() -> None:
    """All unit tests of the templates pass, and each template is in a suite."""
    said = tool("helm-unittest", CHART)
    found = re.search(r"^Tests: +(\d+) passed, (\d+) total$", said, re.MULTILINE)
    assert found is not None, said
    assert found[1] == found[2] > "30"
    suites = "".join(path.read_text() for path in (CHART / "tests").glob("*.yaml"))
    for template in (CHART / "templates").iterdir():
        assert template.name.startswith("_") or template.name in suites, template.name


@pytest.mark.cluster
@pytest.mark.parametrize("values", [{}, EVERYTHING], ids=["default", "everything"])
def test_templates_conform(
    conform: Callable[[str], dict[str, Any]], tmp_path: Path, values: dict[str, Any]
) -> None:
    """Rendered templates pass ``helm lint --strict`` and the API's schemas without a skip."""
    file = tmp_path / "values.yaml"
    file.write_text(json.dumps(values))
    tool("helm", "lint", "--strict", CHART, "-f", file)
    rendered = tool("helm", "template", "plexodus", CHART, "-n", "media", "-f", file)
    kinds = [each["kind"] for each in yaml.safe_load_all(rendered) if each]
    assert len(kinds) == (16 if values else 5), kinds
    found = conform(rendered)
    assert found == {"valid": len(kinds), "invalid": 0, "errors": 0, "skipped": 0}


@pytest.mark.cluster
@pytest.mark.parametrize("name", ["plexodus", "preseed", "restricted"])
def test_values_for_our_chart_conform(conform: Callable[[str], dict[str, Any]], name: str) -> None:
    """The manifests of our chart are valid for each values file."""
    rendered = tool("helm", "template", "plexodus", CHART, "-f", VALUES / f"{name}.yaml")
    count = len([each for each in yaml.safe_load_all(rendered) if each])
    found = conform(rendered)
    assert found == {"valid": count, "invalid": 0, "errors": 0, "skipped": 0}


@pytest.mark.cluster
@pytest.mark.parametrize("name", ["init-container", "sidecar", "script", "after"])
def test_values_for_plexs_chart_conform(
    conform: Callable[[str], dict[str, Any]], name: str
) -> None:
    """The manifests of Plex's chart are valid for each values file."""
    rendered = tool("helm", "template", "plex", STANDIN, "-f", VALUES / f"{name}.yaml")
    count = len(list(yaml.safe_load_all(rendered)))
    found = conform(rendered)
    assert found == {"valid": count, "invalid": 0, "errors": 0, "skipped": 0}


@pytest.mark.cluster
def test_other_manifests_conform(conform: Callable[[str], dict[str, Any]]) -> None:
    """So are those for Kustomize, for app-template, and for Argo CD (its published schemas)."""
    app = tool("helm", "template", "plex", APP_TEMPLATE, "-f", VALUES / "app-template.yaml")
    plain = tool("kubectl", "kustomize", VALUES / "kustomize")
    argo = [path.read_text() for path in sorted((VALUES / "gitops" / "argocd").iterdir())]
    found = conform("\n---\n".join([app, plain, *argo]))
    assert found == {"valid": 11, "invalid": 0, "errors": 0, "skipped": 0}


@pytest.mark.cluster
def test_flux_example_conforms(conform: Callable[[str], dict[str, Any]]) -> None:
    """Releases and sources of the example are valid by the schemas that Flux publishes."""
    rendered = tool("kubectl", "kustomize", VALUES / "gitops" / "base" / "plex")
    found = conform(rendered)
    assert found == {"valid": 4, "invalid": 0, "errors": 0, "skipped": 0}


@pytest.mark.cluster
@pytest.mark.parametrize(
    ("output", "count"), [(Output.KUSTOMIZE, 7 + 2), (Output.FLUX, 4 + 3 + 1), (Output.ARGOCD, 4)]
)
def test_objects_of_a_plan_conform(
    conform: Callable[[str], dict[str, Any]], tmp_path: Path, output: Output, count: int
) -> None:
    """So are those that the agent plans, for the move and for the days before and after it."""
    plan = write_plan(tmp_path, output)
    folders = [path.parent for path in tmp_path.rglob("kustomization.yaml")]
    rendered = [tool("kubectl", "kustomize", folder) for folder in folders]
    alone = [name for name in plan if name.endswith(".yaml") and tmp_path / name not in
             {path for folder in folders for path in folder.iterdir()}]  # fmt: skip
    found = conform("\n---\n".join([*rendered, *(plan[name] for name in alone)]))
    assert found == {"valid": count, "invalid": 0, "errors": 0, "skipped": 0}


@pytest.mark.cluster
@pytest.mark.parametrize("output", [Output.HELM, Output.FLUX, Output.ARGOCD])
def test_charts_make_the_names_of_a_plan(tmp_path: Path, output: Output) -> None:
    """Plex's pod uses the objects that our chart makes, and the Job uses the pod's claim."""
    plan = write_plan(tmp_path, output)
    before = "preseed.yaml" if output is Output.HELM else "preseed/plexodus.yaml"
    rendered = {}
    for name, chart in ((before, CHART), ("plex.yaml", STANDIN)):
        release = "living-room" if chart is STANDIN else "plexodus-living-room"
        values = yaml.safe_load(plan[name])
        if output is Output.FLUX:
            release, values = values["spec"]["releaseName"], values["spec"]["values"]
        elif output is Output.ARGOCD:
            helm = values["spec"]["source"]["helm"]
            release, values = helm["releaseName"], helm["valuesObject"]
        file = tmp_path / "values.yaml"
        file.write_text(json.dumps(values))
        objects = yaml.safe_load_all(tool("helm", "template", release, chart, "-f", file))
        for each in filter(None, objects):
            rendered[each["kind"], each["metadata"]["name"]] = each
    [plex] = [each for kind, each in rendered.items() if kind[0] == "StatefulSet"]
    pod = plex["spec"]["template"]["spec"]
    assert ("ServiceAccount", pod["serviceAccountName"]) in rendered
    [settings] = pod["initContainers"][0]["envFrom"]
    assert ("ConfigMap", settings["configMapRef"]["name"]) in rendered
    [role] = [each for kind, each in rendered.items() if kind[0] == "Role"]
    name = f"{plex['metadata']['name']}-0"
    assert role["rules"][0]["resourceNames"] == [name]
    [template] = plex["spec"]["volumeClaimTemplates"]
    claim = rendered["PersistentVolumeClaim", f"{template['metadata']['name']}-{name}"]
    assert claim["spec"] == template["spec"]
    status = role["rules"][2]["resourceNames"][0]
    for command in (
        f"pod/{name} -n home",
        f"statefulset {name[:-2]} -n home",
        f"configmap {status} ",
    ):
        assert command in plan["README.md"]


@pytest.mark.cluster
@pytest.mark.parametrize(
    "wrong",
    [
        {"imge": {}},
        {"image": {"tags": "x"}},
        {"migrations": []},
        {"migrations": [{"name": "Plex"}]},
        {"migrations": [{"name": "plex", "job": {"until": "never"}}]},
        {"migrations": [{"name": "plex", "settings": {"PLEXODUS_JBOS": 1}}]},
        {"migrations": [{"name": "plex", "job": {"owner": "plex"}}]},
        {"migrations": [{"name": "plex", "job": {"deadlineSeconds": "1h"}}]},
        {"defaults": {"job": {"deadlineSeconds": 1.5}}},
        {"migrations": [{"name": "plex", "job": {"claim": {"name": "c", "size": "1..2Gi"}}}]},
        {"networkPolicy": {"agentPort": 0}},
        {"podLabels": {"sidecar.istio.io/inject": False}},
    ],
)
def test_mistyped_values_are_refused(tmp_path: Path, wrong: dict[str, Any]) -> None:
    """A mistyped or misplaced value fails the rendering, instead of being ignored."""
    file = tmp_path / "values.yaml"
    file.write_text(json.dumps(wrong))
    with pytest.raises(AssertionError, match="meet the specifications of the schema"):
        tool("helm", "template", "plexodus", CHART, "-f", file)


@pytest.mark.cluster
def test_kubeconform_would_find_a_mistake(conform: Callable[[str], dict[str, Any]]) -> None:
    """A manifest with a mistyped field is refused, so the checks above mean something."""
    rendered = tool("helm", "template", "plexodus", CHART).replace("apiGroups", "apiGroup", 1)
    with pytest.raises(AssertionError, match="apiGroup"):
        conform(rendered)
