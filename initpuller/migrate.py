"""The recipe: how a library comes onto a volume, from top to bottom."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import structlog

from initpuller.assemble import Assembly
from initpuller.plex.facts import read_facts
from initpuller.plex.preferences import preferences_name, with_preferences
from initpuller.plex.versiongate import VersionGate
from initpuller.preflight import check_filesystem, completed
from initpuller.report.progress import PullProgress
from initpuller.volume import publish, staging
from initpuller.volume.amend import amend
from initpuller.volume.decision import Action, OnExisting
from initpuller.volume.filesystem import network_filesystem
from initpuller.volume.findings import finished, look
from initpuller.volume.layout import Layout, locked, open_layout
from initpuller.volume.records import load_state
from initpuller.volume.space import check_space
from initpuller.wire.backoff import IDLE_SECONDS, Retrier
from initpuller.workers import Workers
from shared import errors
from shared.checks import Outcome
from shared.manifestfile import read_manifest
from shared.memberpath import check_root_name
from shared.plexlibrary import DATABASE_FOLDER, DATABASES, PREFERENCES, server_folder

if TYPE_CHECKING:
    from initpuller.volume.ownership import Ownership
    from initpuller.volume.records import Receipt, State
    from initpuller.volume.staging import Staging
    from initpuller.wire.client import AgentClient
    from initpuller.workers import Worker
    from shared.manifestfile import ManifestFile
    from shared.pairing import Pairing
    from shared.protocol import Snapshot

_log = structlog.get_logger("puller")

_SCANS = 3
"""Times in one run that a snapshot is made which the agent then loses."""


@dataclass(frozen=True)
class PullOptions:
    """What the user wants, and how patient we are."""

    pairing: Pairing
    target: str
    ownership: Ownership
    exclude: list[str]
    jobs: int
    on_existing: OnExisting
    gate: VersionGate = field(default_factory=VersionGate)
    preferences: dict[str, str] = field(default_factory=dict)
    """Of Plex, to be set in the volume's copy."""
    retrier: Retrier = field(default_factory=Retrier)
    idle: float = IDLE_SECONDS
    """Seconds without a byte after which the agent counts as stalled."""


async def pull(options: PullOptions) -> None:
    """Bring the library onto the volume, or find that it is there.

    Raises:
        PlexodusError: the library's final name is then what it was before.
    """
    layout = open_layout(options.target)
    receipt = finished(layout)  # nothing else runs yet
    if receipt is not None:
        _log.info("everything is there", receipt=layout.receipt, verified=receipt.verified)
        await asyncio.to_thread(_sweep, layout)
        return
    with locked(layout), Workers(options.jobs) as workers:
        action = await asyncio.to_thread(look, layout, options.on_existing)
        if action is Action.NOTHING or action is Action.SKIP:
            return
        if await asyncio.to_thread(_conclude, layout, action):
            return
        with PullProgress() as progress:
            await _pull(layout, options, workers, progress)


async def _pull(
    layout: Layout, options: PullOptions, workers: list[Worker], progress: PullProgress
) -> None:
    # aiohttp takes longer to import than all else that a run needs which finds everything done.
    from initpuller.wire.client import AgentClient  # noqa: PLC0415

    async with AgentClient(options.pairing, options.idle) as client:
        for attempts_left in reversed(range(_SCANS)):
            try:
                await _transfer(layout, options, client, workers, progress)
            except errors.SnapshotGone:
                if not attempts_left:
                    raise
                _log.warning("the agent has lost the snapshot, scanning again")
            else:
                return


def _conclude(layout: Layout, action: Action) -> bool:
    """Do what can be done without the agent; whether that was all there was to do."""
    state = load_state(layout)
    if state is None:
        return False
    if action is Action.BEGIN_ANEW:
        _drop(layout)
    if state.receipt is None or action not in (Action.PUBLISH, Action.WRITE_RECEIPT):
        return False
    step = publish.publish if action is Action.PUBLISH else publish.seal
    step(layout, state, state.receipt)
    _published(layout, state.receipt)
    return True


