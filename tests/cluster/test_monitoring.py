"""The alerts and the dashboard, in a real Prometheus: an alert that cannot fire warns of nothing.

The series are those of a fleet of seven servers in one hour: the puller's own metrics, with the
labels that the PodMonitor adds, and those of kube-state-metrics for its Jobs and pods.
"""

from __future__ import annotations

import json
import re
import subprocess
from contextlib import closing, contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPConnection
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import pytest
import yaml
from rig.cluster.cluster import TOOLS
from rig.ports import reserve_port
from rig.waiting import wait_until

from initpuller.report.metrics import metrics
from initpuller.report.progress import Standing

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.cluster

CHART = TOOLS.parent.parent / "charts" / "plexodus"
PROMTOOL, PROMETHEUS = (TOOLS / "usr" / "bin" / name for name in ("promtool", "prometheus"))
RELEASE, NAMESPACE = "home", "media"
HOUR, STEP = 3600, 30
START = 1_800_000_000
MIB = 1 << 20


@dataclass(frozen=True)
class Server:
    """One migration, as Prometheus sees it."""

    name: str
    rate: int = 0
    """Bytes a second of its puller; no puller runs at 0."""
    stalls: int = HOUR
    """Second from which on nothing arrives."""
    done: int | None = None
    """Second of its Job's end."""
    failed: int | None = None
    is_pending: bool = False
    """Whether its pod has a node and does not start."""

    @property
    def job(self) -> str:
        """Return the name of its Job, as the chart makes it."""
        return f"{RELEASE}-{self.name}-done-0a1b2c"

    def is_active(self, second: int) -> bool:
        """Return whether its Job has a pod."""
        ends = [end for end in (self.done, self.failed) if end is not None]
        return bool(self.rate or self.is_pending) and all(second < end for end in ends)


FLEET = (
    Server("anna", rate=MIB),
    Server("ben-and-co", rate=2 * MIB, stalls=2400),
    Server("chris", rate=4 * MIB, done=2100),
    Server("dora", rate=MIB, failed=3000),
    Server("eve", is_pending=True),
    Server("fred", rate=8 * MIB, done=3300),
    Server("gina"),
)
"""The last one waits for a place."""


def _labels(**labels: str) -> str:
    return "{" + ",".join(f'{name}="{value}"' for name, value in labels.items()) + "}"


def _of_puller(server: Server, second: int) -> Iterator[tuple[str, float]]:
    """Yield what a scrape of its puller has, with the labels of the PodMonitor."""
    arrived = server.rate * min(second, server.stalls)
    pull = Standing("transferring", 1, arrived, HOUR * server.rate, 1, 9, server.rate, 1, "", "")
    for line in metrics("transferring", pull).decode().splitlines():
        found = re.fullmatch(r"(\w+)(?:\{(.*)\})? (\S+)", line)
        if found is not None:
            own = _labels(migration=server.name, fleet="f", pod=f"{server.job}-x2b4d")
            inside = ",".join(filter(None, (found[2], own[1:-1])))
            yield f"{found[1]}{{{inside}}}", float(found[3])


def _of_cluster(server: Server, second: int) -> Iterator[tuple[str, float]]:
    """Yield what kube-state-metrics has of its Job and its pod."""
    job = {"namespace": NAMESPACE, "job_name": server.job}
    yield f"kube_job_created{_labels(**job)}", float(START)
    yield f"kube_job_status_active{_labels(**job)}", float(server.is_active(second))
    for name, end in (("complete", server.done), ("failed", server.failed)):
        for condition in ("true", "false", "unknown") if end is not None and second >= end else ():
            value = float(condition == "true")
            yield f"kube_job_{name}{_labels(**job, condition=condition)}", value
    if server.done is not None and second >= server.done:
        yield f"kube_job_status_completion_time{_labels(**job)}", float(START + server.done)
    pod = {"namespace": NAMESPACE, "pod": f"{server.job}-x2b4d"}
    if server.is_active(second):
        for phase, holds in (("Pending", server.is_pending), ("Running", not server.is_pending)):
            yield f"kube_pod_status_phase{_labels(**pod, phase=phase)}", float(holds)
        yield f"kube_pod_status_scheduled{_labels(**pod, condition='true')}", 1.0


def series() -> dict[str, list[float | None]]:
    """Return each series with its values, one a step; None where it has no sample."""
    steps = range(0, HOUR + STEP, STEP)
    found: dict[str, list[float | None]] = {}
    for number, second in enumerate(steps):
        for server in FLEET:
            samples = [*_of_cluster(server, second)]
            if server.rate and server.is_active(second):
                samples += _of_puller(server, second)
            for name, value in samples:
                found.setdefault(name, [None] * len(steps))[number] = value
    return found


