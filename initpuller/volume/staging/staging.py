"""The staging folder of one pull: started, resumed, or moved on from an earlier snapshot."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

from initpuller.volume.filesystem import FOLDER, NO_FILE, is_file
from initpuller.volume.records import transitions
from initpuller.volume.records.journal import count_done
from initpuller.volume.records.record_file import drop_files
from initpuller.volume.reuse.cleanup import discard_lost_blocks, prune, remove_paths
from initpuller.volume.reuse.matching import Changes, compare
from initpuller.volume.reuse.recorded import DAMAGED, Listing, open_records, read_listing
from initpuller.volume.staging import finishing
from initpuller.volume.staging.finishing import Extent
from shared.durable import syncfs
from shared.errors import ManifestSumsWrong, storage_error, storage_errors
from shared.presence import is_folder, is_there
from shared.timestamps import timestamp
from shared.tree.dir_stack import DirStack

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from initpuller.volume.fidelity import AttributePolicy
    from initpuller.volume.records.layout import Layout
    from initpuller.volume.records.pull_record import PullRecord
    from initpuller.volume.records.state import State
    from initpuller.volume.staging.unfinished import Unfinished
    from shared.frames.manifest_file import ManifestFile
    from shared.tree.manifest import Entry
    from shared.wire.protocol import Snapshot


class Staging:
    """The library being assembled, and the records of how much of it is there.

    Create it with :func:`begin`. Its methods block: call them from a worker thread. ``changes`` is
    everything that differs from what is in staging; None: that is unknown.
    """

    def __init__(
        self,
        record: PullRecord,
        listing: Listing,
        policy: AttributePolicy,
        changes: Changes | None,
    ) -> None:
        self.record, self.layout = record, record.layout
        self.manifest, self.policy = listing.manifest, policy
        is_new = not is_there(self.layout.staging)
        os.makedirs(self.layout.staging, mode=0o700, exist_ok=True)
        self.fd = os.open(self.layout.staging, FOLDER)
        recorded = open_records(self.layout, listing)
        self.journal, self.digests = recorded.journal, recorded.digests
        self._changes = changes
        self.is_small_delta = changes is not None
        """Only a few entries differ from what this process has just finished."""
        self._is_new = is_new and not self.journal.has_earlier_frames
        self._finisher = finishing.Finisher(self.fd, recorded, policy.ownership)

    @property
    def state(self) -> State:
        """The record of the pull, as it is now."""
        return self.record.current

    def clear(self) -> None:
        """Remove from staging what does not belong to the snapshot; safe to repeat."""
        if self.state.prune:
            # An earlier release put files there to rename them.
            shutil.rmtree(self.layout.moving, ignore_errors=True)
            if self._changes is not None:
                remove_paths(self.fd, self._changes.gone)
            elif is_there(self.layout.staged(self.state.snapshot.library.name)):
                prune(self.fd, self.manifest, self.journal)
            syncfs(self.fd)
            self.record.apply(transitions.prune_done)
        discard_lost_blocks(self.fd, self.manifest, self.journal)

    def close(self) -> None:
        """Close the folder and the journal."""
        self.journal.close()
        os.close(self.fd)

    def commit(self, frames: list[tuple[int, str]]) -> None:
        """Make unpacked frames durable, then journal them with their digests, or none of them."""
        with storage_errors(self.layout.staging):
            syncfs(self.fd)
            self.journal.done(frames)

    def finish(self, left: Unfinished) -> list[str]:
        """Make links, and set the attributes of folders and large files; safe to repeat.

        Take what this run's frames have left; return a line for each entry that differs. If none
        does, the next pass need not set attributes again: with Plex stopped, that would take long.
        """
        numbered: Iterable[tuple[int, Entry]]
        backwards: Iterator[Entry]
        if self._changes is not None:
            extent, numbered = Extent.CHANGES, self._changes.changed
            backwards = (entry for _, entry in reversed(self._changes.changed))
        elif self._is_new:
            extent, numbered, backwards = Extent.NEW, left.entries(), left.backwards()
        else:
            extent, numbered = Extent.ALL, enumerate(self.manifest)
            backwards = reversed(self.manifest)
        kept, ownership = self.policy.fidelity.kept, self.policy.ownership
        self._finisher.files_and_links(
            ((number, kept(entry)) for number, entry in numbered), all_files=self.state.reown
        )
        found = finishing.finish_attributes(self.fd, map(kept, backwards), ownership, extent)
        with storage_errors(self.layout.staging):
            syncfs(self.fd)
        found += left.differences()
        if self.state.reown and not found:
            self.record.apply(transitions.attributes_set)
        return found

    def close_folders(self) -> None:
        """Give folders their final modes, except for the library's own folder."""
        if not self.policy.ownership.privileged:
            finishing.close_folders(self.fd, self.manifest)
            with storage_errors(self.layout.staging):
                syncfs(self.fd)

    def regular_file(self, name: str) -> str | None:
        """Return the path of the file ``name`` in staging; None if a symlink leads to it."""
        path = os.path.join(self.layout.staging, name)
        try:
            with DirStack(self.fd) as folders:
                return path if is_file(*folders.parent(os.fsencode(name))) else None
        except OSError as error:
            if error.errno not in NO_FILE:
                raise storage_error(error, path) from error
            return None

    def distrust(self) -> None:
        """Have the next run remove what does not belong here, and set all attributes again."""
        self.record.apply(transitions.distrust)

    def forget(self, entries: list[tuple[int, Entry]]) -> None:
        """Have the next snapshot fetch these files again, though no frame of this one has them."""
        self.digests.put([(number, DAMAGED) for number, _ in entries])

    def may_be_damaged(self, number: int, entry: Entry) -> bool:
        """Return whether a file with a wrong digest is missing, or partly of an earlier run.

        If this run has written all of it, it is as it was read.
        """
        is_missing = not any(self.digests.block(range(number, number + 1)))
        frames = self.manifest.plan.frames_of(number, entry)
        return is_missing or any(map(self.journal.is_of_earlier_run, frames))

    def redo(self, entries: list[tuple[int, Entry]]) -> None:
        """Remove these files, and journal their frames as missing."""
        plan = self.manifest.plan
        frames = sorted({frame for each in entries for frame in plan.frames_of(*each)})
        with storage_errors(self.layout.folder):
            self.journal.redo(frames)
            remove_paths(self.fd, [entry.path for _, entry in entries])


