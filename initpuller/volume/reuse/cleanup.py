"""Removes from staging whatever a new snapshot does not have, and whatever is not journaled."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from initpuller.volume.filesystem import FOLDER, is_file, opened, remove
from shared.frames.plan import is_large
from shared.tree.dir_stack import DirStack
from shared.tree.folder_names import folder_names
from shared.tree.manifest import Kind
from shared.tree.member_path import sort_key
from shared.tree.walk import Tree, TreeWalk, WalkOptions

if TYPE_CHECKING:
    from collections.abc import Iterator

    from initpuller.volume.records.journal import Journal
    from shared.frames.manifest_file import ManifestFile
    from shared.tree.manifest import Entry


def prune(staging: int, manifest: ManifestFile, journal: Journal) -> None:
    """Remove from staging every entry that ``manifest`` lacks, and files that are not journaled."""
    if os.geteuid():
        _reopen_folders(staging)
    walk = TreeWalk(Tree(staging, manifest.root), WalkOptions(inside=False))
    remove_paths(staging, list(_unwanted(walk.entries(), manifest, journal)))


def remove_paths(staging: int, paths: list[bytes]) -> None:
    """Remove whatever is at ``paths`` below staging, the last one first."""
    with DirStack(staging, create=True) as folders:
        for path in reversed(paths):
            remove(*folders.parent(path))


def _reopen_folders(above: int) -> None:
    """Give folders the owner's permissions: without privileges, others cannot be walked."""
    for name in folder_names(above):
        info = os.stat(name, dir_fd=above, follow_symlinks=False)
        if not stat.S_ISDIR(info.st_mode):
            continue
        if info.st_mode & stat.S_IRWXU != stat.S_IRWXU:
            os.chmod(name, stat.S_IRWXU, dir_fd=above)
        with opened(name, FOLDER, dir_fd=above) as fd:
            _reopen_folders(fd)


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
            # A file of which blocks are held is written over, block by block.
            is_safe = all(frame in journal for frame in frames)
            is_safe = is_safe or any(journal.tag(frame) is not None for frame in frames)
            is_content = want.kind is Kind.FILE and entry.kind in (Kind.FILE, Kind.HARDLINK)
            if not same_place or not (is_folder or (is_content and is_safe)):
                yield entry.path


def discard_lost_blocks(staging: int, manifest: ManifestFile, journal: Journal) -> None:
    """Have the held blocks of files that are missing from the volume fetched whole."""
    lost: list[int] = []
    with DirStack(staging, create=True) as folders:
        for number in journal.held():
            [entry] = manifest.entries(manifest.plan[number].first, 1)
            if not is_large(entry):
                continue  # an earlier release held frames of small files, which are fetched whole
            place = folders.parent(entry.path)
            if not is_file(*place):
                remove(*place)
                lost.append(number)
    journal.redo(lost)