@pytest.fixture(scope="module")
def rules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the rules that the chart renders into a file of Prometheus's own format."""
    said = subprocess.run(
        [TOOLS / "bin" / "helm", "template", RELEASE, CHART, "--namespace", NAMESPACE,
         "--set", "prometheusRule.enabled=true", "--show-only", "templates/prometheusrule.yaml"],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    path = tmp_path_factory.mktemp("rules") / "rules.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(said)["spec"]))
    return path


def _promtool(*arguments: str | Path) -> None:
    done = subprocess.run([PROMTOOL, *arguments], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


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


def test_alerts_name_the_migration(rules: Path) -> None:
    """Each alert fires for its servers and for no others, and its text names the migration."""
    ben, dora, eve = (next(each for each in FLEET if each.name.startswith(name))
                      for name in ("ben", "dora", "eve"))  # fmt: skip
    stalled = (
        "The migration of ben-and-co has transferred nothing for ten minutes.",
        {"migration": ben.name, "fleet": "f", "pod": f"{ben.job}-x2b4d", "phase": "transferring"},
    )
    failed = (
        "The migration of dora failed. Its reason is the error in ConfigMap home-dora-status.",
        {"migration": dora.name, "namespace": NAMESPACE, "job_name": dora.job, "condition": "true"},
    )
    pending = (
        f"The migration of eve has a pod that does not start. Describe {eve.job}-x2b4d.",
        {"migration": eve.name, "namespace": NAMESPACE, "pod": f"{eve.job}-x2b4d",
         "phase": "Pending"},
    )  # fmt: skip
    moment = {
        "interval": f"{STEP}s",
        "input_series": [
            {"series": name, "values": " ".join("_" if at is None else f"{at!r}" for at in values)}
            for name, values in series().items()
        ],
        "alert_rule_test": [
            _alert("PlexodusPullStalled", 1800),
            _alert("PlexodusPullStalled", 3500, stalled),
            _alert("PlexodusMigrationFailed", 2900),
            _alert("PlexodusMigrationFailed", 3100, failed),
            _alert("PlexodusMigrationDoesNotStart", 600),
            _alert("PlexodusMigrationDoesNotStart", 1200, pending),
            _alert("PlexodusMigrationNeedsAttention", 3500),
        ],
    }
    pod = {"pod": "plex-0", "phase": "attention"}
    attention = {
        "interval": f"{STEP}s",
        "input_series": [{"series": f"plexodus_puller_phase{_labels(**pod)}", "values": "1x20"}],
        "alert_rule_test": [
            _alert(
                "PlexodusMigrationNeedsAttention",
                300,
                ("The check of the moved library failed in plex-0. Read its log.", pod),
            )
        ],
    }
    tests = rules.with_name("tests.yaml")
    tests.write_text(json.dumps({"rule_files": [str(rules)], "tests": [moment, attention]}))
    _promtool("check", "rules", rules)
    _promtool("test", "rules", tests)


class _Prometheus:
    """A server with the hour's series."""

    def __init__(self, port: int) -> None:
        self._port = port

    def is_ready(self) -> bool:
        try:
            return self._get("/-/ready")[0] == HTTPStatus.OK
        except OSError:
            return False

    def ask(self, expression: str) -> list[dict[str, Any]]:
        """Return what an instant query at the hour's end returns; it must be understood."""
        asked = urlencode({"query": expression, "time": START + HOUR})
        status, body = self._get(f"/api/v1/query?{asked}")
        assert status == HTTPStatus.OK, body
        found: list[dict[str, Any]] = json.loads(body)["data"]["result"]
        return found

    def number(self, expression: str) -> float:
        """Return the one value of an expression."""
        (found,) = self.ask(expression)
        return float(found["value"][1])

    def by(self, label: str, expression: str) -> dict[str, float]:
        """Return the values of an expression by one of their labels."""
        return {each["metric"][label]: float(each["value"][1]) for each in self.ask(expression)}

    def _get(self, path: str) -> tuple[int, bytes]:
        with closing(HTTPConnection("127.0.0.1", self._port, timeout=30)) as http:
            http.request("GET", path)
            answer = http.getresponse()
            return answer.status, answer.read()


@contextmanager
def _serving(folder: Path, *options: str) -> Iterator[_Prometheus]:
    port = reserve_port()
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(
            [PROMETHEUS, f"--web.listen-address=127.0.0.1:{port}", *options],
            stdout=log, stderr=log, cwd=folder,
        )  # fmt: skip
        try:
            server = _Prometheus(port)
            wait_until(server.is_ready, 60, meanwhile=process)
            yield server
        finally:
            process.terminate()
            process.wait(60)


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[_Prometheus]:
    """Start a Prometheus that has scraped the fleet for an hour."""
    folder = tmp_path_factory.mktemp("prometheus")
    lines = [
        f"{name} {value!r} {START + number * STEP}"
        for name, values in sorted(series().items())
        for number, value in enumerate(values)
        if value is not None
    ]
    (folder / "series.txt").write_text("\n".join([*lines, "# EOF", ""]))
    _promtool("tsdb", "create-blocks-from", "openmetrics", folder / "series.txt", folder / "data")
    (folder / "prometheus.yml").write_text("{}")
    with _serving(
        folder, f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data",
        "--storage.tsdb.retention.time=100y",
    ) as server:  # fmt: skip
        yield server


def _panels() -> dict[str, str]:
    """Return the expression of each panel of the dashboard, by its title, as Grafana sends it."""
    panels = json.loads((CHART / "dashboard.json").read_text())["panels"]
    panels += [inner for each in panels for inner in each.get("panels", [])]
    return {
        each["title"]: target["expr"].replace("$release", RELEASE).replace("$__range", f"{HOUR}s")
        for each in panels
        for target in each.get("targets", [])
    }


def test_dashboard_shows_the_fleet(prometheus: _Prometheus) -> None:
    """Each panel has the number that the series were made of."""
    panels = _panels()
    assert prometheus.number(panels.pop("Done")) == 2
    assert prometheus.number(panels.pop("Running")) == 3
    assert prometheus.number(panels.pop("Waiting")) == 1
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
    assert prometheus.by("phase", panels.pop("Phase")) == {"transferring": 1}
    assert panels == {}


def test_dashboard_of_an_empty_fleet_shows_zeros(prometheus: _Prometheus) -> None:
    """Another release has no Jobs yet: its numbers are 0, not missing."""
    for title, expression in _panels().items():
        if title in ("Done", "Running", "Waiting", "Failed"):
            assert prometheus.number(expression.replace(RELEASE, "nothing")) == 0, title
