"""Wiring: the one place where the agent's parts meet."""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import TYPE_CHECKING

import msgspec
from aiohttp import web

from agent.cutover.context import CutoverContext
from agent.cutover.control import CutoverControl
from agent.frames.cache import FrameCache
from agent.host.check_reports import CheckReports
from agent.host.migration_log import MigrationLog
from agent.page.endpoints import PageEndpoints
from agent.page.events import event_routes
from agent.page.observer import Observer, Sources
from agent.page.puller_requests import note_pullers
from agent.page.rates import Rates
from agent.plex.folder import database_folder, logs_of_databases
from agent.plex.services import plex_service
from agent.routes.archives import ArchiveEndpoints
from agent.routes.cutover import CutoverEndpoints
from agent.routes.frames import FrameEndpoints
from agent.routes.health import health_routes
from agent.routes.latest_archive import latest_archive_routes
from agent.routes.libraries import library_routes
from agent.routes.metrics import Metrics
from agent.routes.migration_log import migration_log_routes
from agent.routes.openapi import openapi_routes
from agent.routes.probe import probe_routes
from agent.routes.snapshots import SnapshotEndpoints
from agent.routes.target_checks import target_check_routes
from agent.server.auth import Doorkeeper, TokenFile, WrongTokens, authentication
from agent.server.connections import Connections, Listener
from agent.server.problems import errors_to_problems, forbid_storing, log_request
from agent.server.rate_limit import Outflow
from agent.server.request_handler import AgentRequestHandler
from agent.server.sessions import Sessions
from agent.server.stopping import STOPPING, close_when_stopping, refuse_when_stopping
from agent.snapshots.client_snapshots import Handouts
from agent.snapshots.cold_source import ColdSource
from agent.snapshots.scan_queue import Scans
from agent.snapshots.store import SnapshotStore
from agent.source.activity import Activity
from agent.source_checks import check_for_preflight, check_for_pull
from shared import __version__
from shared.checks import DATABASE_CHECKS
from shared.plex.sqlite_check import DatabaseCheck
from shared.program.logs import LogLimit
from shared.wire import protocol

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from agent.plex.service import PlexService
    from agent.settings import Settings
    from agent.source.library import CurrentLibrary

SHUTDOWN = 5.0
"""Seconds that a frame has to reach its client after the agent was asked to end."""


@dataclass
class Parts:
    """The parts of the application that change or are read while it runs."""

    app: web.Application
    outflow: Outflow
    activity: Activity
    metrics: Metrics
    cutover: CutoverControl
    library: CurrentLibrary

    def apply(self, settings: Settings, tls: ssl.SSLContext) -> None:
        """Use the settings that need no restart."""
        if (connections := self.metrics.connections) is not None:
            connections.tls, connections.limits = tls, settings.limits
        self.outflow.rate = settings.bytes_per_second
        self.library.configured = settings.library


def make_cutover(
    settings: Settings,
    library: Callable[[], str] = lambda: "",
    store: SnapshotStore | None = None,
    plex: PlexService | None = None,
) -> CutoverControl:
    """Return the control of the cutover, for the service and the command line.

    Args:
        settings: the agent's settings.
        library: returns the folder that is moved; only needed to begin a cutover.
        store: the snapshots. Without them nothing is committed, and a commit that was interrupted
            is undone: the library cannot be compared.
        plex: the service to use instead of the one in the settings.
    """
    digest = sha256(repr(msgspec.structs.astuple(settings)).encode()).hexdigest()[:12]
    context = CutoverContext(
        settings.lease_seconds,
        settings.stop_seconds,
        MigrationLog(settings.state).write,
        logs_of_databases=lambda: logs_of_databases(library()),
        database_folder=lambda: database_folder(library()),
        agent=f"{__version__}, settings {digest}",
    )
    if store is not None:
        context = replace(context, has_cold=store.has_cold, has_been_used=store.has_been_used)
    return CutoverControl(settings.state, plex or plex_service(settings), context)


