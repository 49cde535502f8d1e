"""A stand-in for an API server that refuses or stalls on demand, as no real one does."""

from __future__ import annotations

import asyncio
import json
import ssl
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from aiohttp import web

from initpuller.cluster import api
from rig.archive.event_loop import end_tasks
from rig.hostile.authority import Authority

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import pytest


class ApiServer:
    """Serves one pod, and accepts Events and a status."""

    def __init__(self, *images: str) -> None:
        self.images = images
        self.asked: list[tuple[str, str, str]] = []
        """Method, path and authorization of each request."""
        self.events: list[dict[str, Any]] = []
        self.status_data: dict[str, str] = {}
        """Data of the ConfigMap."""
        self.status = 200
        """Status code of each response."""
        self.refuses = ""
        """Part of the paths that are answered with 403."""
        self.seconds = 0.0
        """Delay of each response."""
        self.instead: dict[str, list[tuple[int, str]]] = {}
        """Statuses and bodies of the first responses, by a part of the path."""

    async def answer(self, request: web.Request) -> web.Response:
        """Return the pod, the object that was sent, or a Status."""
        right = request.headers.get("Authorization", "")
        self.asked.append((request.method, request.path, right))
        await asyncio.sleep(self.seconds)
        for part, answers in self.instead.items():
            if part in request.path and answers:
                status, text = answers.pop(0)
                return web.Response(status=status, text=text, content_type="application/json")
        status = 403 if self.refuses and self.refuses in request.path else self.status
        if status != 200:
            refusal = {"kind": "Status", "message": "not for you", "code": status}
            return web.json_response(refusal, status=status)
        if request.method == "GET":
            return web.json_response(self._pod())
        content = json.loads(await request.read())
        if request.method == "PATCH":
            assert request.content_type == "application/merge-patch+json"
            self.status_data |= content["data"]
        else:
            self.events.append(content)
        return web.json_response(content, status=201 if request.method == "POST" else 200)

    def _pod(self) -> dict[str, Any]:
        containers = [{"name": f"c{n}", "image": image} for n, image in enumerate(self.images)]
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "plex-0", "namespace": "media", "uid": "the-uid"},
            "spec": {"containers": containers},
        }


@contextmanager
def serving(server: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Run ``server``, and give this process a pod's environment and service account."""
    authority, account = Authority(tmp_path / "ca"), tmp_path / "account"
    certificate, key = authority.issue("localhost")
    account.mkdir()
    (account / "token").write_text("the-token")
    (account / "namespace").write_text("media")
    (account / "ca.crt").write_bytes(authority.certificate.read_bytes())
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate, key)
    loops, ports = list[asyncio.AbstractEventLoop](), list[int]()
    is_up, is_over = threading.Event(), asyncio.Event()

    async def serve() -> None:
        """Serve until the end of the block. A stalled response is cancelled then."""
        loops.append(asyncio.get_running_loop())
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", server.answer)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "localhost", 0, ssl_context=tls).start()
        ports.append(runner.addresses[0][1])
        is_up.set()
        await is_over.wait()
        await runner.cleanup()
        await end_tasks()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    is_up.wait(timeout=10)
    monkeypatch.setattr(api, "SERVICE_ACCOUNT", str(account))
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "localhost")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(ports[0]))
    monkeypatch.setenv("HOSTNAME", "plex-0")
    try:
        yield
    finally:
        loops[0].call_soon_threadsafe(is_over.set)
        thread.join()
