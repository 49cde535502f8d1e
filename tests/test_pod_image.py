"""Which Plex the pod will run, as its own spec says: asked of an API server over TLS."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web
from rig.authority import Authority

from initpuller.plex.versiongate import VersionGate
from initpuller.preflight import completed
from initpuller.report import kube

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

TAG = "1.40.1.8227-c0dd5a73e"


class ApiServer:
    """Answers for one pod."""

    def __init__(self, *images: str) -> None:
        self.images = images
        self.asked: list[tuple[str, str]] = []
        self.status = 200
        self.seconds = 0.0

    async def answer(self, request: web.Request) -> web.Response:
        """The pod, or a Status."""
        self.asked.append((request.path, request.headers.get("Authorization", "")))
        await asyncio.sleep(self.seconds)
        containers = [{"name": f"c{n}", "image": image} for n, image in enumerate(self.images)]
        pod: dict[str, Any] = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "plex-0", "namespace": "media"},
            "spec": {"containers": containers},
        }
        if self.status != 200:
            pod = {"apiVersion": "v1", "kind": "Status", "reason": "Forbidden", "code": self.status}
        return web.json_response(pod, status=self.status)


@asynccontextmanager
async def serving(
    server: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[None]:
    """The API server, and what a pod finds of its service account."""
    authority, account = Authority(tmp_path / "ca"), tmp_path / "account"
    certificate, key = authority.issue("localhost")
    account.mkdir()
    (account / "token").write_text("the-token")
    (account / "namespace").write_text("media")
    (account / "ca.crt").write_bytes(authority.certificate.read_bytes())
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate, key)
    app = web.Application()
    app.router.add_get("/{path:.*}", server.answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "localhost", 0, ssl_context=tls).start()
    monkeypatch.setattr(kube, "SERVICE_ACCOUNT", str(account))
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "localhost")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(runner.addresses[0][1]))
    monkeypatch.setenv("HOSTNAME", "plex-0")
    try:
        yield
    finally:
        await runner.cleanup()


@pytest.mark.parametrize(
    ("images", "found"),
    [
        ((f"plexinc/pms-docker:{TAG}",), f"plexinc/pms-docker:{TAG}"),
        (("reg/plexodus-puller:1", f"lscr.io/linuxserver/plex:{TAG}"),
         f"lscr.io/linuxserver/plex:{TAG}"),
        (("plexodus-puller:1", "busybox"), ""),
    ],
)  # fmt: skip
async def test_image_of_the_own_pod(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, images: tuple[str, ...], found: str
) -> None:
    """That of Plex' container and not of ours, asked with the service account's token."""
    server = ApiServer(*images)
    async with serving(server, tmp_path, monkeypatch):
        assert await kube.plex_image() == found
    [(path, token)] = server.asked
    assert path == "/api/v1/namespaces/media/pods/plex-0"
    assert token.lower() == "bearer the-token"


async def test_older_image_in_the_spec_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a word from the user; what the user says counts more, and nobody is asked."""
    server = ApiServer(f"plexinc/pms-docker:{TAG}")
    async with serving(server, tmp_path, monkeypatch):
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
    """It is not known, and that is all."""
    server = ApiServer()
    server.status = status
    async with serving(server, tmp_path, monkeypatch):
        assert await kube.plex_image() == ""


async def test_api_server_that_does_not_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pull goes on after a moment."""
    monkeypatch.setattr(kube, "_SECONDS", 0.3)
    server = ApiServer()
    server.seconds = 5
    async with serving(server, tmp_path, monkeypatch):
        async with asyncio.timeout(3):
            assert await kube.plex_image() == ""
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "1")
    assert await kube.plex_image() == ""


async def test_outside_of_a_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is asked, nothing is imported."""
    monkeypatch.setattr(kube, "SERVICE_ACCOUNT", str(tmp_path / "none"))
    assert await kube.plex_image() == ""
