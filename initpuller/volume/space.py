"""Is there room on the volume, in bytes and inodes, for what has not been brought yet?"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shared.digest import SIZE
from shared.dirstack import DirStack
from shared.errors import NoSpace
from shared.frameplan import FRAME, is_large
from shared.manifest import Entry, Kind

if TYPE_CHECKING:
    from initpuller.volume.journal import Journal
    from shared.manifestfile import ManifestFile

_SUMS_LINE = 68
"""Bytes of a line of SHA256SUMS beside its path."""
_INLINE_LINK = 60
"""Bytes of a symlink's target that ext4 keeps in the inode."""
_RECORDS = 1024 * 1024
"""Bytes for state, journal and receipt."""
_RECORD_INODES = 4
"""Digests and receipt to come, and what is written beside them to be renamed."""
_SECTOR = 512


@dataclass
class Need:
    """What must fit."""

    bytes: int = 0
    inodes: int = 0


def check_space(staging: int, manifest: ManifestFile, journal: Journal) -> None:
    """Refuse to begin what cannot end.

    Args:
        staging: descriptor of the staging folder.
        manifest: everything that shall be there.
        journal: what is there.

    Raises:
        NoSpace: saying how much is missing.
    """
    volume = os.fstatvfs(staging)
    block = volume.f_frsize
    need = _needed(staging, manifest, journal, block)
    free = volume.f_bavail * block
    if need.bytes > free:
        raise NoSpace(
            f"the volume needs {need.bytes} more bytes and has {free}: "
            f"{need.bytes - free} bytes are missing",
            hint="Enlarge it, or leave something out with --exclude, and run again.",
        )
    if volume.f_files and need.inodes > volume.f_favail:
        raise NoSpace(
            f"the volume needs {need.inodes} more inodes and has {volume.f_favail}: "
            f"{need.inodes - volume.f_favail} inodes are missing",
            hint="Make it with more inodes (mkfs -N), or larger, and run again.",
        )


def _needed(staging: int, manifest: ManifestFile, journal: Journal, block: int) -> Need:
    """What the missing frames take, less what an interrupted run wrote and did not journal."""
    records = _RECORDS + (SIZE + _SUMS_LINE) * manifest.plan.files - _written_records(staging)
    need = Need(max(0, records), _RECORD_INODES)
    credited = first = -1
    entries: list[Entry] = []
    with DirStack(staging) as folders:
        for number in journal.missing():
            frame = manifest.plan[number]
            if frame.first != first:  # else it is one large file, piece by piece
                first, entries = frame.first, manifest.entries(frame.first, frame.count)
            for entry in entries:
                if not is_large(entry):
                    _add_small(need, entry, block, _allocated(folders, entry))
                    continue
                need.bytes += _piece_bytes(entry, frame.block, block)
                need.inodes += frame.block == 0
                if credited != frame.first and entry.data is None:
                    credited = frame.first
                    pieces = manifest.plan.frames_of(frame.first, entry)
                    safe = sum(
                        _piece_bytes(entry, piece - pieces.start, block)
                        for piece in pieces
                        if piece in journal
                    )
                    need.bytes -= max(0, (_allocated(folders, entry) or 0) - safe)
    return need


def _written_records(staging: int) -> int:
    """Bytes that the records beside staging take already, but for the manifest."""
    folder = os.open("..", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=staging)
    try:
        with os.scandir(folder) as found:
            return sum(
                each.stat().st_blocks * _SECTOR
                for each in found
                if each.is_file(follow_symlinks=False) and not each.name.startswith("manifest")
            )
    finally:
        os.close(folder)


def _add_small(need: Need, entry: Entry, block: int, allocated: int | None) -> None:
    need.bytes += len(entry.path)  # its line in SHA256SUMS
    need.bytes += max(0, _entry_bytes(entry, block) - (allocated or 0))
    need.inodes += entry.kind is not Kind.HARDLINK and allocated is None


def _allocated(folders: DirStack, entry: Entry) -> int | None:
    """Bytes that ``entry`` takes in staging already; None if it is not there."""
    try:
        folder, name = folders.parent(entry.path)
        info = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except OSError:
        return None
    return info.st_blocks * _SECTOR


def _entry_bytes(entry: Entry, block: int) -> int:
    if entry.kind is Kind.DIRECTORY:
        return block
    if entry.kind is Kind.SYMLINK:
        return block if len(entry.link) >= _INLINE_LINK else 0
    return _blocks(entry.data if entry.data is not None else entry.size, block)


def _piece_bytes(entry: Entry, piece: int, block: int) -> int:
    """A sparse file's data is counted with its first piece: where it lies is not known."""
    if entry.data is not None:
        return _blocks(entry.data, block) if piece == 0 else 0
    return _blocks(min(FRAME, entry.size - piece * FRAME), block)


def _blocks(size: int, block: int) -> int:
    return (size + block - 1) // block * block
