"""The Plex version of the pod, read from its own spec by an API server over TLS."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from rig.cluster.api_server import ApiServer, serving

from initpuller.cluster import api
from initpuller.plex.version_gate import VersionGate
from initpuller.pull.checks.target_checks import completed

if TYPE_CHECKING:
    from pathlib import Path

TAG = "1.40.1.8227-c0dd5a73e"


@pytest.mark.parametrize(
    ("images", "found"),
    [
        ((f"plexinc/pms-docker:{TAG}",), f"plexinc/pms-docker:{TAG}"),
        (("reg/plexodus-puller:1", f"lscr.io/linuxserver/plex:{TAG}"),
         f"lscr.io/linuxserver/plex:{TAG}"),
        (("plexodus-puller:1", "busybox"), ""),
    ],
)  # fmt: skip
async def test_image_is_read_from_plexs_own_container(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, images: tuple[str, ...], found: str
) -> None:
    """The image is that of Plex's container, requested with the account's token."""
    server = ApiServer(*images)
    with serving(server, tmp_path, monkeypatch):
        assert await api.plex_image() == found
    [(_, path, token)] = server.asked
    assert path == "/api/v1/namespaces/media/pods/plex-0"
    assert token.lower() == "bearer the-token"


async def test_older_image_in_the_spec_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An older image is refused, and the user's own option overrides it."""
    server = ApiServer(f"plexinc/pms-docker:{TAG}")
    with serving(server, tmp_path, monkeypatch):
        gate = await completed(VersionGate())
        assert gate.check("1.41.0.1-a").outcome.value == "failure"
        assert gate.check(TAG).outcome.value == "pass"
        server.asked.clear()
        assert (await completed(VersionGate("1.42.0.1-a"))).check(TAG).outcome.value == "warning"
        assert server.asked == []


@pytest.mark.parametrize("status", [401, 403, 404, 500])
async def test_without_the_right_to_read_the_pod(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    """Without the right to read the pod, the version is unknown, and the pull continues."""
    server = ApiServer()
    server.status = status
    with serving(server, tmp_path, monkeypatch):
        assert await api.plex_image() == ""


NO_PODS = [
    (200, "{}"),
    (200, "[]"),
    (200, "null"),
    (200, ""),
    (200, '{"kind":"Status","metadata":{}}'),
    (200, '{"metadata":null,"spec":{"containers":[]}}'),
    (200, '{"metadata":{"uid":null},"spec":{"containers":[{"name":"a"}]}}'),
    (200, '{"metadata":{"uid":"a"},"spec":{"containers":[{"name":"a"}]}}'),
    (302, ""),
    (429, "slow down"),
    (500, '"oops"'),
    (500, "[1]"),
    (502, "<html>bad gateway</html>"),
]


@pytest.mark.parametrize("answer", NO_PODS, ids=str)
async def test_answer_that_is_no_pod(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: tuple[int, str]
) -> None:
    """With a proxy or a broken API server, the image is unknown, and nothing else happens."""
    server = ApiServer()
    server.instead = {"/pods/": [answer] * 10}
    with serving(server, tmp_path, monkeypatch):
        assert await api.plex_image() == ""
    assert len(server.instead["/pods/"]) < 10


async def test_api_server_that_does_not_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A silent API server delays the pull by a moment only."""
    monkeypatch.setattr(api, "_SECONDS", 0.3)
    server = ApiServer()
    server.seconds = 5
    with serving(server, tmp_path, monkeypatch):
        async with asyncio.timeout(3):
            assert await api.plex_image() == ""
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "1")
    assert await api.plex_image() == ""


async def test_outside_of_a_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Outside of a cluster no request is made, and no module imported."""
    monkeypatch.setattr(api, "SERVICE_ACCOUNT", str(tmp_path / "none"))
    assert await api.plex_image() == ""
