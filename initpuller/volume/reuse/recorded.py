"""A snapshot, and what the volume's records say about it: these always travel together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from initpuller.volume.records.journal import Journal
from shared.frames.file_digests import FileDigests

if TYPE_CHECKING:
    from initpuller.volume.records.layout import Layout
    from shared.frames.manifest_file import ManifestFile
    from shared.wire.protocol import Snapshot


@dataclass(frozen=True)
class Listing:
    """A snapshot as the agent announced it, with its checked manifest."""

    snapshot: Snapshot
    manifest: ManifestFile


@dataclass(frozen=True)
class Recorded(Listing):
    """A listing, and how much of it is on the volume."""

    journal: Journal
    """The frames that are on the volume."""
    digests: FileDigests
    """The digests of the files that are on the volume."""


def open_records(layout: Layout, listing: Listing) -> Recorded:
    """Return the records of a snapshot; missing ones are created. Close the journal when done.

    Raises:
        OSError: a record cannot be read or created.
    """
    name, plan = listing.snapshot.id, listing.manifest.plan
    digests = FileDigests(layout.digests(name), plan.entries)
    journal = Journal(layout.journal(name), len(plan))
    return Recorded(listing.snapshot, listing.manifest, journal, digests)