def check_sums(manifest: ManifestFile, announced: Snapshot) -> None:
    """Raise ManifestSumsWrong if a manifest's sums are not those that were announced with it."""
    plan = manifest.plan
    mine = (plan.entries, plan.files, plan.content_bytes, len(plan))
    theirs = (announced.entries, announced.files, announced.content_bytes, announced.frames)
    if mine != theirs:
        raise ManifestSumsWrong(
            f"the manifest has (entries, files, bytes, frames) {mine}, announced were {theirs}"
        )


def begin(
    record: PullRecord,
    wanted: Listing,
    policy: AttributePolicy,
    done: ManifestFile | None = None,
) -> Staging:
    """Return the staging of a snapshot: new, resumed, or moved on from an earlier one.

    Args:
        record: of the volume; if a pull is under way there, it is of this library.
        wanted: the snapshot to assemble.
        policy: the attributes that its entries get.
        done: the manifest of what this process has just finished; staging is exactly that.

    Raises:
        SnapshotGone: the snapshot is a delta, and keeps a file that is not on the volume.
    """
    layout, state = record.layout, record.state
    snapshot, changes = wanted.snapshot, None
    earlier = state.snapshot if state is not None else None
    with storage_errors(layout.folder):
        if earlier is None:
            # Files of a snapshot without a record: somebody moved the record away to start over.
            drop_files(layout.journal(snapshot.id), layout.digests(snapshot.id))
        elif earlier.id != snapshot.id:
            finished = done if done is not None and done.name == earlier.id else None
            found = _write_records(layout, earlier, wanted, finished)
            changes = found if finished is not None and snapshot.base else None
        following = _record_run(record, snapshot, policy)
        if earlier is not None and earlier.id != snapshot.id:
            of_snapshot = layout.manifest, layout.journal, layout.digests, layout.sums
            drop_files(*(path(earlier.id) for path in (*of_snapshot, layout.omitted)))
    with storage_errors(layout.staging):
        staging = Staging(record, wanted, policy, changes if not following.reown else None)
        staging.clear()
    return staging


def _write_records(
    layout: Layout, earlier: Snapshot, wanted: Listing, done: ManifestFile | None
) -> Changes | None:
    """Write the journal and digests of ``wanted``, with all that ``earlier`` put on the volume.

    Until the state names ``wanted``, the records of ``earlier`` are valid. So a kill at any point
    leaves one snapshot whose records are complete. Return everything in which the two differ, None
    if that is unknown, or too much to list.
    """
    name = wanted.snapshot.id
    drop_files(layout.journal(name), layout.digests(name))  # a killed run may have left them
    if not is_there(layout.manifest(earlier.id)):
        return None
    before = Listing(earlier, done) if done else read_listing(layout, earlier)
    if before is None:
        return None
    with open_records(layout, before) as old, open_records(layout, wanted) as new:
        reuse = compare(old, wanted)
        new.digests.copy(old.digests, reuse.same)
        new.journal.carried(reuse.kept, reuse.held)
        syncfs(new.journal.fileno())
    return reuse.changes


def _record_run(record: PullRecord, snapshot: Snapshot, policy: AttributePolicy) -> State:
    owner, state = str(policy.ownership), record.state
    fidelity = policy.fidelity if policy.is_probed else None
    if state is None:
        is_left = is_there(record.layout.staged(snapshot.library.name))
        first = transitions.begin(snapshot, owner, timestamp(), fidelity, prune=is_left)
        return record.save(first)
    is_same = state.snapshot.id == snapshot.id
    change = transitions.resume if is_same else transitions.next_snapshot
    return record.apply(change, snapshot, owner, fidelity)


def delta_base(record: PullRecord) -> str:
    """Return the name of the snapshot that a delta can be based on, or an empty name.

    It is the snapshot in staging, if that is complete there and Plex ran during its scan. If it is
    a delta that is incomplete, or for which Plex was stopped, it is that delta's own base: whatever
    the next delta keeps was kept by this one, too.
    """
    layout, state = record.layout, record.state
    if state is None:
        return ""
    about = state.snapshot
    with storage_errors(layout.folder):
        if not is_folder(layout.staged(about.library.name)):
            return ""
        is_complete = count_done(layout.journal(about.id), about.frames) == about.frames
    return about.id if is_complete and about.kind != "cold" else about.base
