"""A pass: one scan, and the transfer of what the volume lacks of it into staging."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Self, TypeVar

import structlog

from initpuller.cancellation import cancel, in_thread, made_in_thread
from initpuller.pull.checks.fatal_checks import check_databases, check_for_pull
from initpuller.pull.checks.placement import PlexContents, refuse_misplaced
from initpuller.pull.options import Mode, PullContext
from initpuller.pull.source_queries import SourceQueries
from initpuller.pull.transfer import Assembly
from initpuller.volume import cleanup
from initpuller.volume.decision import Action, OnExisting
from initpuller.volume.fitness.volume_fit import VolumeFit
from initpuller.volume.inspect import look, name_taken
from initpuller.volume.publish.unpublish import is_to_be_taken_back, take_back
from initpuller.volume.reuse.recorded import Listing
from initpuller.volume.space import check_room_for_delta, check_space
from initpuller.volume.staging import staging
from initpuller.volume.staging.staging import Staging
from shared import errors
from shared.checks import LINKS_OUT_ADVICE, duration, size
from shared.frames.codec import Encoding
from shared.frames.manifest_file import Watch, read_manifest
from shared.tree.member_path import check_root_name
from shared.wire.protocol import SnapshotRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from initpuller.pull.checks.fatal_checks import CheckedSource
    from initpuller.volume.fitness.requirements import Needs
    from shared.frames.manifest_file import ManifestFile
    from shared.tree.manifest import Entry
    from shared.wire.protocol import Kind, Snapshot

T = TypeVar("T")

_log = structlog.get_logger("puller")

_SHRINKS = 0.8
"""A live pass that moves more than this part of what the one before moved is the last one, too."""

_WORTH_A_PROBE = 64 * 1024 * 1024
"""Bytes of tar: less takes a fraction of a second, however it is encoded."""
_PROBE_SECONDS = 0.05
_FASTER_THAN_ZSTD = 300_000_000
"""Bytes a second. Making a byte smaller and restoring it takes 3 ns of a core, and saves three
quarters of it at most: on a network that is faster than this, that is no gain."""


class NothingToDo(Exception):
    """A library that is not ours is there, and the user wants it left alone."""


@dataclass(frozen=True)
class Scan:
    """The request of a pass to the agent."""

    kind: Kind
    """Whether files may change meanwhile."""
    is_delta: bool = True
    """What is complete in staging can be asked for as a base."""
    is_stopped: bool = False
    """Plex is, as the agent has proved: each second counts."""
    done: ManifestFile | None = None
    """What staging holds exactly, if this process has just made sure of that."""


@dataclass(frozen=True)
class Scanned:
    """A snapshot with its checked manifest, and what was found in it."""

    snapshot: Snapshot
    manifest: ManifestFile
    contents: PlexContents
    needs: Needs


@dataclass(frozen=True)
class Pass:
    """One scan, with staging ready for what the volume lacks of it."""

    staging: Staging
    queries: SourceQueries
    source: CheckedSource
    sums: asyncio.Future[None] | None
    """The request for all digests, if it runs since the scan because Plex is stopped."""

    async def __aenter__(self) -> Self:
        """Return the pass."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close staging, and cancel what is still asked."""
        try:
            await cancel(self.sums)
        finally:
            self.staging.close()


