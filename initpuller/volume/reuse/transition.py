"""From one snapshot to the next: what of the volume's records and content stays."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from initpuller.volume.records.journal import Journal
from initpuller.volume.records.state import State, save_state
from initpuller.volume.reuse.matching import carry_over, drop_files
from shared.durable import syncfs
from shared.frames.file_digests import FileDigests
from shared.frames.manifest_file import read_manifest
from shared.frames.plan import is_large
from shared.tree.racy import Steadiness

if TYPE_CHECKING:
    from collections.abc import Callable

    from initpuller.volume.ownership import Ownership
    from initpuller.volume.records.layout import Layout
    from initpuller.volume.reuse.changes import Delta
    from initpuller.volume.reuse.renames import Moves
    from shared.frames.manifest_file import ManifestFile
    from shared.tree.manifest import Entry
    from shared.wire.protocol import Snapshot


def take_over(
    layout: Layout,
    old: State,
    snapshot: Snapshot,
    manifest: ManifestFile,
    ownership: Ownership,
    delta: Delta,
    moves: Moves,
    done: ManifestFile | None,
) -> State:
    """Go on from the snapshot in ``old`` to another one of the same library.

    The new journal is whole before the state names it; until then the old one is valid.

    Args:
        layout: the volume.
        old: what it says.
        snapshot: what shall be there.
        manifest: all of it.
        ownership: whose it shall be.
        delta: is told of all that differs.
        moves: gets the files that were renamed.
        done: the manifest of the snapshot in ``old``, if it is at hand.

    Raises:
        SnapshotGone: the new snapshot is a delta that keeps what is not on the volume.
        StorageError, OSError: as the filesystem says.
    """
    state = State(
        "transferring",
        snapshot,
        str(ownership),
        old.started,
        old.runs + 1,
        reown=old.reown or old.owner != str(ownership),
        prune=True,
        cutover=old.cutover,
        failure=old.failure,
        fidelity=old.fidelity,
    )
    before = old.snapshot.id
    old_records = (layout.manifest(before), layout.journal(before), layout.digests(before))
    drop_files(layout.journal(snapshot.id), layout.digests(snapshot.id))
    # What the journal has is there, also where a take-over was cut off before it pruned the rest.
    if os.path.exists(old_records[0]):
        root = os.fsencode(old.snapshot.library.name)
        was = done or read_manifest(old_records[0], before, root, old.snapshot.kind)
        old_journal = Journal(old_records[1], len(was.plan))
        if old.prune:
            old_journal.doubt()
        journal = Journal(layout.journal(snapshot.id), len(manifest.plan))
        try:
            carried = carry_over(
                was,
                old_journal,
                FileDigests(old_records[2], was.plan.entries),
                manifest,
                FileDigests(layout.digests(snapshot.id), manifest.plan.entries),
                _steadiness(old.snapshot, snapshot),
                delta,
                moves,
            )
            journal.carried(carried.kept, carried.held)
            syncfs(journal.fileno())
        finally:
            journal.close()
            old_journal.close()
    save_state(layout, state)
    drop_files(*old_records, layout.sums(before))
    return state


def _steadiness(old: Snapshot, new: Snapshot) -> Callable[[Entry], bool]:
    """Return which of the entries that both have alike can stay.

    What a delta keeps can. A small file that it does not keep can, too, where its times say so: the
    agent reads it again, and its digest decides. Blocks of a large one are asked for one by one.
    """
    holds = Steadiness(old.kind, old.created).holds
    if new.base:
        return lambda entry: entry.kept or (not is_large(entry) and holds(entry))
    return holds
