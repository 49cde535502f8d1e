"""A snapshot, and what the volume's records say about it: these always travel together."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import structlog

from initpuller.volume.records.journal import Journal
from shared.digest import SIZE
from shared.errors import IntegrityError
from shared.frames.file_digests import FileDigests
from shared.frames.manifest_file import ManifestFile, read_manifest

if TYPE_CHECKING:
    from initpuller.volume.records.layout import Layout
    from shared.wire.protocol import Snapshot

_log = structlog.get_logger("puller")

DAMAGED = b"\xff" * SIZE
"""In place of the digest of a file that must be fetched again, though a delta keeps it.

An unknown digest only has the file read back: a power loss or a full volume may lose all digests.
"""


@dataclass(frozen=True)
class Listing:
    """A snapshot as the agent announced it, with its checked manifest."""

    snapshot: Snapshot
    manifest: ManifestFile


@dataclass(frozen=True)
class Recorded(Listing):
    """A listing, and how much of it is on the volume. As a context, it closes the journal."""

    journal: Journal
    """The frames that are on the volume."""
    digests: FileDigests
    """The digests of the files that are on the volume."""

    def __enter__(self) -> Self:
        """Return the records themselves."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the journal."""
        self.journal.close()


def read_listing(layout: Layout, snapshot: Snapshot) -> Listing | None:
    """Return a snapshot with its manifest on the volume; None if that is not there, or damaged."""
    root, path = os.fsencode(snapshot.library.name), layout.manifest(snapshot.id)
    try:
        return Listing(snapshot, read_manifest(path, snapshot.id, root, snapshot.kind))
    except FileNotFoundError:
        return None
    except IntegrityError as error:
        _log.warning("a manifest on the volume is damaged", path=path, reason=error.what)
        return None


def open_records(layout: Layout, listing: Listing) -> Recorded:
    """Return the records of a snapshot; missing ones are created."""
    name, plan = listing.snapshot.id, listing.manifest.plan
    digests = FileDigests(layout.digests(name), plan.entries)
    journal = Journal(layout.journal(name), len(plan))
    return Recorded(listing.snapshot, listing.manifest, journal, digests)