class Passes:
    """The passes of one run."""

    def __init__(self, context: PullContext) -> None:
        self._context = context
        self._fit = VolumeFit(context.layout, context.options.ownership)
        self._checks = _ChecksOnce(context)
        self._has_warned_of_links = False
        self._is_fast: bool | None = None
        """Whether the network is faster than a core compresses; None: not measured."""

    async def __aenter__(self) -> Self:
        """Return the passes."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Cancel the check of the databases, if it still runs."""
        await self._checks.cancel()

    async def databases(self) -> dict[str, str]:
        """Wait for the check of the source's databases; return its findings, by check.

        Raise PreflightRefused if a database is damaged.
        """
        return await self._checks.databases()

    async def live(self, scan: Scan) -> ManifestFile | None:
        """Transfer while Plex runs, pass after pass, until little is left, or it gets no less.

        The source's databases are known to be sound at the end. Return the manifest that staging
        holds exactly, if it does.

        Raises:
            NothingToDo: the library on the volume is to be left alone.
            PlexodusError: what is on the volume stays, and the next run resumes from it.
        """
        options, moved_before, is_over = self._context.options, None, False
        done: ManifestFile | None = None
        while not is_over:
            began = time.monotonic()
            async with await self.begin(scan) as work:
                encoding = await self._encoding(work.staging.manifest)
                assembly = Assembly(work.staging, work.queries, self._context, encoding)
                is_exact = await self._within_space(work.staging, assembly.run_live)
                done = work.staging.manifest if is_exact else None
            await self.databases()  # counts as time of the pass: Plex changes files meanwhile
            seconds, moved = time.monotonic() - began, assembly.moved_bytes
            _log.info("live pass", moved=size(moved), took=duration(seconds))
            about = f"Live pass: {size(moved)} in {duration(seconds)}"
            await self._context.client.tell("pass", about)
            is_over = seconds < options.downtime or (
                moved_before is not None and moved > _SHRINKS * moved_before
            )
            moved_before, scan = moved, Scan(scan.kind, done=done)
        if options.mode is Mode.MOVE:
            await in_thread(check_room_for_delta, self._context.layout.staging)
        return done

    async def begin(self, scan: Scan) -> Pass:
        """Scan, and make staging ready for the result.

        Raises:
            NothingToDo: the library on the volume is to be left alone.
            SnapshotGone: the agent, or the volume, lacks what the delta is based on.
        """
        context, options = self._context, self._context.options
        snapshot, source = await self._scan(scan)
        await self._return_rehearsal(snapshot, source)
        await self._refuse_existing(snapshot.library.name, scan)
        sets_aside = options.on_existing is OnExisting.SET_ASIDE
        await in_thread(cleanup.refuse_foreign, context.record, snapshot, sets_aside=sets_aside)
        queries = SourceQueries(context, snapshot)
        scanned = await self._manifest(snapshot, queries)
        await queries.omitted()
        self._refuse_useless(scanned, source)
        sums = asyncio.ensure_future(queries.sums(scanned.manifest)) if scan.is_stopped else None
        try:
            stage = partial(self._stage, scanned, scan.done)
            work = await made_in_thread(stage, Staging.close)
        except BaseException:
            await cancel(sums)
            raise
        return Pass(work, queries, source, sums)

    async def _scan(self, scan: Scan) -> tuple[Snapshot, CheckedSource]:
        """Have the agent scan; check both sides meanwhile, if that was not done in this run."""
        context, options = self._context, self._context.options
        base = await in_thread(staging.delta_base, context.record) if scan.is_delta else ""
        context.progress.phase("scanning")
        placed = context.layout.places_server
        request = SnapshotRequest(scan.kind, options.exclude, base, placed=placed)
        checks = asyncio.ensure_future(self._checks.result())
        try:
            snapshot = await options.retrier.run("the scan", lambda: context.client.scan(request))
            source = await checks
        finally:
            await cancel(checks)
        context.progress.of(snapshot.id)
        check_root_name(os.fsencode(snapshot.library.name))
        if (snapshot.kind, snapshot.base) != (scan.kind, base):
            raise errors.ProtocolViolation("a snapshot of another kind than was asked for")
        return snapshot, source

    async def _return_rehearsal(self, snapshot: Snapshot, source: CheckedSource) -> None:
        """Return a published rehearsal to staging, if neither side refuses this pull."""
        record, options = self._context.record, self._context.options
        rehearse = options.mode is Mode.REHEARSE
        if not await in_thread(is_to_be_taken_back, record, rehearse=rehearse):
            return
        scanned = await self._manifest(snapshot, SourceQueries(self._context, snapshot))
        self._refuse_useless(scanned, source)
        if options.on_existing is not OnExisting.SET_ASIDE:
            await in_thread(cleanup.refuse_foreign, record, snapshot, sets_aside=False)
        await in_thread(take_back, record, options.on_existing, rehearse=rehearse)

    async def _refuse_existing(self, name: str, scan: Scan) -> None:
        """Inspect the volume again, now that the library's name is known.

        Raise NothingToDo or TargetConflict for a library that is not ours.
        """
        context, options = self._context, self._context.options
        action = await in_thread(
            look,
            context.record,
            options.on_existing,
            name,
            rehearse=options.mode is Mode.REHEARSE,
            depth=options.existing_check,
        )
        if action is Action.REFUSE_TAKEN or (scan.is_stopped and action is Action.SKIP):
            raise name_taken(context.layout.library(name))
        if action is Action.SKIP:
            context.progress.skipped()
            raise NothingToDo

    def _refuse_useless(self, scanned: Scanned, source: CheckedSource) -> None:
        """Refuse to stop Plex, or to rehearse it, for a library that it would not find.

        One of folders alone is always refused: a later run could not tell it from those that
        Kubernetes makes.
        """
        mode, contents, needs = self._context.options.mode, scanned.contents, scanned.needs
        if not (scanned.snapshot.files or needs.link or needs.has_hard_links):
            raise errors.PreflightRefused(
                "the library has only folders, and not a single file",
                path=scanned.snapshot.library.path,
                hint="Check the agent's --library and this pull's --exclude.",
            )
        if mode.is_for_cutover or (mode is Mode.REHEARSE and source.is_plex):
            refuse_misplaced(self._context.layout, scanned.snapshot.library.name)
            contents.refuse_incomplete()
        if contents.links_out and not self._has_warned_of_links:
            _log.warning(
                "symlinks that lead out of the library",
                count=contents.links_out,
                examples=contents.some_links_out,
                hint=LINKS_OUT_ADVICE,
            )
        self._has_warned_of_links = True

    def _stage(self, scanned: Scanned, done: ManifestFile | None) -> Staging:
        """Probe the volume if that is needed, and make staging ready for the snapshot."""
        record, manifest = self._context.record, scanned.manifest
        earlier = record.state.fidelity if record.state is not None else None
        policy = self._fit.policy(scanned.needs, manifest, earlier)
        return staging.begin(record, Listing(scanned.snapshot, manifest), policy, done)

    async def bring(self, work: Pass) -> None:
        """Transfer what a snapshot has that is not live, and verify all of it."""
        encoding = await self._encoding(work.staging.manifest)
        assembly = Assembly(work.staging, work.queries, self._context, encoding)
        began = time.monotonic()
        await self._within_space(work.staging, lambda: assembly.run(work.sums))
        seconds = duration(time.monotonic() - began)
        kind = work.staging.state.snapshot.kind.capitalize()
        about = f"{kind} pass, verified: {size(assembly.moved_bytes)} in {seconds}"
        await self._context.client.tell("pass", about)
        entries = work.staging.manifest.plan.entries
        verified = f"{entries} entries are byte for byte as on the VM"
        self._context.progress.reached("Verified", verified)

    async def _encoding(self, manifest: ManifestFile) -> Encoding:
        """Return the encoding in which the frames arrive soonest over this network."""
        context = self._context
        if self._is_fast is None and manifest.plan.tar_bytes > _WORTH_A_PROBE:
            probe = partial(context.client.probe, _PROBE_SECONDS)
            rate = await context.options.retrier.run("the probe", probe)
            self._is_fast = rate > _FASTER_THAN_ZSTD
            _log.info("network measured", rate=f"{size(int(rate))}/s", compresses=not self._is_fast)
        return Encoding.TAR if self._is_fast else Encoding.ZSTD

    async def _within_space(self, work: Staging, run: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Check the space for a transfer, and run it; a full volume is reported with the need."""
        if not work.is_small_delta:  # else the pass before had room for it, or there is not much
            await in_thread(check_space, work.fd, work.manifest, work.journal)
        self._fit.require(work.policy)
        try:
            with errors.disk_errors(self._context.layout.folder):
                return await self._checks.beside(run())
        except errors.NoSpace:
            await in_thread(check_space, work.fd, work.manifest, work.journal)  # how much?
            raise

    async def _manifest(self, snapshot: Snapshot, queries: SourceQueries) -> Scanned:
        """Return the checked manifest: the one on the volume if it is whole, or the agent's."""
        try:
            scanned = await in_thread(self._read_manifest, snapshot)
        except (FileNotFoundError, errors.IntegrityError):
            await queries.manifest()
            scanned = await in_thread(self._read_manifest, snapshot)
        staging.check_sums(scanned.manifest, snapshot)
        return scanned

    def _read_manifest(self, snapshot: Snapshot) -> Scanned:
        library, path = snapshot.library, self._context.layout.manifest(snapshot.id)
        contents = PlexContents(library.name, library.path)
        needs, take = self._fit.collect()

        def see(entry: Entry) -> None:
            contents.add(entry)
            take(entry)

        root = os.fsencode(library.name)
        watch = Watch(see, contents.top, contents.paths)
        manifest = read_manifest(path, snapshot.id, root, snapshot.kind, watch)
        return Scanned(snapshot, manifest, contents, needs)


class _ChecksOnce:
    """The checks of a run: made beside its first scan, those of the databases beside a transfer."""

    def __init__(self, context: PullContext) -> None:
        self._context = context
        self._found: CheckedSource | None = None
        self._databases: asyncio.Future[dict[str, str]] | None = None

    async def result(self) -> CheckedSource:
        """Return what the quick checks found; run them if they have not been run."""
        if self._found is None:
            context = self._context
            what = context.options.mode.title
            await context.client.tell("pull", f"{what} started on {socket.gethostname()}")
            context.progress.reached("Started", f"{what} from {context.options.pairing.host}")
            self._found = await check_for_pull(context.client, context.options, context.layout)
        return self._found

    async def databases(self) -> dict[str, str]:
        """Wait for the check of the databases; begin it if that was not done."""
        check = self._begun()
        if not check.done():
            _log.info("waiting for the agent's check of the databases")
        return await asyncio.shield(check)

    async def beside(self, transfer: Coroutine[Any, Any, T]) -> T:
        """Await a transfer while the databases are checked; damage ends the transfer."""
        check, transferring = self._begun(), asyncio.ensure_future(transfer)
        either: set[asyncio.Future[Any]] = {check, transferring}
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if not transferring.done():
                check.result()
            return await transferring
        finally:
            await cancel(transferring)

    async def cancel(self) -> None:
        """Cancel the check of the databases, if it still runs."""
        await cancel(self._databases)

    def _begun(self) -> asyncio.Future[dict[str, str]]:
        if self._databases is None:
            check = check_databases(self._context.client, self._context.options)
            self._databases = asyncio.ensure_future(check)
        return self._databases
