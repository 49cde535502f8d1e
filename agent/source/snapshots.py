"""Snapshots on the agent's state folder, one folder each, found again after a restart.

::

    STATE/snapshots/<id>/manifest.jsonl.zst   what is served as the manifest
    STATE/snapshots/<id>/snapshot.json        what is answered about it
    STATE/snapshots/<id>/digests              32 bytes an entry, zero where not yet read
    STATE/snapshots/<id>/index.tar.gz …       what is known of each encoding's frames
    STATE/snapshots/<id>/databases/           of a rehearsal, see agent.source.databasecopies
"""

from __future__ import annotations

import os
import shutil
import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

import msgspec

from agent.source.databasecopies import DatabaseCopies, copy_databases, drop_copies, keep_copies
from agent.source.delta import Marker
from agent.source.frameindex import FrameIndex
from agent.source.representation import Representation
from shared.digest import is_hex
from shared.durable import fsync_folder, write_durably
from shared.errors import SnapshotGone, SourceUnreadable
from shared.filedigests import FileDigests
from shared.manifestfile import read_manifest, write_manifest
from shared.protocol import Snapshot
from shared.steady import Steadiness
from shared.treewalk import TreeWalk

if TYPE_CHECKING:
    from agent.source.library import LibrarySource
    from shared.codec import Encoding
    from shared.manifestfile import ManifestFile
    from shared.protocol import Kind

_KEEP = 4
"""Snapshots kept on disk; those that were used longest ago go when a new one comes."""
_OPEN = 2
"""Snapshots whose index is held in memory."""


class OpenSnapshot:
    """A snapshot whose frames can be made."""

    def __init__(
        self, folder: str, source: LibrarySource, about: Snapshot, manifest: ManifestFile
    ) -> None:
        self.source = source
        self.about = about
        self.manifest = manifest
        self.digests = FileDigests(os.path.join(folder, "digests"), about.entries)
        self.folder = folder
        self.block_tags: dict[int, bytes] = {}
        """Of a delta: what :func:`agent.source.framebuilder.build_frame` would say of frames of
        large files that were read, and found as they were scanned, for their digests."""
        self.copies = DatabaseCopies(folder) if about.kind == "rehearsal" else None
        """What is read instead of the databases."""
        self._lock = threading.Lock()
        self._representations: dict[Encoding, Representation] = {}

    def representation(self, encoding: Encoding) -> Representation:
        """The archive in ``encoding``.

        Raises:
            OSError: the state folder does not hold its index.
        """
        with self._lock:
            found = self._representations.get(encoding)
            if found is None:
                path = os.path.join(self.folder, f"index.{encoding.value}")
                index = FrameIndex(path, self.manifest.plan, encoding)
                found = self._representations[encoding] = Representation(self, encoding, index)
            return found


