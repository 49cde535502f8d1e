"""Wiring: the one place where the agent's parts meet."""

from __future__ import annotations

import asyncio
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import structlog
from aiohttp import web

from agent.endpoints.archives import ArchiveEndpoints
from agent.endpoints.auth import authentication
from agent.endpoints.credentials import server_tls
from agent.endpoints.frames import FrameEndpoints
from agent.endpoints.health import health_routes
from agent.endpoints.openapi.document import openapi_routes
from agent.endpoints.plexlibrary import PlexLibraryEndpoints
from agent.endpoints.problems import errors_to_problems, forbid_storing, log_request
from agent.endpoints.snapshots import SnapshotEndpoints
from agent.source.framecache import FrameCache
from agent.source.handouts import Handouts
from agent.source.library import open_library
from agent.source.scans import Scans
from agent.source.snapshots import SnapshotStore
from shared import __version__, protocol
from shared.errors import ConfigurationError
from shared.mallopt import keep_freed_memory
from shared.pairing import address

if TYPE_CHECKING:
    from agent.source.library import LibrarySource

_log = structlog.get_logger("agent")
_SHUTDOWN = 5.0
"""Seconds that requests under way get to finish after SIGTERM."""


def make_app(state: str, source: LibrarySource) -> web.Application:
    """The HTTP application for one library.

    Raises:
        OSError: the state folder cannot be used.
    """
    store = SnapshotStore(state, source)
    app = web.Application(
        middlewares=[log_request, errors_to_problems, authentication(state)],
        client_max_size=protocol.MAX_BODY,
    )
    cores = os.cpu_count() or 1
    workers = ThreadPoolExecutor(cores, thread_name_prefix="frame")
    scans, frames = Scans(store), FrameCache(workers, ahead=cores)

    async def end_workers(_app: web.Application) -> None:
        workers.shutdown(wait=False, cancel_futures=True)

    app.on_cleanup.append(end_workers)
    app.on_response_prepare.append(forbid_storing)
    app.add_routes(health_routes(state, source))
    app.add_routes(openapi_routes())
    app.add_routes(SnapshotEndpoints(store, scans).routes())
    app.add_routes(FrameEndpoints(store, workers).routes())
    app.add_routes(ArchiveEndpoints(store, frames).routes())
    app.add_routes(PlexLibraryEndpoints(scans, Handouts(state, store)).routes())
    return app


async def serve(state: str, library: str, host: str, port: int) -> None:
    """Serve ``library`` over HTTPS until SIGTERM or SIGINT.

    Raises:
        ConfigurationError: a folder, address or certificate that cannot be used.
    """
    keep_freed_memory()
    tls = server_tls(state)
    source = open_library(library)
    try:
        app = make_app(state, source)
    except OSError as error:
        raise ConfigurationError(
            f"the state folder cannot be used ({error.strerror})", path=state
        ) from error
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=_SHUTDOWN)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port, ssl_context=tls)
        try:
            await site.start()
        except OSError as error:
            raise ConfigurationError(
                f"cannot listen ({error.strerror})", path=address(host, port)
            ) from error
        for where in runner.addresses:
            _log.info("serving", address=address(*where[:2]), library=library, version=__version__)
        await stop.wait()
        _log.info("stopping")
    finally:
        await runner.cleanup()
