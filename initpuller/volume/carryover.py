"""When the library changed between two runs: what of the earlier snapshot can stay in staging.

An entry can stay if the new scan saw it exactly as the old one did (size, times, inode and all)
and every frame it lay in is journalled; a frame need not be fetched if all its files can stay.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from initpuller.volume.names import remove
from shared.dirstack import DirStack
from shared.manifest import Kind
from shared.memberpath import sort_key
from shared.treewalk import TreeWalk

if TYPE_CHECKING:
    from collections.abc import Iterator

    from initpuller.volume.journal import Journal
    from shared.filedigests import FileDigests
    from shared.manifest import Entry
    from shared.manifestfile import ManifestFile


def carry_over(
    old: ManifestFile,
    old_journal: Journal,
    old_digests: FileDigests,
    new: ManifestFile,
    new_digests: FileDigests,
) -> Iterator[int]:
    """The numbers of the new frames that need not be fetched; copies their files' digests."""
    stays = _staying(old, old_journal, old_digests, new)
    number, digest = next(stays, (-1, None))
    for frame in new.plan:
        can_stay = True
        digests: list[bytes | None] = []
        for entry_number, entry in enumerate(new.entries(frame.first, frame.count), frame.first):
            while 0 <= number < entry_number:
                number, digest = next(stays, (-1, None))
            is_same = number == entry_number
            digests.append(digest if is_same else None)
            can_stay &= is_same or entry.kind is not Kind.FILE
        if can_stay:
            if any(digests):
                new_digests.put(frame.first, digests)
            yield frame.number


def prune(staging: int, manifest: ManifestFile, journal: Journal) -> None:
    """Remove from staging what ``manifest`` does not have, and what is not safely there.

    Args:
        staging: descriptor of the staging folder.
        manifest: what shall be there.
        journal: which of its frames are.

    Raises:
        OSError: as the filesystem says.
    """
    if os.geteuid():
        _reopen_folders(staging)
    walk = TreeWalk(staging, manifest.root, inside=False)
    unwanted = list(_unwanted(walk.entries(), manifest, journal))
    with DirStack(staging, create=True) as folders:
        for path in reversed(unwanted):
            folder, name = folders.parent(path)
            remove(folder, name)


def _reopen_folders(above: int) -> None:
    """Without privileges, what was closed for publication can neither be walked nor removed."""
    for name in os.listdir(above):
        info = os.stat(name, dir_fd=above, follow_symlinks=False)
        if not stat.S_ISDIR(info.st_mode):
            continue
        if info.st_mode & stat.S_IRWXU != stat.S_IRWXU:
            os.chmod(name, stat.S_IRWXU, dir_fd=above)
        fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=above)
        try:
            _reopen_folders(fd)
        finally:
            os.close(fd)


def _staying(
    old: ManifestFile, journal: Journal, digests: FileDigests, new: ManifestFile
) -> Iterator[tuple[int, bytes | None]]:
    """New number and digest of each file that can stay."""
    known = enumerate(zip(old, digests, strict=True))
    position, (before, digest) = next(known)
    for number, entry in enumerate(new):
        if entry.kind is not Kind.FILE:
            continue
        key = sort_key(entry.path)
        while sort_key(before.path) < key:
            following = next(known, None)
            if following is None:
                return
            position, (before, digest) = following
        is_safe = all(frame in journal for frame in old.plan.frames_of(position))
        if is_safe and before.is_as_in(entry):
            yield number, digest


def _unwanted(found: Iterator[Entry], manifest: ManifestFile, journal: Journal) -> Iterator[bytes]:
    wanted = enumerate(manifest)
    number, want = next(wanted)
    for entry in found:
        key = sort_key(entry.path)
        while sort_key(want.path) < key:
            following = next(wanted, None)
            if following is None:
                yield entry.path
                break
            number, want = following
        else:
            same_place = want.path == entry.path
            is_folder = entry.kind is Kind.DIRECTORY and want.kind is Kind.DIRECTORY
            is_safe = all(frame in journal for frame in manifest.plan.frames_of(number))
            if not same_place or not (is_folder or (want.kind is Kind.FILE and is_safe)):
                yield entry.path


def drop_files(*paths: str) -> None:
    """Remove records of an earlier snapshot; missing ones are fine."""
    for path in paths:
        if os.path.exists(path):
            os.unlink(path)
