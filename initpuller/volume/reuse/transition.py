"""From one snapshot to the next: the records of the next one are written before the state names it.

Until the state names the new snapshot, the old one's records are valid. So a kill at any point
leaves one snapshot whose records are complete.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from initpuller.volume.records.record_file import drop_files
from initpuller.volume.reuse.matching import compare
from initpuller.volume.reuse.recorded import Listing, open_records
from shared.durable import syncfs
from shared.frames.manifest_file import read_manifest

if TYPE_CHECKING:
    from initpuller.volume.records.layout import Layout
    from initpuller.volume.reuse.changes import Changes
    from shared.frames.manifest_file import ManifestFile
    from shared.wire.protocol import Snapshot


def write_records(
    layout: Layout, earlier: Snapshot, wanted: Listing, done: ManifestFile | None
) -> Changes | None:
    """Write the journal and digests of ``wanted``, with all that ``earlier`` put on the volume.

    Args:
        layout: the volume.
        earlier: the snapshot whose content is in staging.
        wanted: the snapshot to put there next, of the same library.
        done: the manifest of ``earlier``, if it is in memory.

    Returns:
        Everything in which the two differ; None if that is unknown, or too much to list.

    Raises:
        SnapshotGone: ``wanted`` is a delta, and keeps a file that is not on the volume.
        OSError: a record cannot be read or written.
    """
    name, path = wanted.snapshot.id, layout.manifest(earlier.id)
    drop_files(layout.journal(name), layout.digests(name))  # a killed run may have left them
    if not os.path.exists(path):
        return None
    root = os.fsencode(earlier.library.name)
    manifest = done or read_manifest(path, earlier.id, root, earlier.kind)
    old = open_records(layout, Listing(earlier, manifest))
    new = open_records(layout, wanted)
    try:
        reuse = compare(old, wanted)
        new.digests.copy(old.digests, reuse.same)
        new.journal.carried(reuse.kept, reuse.held)
        syncfs(new.journal.fileno())
    finally:
        new.journal.close()
        old.journal.close()
    return reuse.changes


def remove_records(layout: Layout, snapshot: str) -> None:
    """Remove the records of a snapshot that the state does not name any more."""
    drop_files(
        layout.manifest(snapshot),
        layout.journal(snapshot),
        layout.digests(snapshot),
        layout.sums(snapshot),
        layout.omitted(snapshot),
    )
