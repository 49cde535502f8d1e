"""The two sides of a transfer in one process: scans of a real library, and a volume, no network.

Scans and frames are the agent's own, staging is the puller's own. A test that needs no HTTP, no
retries and no processes takes milliseconds with this.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from agent.frames.builder import build_frame
from agent.snapshots.store import SnapshotStore
from agent.source.library import CurrentLibrary
from initpuller.volume.fidelity import AttributePolicy
from initpuller.volume.ownership import choose_ownership
from initpuller.volume.records.layout import Layout
from initpuller.volume.records.pull_record import PullRecord
from initpuller.volume.reuse.recorded import Listing, Recorded
from initpuller.volume.staging.staging import begin
from initpuller.volume.staging.unfinished import Unfinished
from initpuller.volume.staging.unpack import Destination, FetchedFrame, unpack_frame
from shared.frames.manifest_file import read_lines, read_manifest
from shared.wire.protocol import SnapshotRequest

if TYPE_CHECKING:
    from agent.source.snapshot_files import SnapshotFiles
    from initpuller.volume.staging.staging import Staging
    from shared.wire.protocol import Kind


class TwoSides:
    """An agent's snapshots of ``library``, and a volume.

    Args:
        place: an empty folder, for the state of both.
        library: the library.
    """

    def __init__(self, place: Path, library: Path) -> None:
        self.library = library
        self.layout = Layout(str(place / "volume"))
        self.policy = AttributePolicy(choose_ownership(None))
        os.makedirs(self.layout.folder)
        state = str(place / "state")
        os.mkdir(state)
        self._store = SnapshotStore(state, CurrentLibrary(str(library), str, state))

    @property
    def staged(self) -> Path:
        """The library in staging."""
        return Path(self.layout.staged(self.library.name))

    def scan(self, kind: Kind = "cold", base: str = "") -> Listing:
        """Scan the library, and put the manifest on the volume."""
        about = self._store.scan(SnapshotRequest(kind, base=base))
        return self.read(self._store.open(about.id))

    def read(self, snapshot: SnapshotFiles) -> Listing:
        """Put the manifest of a snapshot on the volume, and read it there."""
        about = snapshot.about
        path = self.layout.manifest(about.id)
        shutil.copyfile(snapshot.manifest.path, path)
        root = os.fsencode(about.library.name)
        return Listing(about, read_manifest(path, about.id, root, about.kind))

    def fetch(self, listing: Listing, number: int) -> FetchedFrame:
        """Return a frame as it arrives."""
        frame = listing.manifest.plan[number]
        built = build_frame(self._store.open(listing.snapshot.id), number)
        manifest = listing.manifest
        location = manifest.location(frame.first, frame.count)
        lines = location.of(read_lines(manifest.path, location.offsets))
        return FetchedFrame(frame, lines, bytes(built.tar), built.tag.hex())

    def begin(self, listing: Listing, before: Staging | None = None) -> Staging:
        """Return the staging of a snapshot, moved on from ``before``, which is closed."""
        if before is None:
            record = PullRecord(self.layout)
            record.drop()
            return begin(record, listing, self.policy)
        before.close()
        return begin(before.record, listing, self.policy, before.manifest)

    def fill(self, staging: Staging, listing: Listing) -> Unfinished:
        """Unpack and journal all missing frames; return what they have left."""
        into = Destination(staging.fd, staging.policy, staging.digests)
        missing = list(staging.journal.missing())
        unpacked = [unpack_frame(into, self.fetch(listing, number)) for number in missing]
        staging.commit([(n, each.digest) for n, each in zip(missing, unpacked, strict=True)])
        left = Unfinished(listing.manifest)
        for number, each in zip(missing, unpacked, strict=True):
            left.add(number, each)
        return left

    def bring(self, listing: Listing, before: Staging | None = None) -> Staging:
        """Assemble a snapshot completely; nothing may differ."""
        staging = self.begin(listing, before)
        assert staging.finish(self.fill(staging, listing)) == []
        return staging


def recorded(staging: Staging) -> Recorded:
    """Return the snapshot in ``staging`` with its records."""
    return Recorded(staging.state.snapshot, staging.manifest, staging.journal, staging.digests)
