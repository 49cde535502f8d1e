"""The whole move as a cluster runs it: real controllers and node, charts and values as they are.

Only the place of pods is decided here, and where volumes come from.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from rig import plexserver, podplex
from rig.cluster import Cluster, running_cluster
from rig.containers import BASE, image
from rig.controllers import make_volume, running_controllers, wait_for_account
from rig.deltas import RACY, sent_bytes
from rig.kubelet import NAMESPACE, POD
from rig.node import Node, build, running_node, wait_until
from rig.oracle import rsync_differences
from rig.plexcommands import plex_commands
from rig.programs import Agent, running

from bench.plexlibrary import SERVER, LibraryShape, make_library
from shared import __version__
from shared.pairing import PAIRING_VARIABLE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rig.plexcommands import PlexCommands

pytestmark = pytest.mark.cluster

ROOT = Path(__file__).parent.parent
CHART = ROOT / "charts" / "plexodus"
VALUES = ROOT / "charts" / "values"
STANDIN = ROOT / "tests" / "charts" / "plex-media-server"
CLAIM = f"pms-config-{POD}"
PAIRING = "plexodus-plex-pairing"
VERSION, OLDER = "1.40.1.8227-c0dd5a73e", "1.30.0.6486-629d58034"
JOBS = ("jobs", "-l", "plexodus.io/migration=plex")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """With its controllers."""
    with running_cluster(tmp_path_factory.mktemp("cluster")) as cluster:
        cluster.kubectl("create", "namespace", NAMESPACE)
        with running_controllers(cluster):
            wait_for_account(cluster, NAMESPACE)
            yield cluster


@pytest.fixture(scope="module")
def node(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """With our image, and what stands in for Plex' of two versions."""
    files = {Path(module.__file__ or ""): "/rig/" for module in (plexserver, podplex)}
    started = json.dumps(["python3", "-m", "rig.podplex", VERSION])
    build("localhost/podplex:1", BASE, "--entrypoint", started, files=files)
    with running_node(cluster, tmp_path_factory.mktemp("node") / "node") as node:
        node.load(image("puller"), f"plexodus-puller:{__version__}")
        for version in (VERSION, OLDER):
            node.load("localhost/podplex:1", f"plexinc/pms-docker:{version}")
        yield node


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """Of a small Plex, whose files are a user's whom the cluster does not know."""
    library = tmp_path / "vm" / "Library"
    make_library(library, LibraryShape(1_500, 30_000_000, 6_000_000))
    for path in (library, *library.rglob("*")):
        os.chown(path, 997, 997, follow_symlinks=False)
    time.sleep(RACY)
    return library


@pytest.fixture
def plex(tmp_path: Path, library: Path) -> Iterator[PlexCommands]:
    """On the VM, at work."""
    with plex_commands(tmp_path / "plex", library / SERVER) as plex:
        yield plex


@pytest.fixture
def agent(tmp_path: Path, library: Path, plex: PlexCommands) -> Iterator[Agent]:
    """One that can stop it."""
    agent = Agent(tmp_path / "state", library, tmp_path / "agent.log")
    agent.pair()
    agent.settings = plex.settings(tmp_path)
    with running(agent):
        yield agent


@pytest.fixture
def volume(cluster: Cluster, node: Node, target: Path) -> Iterator[Path]:
    """What Plex' claim gets; all of plexodus and Plex is gone from the cluster at the end."""
    target.chmod(0o755)
    make_volume(cluster, target, NAMESPACE, CLAIM)
    yield target
    for release in ("plex", "plexodus"):
        cluster.tried("helm", "uninstall", release, "-n", NAMESPACE)
    cluster.kubectl("delete", "secret", PAIRING, "-n", NAMESPACE, "--ignore-not-found")
    cluster.kubectl("delete", "pods", "--all", "-n", NAMESPACE, "--grace-period=1")
    cluster.kubectl("delete", "pvc", "--all", "-n", NAMESPACE)
    cluster.kubectl("delete", "pv", CLAIM)
    wait_until(lambda: not node.containers(), "the end of all pods")


class Story:
    """What an administrator does, in the order of the runbook."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def pair(self, string: str) -> None:
        """The Secret."""
        pairing = f"--from-literal={PAIRING_VARIABLE}={string}"
        self.kubectl("create", "secret", "generic", PAIRING, pairing)

    def plexodus(self, name: str, *options: str) -> None:
        """Our chart, with values."""
        given = ("-n", NAMESPACE, "-f", VALUES / f"{name}.yaml", *options)
        self._cluster.helm("upgrade", "--install", "plexodus", CHART, *given)

    def plex(self, name: str, *options: str) -> None:
        """What stands in for Plex' own, with values."""
        given = ("-n", NAMESPACE, "-f", VALUES / f"{name}.yaml", *options)
        self._cluster.helm("upgrade", "--install", "plex", STANDIN, *given)

    def kubectl(self, *arguments: object) -> str:
        """In the namespace."""
        return self._cluster.kubectl(*arguments, "-n", NAMESPACE)

    def get(self, *arguments: object) -> Any:  # noqa: ANN401 - whatever was asked for
        """In the namespace."""
        return self._cluster.get(*arguments, "-n", NAMESPACE)

    def phase(self) -> str:
        """Of the status that kubectl shows."""
        found = self.get("configmap", "plexodus-plex-status").get("data", {})
        return str(found.get("phase", ""))

    def container(self, name: str) -> dict[str, Any]:
        """Of Plex' pod; empty while there is none."""
        for pod in self.get("pods", "-l", "name=plex-plex-media-server"):
            status = pod["status"]
            each = status.get("initContainerStatuses", []) + status.get("containerStatuses", [])
            for found in each:
                if found["name"] == name:
                    return dict(found)
        return {}

    def wait_for_plex(self) -> None:
        """Until it runs in its pod."""
        wait_until(lambda: self.container("pms").get("ready", False), "Plex in the pod", 180)

    def conditions(self) -> list[tuple[str, str]]:
        """Type and reason of those of Jobs that hold."""
        held = [each for job in self.get(*JOBS) for each in job["status"].get("conditions", [])]
        return [(each["type"], each.get("reason", "")) for each in held if each["status"] == "True"]


