"""The alerts and the dashboard, in a real Prometheus: an alert that cannot fire warns of nothing.

The series are those of a fleet of eight servers in one hour, beside those of a release whose name
begins with its name, and of a release of the same name in another namespace.
"""

from __future__ import annotations

import json
import re
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from rig.cluster.cluster import TOOLS
from rig.cluster.fleet_series import (
    FLEET,
    HOUR,
    MIB,
    NAMESPACE,
    RELEASE,
    START,
    STEP,
    Server,
    labels_of,
    series,
)
from rig.cluster.prometheus import Prometheus, promtool, running_prometheus
from rig.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

pytestmark = pytest.mark.cluster

CHART = TOOLS.parent.parent / "charts" / "plexodus"
SERVERS: dict[str, Any] = {"migrations": [{"name": each.name} for each in FLEET]}
SNAKE = {"sourceLabels": "source_labels", "targetLabel": "target_label"}
"""Prometheus's names of what the operator takes from a PodMonitor."""
META = "__meta_kubernetes_pod_"


def _rendered(folder: Path, template: str, values: dict[str, Any]) -> Any:  # noqa: ANN401
    """Return the object that the chart renders for the release."""
    given = folder / "values.json"
    given.write_text(json.dumps({template: {"enabled": True}} | values))
    said = subprocess.run(
        [TOOLS / "bin" / "helm", "template", RELEASE, CHART, "--namespace", NAMESPACE,
         "-f", given, "--show-only", f"templates/{template.lower()}.yaml"],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    return yaml.safe_load(said)


def _rules(folder: Path, values: dict[str, Any]) -> Path:
    """Write the rules that the chart renders into a file of Prometheus's own format."""
    path = folder / "rules.yaml"
    path.write_text(yaml.safe_dump(_rendered(folder, "prometheusRule", values)["spec"]))
    return path


def _alert(name: str, at: int, *found: tuple[str, dict[str, str]]) -> dict[str, Any]:
    """Return what promtool expects of the alert at a second: the text and the labels of each."""
    return {
        "eval_time": f"{at}s",
        "alertname": name,
        "exp_alerts": [
            {"exp_labels": {"severity": "warning", **labels}, "exp_annotations": {"summary": text}}
            for text, labels in found
        ],
    }


def _test_rules(rules: Path, *tests: tuple[dict[str, list[float | None]], list[Any]]) -> None:
    """Have promtool compare alerts with what is expected of them, for several sets of series."""
    path = rules.with_name("tests.yaml")
    cases = [
        {
            "interval": f"{STEP}s",
            "input_series": [
                {"series": name, "values": " ".join("_" if at is None else f"{at!r}" for at in row)}
                for name, row in rows.items()
            ],
            "alert_rule_test": alerts,
        }
        for rows, alerts in tests
    ]
    path.write_text(json.dumps({"rule_files": [str(rules)], "tests": cases}))
    promtool("check", "rules", rules)
    promtool("test", "rules", path)


def _server(name: str) -> Server:
    return next(each for each in FLEET if each.name == name)


def test_alerts_name_the_migration(tmp_path: Path) -> None:
    """Each alert fires for the release's servers and for no others, and names the migration."""
    ben, dora, eve, hugo = map(_server, ("ben-and-co", "dora", "eve", "hugo"))
    stalled = (
        "The migration of ben-and-co transfers nothing.",
        {"migration": ben.name, "release": RELEASE, "namespace": NAMESPACE, "fleet": "f",
         "pod": ben.pod, "phase": "transferring"},
    )  # fmt: skip
    pending = (
        f"The migration of eve has a pod that does not start. Describe {eve.pod}.",
        {"migration": eve.name, "namespace": NAMESPACE, "pod": eve.pod, "phase": "Pending"},
    )
    alerts = [
        _alert("PlexodusPullStalled", 1800),
        _alert("PlexodusPullStalled", 3500, stalled),
        _alert("PlexodusMigrationFailed", 2900),
        _alert("PlexodusMigrationFailed", 3100, _failed(dora)),
        _alert("PlexodusMigrationIsRetried", 1900),
        _alert("PlexodusMigrationIsRetried", 2700, _retried(dora, 5), _retried(hugo, 6)),
        _alert("PlexodusMigrationIsRetried", 3100, _retried(hugo, 7)),
        _alert("PlexodusMigrationDoesNotStart", 600),
        _alert("PlexodusMigrationDoesNotStart", 1200, pending),
        _alert("PlexodusMigrationNeedsAttention", 3500),
    ]
    _test_rules(_rules(tmp_path, SERVERS), (series(), alerts))


def _failed(server: Server) -> tuple[str, dict[str, str]]:
    about = (
        f"the error in ConfigMap home-{server.name}-status, or the condition of Job {server.job}"
    )
    return f"The migration of {server.name} failed. Its reason is {about}.", {
        **_labels_of_job(server),
        "condition": "true",
    }


def _retried(server: Server, times: int) -> tuple[str, dict[str, str]]:
    about = f"has failed {times} times and is tried again. Its reason is the error in ConfigMap"
    text = f"The migration of {server.name} {about} home-{server.name}-status."
    return text, _labels_of_job(server)


def _labels_of_job(server: Server) -> dict[str, str]:
    return {"migration": server.name, "namespace": NAMESPACE, "job_name": server.job}


def test_alert_for_a_puller_in_a_pod_of_plex_that_fails(tmp_path: Path) -> None:
    """The migration of each puller that fails in Plex's own pod is named, also between its tries.

    A pod that no migration names, and one in another namespace, are not ours.
    """
    rows: dict[str, list[float | None]] = {}
    pods = [(pod, NAMESPACE) for pod in ("plex-0", "plex.ben", "plex-ben")]
    for pod, namespace in (*pods, ("plex-0", "attic")):
        rows |= _waiting(pod, namespace)
    known = {"anna": "plex-0", "ben": "plex.ben"}
    failing = [_failing_in_pod(name, pod) for name, pod in known.items()]
    migrations = [{"name": name, "podName": pod} for name, pod in known.items()]
    rules = _rules(tmp_path, {"migrations": [*migrations, {"name": "chris"}]})
    alerts = [_alert("PlexodusPodIsRetried", 900), _alert("PlexodusPodIsRetried", 1200, *failing)]
    _test_rules(rules, (rows, alerts))


def _failing_in_pod(name: str, pod: str) -> tuple[str, dict[str, str]]:
    about = "Its reason is the error in the ConfigMap of the migration, or in the log of the"
    text = f"The migration of {name} fails in pod {pod} and is tried again. {about}"
    labels = {"migration": name, "namespace": NAMESPACE, "pod": pod}
    return f"{text} container plexodus.", labels


def _waiting(pod: str, namespace: str) -> dict[str, list[float | None]]:
    """Return the series of an init container that waits for its next try, and runs in between."""
    labels = labels_of(
        namespace=namespace, pod=pod, container="plexodus", reason="CrashLoopBackOff"
    )
    steps = range(0, HOUR, STEP)
    row: list[float | None] = [float(second // 60 % 5 > 0) for second in steps]
    return {f"kube_pod_init_container_status_waiting_reason{labels}": row}


def _attention(**labels: str) -> dict[str, list[float | None]]:
    """Return the series of a sidecar in Plex's pod that needs attention."""
    name = f"plexodus_puller_phase{labels_of(**labels, phase='attention')}"
    return {name: [1.0] * (HOUR // STEP)}


def test_alert_for_a_pod_of_plex_names_its_migration(tmp_path: Path) -> None:
    """A pod that no release knows is named itself; those of other releases are theirs to report."""
    ours = {"namespace": NAMESPACE, "pod": "plex-0", "release": RELEASE, "migration": "anna"}
    unknown = {"namespace": NAMESPACE, "pod": "plex-1"}
    others = [
        ours | {"pod": "plex-2", "release": "home-2"},
        ours | {"namespace": "attic"},
        unknown | {"namespace": "attic"},
    ]
    said = "needs attention: the check of the moved library failed. Read the log of"
    known = (f"The migration of anna {said} plex-0.", ours | {"phase": "attention"})
    named = (f"The migration of plex-1 {said} plex-1.", unknown | {"phase": "attention"})
    rows = {k: v for each in (ours, unknown, *others) for k, v in _attention(**each).items()}
    name = "PlexodusMigrationNeedsAttention"
    _test_rules(_rules(tmp_path, SERVERS), (rows, [_alert(name, 300, known, named)]))
    all_known = {"migrations": [{"name": "anna", "podName": "plex-0"}]}
    _test_rules(_rules(tmp_path, all_known), (rows, [_alert(name, 300, known)]))


def test_rules_of_five_hundred_migrations_are_valid(tmp_path: Path) -> None:
    """The names of all of them are in each expression, and one of them is found."""
    names = [f"server-{number:03}" for number in range(500)]
    migrations = [{"name": name, "podName": f"{name}-0"} for name in names]
    rules = _rules(tmp_path, {"migrations": migrations})
    last = Server(names[-1], failed=60)
    pod = f"{last.name}-0"
    rows = series([last]) | _waiting(pod, NAMESPACE)
    alerts = [
        _alert("PlexodusMigrationFailed", 120, _failed(last)),
        _alert("PlexodusPodIsRetried", 1200, _failing_in_pod(last.name, pod)),
    ]
    _test_rules(rules, (rows, alerts))


def _pod(name: str, **labels: str) -> dict[str, Any]:
    """Return a target of one pod, with the labels of its discovery."""
    found = {f"{META}label_{key}": value for key, value in labels.items()}
    return {"targets": [f"{name}:8444"], "labels": {f"{META}name": name, **found}}


@pytest.mark.parametrize("is_each_known", [True, False])
def test_pods_have_the_labels_of_their_migration(tmp_path: Path, *, is_each_known: bool) -> None:
    """Jobs and pods of Plex get them. Jobs of another release are left to its own PodMonitor."""
    of_job = {"app_kubernetes_io_name": "plexodus", "plexodus_io_migration": "anna"}
    pods = [
        _pod("job", **of_job, app_kubernetes_io_instance=RELEASE),
        _pod("other-job", **of_job, app_kubernetes_io_instance="home-2"),
        _pod("plex-0", app_kubernetes_io_name="plex"),
        _pod("plex-00", app_kubernetes_io_name="plex"),
        _pod("ben-x2b4d", app_kubernetes_io_name="plex", of="ben"),
    ]
    migrations: list[dict[str, Any]] = [
        {"name": "anna", "podName": "plex-0"},
        {"name": "ben", "podLabels": {"of": "ben", "app.kubernetes.io/name": "plex"}},
    ]
    migrations += [] if is_each_known else [{"name": "chris"}]
    values = {"migrations": migrations, "fleet": {"name": "f"}}
    monitor = _rendered(tmp_path, "podMonitor", values)
    relabelings = monitor["spec"]["podMetricsEndpoints"][0]["relabelings"]
    scraped = {
        "job_name": "plexodus",
        "relabel_configs": [
            {SNAKE.get(key, key): value for key, value in each.items()} for each in relabelings
        ],
        "static_configs": pods,
    }
    with running_prometheus(tmp_path, {"scrape_configs": [scraped]}) as prometheus:
        wait_until(prometheus.targets, 30, what="the targets", every=0.2)
        found = {each.pop("instance"): each for each in prometheus.targets()}
    ours = {"job": "plexodus", "release": RELEASE, "fleet": "f"}
    expected = {
        "job:8444": ours | {"migration": "anna"},
        "plex-0:8444": ours | {"migration": "anna"},
        "ben-x2b4d:8444": ours | {"migration": "ben"},
    }
    assert found == expected | ({} if is_each_known else {"plex-00:8444": {"job": "plexodus"}})


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Start a Prometheus that has scraped the fleet for an hour."""
    folder = tmp_path_factory.mktemp("prometheus")
    lines = [
        f"{name} {value!r} {START + number * STEP}"
        for name, values in sorted(series().items())
        for number, value in enumerate(values)
        if value is not None
    ]
    (folder / "series.txt").write_text("\n".join([*lines, "# EOF", ""]))
    promtool("tsdb", "create-blocks-from", "openmetrics", folder / "series.txt", folder / "data")
    kept = "--storage.tsdb.retention.time=100y"
    with running_prometheus(folder, {}, kept, time=START + HOUR) as server:
        yield server


def _panels(folder: Path, names: Sequence[str]) -> dict[str, str]:
    """Return the expression of each panel by its title, as Grafana sends it."""
    data = _rendered(folder, "dashboard", {"migrations": [{"name": name} for name in names]})
    [text] = data["data"].values()
    dashboard = json.loads(text)
    constants = {
        each["name"]: each["query"]
        for each in dashboard["templating"]["list"]
        if each["type"] == "constant"
    } | {"__range": f"{HOUR}s"}
    panels = dashboard["panels"]
    panels += [inner for each in panels for inner in each.get("panels", [])]
    return {
        each["title"]: re.sub(r"\$(\w+)", lambda found: constants[found[1]], target["expr"])
        for each in panels
        for target in each.get("targets", [])
    }


def test_dashboard_shows_the_fleet(prometheus: Prometheus, tmp_path: Path) -> None:
    """Each panel has the number that the release's own series were made of."""
    panels = _panels(tmp_path, [each.name for each in FLEET])
    assert prometheus.number(panels.pop("Done")) == 2
    assert prometheus.number(panels.pop("Running")) == 2
    assert prometheus.number(panels.pop("Waiting")) == 3
    assert prometheus.number(panels.pop("Failed")) == 1
    arrived = MIB * (HOUR + 2 * 2400 + 4 * 2100 + 3000 + 8 * 3300)
    shown = prometheus.number(panels.pop("Bytes on the volumes"))
    assert shown == pytest.approx(arrived, rel=0.02)
    left, pace = len(FLEET) - 3, 2 / 1800
    time_left = prometheus.number(panels.pop("Time left, at the pace of half an hour"))
    assert time_left == pytest.approx(left / pace, rel=0.1)
    rates = prometheus.by("migration", panels.pop("Rate"))
    assert rates == {"anna": pytest.approx(MIB), "ben-and-co": 0}
    parts = prometheus.by("migration", panels.pop("On the volume"))
    assert parts == {"anna": pytest.approx(1), "ben-and-co": pytest.approx(2 / 3)}
    assert prometheus.by("migration", panels.pop("Phase")) == {"anna": 1, "ben-and-co": 1}
    assert panels == {}


def test_dashboard_of_an_empty_fleet_shows_zeros(prometheus: Prometheus, tmp_path: Path) -> None:
    """A release that has no Jobs yet has zeros, not missing numbers."""
    for title, expression in _panels(tmp_path, ["nobody"]).items():
        if title in ("Done", "Running", "Waiting", "Failed"):
            assert prometheus.number(expression) == 0, title