class SnapshotStore:
    """All snapshots of one library. Its methods block: call them from a worker thread.

    Args:
        state: the agent's state folder.
        source: the library.
    """

    def __init__(self, state: str, source: LibrarySource) -> None:
        self._folder = os.path.join(state, "snapshots")
        self._source = source
        self._open: dict[str, OpenSnapshot] = {}
        self._in_use: WeakValueDictionary[str, OpenSnapshot] = WeakValueDictionary()
        self._lock = threading.Lock()
        os.makedirs(self._folder, mode=0o700, exist_ok=True)
        for name in os.listdir(self._folder):
            if not is_hex(name):  # a scan that was killed
                shutil.rmtree(os.path.join(self._folder, name))

    def scan(self, exclude: tuple[str, ...], kind: Kind = "cold", base: str = "") -> Snapshot:
        """Look at the library once and remember what was seen.

        Args:
            exclude: patterns of what is left out.
            kind: whether files may change meanwhile.
            base: the snapshot that this one is to be a delta to; empty: to none.

        Raises:
            SnapshotGone: there is no such base.
            SourceUnreadable: something in it cannot be read; every path of it is listed.
            NoSpace: the state folder has no room for a rehearsal's copies of the databases.
            OSError: the state folder does not take the manifest.
        """
        created = datetime.now(UTC).isoformat(timespec="milliseconds")
        marker = _marker(self.open(base), exclude) if base else None
        walk = TreeWalk(
            self._source.base,
            self._source.name,
            exclude,
            live=kind != "cold",
            memory=marker,
        )
        draft = os.path.join(self._folder, f"scan-{os.urandom(8).hex()}")
        os.mkdir(draft, 0o700)
        try:
            self._drop_copies()
            entries = walk.entries()
            if kind == "rehearsal":
                entries = copy_databases(draft, self._source, exclude).in_place(entries)
            if marker is not None:
                entries = marker.marked(entries, FileDigests(os.path.join(draft, "digests"), 0))
            manifest = write_manifest(_manifest(draft), self._source.name, entries, kind)
            if walk.seen.unreadable:
                raise SourceUnreadable(walk.seen.unreadable)
            about = Snapshot(
                id=manifest.name,
                kind=kind,
                library=self._source.about,
                created=created,
                entries=manifest.plan.entries,
                files=manifest.plan.files,
                content_bytes=manifest.plan.content_bytes,
                frames=len(manifest.plan),
                manifest_bytes=os.path.getsize(manifest.path),
                exclude=list(exclude),
                skipped=walk.seen.skipped,
                excluded=walk.seen.excluded,
                base=base,
            )
            write_durably(os.path.join(draft, "snapshot.json"), msgspec.json.encode(about))
            self._keep(draft, about, manifest)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        return about

    def has(self, name: str) -> bool:
        """Whether there is a snapshot called ``name``."""
        return is_hex(name) and os.path.isdir(os.path.join(self._folder, name))

    def has_cold(self, name: str) -> bool:
        """Whether there is one called ``name`` that was made with Plex stopped."""
        return self.has(name) and self.open(name).about.kind == "cold"

    def open(self, name: str) -> OpenSnapshot:
        """The snapshot called ``name``, ready to be read from.

        Raises:
            SnapshotGone: there is none of that name.
        """
        with self._lock:
            # never twice: two would not hear of what the other one learns of the frames
            used = self._in_use.pop(name, None)
            self._open.pop(name, None)
            found = used or self._load(name)
            os.utime(found.folder)
            self._hold(found)
            return found

    def _hold(self, snapshot: OpenSnapshot) -> None:
        name = snapshot.about.id
        self._in_use[name] = self._open[name] = snapshot  # the most recently used is last
        while len(self._open) > _OPEN:
            del self._open[next(iter(self._open))]

    def _load(self, name: str) -> OpenSnapshot:
        folder = os.path.join(self._folder, name)
        gone = SnapshotGone("there is no snapshot of this name, scan again")
        if not is_hex(name):
            raise gone
        try:
            with open(os.path.join(folder, "snapshot.json"), "rb") as file:
                about = msgspec.json.decode(file.read(), type=Snapshot)
        except FileNotFoundError:
            raise gone from None
        manifest = read_manifest(_manifest(folder), about.id, self._source.name, about.kind)
        return OpenSnapshot(folder, self._source, about, manifest)

    def _drop_copies(self) -> None:
        """A rehearsal that is not the last scan is nothing but a base any more."""
        for name in os.listdir(self._folder):
            if is_hex(name):
                drop_copies(os.path.join(self._folder, name))
                self._look_at_copies(name)

    def _look_at_copies(self, name: str) -> None:
        """They have come or gone: have the snapshot that is in use know."""
        used = self._in_use.get(name)
        if used is not None and used.copies is not None:
            used.copies.look()

    def _keep(self, draft: str, about: Snapshot, manifest: ManifestFile) -> None:
        """Give the draft its name, unless the same scan was made before; drop the oldest."""
        final = os.path.join(self._folder, about.id)
        with self._lock:
            if os.path.isdir(final):
                os.utime(final)
                keep_copies(draft, final)
                self._look_at_copies(about.id)
                return
            os.rename(draft, final)
            fsync_folder(self._folder)
            manifest.path = _manifest(final)
            self._hold(OpenSnapshot(final, self._source, about, manifest))
            names = [entry for entry in os.scandir(self._folder) if is_hex(entry.name)]
            names.sort(key=lambda entry: entry.stat().st_mtime_ns)
            for old in names[:-_KEEP]:
                self._open.pop(old.name, None)
                self._in_use.pop(old.name, None)
                shutil.rmtree(old.path)


def _marker(base: OpenSnapshot, exclude: tuple[str, ...]) -> Marker:
    steadiness = Steadiness(base.about.kind, base.about.created)
    return Marker(base, exclude, steadiness, zip(base.manifest, base.digests, strict=True))


def _manifest(folder: str) -> str:
    return os.path.join(folder, "manifest.jsonl.zst")
