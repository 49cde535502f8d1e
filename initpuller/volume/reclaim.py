"""Room on the volume for the records that a run must write before it can free anything.

A volume that an interrupted run has filled would otherwise refuse each later run before its first
record, also after the library has shrunk. What is in staging can be fetched again, so some of it is
discarded until records can be written: first what is incomplete, then frames from the end.
"""

from __future__ import annotations

import os
import shutil
from contextlib import closing, suppress
from enum import Enum
from typing import TYPE_CHECKING

import structlog

from initpuller.volume.cleanup import drop_records
from initpuller.volume.filesystem import FULL, opened, remove
from initpuller.volume.records.journal import Journal
from initpuller.volume.records.record_file import drop_files
from initpuller.volume.reuse.recorded import read_listing
from shared.errors import NoSpace, storage_errors
from shared.frames.plan import is_large
from shared.presence import is_folder
from shared.tree.dir_stack import DirStack
from shared.tree.manifest import Kind

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from initpuller.volume.records.layout import Layout
    from initpuller.volume.records.pull_record import PullRecord
    from initpuller.volume.records.state import State
    from shared.frames.manifest_file import ManifestFile

_log = structlog.get_logger("puller")

_LEAST = 256 * 1024
"""Bytes for state, receipt and the growth of a journal."""
_FILES = 7
"""Records that a run makes: manifest, journal, digests, two lists, state, one beside."""
_HALF_WRITTEN = ".new"


class Discarded(Enum):
    """Kinds of content in staging, in the order in which they are discarded."""

    OTHER_RECORDS = "records of other snapshots"
    DIGESTS = "digests, for which files are read back"
    INCOMPLETE = "incomplete files"
    CHANGED = "files that have changed"
    FRAMES = "complete frames"
    ALL = "all of it"


def make_room(record: PullRecord, last: Discarded = Discarded.ALL) -> None:
    """Discard enough of staging for records to be written, at most ``last``, if the volume is full.

    Nothing is discarded that is verified. If the volume is full of something else, it stays full,
    and the next write reports it. This process holds the volume's lock.
    """
    layout, state = record.layout, record.state
    with storage_errors(layout.folder):
        with os.scandir(layout.folder) as found:  # a killed run may have left half-written files
            drop_files(*(each.path for each in found if each.name.endswith(_HALF_WRITTEN)))
        if state is not None and state.phase != "transferring":
            return
        wanted = _LEAST + _records_bytes(layout, state)
        if not is_folder(layout.staging) or _has_room(layout.folder, wanted):
            return
        for what in _discarded(layout, state, wanted):
            if _has_room(layout.folder, wanted):
                _log.warning("the volume was full, discarded from staging", what=what.value)
                return
            if what is last:
                break
        _log.warning("the volume is full", path=layout.target, bytes_wanted=wanted)


def require_room(layout: Layout) -> None:
    """Raise NoSpace before a commit whose publication could not be written down."""
    with storage_errors(layout.folder):
        wanted = _LEAST + 4 * os.path.getsize(layout.state)
        has_room = _has_room(layout.folder, wanted)
    if not has_room:
        raise NoSpace(
            f"the volume has no room for the last {wanted} bytes of records",
            path=layout.folder,
            hint="Enlarge it, or leave something out with --exclude, and run again.",
        )


def _records_bytes(layout: Layout, state: State | None) -> int:
    """Return how many bytes another snapshot's records may take, by what those of this one do."""
    if state is None:
        return 0
    files = layout.manifest, layout.journal, layout.digests, layout.omitted
    total = 0
    for path in files:
        with suppress(FileNotFoundError):
            total += os.path.getsize(path(state.snapshot.id))
    return total


def _has_room(folder: str, wanted: int) -> bool:
    """Return whether so many bytes, and a few files, can be written; quotas count."""
    made: list[str] = []
    try:
        for number in range(_FILES):
            made.append(os.path.join(folder, f"room-{number}{_HALF_WRITTEN}"))
            flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
            with opened(made[-1], flags) as fd:
                os.posix_fallocate(fd, 0, 1 if number else wanted)
    except OSError as error:
        if error.errno not in FULL:
            raise
        return False
    finally:
        drop_files(*made)
    return True


def _discarded(layout: Layout, state: State | None, wanted: int) -> Iterator[Discarded]:
    """Discard one thing after the other, each less readily than the one before; say what."""
    drop_records(layout, state.snapshot.id if state is not None else "")
    yield Discarded.OTHER_RECORDS
    if state is None:
        shutil.rmtree(layout.staging)  # nothing says what it is
        yield Discarded.ALL
        return
    name = state.snapshot.id
    drop_files(layout.sums(name), layout.digests(name))
    yield Discarded.DIGESTS
    shutil.rmtree(layout.moving, ignore_errors=True)
    listing = read_listing(layout, state.snapshot)
    if listing is None:  # nothing says what is complete
        yield Discarded.INCOMPLETE
        shutil.rmtree(layout.staging)
        yield Discarded.ALL
        return
    manifest = listing.manifest
    with closing(Journal(layout.journal(name), len(manifest.plan))) as journal:
        missing = list(journal.missing())
        unknown = [number for number in missing if journal.tag(number) is None]
        _discard(layout, manifest, journal, unknown)
        yield Discarded.INCOMPLETE
        _discard(layout, manifest, journal, missing)
        yield Discarded.CHANGED
        freed = 0
        for number in reversed(range(len(manifest.plan))):
            freed += manifest.plan[number].size
            _discard(layout, manifest, journal, [number])
            if freed >= wanted:
                freed = 0
                yield Discarded.FRAMES
        yield Discarded.ALL


def _discard(
    layout: Layout, manifest: ManifestFile, journal: Journal, frames: Iterable[int]
) -> None:
    """Remove all files that have a part in ``frames``; the journal forgets them first."""
    with opened(layout.staging) as staging, DirStack(staging) as folders:
        first = -1
        for number in frames:
            frame = manifest.plan[number]
            if frame.first == first:
                continue  # another piece of the same large file
            first = frame.first
            entries = manifest.entries(frame.first, frame.count)
            is_one_file = is_large(entries[0])
            pieces = manifest.plan.frames_of(first, entries[0]) if is_one_file else [number]
            journal.redo(piece for piece in pieces if piece in journal)
            for entry in entries:
                if entry.kind is Kind.FILE and not entry.kept:
                    with suppress(FileNotFoundError, NotADirectoryError):
                        remove(*folders.parent(entry.path))
