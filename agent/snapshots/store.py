"""Snapshots in the agent's state folder, one folder each, found again after a restart.

::

    STATE/snapshots/<id>/manifest.jsonl.zst   the manifest, as clients get it
    STATE/snapshots/<id>/omitted-<digest>     the list of omitted entries, as clients get it
    STATE/snapshots/<id>/snapshot.json        the description, as clients get it
    STATE/snapshots/<id>/origin.json          see agent.source.snapshot_files.Origin
    STATE/snapshots/<id>/digests              32 bytes for each entry, zero if not yet read
    STATE/snapshots/<id>/index.tar.gz …       lengths and digests of each encoding's frames
    STATE/snapshots/<id>/databases/           of a rehearsal, see agent.source.database_copies
    STATE/snapshots/removed-…                 what is being removed; nothing reads it
"""

from __future__ import annotations

import errno
import os
import shutil
import threading
from contextlib import ExitStack, closing, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

import msgspec

from agent.frames.archive_encoding import Representation
from agent.snapshots import whole_tree
from agent.snapshots.delta_lines import UnusualDelta
from agent.snapshots.look import Look, any_walk, usual_delta
from agent.source.database_copies import drop_copies, keep_copies
from agent.source.library import LibrarySource, Place, refuse_unmounted
from agent.source.snapshot_files import DIGESTS, Origin, SnapshotFiles, omitted_path
from agent.source.writeback import write_back
from shared import typed_json
from shared.digest import is_hex
from shared.durable import discard_folder, fsync_folder, write_durably
from shared.errors import (
    IntegrityError,
    ManifestMalformed,
    OmittedListMalformed,
    PlexodusError,
    SnapshotGone,
)
from shared.frames.manifest_file import read_manifest, write_manifest
from shared.native import native
from shared.tree.omitted import OmittedWriter, check_omitted_digest
from shared.wire.protocol import Snapshot

if TYPE_CHECKING:
    from agent.source.library import CurrentLibrary
    from shared.frames.codec import Encoding
    from shared.frames.manifest_file import ManifestFile
    from shared.wire.protocol import OmittedList, SnapshotRequest

_KEEP = 4
"""Number of snapshots on disk. A new one replaces the one that was used longest ago."""
_OPEN = 2
"""Number of snapshots with their index in memory."""
_ASIDE = "removed-"
"""First letters of the names of folders that are being removed."""
_UNREADABLE = (errno.EIO, errno.EISDIR)
"""Errors of a file that will not be read at the next attempt either."""
_MANIFEST, _ABOUT, _ORIGIN = "manifest.jsonl.zst", "snapshot.json", "origin.json"


class OpenSnapshot(SnapshotFiles):
    """A snapshot whose archives can be served."""

    def __init__(
        self, folder: str, origin: Origin, about: Snapshot, manifest: ManifestFile
    ) -> None:
        super().__init__(folder, origin, about, manifest)
        self._lock = threading.Lock()
        self._representations: dict[Encoding, Representation] = {}

    def representation(self, encoding: Encoding) -> Representation:
        """Return the archive in ``encoding``.

        Raises:
            OSError: If its index cannot be read or written.
        """
        with self._lock:
            if encoding not in self._representations:
                self._representations[encoding] = Representation(self, encoding)
            return self._representations[encoding]


