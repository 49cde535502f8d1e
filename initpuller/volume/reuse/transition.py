"""From one snapshot to the next: the records of the next one are written before the state names it.

Until the state names the new snapshot, the old one's records are valid. So a kill at any point
leaves one snapshot whose records are complete.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from initpuller.volume.records.record_file import drop_files
from initpuller.volume.reuse.matching import compare
from initpuller.volume.reuse.recorded import Listing, open_records, read_listing
from shared.durable import syncfs

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
    """
    name = wanted.snapshot.id
    drop_files(layout.journal(name), layout.digests(name))  # a killed run may have left them
    if not os.path.exists(layout.manifest(earlier.id)):
        return None
    before = Listing(earlier, done) if done else read_listing(layout, earlier)
    with open_records(layout, before) as old, open_records(layout, wanted) as new:
        reuse = compare(old, wanted)
        new.digests.copy(old.digests, reuse.same)
        new.journal.carried(reuse.kept, reuse.held)
        syncfs(new.journal.fileno())
    return reuse.changes
