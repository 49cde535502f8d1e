"""One pull's work on the volume: begun, gone on with, or taken over from an earlier snapshot."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Self

from initpuller.volume.names import remove
from initpuller.volume.records.journal import Journal, count_done
from initpuller.volume.records.state import State, load_state, save_state
from initpuller.volume.reuse.changes import Delta
from initpuller.volume.reuse.cleanup import forget_lost, prune
from initpuller.volume.reuse.matching import drop_files
from initpuller.volume.reuse.renames import Moves
from initpuller.volume.reuse.transition import take_over
from initpuller.volume.staging.final_attributes import conform
from initpuller.volume.staging.links_and_large_files import Finisher
from initpuller.volume.timestamps import timestamp
from shared.durable import syncfs
from shared.errors import ManifestSumsWrong, storage_error
from shared.frames.file_digests import FileDigests
from shared.tree.dir_stack import DirStack

if TYPE_CHECKING:
    from initpuller.volume.fidelity import AttributePolicy, Fidelity
    from initpuller.volume.ownership import Ownership
    from initpuller.volume.records.layout import Layout
    from initpuller.volume.staging.blocks import Unpacked
    from shared.frames.manifest_file import ManifestFile
    from shared.tree.manifest import Entry
    from shared.wire.protocol import Snapshot


class Staging:
    """The library being assembled, and the records of how far it is.

    Made by :func:`begin`. Its methods block: call them from a worker thread.
    """

    def __init__(
        self,
        layout: Layout,
        state: State,
        manifest: ManifestFile,
        policy: AttributePolicy,
        delta: Delta | None,
    ) -> None:
        name = manifest.name
        self.layout = layout
        self.state = state
        self.manifest = manifest
        self.policy = policy
        is_new = not os.path.lexists(layout.staging)
        os.makedirs(layout.staging, mode=0o700, exist_ok=True)
        self.fd = os.open(layout.staging, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        self.journal = Journal(layout.journal(name), len(manifest.plan))
        self._delta = delta
        self.is_small_delta = delta is not None
        """A little is brought onto what this same process has just brought."""
        self._is_fresh = is_new and not self.journal.has_earlier_frames
        self.digests = FileDigests(layout.digests(name), manifest.plan.entries)
        self.finisher = Finisher(self.fd, manifest, policy.ownership, self.journal, self.digests)

    @classmethod
    def resume(
        cls,
        layout: Layout,
        state: State,
        manifest: ManifestFile,
        policy: AttributePolicy,
        delta: Delta | None,
        moves: Moves,
    ) -> Self:
        """Go on with what ``state`` describes; remove what an earlier snapshot left.

        Args:
            layout: the volume.
            state: what it says.
            manifest: what shall be there.
            policy: which attributes it gets.
            delta: all that is not as it shall be, where that is known.
            moves: what was renamed, as far as that is known.

        Raises:
            StorageError: as the filesystem says.
        """
        try:
            staging = cls(layout, state, manifest, policy, delta)
            if state.prune:
                staging._prune(moves)
                syncfs(staging.fd)
                state.prune = False
                save_state(layout, state)
            forget_lost(staging.fd, manifest, staging.journal)
        except OSError as error:
            raise storage_error(error, layout.staging) from error
        return staging

    def _prune(self, moves: Moves) -> None:
        moves.set_aside(self.fd, self.layout.moving)
        if self._delta is not None:
            self._delta.remove_gone(self.fd)
        elif os.path.lexists(self.layout.staged(self.state.snapshot.library.name)):
            prune(self.fd, self.manifest, self.journal)
        moves.put_in_place(self.fd, self.layout.moving)

    def close(self) -> None:
        """Close what is open."""
        self.journal.close()
        os.close(self.fd)

    def commit(self, frames: list[tuple[int, str]]) -> None:
        """Make unpacked frames durable, then journal them with their digests.

        Raises:
            StorageError: as the filesystem says; none of them counts then.
        """
        try:
            syncfs(self.fd)
            self.journal.done(frames)
        except OSError as error:
            raise storage_error(error, self.layout.staging) from error

    def finish(self, frames: list[Unpacked]) -> list[str]:
        """Links, attributes of folders and large files; safe to do again.

        If all is of this run, what its frames have settled needs no other look; nor does what this
        process has settled before, and no delta changes.

        Args:
            frames: what came of those of this run, in order.

        Returns:
            What is not as it should be, one line each.

        Raises:
            StorageError: as the filesystem says.
        """
        are_all, changed = False, [each for frame in frames for each in frame.late]
        if self._delta is not None:
            changed = self._delta.changed()
        elif not self._is_fresh:
            are_all = True
        numbered = enumerate(self.manifest) if are_all else changed
        backwards = (
            reversed(self.manifest) if are_all else (entry for _, entry in reversed(changed))
        )
        kept, ownership = self.policy.fidelity.kept, self.policy.ownership
        self.finisher.files_and_links(
            ((number, kept(entry)) for number, entry in numbered), all_files=self.state.reown
        )
        backwards = map(kept, backwards)
        found = conform(self.fd, backwards, ownership, are_all=are_all, are_new=self._is_fresh)
        try:
            syncfs(self.fd)
        except OSError as error:
            raise storage_error(error, self.layout.staging) from error
        return found + [line for frame in frames for line in frame.differences]

    def regular_file(self, name: str) -> str | None:
        """The path of the file ``name`` below staging; None if it is none, or behind a symlink."""
        path, top = os.path.join(self.layout.staging, name), os.path.realpath(self.layout.staging)
        is_plain = os.path.realpath(path) == os.path.join(top, name) and os.path.isfile(path)
        return path if is_plain else None

    def distrust(self) -> None:
        """Have the next run remove what does not belong here, and set all attributes again.

        Raises:
            StorageError: as the filesystem says.
        """
        self.state.prune = self.state.reown = True
        save_state(self.layout, self.state)

    def forget(self, entries: list[tuple[int, Entry]]) -> None:
        """Have no later snapshot take these files over, which are in no frame of this one.

        Raises:
            OSError: as the filesystem says.
        """
        self.digests.put([(number, None) for number, _ in entries])

    def redo(self, entries: list[tuple[int, Entry]]) -> None:
        """Remove these files, and journal their frames as not there.

        Raises:
            StorageError: as the filesystem says.
        """
        plan = self.manifest.plan
        frames = sorted({frame for each in entries for frame in plan.frames_of(*each)})
        try:
            self.journal.redo(frames)
            with DirStack(self.fd, create=True) as folders:
                for _, entry in entries:
                    folder, name = folders.parent(entry.path)
                    remove(folder, name)
        except OSError as error:
            raise storage_error(error, self.layout.folder) from error


def check_sums(manifest: ManifestFile, announced: Snapshot) -> None:
    """Refuse a manifest that does not add up to what was announced with it.

    Raises:
        ManifestSumsWrong: entries, files, bytes or frames differ.
    """
    plan = manifest.plan
    mine = (plan.entries, plan.files, plan.content_bytes, len(plan))
    theirs = (announced.entries, announced.files, announced.content_bytes, announced.frames)
    if mine != theirs:
        raise ManifestSumsWrong(
            f"the manifest has (entries, files, bytes, frames) {mine}, announced were {theirs}"
        )


def begin(
    layout: Layout,
    state: State | None,
    snapshot: Snapshot,
    manifest: ManifestFile,
    policy: AttributePolicy,
    done: ManifestFile | None = None,
) -> Staging:
    """Staging for ``snapshot``: new, gone on with, or taken over from the one in ``state``.

    Args:
        layout: the volume.
        state: what it says, if it says something of this library.
        snapshot: what shall be there.
        manifest: all of it.
        policy: which attributes it gets.
        done: what this process has just finished, if anything: staging is exactly so.

    Raises:
        StorageError: as the filesystem says.
    """
    delta, moves, ownership = None, Moves(), policy.ownership
    found, is_next = Delta(), False
    if state is None:
        # Records without a state: someone moved it away to begin anew.
        drop_files(layout.journal(snapshot.id), layout.digests(snapshot.id))
        anew = os.path.lexists(layout.staged(snapshot.library.name))
        state = State("transferring", snapshot, str(ownership), timestamp(), prune=anew)
    elif state.snapshot.id == snapshot.id:
        _another_run(state, ownership)
    else:
        if done is not None and done.name != state.snapshot.id:
            done = None
        try:
            state = take_over(layout, state, snapshot, manifest, ownership, found, moves, done)
        except OSError as error:
            raise storage_error(error, layout.folder) from error
        is_next = done is not None and bool(snapshot.base)
    if policy.is_probed:
        _keep_by(state, policy.fidelity)
    if is_next and not state.reown and found.is_small:
        delta = found
    save_state(layout, state)
    return Staging.resume(layout, state, manifest, policy, delta, moves)


def _keep_by(state: State, fidelity: Fidelity) -> None:
    """Have all attributes set again if what is in staging was given others."""
    if state.fidelity is not None and state.fidelity != fidelity:
        state.reown = True
    state.fidelity = fidelity


def _another_run(state: State, ownership: Ownership) -> None:
    state.phase = "transferring"
    state.receipt = None
    state.runs += 1
    state.reown = state.reown or state.owner != str(ownership)
    state.owner = str(ownership)


def delta_base(layout: Layout) -> str:
    """The snapshot that a delta can be based on: what it keeps is in staging. Or nothing.

    That is the one which is complete there, if Plex ran for it. Of a delta that is not complete, or
    was made with Plex stopped, it is that one's own base: whatever is kept since then was kept by
    it, too.

    Raises:
        StorageError: the state cannot be read.
        OSError: as the filesystem says.
    """
    state = load_state(layout)
    if state is None or not os.path.isdir(layout.staged(state.snapshot.library.name)):
        return ""
    about = state.snapshot
    is_complete = count_done(layout.journal(about.id), about.frames) == about.frames
    return about.id if is_complete and about.kind != "cold" else about.base