def make_app(settings: Settings, library: CurrentLibrary) -> Parts:
    """Return the HTTP application for one library.

    Raises:
        OSError: If the state folder cannot be used.
    """
    state = settings.state
    store = SnapshotStore(state, library)
    cores = os.cpu_count() or 1
    workers = ThreadPoolExecutor(cores, thread_name_prefix="frame")
    outflow, activity, wrong = Outflow(settings.bytes_per_second), Activity(), WrongTokens()
    frames, log = FrameCache(workers, ahead=cores), MigrationLog(state)
    cutover = make_cutover(settings, lambda: library.last.about.path, store)
    cold = ColdSource(store, cutover, log.write)
    scans = Scans(store, cold, activity)
    metrics = Metrics(outflow, frames, activity, wrong)
    tokens = TokenFile(state)
    door = Doorkeeper(tokens, wrong, Sessions(state, tokens))
    app = web.Application(
        middlewares=[
            log_request,
            metrics.timed(),
            errors_to_problems,
            authentication(door),
            note_pullers(activity),
            refuse_when_stopping,
        ],
        client_max_size=protocol.MAX_BODY,
    )
    app[STOPPING] = asyncio.Event()

    async def end_workers(_app: web.Application) -> None:
        workers.shutdown(wait=False, cancel_futures=True)

    app.on_cleanup.append(end_workers)
    app.on_response_prepare.append(forbid_storing)
    app.on_response_prepare.append(close_when_stopping)
    app.add_routes(health_routes(state, library))
    app.add_routes(openapi_routes())
    app.add_routes(metrics.routes())
    reports = CheckReports(state)
    app.add_routes(
        library_routes(
            lambda depth: _keep(reports, check_for_preflight(library.locate(), settings, depth)),
            lambda depth: _record(
                log, reports, check_for_pull(library.locate(), settings, depth), depth
            ),
            activity,
        )
    )
    app.add_routes(target_check_routes(reports))
    app.add_routes(probe_routes(outflow))
    app.add_routes(migration_log_routes(log, outflow))
    app.add_routes(CutoverEndpoints(cutover, store.check_library).routes())
    app.add_routes(SnapshotEndpoints(store, scans, outflow, activity, cold).routes())
    app.add_routes(FrameEndpoints(store, workers, outflow, activity).routes())
    app.add_routes(ArchiveEndpoints(store, frames, outflow).routes())
    app.add_routes(latest_archive_routes(scans, Handouts(state, store)))
    rates = Rates(outflow)
    app.cleanup_ctx.append(rates.running)
    observer = Observer(Sources(settings, library, cutover, activity, rates, reports))
    app.add_routes(event_routes(observer, log))
    app.add_routes(PageEndpoints(door, observer, cutover).routes())
    return Parts(app, outflow, activity, metrics, cutover, library)


def _keep(reports: CheckReports, report: protocol.LibraryReport) -> protocol.LibraryReport:
    """Keep the results of the checks of a preflight for the page."""
    reports.write("source", report.checks, are_all=True)
    return report


def _record(
    log: MigrationLog, reports: CheckReports, report: protocol.ServerReport, depth: DatabaseCheck
) -> protocol.ServerReport:
    """Keep the results of a pull's checks, and log them; databases have a request of their own."""
    is_skipped = depth is DatabaseCheck.SKIP
    checks = [each for each in report.checks if not (is_skipped and each.id in DATABASE_CHECKS)]
    reports.write("source", checks, are_all=False)
    log.write("version", f"Detected Plex version: {report.plex_version or 'unknown'}")
    for check in checks:
        if check.id in DATABASE_CHECKS:
            log.write("database", f"{check.name.capitalize()}: {check.found}")
    return report


async def listen(
    parts: Parts, settings: Settings, tls: ssl.SSLContext, shutdown: float = SHUTDOWN
) -> tuple[web.AppRunner, Connections]:
    """Open the port. The runner's ``cleanup`` closes it.

    Raises:
        ConfigurationError: If the port cannot be opened until a person changes something.
        PreflightRefused: If it cannot be opened now.
    """
    runner = web.AppRunner(parts.app, access_log=None, shutdown_timeout=shutdown)
    await runner.setup()
    server = runner.server
    assert server is not None  # noqa: S101 - set up, just now
    limit = LogLimit()
    connections = parts.metrics.connections = Connections(
        settings.limits, tls, lambda: AgentRequestHandler(server, limit)
    )
    try:
        await Listener(runner, *settings.listen_address, connections).start()
    except BaseException:
        await runner.cleanup()
        raise
    return runner, connections