def test_move_as_the_runbook_has_it(
    cluster: Cluster, volume: Path, agent: Agent, plex: PlexCommands, library: Path
) -> None:
    """Seeded by a Job while Plex runs, moved by the init container, and then without plexodus."""
    story = Story(cluster)
    story.pair(agent.pairing)
    story.plexodus("preseed")
    wait_until(lambda: ("Complete", "CompletionsReached") in story.conditions(), "the Job", 120)
    assert story.phase() == "ready"
    assert plex.is_running()
    staged = volume / ".plexodus" / "staging" / "Library"
    assert {(each.lstat().st_uid, each.lstat().st_gid) for each in staged.rglob("*")} == {
        (1000, 1000)
    }
    seeded = sent_bytes(agent)
    story.plexodus("plexodus")
    wait_until(lambda: not story.get(*JOBS), "the end of the Job")

    story.plex("init-container")
    story.wait_for_plex()
    assert sent_bytes(agent) - seeded < seeded // 2
    assert rsync_differences(library, volume / "Library", owner=False) == []
    assert {(each.lstat().st_uid, each.lstat().st_gid) for each in volume.glob("Library/**/*")} == {
        (1000, 1000)
    }
    assert not plex.is_running()
    reasons = {event["reason"] for event in story.get("events")}
    assert {"Started", "Verified", "Committed", "Published"} <= reasons

    story.plex("after")
    story.kubectl("rollout", "status", "statefulset", "plex-plex-media-server", "--timeout=120s")
    cluster.helm("uninstall", "plexodus", "-n", NAMESPACE)
    story.kubectl("delete", "secret", PAIRING)
    story.kubectl("delete", "pod", POD, "--grace-period=1")
    story.wait_for_plex()
    assert story.container("plexodus") == {}


def test_pod_starts_whatever_became_of_the_secret(
    cluster: Cluster, volume: Path, agent: Agent, plex: PlexCommands
) -> None:
    """The receipt is there: neither the agent nor the pairing is needed any more."""
    story = Story(cluster)
    story.pair(agent.pairing)
    story.plexodus("plexodus")
    story.plex("init-container")
    story.wait_for_plex()
    assert not plex.is_running()
    for broken in (
        ("create", "secret", "generic", PAIRING, f"--from-literal={PAIRING_VARIABLE}=x"),
        (),
    ):
        story.kubectl("delete", "secret", PAIRING)
        if broken:
            story.kubectl(*broken)
        agent.kill()
        story.kubectl("delete", "pod", POD, "--grace-period=1")
        story.wait_for_plex()
        assert story.container("plexodus-watch")["restartCount"] == 0
    assert (volume / "Library").is_dir()


def test_mended_values_reach_the_pod_once_it_is_deleted(
    cluster: Cluster, volume: Path, agent: Agent, plex: PlexCommands
) -> None:
    """An image that is too old: Plex runs on on the VM until it is mended, as the runbook says."""
    story = Story(cluster)
    story.pair(agent.pairing)
    story.plexodus("plexodus")
    story.plex("init-container", "--set", f"image.tag={OLDER}")

    def has_failed() -> bool:
        last = story.container("plexodus").get("lastState") or {}
        now = story.container("plexodus").get("state") or {}
        return any((each.get("terminated") or {}).get("exitCode") == 12 for each in (last, now))

    wait_until(has_failed, "a refusal", 120)
    assert plex.story == ["start"]
    story.plex("init-container")
    story.kubectl("delete", "pod", POD, "--grace-period=1")
    story.wait_for_plex()
    assert plex.story == ["start", "stop"]
    assert (volume / "Library").is_dir()


def test_job_that_another_try_does_not_mend(
    cluster: Cluster, volume: Path, agent: Agent, plex: PlexCommands
) -> None:
    """It ends at once, by its exit code; with settings that are mended there is another Job."""
    story = Story(cluster)
    story.pair(agent.pairing)
    wrong = ("--set-string", "migrations[0].settings.PLEXODUS_MAP=nonsense")
    story.plexodus("preseed", *wrong)
    wait_until(lambda: ("Failed", "PodFailurePolicy") in story.conditions(), "a failure", 120)
    assert "not a mapping" in story.kubectl("describe", "pods", "-l", "plexodus.io/migration=plex")
    story.plexodus("preseed")
    wait_until(lambda: ("Complete", "CompletionsReached") in story.conditions(), "the Job", 120)
    assert plex.is_running()
    assert not (volume / "Library").exists()