async def _transfer(
    layout: Layout,
    options: PullOptions,
    client: AgentClient,
    workers: list[Worker],
    progress: PullProgress,
) -> None:
    """Scan, fetch, unpack, verify, publish."""
    progress.phase("scanning")
    look_first = asyncio.ensure_future(_preflight(options, client))
    try:
        snapshot = await options.retrier.run("the scan", lambda: client.scan(options.exclude))
        version = await look_first
    finally:
        look_first.cancel()
        await asyncio.gather(look_first, return_exceptions=True)
    name = snapshot.library.name
    check_root_name(os.fsencode(name))
    if snapshot.skipped:
        _log.warning("not library content, left out", paths=snapshot.skipped)
    action = await asyncio.to_thread(look, layout, options.on_existing, name)
    if action is Action.SKIP:
        return
    state = await asyncio.to_thread(_own_state, layout, snapshot, options.on_existing)
    manifest = await _manifest(layout, snapshot, client, options.retrier)
    work = await asyncio.to_thread(
        staging.begin, layout, state, snapshot, manifest, options.ownership
    )
    try:
        await asyncio.to_thread(check_space, work.fd, manifest, work.journal)
        try:
            await Assembly(work, client, options.retrier, workers, progress).run()
        except errors.NoSpace:
            await asyncio.to_thread(check_space, work.fd, manifest, work.journal)  # how much?
            raise
        progress.phase("publishing")
        receipt = await asyncio.to_thread(_prepare, work, options, version)
    finally:
        work.close()
    await asyncio.to_thread(publish.publish, layout, work.state, receipt)
    _published(layout, receipt)
    progress.done()


async def _preflight(options: PullOptions, client: AgentClient) -> str | None:
    """Refuse what would end badly, before anything is moved; the version of the source's Plex."""
    report = await options.retrier.run("the preflight", client.server)
    kind = await asyncio.to_thread(network_filesystem, options.target)
    gate = await completed(options.gate)
    checks = [*report.checks, gate.check(report.plex_version), check_filesystem(kind)]
    for check in checks:
        if check.outcome is Outcome.WARNING:
            _log.warning(check.found, check=check.name, hint=check.advice)
    failed = [check for check in checks if check.outcome is Outcome.FAILURE]
    if failed:
        raise errors.PreflightRefused(
            "; ".join(f"{check.name}: {check.found}" for check in failed),
            hint=" ".join(check.advice for check in failed),
        )
    return report.plex_version


def _prepare(work: Staging, options: PullOptions, version: str | None) -> Receipt:
    """Change what the user wants changed, and write down what has come."""
    name, preferences = work.state.snapshot.library.name, options.preferences
    if preferences:
        amend(work, preferences_name(name), lambda content: with_preferences(content, preferences))
    facts, server = None, server_folder(name)
    needed = (PREFERENCES, os.path.join(DATABASE_FOLDER, DATABASES[0]))
    if server and all(work.regular_file(os.path.join(server, each)) for each in needed):
        facts = read_facts(os.path.join(work.layout.staging, server), version)
    displace = options.on_existing is OnExisting.SET_ASIDE
    return publish.prepare(work, preferences, facts, displace=displace)


def _own_state(layout: Layout, snapshot: Snapshot, on_existing: OnExisting) -> State | None:
    """The state to go on from, if it is of this library."""
    state = load_state(layout)
    if state is None:
        return None
    told = on_existing is OnExisting.SET_ASIDE
    try:
        foreign = staging.refuse_foreign(layout, state, snapshot, told=told)
    except OSError as error:
        raise errors.storage_error(error, layout.folder) from error
    return None if foreign else state


async def _manifest(
    layout: Layout, snapshot: Snapshot, client: AgentClient, retrier: Retrier
) -> ManifestFile:
    """The checked manifest: the one on the volume if it is whole, or else from the agent."""
    path, root = layout.manifest(snapshot.id), os.fsencode(snapshot.library.name)
    try:
        manifest = await asyncio.to_thread(read_manifest, path, snapshot.id, root)
    except (FileNotFoundError, errors.IntegrityError):
        await retrier.run("the manifest", lambda: client.manifest(snapshot, path))
        manifest = await asyncio.to_thread(read_manifest, path, snapshot.id, root)
    staging.check_sums(manifest, snapshot)
    return manifest


def _published(layout: Layout, receipt: Receipt) -> None:
    _log.info(
        "published",
        library=layout.library(receipt.library.name),
        receipt=layout.receipt,
        entries=receipt.entries,
        bytes=receipt.content_bytes,
        set_aside=receipt.set_aside,
    )


def _drop(layout: Layout) -> None:
    try:
        staging.drop_work(layout)
    except OSError as error:
        raise errors.storage_error(error, layout.folder) from error


def _sweep(layout: Layout) -> None:
    """Remove what a run that was killed right after its receipt has left."""
    if not os.path.lexists(layout.state):
        return
    try:
        with locked(layout):
            staging.remove_leftovers(layout)
    except (errors.PlexodusError, OSError) as error:  # the library is whole all the same
        _log.warning("leftovers of the pull stay", path=layout.folder, reason=str(error))
