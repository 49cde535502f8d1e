"""Whole moves in a cluster with real controllers and a real node, with the charts and values files.

The tests only assign pods to the node and provision volumes.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest
from rig.cluster.controllers import make_volume
from rig.cluster.kubelet import NAMESPACE, POD
from rig.cluster.story import (
    APP_TEMPLATE,
    JOBS,
    MEDIA_CLAIM,
    OLDER,
    OTHER_CLAIM,
    OTHER_POD,
    PAIRING,
    STANDIN,
    VALUES,
    Story,
    controlled_cluster,
    plex_node,
    plex_volume,
)
from rig.cutover.deltas import RACY, sent_bytes
from rig.oracle import rsync_differences, sums_hold
from rig.programs import program
from rig.waiting import wait_until

from bench.plexlibrary import LibraryShape, make_library

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from rig.cluster.cluster import Cluster
    from rig.cluster.node import Node
    from rig.plex.commands import PlexCommands
    from rig.programs import Agent

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Start a cluster with its controllers."""
    with controlled_cluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def node(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """Start a node with our image, and with stand-ins for two versions of Plex's image."""
    with plex_node(cluster, tmp_path_factory.mktemp("node") / "node") as node:
        yield node


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """Return the library of a small Plex, owned by a user that the cluster does not have."""
    library = tmp_path / "vm" / "Library"
    make_library(library, LibraryShape(1_500, 30_000_000, 6_000_000))
    for path in (library, *library.rglob("*")):
        os.chown(path, 997, 997, follow_symlinks=False)
    time.sleep(RACY)
    return library


@pytest.fixture
def volume(cluster: Cluster, node: Node, target: Path) -> Iterator[Path]:
    """Provide the volume of Plex's claim; remove plexodus and Plex from the cluster at the end."""
    with plex_volume(cluster, node, target):
        yield target


def test_move_with_preseed_job_and_init_container_succeeds(
    cluster: Cluster, volume: Path, agent: Agent, plex: PlexCommands, library: Path
) -> None:
    """A Job copies most of the library, the init container moves it, and plexodus is removed."""
    story = Story(cluster)
    story.pair(agent.pairing)
    story.plexodus("preseed")
    wait_until(
        lambda: ("Complete", "CompletionsReached") in story.conditions(), 120, what="the Job"
    )
    assert story.phase() == "ready"
    assert plex.is_running()
    staged = volume / ".plexodus" / "staging" / "Library"
    assert {(each.lstat().st_uid, each.lstat().st_gid) for each in staged.rglob("*")} == {
        (1000, 1000)
    }
    seeded = sent_bytes(agent)
    story.plexodus("plexodus")
    wait_until(lambda: not story.get(*JOBS), what="the end of the Job")

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


def test_move_by_the_plan_of_the_agent(
    cluster: Cluster,
    volume: Path,
    agent: Agent,
    plex: PlexCommands,
    library: Path,
    tmp_path: Path,
) -> None:
    """A plan moves the library to the VM's owner; with a gap, helm takes none of it."""
    folder = tmp_path / "plan"
    plan = ("plexodus-agent", "plan", "--library", library, "--directory", folder)
    program(*plan)
    gap = cluster.tried("helm", "template", "plex", STANDIN, "-f", folder / "plex.yaml")
    assert gap.returncode != 0
    assert "yaml" in gap.stderr
    program(*plan, "--media", "/srv=media:/srv")

    media = tmp_path / "media"
    media.mkdir()
    make_volume(cluster, media, NAMESPACE, "media")
    story = Story(cluster)
    cluster.kubectl("create", "-n", NAMESPACE, "-f", "-", stdin=MEDIA_CLAIM)
    story.pair(agent.pairing)
    story.plexodus(str(folder / "plexodus"))
    story.plex(str(folder / "plex"))
    story.wait_for_plex()
    assert rsync_differences(library, volume / "Library", owner=False) == []
    assert {(each.lstat().st_uid, each.lstat().st_gid) for each in volume.glob("Library/**/*")} == {
        (997, 997)
    }
    assert not plex.is_running()
    story.plex(str(folder / "after"))
    story.kubectl("rollout", "status", "statefulset", "plex-plex-media-server", "--timeout=120s")
    assert story.container("plexodus") == {}
    cluster.kubectl("delete", "pv", "media", "--wait=false")


def test_pod_starts_after_the_move_without_agent_and_pairing(
    cluster: Cluster, volume: Path, agent: Agent, plex: PlexCommands
) -> None:
    """After the move, the pod starts although the agent is gone and the Secret wrong or missing."""
    story = Story(cluster)
    story.pair(agent.pairing)
    story.plexodus("plexodus")
    story.plex("init-container")
    story.wait_for_plex()
    assert not plex.is_running()
    agent.kill()
    for is_there in (True, False):
        story.kubectl("delete", "secret", PAIRING)
        if is_there:
            story.pair("not what it was")
        story.kubectl("delete", "pod", POD, "--grace-period=1")
        story.wait_for_plex()
        assert story.container("plexodus-watch")["restartCount"] == 0
    assert (volume / "Library").is_dir()


def test_corrected_values_reach_the_pod_once_it_is_deleted(
    cluster: Cluster, volume: Path, agent: Agent, plex: PlexCommands
) -> None:
    """With too old an image, Plex runs on the VM until the tag is corrected and the pod deleted."""
    story = Story(cluster)
    story.pair(agent.pairing)
    story.plexodus("plexodus")
    story.plex("init-container", "--set", f"image.tag={OLDER}")

    def has_failed() -> bool:
        last = story.container("plexodus").get("lastState") or {}
        now = story.container("plexodus").get("state") or {}
        return any((each.get("terminated") or {}).get("exitCode") == 12 for each in (last, now))

    wait_until(has_failed, 120, what="a refusal")
    assert plex.story == ["start"]
    story.plex("init-container")
    story.kubectl("delete", "pod", POD, "--grace-period=1")
    story.wait_for_plex()
    assert plex.story == ["start", "stop"]
    assert (volume / "Library").is_dir()


def test_job_with_a_permanent_failure_is_not_retried(
    cluster: Cluster, volume: Path, agent: Agent, plex: PlexCommands
) -> None:
    """A Job with an invalid setting fails at once, and corrected settings create another Job."""
    story = Story(cluster)
    story.pair(agent.pairing)
    wrong = ("--set-string", "migrations[0].settings.PLEXODUS_MAP=nonsense")
    story.plexodus("preseed", *wrong)
    wait_until(lambda: ("Failed", "PodFailurePolicy") in story.conditions(), 120, what="a failure")
    assert "not a mapping" in story.kubectl("describe", "pods", "-l", "plexodus.io/migration=plex")
    story.plexodus("preseed")
    wait_until(
        lambda: ("Complete", "CompletionsReached") in story.conditions(), 120, what="the Job"
    )
    assert plex.is_running()
    assert not (volume / "Library").exists()


def test_job_with_a_deadline_fails_and_a_later_one_does_the_rest(
    cluster: Cluster, volume: Path, agent: Agent, plex: PlexCommands
) -> None:
    """A Job whose agent is away ends at its deadline, and Plex runs. Without one, it is done."""
    story = Story(cluster)
    story.pair(agent.pairing)
    agent.kill()
    story.plexodus("preseed", "--set", "migrations[0].job.deadlineSeconds=15")
    wait_until(
        lambda: ("Failed", "DeadlineExceeded") in story.conditions(), 120, what="the deadline"
    )
    assert story.phase() == "failed"
    assert "stopped by a signal" in story.error()
    assert plex.is_running()
    agent.start()
    story.plexodus("preseed")
    wait_until(
        lambda: ("Complete", "CompletionsReached") in story.conditions(), 120, what="the Job"
    )
    assert story.phase() == "ready"
    assert plex.is_running()
    assert not (volume / "Library").exists()


def test_plain_manifests_move_a_library(
    cluster: Cluster, node: Node, target: Path, agent: Agent, plex: PlexCommands, library: Path
) -> None:
    """The folder for Kustomize does the same as both charts, and its objects can be removed."""
    story = Story(cluster, OTHER_POD, "plex")
    story.pair(agent.pairing)
    folder = VALUES / "kustomize"
    with plex_volume(cluster, node, target, OTHER_CLAIM):
        story.kubectl("apply", "-k", folder)
        story.wait_for_plex()
        assert not plex.is_running()
        assert rsync_differences(library, target / "Library", owner=False) == []
        assert _owners(target) == {(1000, 1000)}
        assert story.phase() == "done"
        events = story.get("events")
        ours = {each["reason"] for each in events if each["involvedObject"]["name"] == OTHER_POD}
        assert "Published" in ours
        story.kubectl("delete", "-k", folder, "--wait=false")


def test_app_template_moves_a_library_without_root(
    cluster: Cluster, node: Node, target: Path, agent: Agent, plex: PlexCommands, library: Path
) -> None:
    """A Job and the init container do all of it as user 1000; the volume is root's before.

    The kubelet gives the volume to fsGroup, with OnRootMismatch only once. After a start with
    Always it has changed the modes of all files, and Plex starts nevertheless.
    """
    story = Story(cluster, OTHER_POD, "plex")
    story.pair(agent.pairing)
    with plex_volume(cluster, node, target, OTHER_CLAIM):
        assert target.stat().st_gid == 0
        story.plexodus("restricted")
        wait_until(lambda: story.phase() == "ready", 120, what="most of it")
        assert plex.is_running()
        story.plexodus("restricted", "--set", "migrations[0].job.enabled=false")
        story.plex("app-template", chart=APP_TEMPLATE)
        story.wait_for_plex()
        assert not plex.is_running()
        assert rsync_differences(library, target / "Library", owner=False) == []
        assert _owners(target) == {(1000, 1000)}
        assert story.phase() == "done"
        modes = _modes(target)
        story.kubectl("delete", "pod", OTHER_POD, "--grace-period=1")
        story.wait_for_plex()
        assert _modes(target) == modes

        always = ("--set", "defaultPodOptions.securityContext.fsGroupChangePolicy=Always")
        story.plex("app-template", *always, chart=APP_TEMPLATE)
        story.kubectl("rollout", "status", "statefulset", "plex", "--timeout=180s")
        story.wait_for_plex()
        assert _modes(target) != modes
        assert sums_hold(target)
        program("plexodus-puller", "verify", "--target", target)


def _modes(volume: Path) -> dict[str, int]:
    return {
        str(each): each.lstat().st_mode
        for each in volume.glob("Library/**/*")
        if not each.is_symlink()
    }


def _owners(volume: Path) -> set[tuple[int, int]]:
    return {(each.lstat().st_uid, each.lstat().st_gid) for each in volume.glob("Library/**/*")}
