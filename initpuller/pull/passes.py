"""A pass: one scan, and what of it the volume lacks brought into staging."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from typing import TYPE_CHECKING

import structlog

from initpuller.pull.fatal_checks import check_for_pull
from initpuller.pull.omitted_entries import save_omitted
from initpuller.pull.placement import PlexContents, refuse_misplaced
from initpuller.pull.source_queries import SourceLook
from initpuller.pull.transfer import Assembly
from initpuller.volume import cleanup
from initpuller.volume.decision import Action, OnExisting
from initpuller.volume.fitness.attribute_policy import VolumeFit
from initpuller.volume.inspect import look, name_taken
from initpuller.volume.publish.rehearsal import is_to_be_taken_back, take_back
from initpuller.volume.reuse.recorded import Listing
from initpuller.volume.space import check_room_for_delta, check_space
from initpuller.volume.staging import staging
from shared import errors
from shared.checks import LINKS_OUT_ADVICE, duration, size
from shared.frames.manifest_file import read_manifest
from shared.frames.sha256sums import max_bytes
from shared.tree.member_path import check_root_name
from shared.wire.protocol import SnapshotRequest

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from initpuller.agent_client.client import AgentClient
    from initpuller.pull.options import PullOptions
    from initpuller.report.progress import PullProgress
    from initpuller.volume.fitness.requirements import Needs
    from initpuller.volume.records.pull_record import PullRecord
    from initpuller.volume.staging.staging import Staging
    from initpuller.workers.pool import Worker
    from shared.frames.manifest_file import ManifestFile
    from shared.tree.manifest import Entry
    from shared.wire.protocol import Kind, Library, Snapshot

_log = structlog.get_logger("puller")

_SHRINKS = 0.8
"""A live pass that moves more than this part of what the one before moved is the last one, too."""


class Passes:
    """The passes of one run.

    Args:
        record: of the volume.
        options: what the user wants.
        client: the agent.
        workers: who bring frames.
        progress: where people look.
    """

    def __init__(
        self,
        record: PullRecord,
        options: PullOptions,
        client: AgentClient,
        workers: list[Worker],
        progress: PullProgress,
    ) -> None:
        self.version: str | None = None
        """Of the source's Plex."""
        self.databases: dict[str, str] = {}
        """What the agent's check of each of the source's databases found."""
        self._record, self._layout = record, record.layout
        self._options = options
        self._client = client
        self._workers = workers
        self._progress = progress
        self._is_looked_at = self._is_plex = self._are_links_told = False
        self._fit = VolumeFit(record.layout, options.ownership)
        self._done: ManifestFile | None = None
        """What was finished last, if nothing was wrong with what is on the volume."""
        self._look: SourceLook
        self._asked: asyncio.Future[None] | None = None

    async def live(self, kind: Kind = "live", *, is_delta: bool) -> bool:
        """Pass after pass while Plex runs, until there is little left, or it gets no less.

        Args:
            kind: of the snapshots.
            is_delta: whether what an earlier run brought can be asked for as a base.

        Returns:
            Whether there is anything to be done with this volume.

        Raises:
            PlexodusError: what is on the volume stays, and the next run goes on from there.
        """
        moved_before, is_over = None, False
        while not is_over:
            began = time.monotonic()
            work = await self.begin(kind, is_delta=is_delta)
            if work is None:
                return False
            try:
                moved = await self._bring_live(work)
            finally:
                work.close()
            seconds = time.monotonic() - began
            _log.info("live pass", moved=size(moved), took=duration(seconds))
            await self._client.tell("pass", f"Live pass: {size(moved)} in {duration(seconds)}")
            is_over = seconds < self._options.downtime or (
                moved_before is not None and moved > _SHRINKS * moved_before
            )
            moved_before, is_delta = moved, True
        if self._options.cutover and not self._options.until_ready:
            await asyncio.to_thread(check_room_for_delta, self._layout.staging)
        return True

    async def begin(
        self, kind: Kind, *, is_delta: bool, is_stopped: bool = False
    ) -> Staging | None:
        """Scan, and make staging ready for what came of it; None if nothing is to be done.

        Args:
            kind: whether files may change meanwhile.
            is_delta: whether what is complete in staging can be asked for as a base.
            is_stopped: Plex is, as the agent has proved: each second counts.

        Raises:
            SnapshotGone: the agent, or the volume, has not what the delta is based on.
            PlexodusError: whatever else keeps a pull from beginning.
        """
        layout, options = self._layout, self._options
        base = await asyncio.to_thread(staging.delta_base, self._record) if is_delta else ""
        self._progress.phase("scanning")
        request = SnapshotRequest(kind, options.exclude, base, placed=layout.places_server)
        look_first = asyncio.ensure_future(self._preflight())
        try:
            snapshot = await options.retrier.run("the scan", lambda: self._client.scan(request))
            await look_first
        finally:
            look_first.cancel()
            await asyncio.gather(look_first, return_exceptions=True)
        self._progress.of(snapshot.id)
        name = snapshot.library.name
        check_root_name(os.fsencode(name))
        if (snapshot.kind, snapshot.base) != (kind, base):
            raise errors.ProtocolViolation("a snapshot of another kind than was asked for")
        if await asyncio.to_thread(is_to_be_taken_back, self._record, rehearse=options.rehearse):
            _, contents, _ = await self._manifest(snapshot)
            self._refuse_useless(name, contents)
            await asyncio.to_thread(self._take_back_rehearsal, snapshot)
        action = await asyncio.to_thread(
            look,
            self._record,
            options.on_existing,
            name,
            rehearse=options.rehearse,
            depth=options.existing_check,
        )
        if action is Action.REFUSE_TAKEN or (is_stopped and action is Action.SKIP):
            raise name_taken(layout.library(name))
        if action is Action.SKIP:
            self._progress.skipped()
            return None
        await asyncio.to_thread(
            cleanup.refuse_foreign,
            self._record,
            snapshot,
            sets_aside=options.on_existing is OnExisting.SET_ASIDE,
        )
        manifest, contents, needs = await self._manifest(snapshot)
        await save_omitted(self._client, options.retrier, layout, snapshot)
        self._refuse_useless(snapshot.library.name, contents)
        most = max_bytes(manifest.plan.files, manifest.plan.path_bytes)
        self._look = SourceLook(self._client, options.retrier, layout, snapshot, most)
        self._asked = asyncio.ensure_future(self._look.sums()) if is_stopped else None
        state = self._record.state
        earlier = state.fidelity if state is not None else None
        policy = await asyncio.to_thread(self._fit.policy, needs, manifest, earlier)
        work = await asyncio.to_thread(
            staging.begin, self._record, Listing(snapshot, manifest), policy, self._done
        )
        self._done = None
        return work

    def _refuse_useless(self, name: str, contents: PlexContents) -> None:
        """Refuse to stop Plex, or to rehearse it, for a library that it would not find.

        Raises:
            PreflightRefused: see :mod:`initpuller.pull.placement`.
        """
        options = self._options
        if options.cutover or (options.rehearse and self._is_plex):
            refuse_misplaced(self._layout, name)
            contents.refuse_incomplete()
        if contents.links_out and not self._are_links_told:
            _log.warning(
                "symlinks that lead out of the library",
                count=contents.links_out,
                examples=contents.some_links_out,
                hint=LINKS_OUT_ADVICE,
            )
        self._are_links_told = True

    def _take_back_rehearsal(self, snapshot: Snapshot) -> None:
        """Return a rehearsal to staging, now that neither side refuses this pull."""
        options = self._options
        if options.on_existing is not OnExisting.SET_ASIDE:
            cleanup.refuse_foreign(self._record, snapshot, sets_aside=False)
        take_back(self._record, rehearse=options.rehearse)

    async def is_unchanged(self, snapshot: str) -> bool:
        """Return whether the library on the VM is still as a snapshot with Plex stopped says.

        Raises:
            AgentUnreachable: the agent cannot be asked.
            PlexodusError: it does not accept the request.
        """
        try:
            await self._options.retrier.run(
                "the check of the source", lambda: self._client.check(snapshot)
            )
        except (errors.SourceChanged, errors.SnapshotGone) as error:
            _log.warning("the library has changed since it was verified", reason=str(error))
            return False
        return True

    async def bring(self, work: Staging) -> None:
        """Bring what a snapshot has that is not live, and verify all of it.

        Raises:
            PlexodusError: what is on the volume stays, and the next run goes on from there.
        """
        assembly, began = self._assembly(work), time.monotonic()
        depth = self._options.database_check
        await self._within_space(work, lambda: assembly.run(self._asked, depth))
        seconds = duration(time.monotonic() - began)
        moved = size(assembly.moved_bytes)
        kind = work.state.snapshot.kind.capitalize()
        await self._client.tell("pass", f"{kind} pass, verified: {moved} in {seconds}")
        entries = work.manifest.plan.entries
        self._progress.reached("Verified", f"{entries} entries are byte for byte as on the VM")

    async def _bring_live(self, work: Staging) -> int:
        """Bring what a live snapshot has; the bytes that were moved for it."""
        assembly = self._assembly(work)
        await self._within_space(work, assembly.run_live)
        if assembly.is_as_told:
            self._done = work.manifest
        return assembly.moved_bytes

    def _assembly(self, work: Staging) -> Assembly:
        retrier, workers = self._options.retrier, self._workers
        return Assembly(work, self._look, self._client, retrier, workers, self._progress)

    async def close(self) -> None:
        """Nothing is asked any more."""
        if self._asked is not None:
            self._asked.cancel()
            await asyncio.gather(self._asked, return_exceptions=True)

    async def _within_space(self, work: Staging, run: Callable[[], Awaitable[None]]) -> None:
        if not work.is_small_delta:  # else the pass before had room for it, or there is not much
            await asyncio.to_thread(check_space, work.fd, work.manifest, work.journal)
        self._fit.require(work.policy)
        try:
            await run()
        except errors.NoSpace:
            await asyncio.to_thread(check_space, work.fd, work.manifest, work.journal)  # how much?
            raise

    async def _preflight(self) -> None:
        """Refuse a pull that a check rules out, before anything is moved. Does so once a run."""
        if self._is_looked_at:
            return
        options = self._options
        until = "ready" if options.until_ready else "done"
        what = "Rehearsal" if options.rehearse else f"Pull until {until}"
        await self._client.tell("pull", f"{what} started on {socket.gethostname()}")
        self._progress.reached("Started", f"{what} from {options.pairing.host}")
        source = await check_for_pull(self._client, options, self._layout)
        self._is_plex, self.version = source.is_plex, source.plex_version
        self.databases, self._is_looked_at = source.databases, True

    async def _manifest(self, snapshot: Snapshot) -> tuple[ManifestFile, PlexContents, Needs]:
        """Return the checked manifest, what is in it, and what it needs of the volume.

        The manifest is the one on the volume if that is whole, or else the agent's.
        """
        path, root = self._layout.manifest(snapshot.id), os.fsencode(snapshot.library.name)
        wanted, library = (path, snapshot.id, root, snapshot.kind), snapshot.library
        try:
            contents, needs, see = self._observed(library)
            manifest = await asyncio.to_thread(read_manifest, *wanted, see)
        except (FileNotFoundError, errors.IntegrityError):
            await self._options.retrier.run(
                "the manifest", lambda: self._client.manifest(snapshot, path)
            )
            contents, needs, see = self._observed(library)
            manifest = await asyncio.to_thread(read_manifest, *wanted, see)
        staging.check_sums(manifest, snapshot)
        return manifest, contents, needs

    def _observed(self, library: Library) -> tuple[PlexContents, Needs, Callable[[Entry], None]]:
        """Return what a manifest is asked for, and what adds an entry to both."""
        contents = PlexContents(library.name, library.path)
        needs, take = self._fit.collect()

        def see(entry: Entry) -> None:
            contents.add(entry)
            take(entry)

        return contents, needs, see
