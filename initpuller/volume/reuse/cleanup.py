"""Staging rid of what a new snapshot does not have, and of what is not safely there."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from initpuller.volume.names import is_file, remove
from shared.frames.plan import is_large
from shared.tree.dir_stack import DirStack
from shared.tree.manifest import Kind
from shared.tree.member_path import sort_key
from shared.tree.walk import TreeWalk

if TYPE_CHECKING:
    from collections.abc import Iterator

    from initpuller.volume.records.journal import Journal
    from shared.frames.manifest_file import ManifestFile
    from shared.tree.manifest import Entry


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
            frames = manifest.plan.frames_of(number, want)
            # What is held is written over piece by piece.
            is_safe = all(frame in journal for frame in frames)
            is_safe = is_safe or any(journal.tag(frame) is not None for frame in frames)
            is_content = want.kind is Kind.FILE and entry.kind in (Kind.FILE, Kind.HARDLINK)
            if not same_place or not (is_folder or (is_content and is_safe)):
                yield entry.path


def forget_lost(staging: int, manifest: ManifestFile, journal: Journal) -> None:
    """Have the blocks of files that are not there fetched: a kill may come between two renames.

    Args:
        staging: descriptor of the staging folder.
        manifest: what shall be there.
        journal: which of its frames are, and of which others something is held.

    Raises:
        OSError: as the filesystem says.
    """
    lost: list[int] = []
    with DirStack(staging, create=True) as folders:
        for number in journal.held():
            [entry] = manifest.entries(manifest.plan[number].first, 1)
            if not is_large(entry):
                continue
            place = folders.parent(entry.path)
            if not is_file(*place):
                remove(*place)
                lost.append(number)
    journal.redo(lost)
