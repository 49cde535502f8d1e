"""Is there room on the volume, in bytes and inodes, for what has not been transferred yet?"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import structlog

from initpuller.volume.filesystem import FOLDER, SECTOR, opened
from shared.digest import SIZE
from shared.errors import NoSpace
from shared.frames.plan import FRAME, is_large
from shared.tree.dir_stack import DirStack
from shared.tree.manifest import Entry, Kind

if TYPE_CHECKING:
    from initpuller.volume.records.journal import Journal
    from shared.frames.manifest_file import ManifestFile

_log = structlog.get_logger("puller")

_SUMS_LINE = 68
"""Bytes of a line of SHA256SUMS beside its path."""
_INLINE_LINK = 60
"""Bytes of a symlink's target that ext4 keeps in the inode."""
_RECORDS = 1024 * 1024
"""Bytes for state, journal and receipt."""
_RECORD_INODES = 4
"""Digests and receipt to come, and what is written beside them to be renamed."""


def check_space(staging: int, manifest: ManifestFile, journal: Journal) -> None:
    """Raise NoSpace if what ``staging`` lacks of ``manifest`` does not fit on the volume.

    Mostly there is room for all of it in any case. Only otherwise each entry is looked at.
    """
    volume = os.fstatvfs(staging)
    needed, inodes = _at_most(manifest, volume.f_frsize)
    if not _fits(volume, needed, inodes):
        needed, inodes = _needed(staging, manifest, journal, volume.f_frsize)
    if volume.f_blocks:
        hint = "Enlarge it, or leave something out with --exclude, and run again."
        _require(needed, volume.f_bavail * volume.f_frsize, "bytes", hint)
    else:
        _log.warning(
            "the volume does not report its size, free space is not checked",
            hint="Make sure that the volume has room for the library.",
        )
    if volume.f_files:
        hint = "Make it with more inodes (mkfs -N), or larger, and run again."
        _require(inodes, volume.f_favail, "inodes", hint)


def _at_most(manifest: ManifestFile, block: int) -> tuple[int, int]:
    """Return bytes and inodes that suffice, whatever is there already.

    Everything that moves is in a frame, and what is not a whole block takes one.
    """
    plan = manifest.plan
    records = _RECORDS + (SIZE + _SUMS_LINE) * plan.files + plan.path_bytes
    return records + plan.tar_bytes + plan.entries * block, plan.entries + _RECORD_INODES


def _fits(volume: os.statvfs_result, needed: int, inodes: int) -> bool:
    is_room = not volume.f_blocks or needed <= volume.f_bavail * volume.f_frsize
    return is_room and (not volume.f_files or inodes <= volume.f_favail)


def _require(needed: int, free: int, unit: str, hint: str) -> None:
    if needed > free:
        raise NoSpace(
            f"the volume needs {needed} more {unit} and has {free}: {needed - free} {unit} are"
            " missing",
            hint=hint,
        )


def check_room_for_delta(staging: str) -> None:
    """Refuse to have Plex stopped if not even the records of the last changes would fit.

    How much content will change is not known yet, and most of that is written in place. The
    records are written again beside those that are there.

    Raises:
        NoSpace: saying how much is missing.
    """
    with opened(staging) as fd:
        volume, need = os.fstatvfs(fd), _RECORDS + _written_records(fd)
    free = volume.f_bavail * volume.f_frsize
    if volume.f_blocks and need > free:
        raise NoSpace(
            f"the last changes need at least {need} bytes on the volume and it has {free}: Plex was"
            " not stopped",
            path=staging,
            hint="Enlarge the volume, or leave something out with --exclude, and run again.",
        )


def _needed(staging: int, manifest: ManifestFile, journal: Journal, block: int) -> tuple[int, int]:
    """Return the bytes and inodes of missing frames, less what an interrupted run has written."""
    records = _RECORDS + (SIZE + _SUMS_LINE) * manifest.plan.files - _written_records(staging)
    needed, inodes = max(0, records), _RECORD_INODES
    with DirStack(staging) as folders:
        there = _There(folders)
        number = journal.next_missing(0)
        while number is not None:
            frame, after = manifest.plan[number], number + 1
            entries = manifest.entries(frame.first, frame.count)
            if is_large(entries[0]):  # all pieces at once: a sparse file may have millions
                pieces = manifest.plan.frames_of(frame.first, entries[0])
                allocated = there.allocated(entries[0]) or 0
                needed += _large_bytes(entries[0], pieces, journal, block, allocated)
                inodes += pieces.start not in journal
                after = pieces.stop
            else:
                for entry in entries:
                    found = there.allocated(entry)
                    needed += len(entry.path)  # its line in SHA256SUMS
                    needed += max(0, _entry_bytes(entry, block) - (found or 0))
                    inodes += entry.kind is not Kind.HARDLINK and found is None
            number = journal.next_missing(after)
    return needed, inodes


def _large_bytes(entry: Entry, pieces: range, journal: Journal, block: int, allocated: int) -> int:
    """Return the bytes that the missing ``pieces`` of a large file take, less what is there.

    Where a sparse file's data lies is not known, and its pieces arrive in any order.
    """
    if entry.data is not None:
        return max(0, _blocks(entry.data, block) - allocated)
    whole, last = _blocks(FRAME, block), _blocks(entry.size - FRAME * (len(pieces) - 1), block)
    is_last_safe = pieces.stop - 1 in journal
    safe = journal.count_in(pieces) * whole - (whole - last if is_last_safe else 0)
    return (len(pieces) - 1) * whole + last - safe - max(0, allocated - safe)


def _written_records(staging: int) -> int:
    with opened("..", FOLDER, dir_fd=staging) as folder, os.scandir(folder) as found:
        return sum(
            each.stat().st_blocks * SECTOR
            for each in found
            if each.is_file(follow_symlinks=False) and not each.name.startswith("manifest")
        )


class _There:
    """Finds what is in staging already, and looks for nothing in a folder that is missing."""

    def __init__(self, folders: DirStack) -> None:
        self._folders = folders
        self._missing = b"/"
        """Path of the last folder that is not there, with a slash: no entry's path begins so."""

    def allocated(self, entry: Entry) -> int | None:
        """Return the bytes that ``entry`` takes; None if it is not there. Entries are in order."""
        if entry.path.startswith(self._missing):
            return None
        try:
            folder, name = self._folders.parent(entry.path)
            info = os.stat(name, dir_fd=folder, follow_symlinks=False)
        except OSError:
            if entry.kind is Kind.DIRECTORY:
                self._missing = entry.path + b"/"
            return None
        return info.st_blocks * SECTOR


def _entry_bytes(entry: Entry, block: int) -> int:
    if entry.kind is Kind.DIRECTORY:
        return block
    if entry.kind is Kind.SYMLINK:
        return block if len(entry.link) >= _INLINE_LINK else 0
    return _blocks(entry.data if entry.data is not None else entry.size, block)


def _blocks(size: int, block: int) -> int:
    return (size + block - 1) // block * block