class SnapshotStore:
    """All snapshots of one library. Its methods block: call them from a worker thread.

    Args:
        state: the agent's state folder.
        library: the library.
    """

    def __init__(self, state: str, library: CurrentLibrary) -> None:
        self._folder = os.path.join(state, "snapshots")
        self._library = library
        self._open: dict[str, OpenSnapshot] = {}
        self._in_use: WeakValueDictionary[str, OpenSnapshot] = WeakValueDictionary()
        self._lock = threading.Lock()
        os.makedirs(self._folder, mode=0o700, exist_ok=True)
        for name in os.listdir(self._folder):
            if not is_hex(name):  # a scan that was killed, or a rest of what was removed
                shutil.rmtree(os.path.join(self._folder, name), ignore_errors=True)
        newest = next(reversed(self._by_use()), None)
        self._scanned = None if newest is None else self._origin(newest).place
        """Place of the library at its last scan."""

    def scan(self, request: SnapshotRequest) -> Snapshot:
        """Walk the library once, and keep the result.

        Raises:
            SnapshotGone: If there is no such base, or the library was elsewhere then.
            SourceUnreadable: If entries cannot be read. It lists all of them.
            NoSpace: If the state folder has no room for a rehearsal's copies of the databases.
            StorageError: If an earlier write to the library's disk has failed.
            OSError: If the state folder cannot be written.
        """
        try:
            try:
                return self._scan(request, is_usual=native is not None)
            except UnusualDelta:
                return self._scan(request, is_usual=False)
        except (ManifestMalformed, OmittedListMalformed) as error:
            if not request.base:
                raise
            with self._lock:
                self._drop(request.base)
            raise SnapshotGone(f"the base is damaged, scan again ({error})") from error

    def _scan(self, request: SnapshotRequest, *, is_usual: bool) -> Snapshot:
        """Do it. With ``is_usual``, the accelerator makes a delta, or UnusualDelta is raised."""
        kind, base, exclude = request.kind, request.base, tuple(request.exclude)
        found = self._locate()
        source = found.placed() if request.placed else found
        # Before the sync: changes after this time have times that are not trusted.
        created = datetime.now(UTC).isoformat(timespec="milliseconds")
        origin = Origin(source.place, sorted(write_back(source.place.path)))
        earlier = self._base(base, source) if base else None
        is_usual = is_usual and earlier is not None and kind != "rehearsal"
        draft = os.path.join(self._folder, f"scan-{os.urandom(8).hex()}")
        os.mkdir(draft, 0o700)
        with ExitStack() as stack:
            stack.callback(shutil.rmtree, draft, ignore_errors=True)
            folder = stack.enter_context(source.opened())
            listed = stack.enter_context(OmittedWriter(os.path.join(draft, "omitted")))
            self._drop_copies()
            look = Look(kind, exclude, source, folder, draft, earlier)
            walk, entries = (usual_delta if is_usual else any_walk)(look, listed.add)
            stack.enter_context(closing(entries))
            root, path = os.fsencode(source.about.name), os.path.join(draft, _MANIFEST)
            manifest = write_manifest(path, root, entries, kind)
            source.check_place()  # a disk may have been mounted meanwhile
            whole_tree.require_complete(walk)
            omitted = listed.finish()
            os.rename(os.path.join(draft, "omitted"), omitted_path(draft, omitted))
            about = Snapshot(
                id=manifest.name,
                kind=kind,
                library=source.about,
                created=created,
                entries=manifest.plan.entries,
                files=manifest.plan.files,
                content_bytes=manifest.plan.content_bytes,
                frames=len(manifest.plan),
                manifest_bytes=os.path.getsize(manifest.path),
                exclude=request.exclude,
                base=base,
                omitted=omitted,
            )
            write_durably(os.path.join(draft, _ORIGIN), msgspec.json.encode(origin))
            write_durably(os.path.join(draft, _ABOUT), msgspec.json.encode(about))
            self._keep(draft, origin, about, manifest)
            self._scanned = source.place
        return about

    def check_library(self) -> None:
        """Make sure that the library is in the place of its last scan.

        Raises:
            SnapshotGone: If it is elsewhere.
            SourceUnreadable: If it is missing or cannot be read.
        """
        before, now = self._scanned, self._locate().place
        if before is not None and before != now:
            raise _moved(now)

    def check_source(self, snapshot: OpenSnapshot) -> None:
        """Raise :class:`SnapshotGone` unless the settings still name the snapshot's library."""
        try:
            now = self._library.locate().place
        except PlexodusError as error:
            raise SnapshotGone(f"the library cannot be found, scan again ({error.what})") from error
        if now != snapshot.source.place:
            raise _moved(now)

    def has(self, name: str) -> bool:
        """Return whether there is a snapshot called ``name``."""
        return is_hex(name) and os.path.isdir(os.path.join(self._folder, name))

    def has_cold(self, name: str) -> bool:
        """Return whether there is a cold snapshot called ``name``.

        Raises:
            SnapshotGone: If the library is elsewhere now.
        """
        if not self.has(name):
            return False
        found = self.open(name)
        self.check_source(found)
        return found.about.kind == "cold"

    def has_been_used(self, name: str) -> bool:
        """Return whether a Plex has run on the library since the scan of the snapshot ``name``.

        Raises:
            SnapshotGone: If it does not exist, or the library is elsewhere now.
        """
        return whole_tree.has_been_used(self.open(name))

    def open(self, name: str) -> OpenSnapshot:
        """Return the snapshot called ``name``, ready to be read.

        Raises:
            SnapshotGone: If it does not exist, or the library is not where it was then.
        """
        with self._lock:
            # never twice, because neither would see the frames that the other one records
            used = self._in_use.pop(name, None)
            self._open.pop(name, None)
            found = used or self._load(name)
            with found.source.opened():
                os.utime(found.folder)
            self._hold(found)
            return found

    def _hold(self, snapshot: OpenSnapshot) -> None:
        name = snapshot.about.id
        self._in_use[name] = self._open[name] = snapshot  # the most recently used is last
        while len(self._open) > _OPEN:
            del self._open[next(iter(self._open))]

    def _load(self, name: str) -> OpenSnapshot:
        """Read a snapshot of an earlier process. Remove it if a part is missing or damaged."""
        what = "there is no snapshot of this name, scan again"
        if is_hex(name):
            try:
                return self._read(name)
            except FileNotFoundError:
                pass
            except (IntegrityError, msgspec.DecodeError) as error:
                what = f"the snapshot is damaged, scan again ({error})"
            except OSError as error:
                if error.errno not in _UNREADABLE:
                    raise
                what = f"the snapshot cannot be read, scan again ({error.strerror})"
            self._drop(name)
        raise SnapshotGone(what)

    def _read(self, name: str) -> OpenSnapshot:
        folder = os.path.join(self._folder, name)
        about = _read_about(folder)
        root = os.fsencode(about.library.name)
        path = os.path.join(folder, _MANIFEST)
        manifest = read_manifest(path, about.id, root, about.kind)
        found = OpenSnapshot(folder, self._origin(name), about, manifest)
        if about.omitted is not None:
            check_omitted_digest(found.omitted_path, about.omitted)
        return found

    def _origin(self, name: str) -> Origin:
        """Return the origin. One that cannot be read is the current library, untrusted.

        An earlier version wrote none.
        """
        try:
            with open(os.path.join(self._folder, name, _ORIGIN), "rb") as file:
                return typed_json.decode(file.read(), Origin)
        except (OSError, msgspec.DecodeError):
            return Origin(self._library.last.place)

    def _locate(self) -> LibrarySource:
        """Find the library, or raise SourceUnreadable, also if its disk is not mounted."""
        found = self._library.locate()
        if self._scanned is not None:
            refuse_unmounted(self._scanned, found)
        return found

    def _base(self, name: str, source: LibrarySource) -> OpenSnapshot:
        """Return the snapshot ``name``, as the base of a delta.

        Raises:
            SnapshotGone: If there is no such base, it is of another folder or other disks, or an
                older release made it and did not list the omitted entries.
        """
        base = self.open(name)
        if base.about.omitted is None:
            raise SnapshotGone("an older release of the agent made the base, scan again")
        if base.source.place != source.place:
            raise _moved(source.place)
        return base

    def _drop_copies(self) -> None:
        """Remove all copies of databases: an earlier rehearsal is only a base from now on."""
        for name in os.listdir(self._folder):
            path = os.path.join(self._folder, name)
            if is_hex(name):
                drop_copies(path, self._aside())
                self._look_at_copies(name)
            elif name.startswith(_ASIDE):
                shutil.rmtree(path, ignore_errors=True)

    def _aside(self) -> str:
        """Return a new path for what is being removed: no snapshot has such a name."""
        return os.path.join(self._folder, f"{_ASIDE}{os.urandom(8).hex()}")

    def _look_at_copies(self, name: str) -> None:
        """Tell the open snapshot that its copies have changed."""
        used = self._in_use.get(name)
        if used is not None and used.copies is not None:
            used.copies.look()

    def _keep(self, draft: str, origin: Origin, about: Snapshot, manifest: ManifestFile) -> None:
        """Give the draft its name, unless the same snapshot exists; drop the oldest ones."""
        final = os.path.join(self._folder, about.id)
        with self._lock:
            if os.path.isdir(final):
                if _is_whole(final) and self._origin(about.id).place == origin.place:
                    # Its origin stays: the devices were written back before its digests were read.
                    os.utime(final)
                    keep_copies(draft, final)
                    self._look_at_copies(about.id)
                    if about.omitted is not None:
                        self._renew_omitted(draft, final, about.omitted)
                    return
                self._drop(about.id)
            os.rename(draft, final)
            fsync_folder(self._folder)
            manifest.path = os.path.join(final, _MANIFEST)
            self._hold(OpenSnapshot(final, origin, about, manifest))
            for old in self._by_use()[:-_KEEP]:
                self._drop(old)

    def _renew_omitted(self, draft: str, final: str, omitted: OmittedList) -> None:
        """Give the list of a scan to the snapshot in ``final``, which has the same entries.

        Omitted entries may have changed although no entry has, and an older release had no list.
        """
        about = _read_about(final)
        before = about.omitted
        os.rename(omitted_path(draft, omitted), omitted_path(final, omitted))
        if before == omitted:
            return
        about.omitted = omitted
        write_durably(os.path.join(final, _ABOUT), msgspec.json.encode(about))
        if before is not None:
            with suppress(FileNotFoundError):
                os.unlink(omitted_path(final, before))
        used = self._in_use.get(about.id)
        if used is not None:
            used.about.omitted = omitted

    def _by_use(self) -> list[str]:
        """Return the names of all snapshots, the last used one at the end."""
        found = [entry for entry in os.scandir(self._folder) if is_hex(entry.name)]
        found.sort(key=lambda entry: entry.stat().st_mtime_ns)
        return [entry.name for entry in found]

    def _drop(self, name: str) -> None:
        self._open.pop(name, None)
        self._in_use.pop(name, None)
        discard_folder(os.path.join(self._folder, name), self._aside())


def _moved(now: Place) -> SnapshotGone:
    return SnapshotGone(
        "the library is in another folder or on another disk than when it was scanned, scan again",
        path=now.path,
    )


def _is_whole(folder: str) -> bool:
    """Return whether a snapshot has a description, a manifest and digests."""
    try:
        _read_about(folder)
        for name in (_MANIFEST, DIGESTS):
            os.stat(os.path.join(folder, name))
    except (OSError, msgspec.DecodeError):
        return False
    return True


def _read_about(folder: str) -> Snapshot:
    with open(os.path.join(folder, _ABOUT), "rb") as file:
        return typed_json.decode(file.read(), Snapshot)
