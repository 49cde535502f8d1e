"""A cutover does not wait for scans and checks, however many threads they keep busy."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from rig.plex.commands import only_plex

from agent import daemon
from agent.cutover.context import CutoverContext
from agent.cutover.control import CutoverControl
from agent.plex.commands import Commands
from agent.routes.cutover import CutoverEndpoints
from shared.wire import protocol

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

NAME = "a" * 32
SECONDS = 10.0
"""Far more than a request needs, unless it waits for a thread."""


@asynccontextmanager
async def busy_threads() -> AsyncIterator[None]:
    """Keep the only usual thread of the running loop busy until the block ends."""
    loop, end = asyncio.get_running_loop(), threading.Event()
    loop.set_default_executor(ThreadPoolExecutor(1))
    work = loop.run_in_executor(None, end.wait)
    try:
        yield
    finally:
        end.set()
        await work


async def test_lease_is_renewed_while_all_other_threads_are_busy(tmp_path: Path) -> None:
    """The requests of a puller get their responses, so Plex is not started under it."""
    plex = Commands(["true"], ["true"])
    with only_plex():
        control = CutoverControl(str(tmp_path), plex, CutoverContext(60, 5, lambda *_: None))
        control.begin(protocol.CutoverRequest(NAME, "pod"))
    app = web.Application()
    app.add_routes(CutoverEndpoints(control, lambda: None).routes())
    client = TestClient(TestServer(app))
    async with client, busy_threads(), asyncio.timeout(SECONDS):
        described = await client.get(protocol.CUTOVER)
        assert (await described.json())["phase"] == "stopped"
        renewed = await client.put(protocol.cutover_path(NAME, "/lease"))
        assert renewed.status == 200


async def test_expired_lease_starts_plex_while_all_other_threads_are_busy(tmp_path: Path) -> None:
    """Scans that hang, as on a dead network share, do not leave Plex stopped."""
    started = tmp_path / "started"
    plex = Commands(["true"], ["touch", str(started)])
    with only_plex():
        control = CutoverControl(str(tmp_path), plex, CutoverContext(0.1, 5, lambda *_: None))
        control.begin(protocol.CutoverRequest(NAME, "pod"))
        async with busy_threads():
            tend = asyncio.create_task(daemon._tend(control, 30))
            for _ in range(int(SECONDS * 10)):
                await asyncio.sleep(0.1)
                if started.exists():
                    break
            tend.cancel()
    assert started.exists()
