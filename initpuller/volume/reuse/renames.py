"""Files that have another path than in the snapshot before: renamed on the volume, not fetched.

A rename leaves inode, size and mtime as they were, and may set the ctime (inode(7)). That two scans
saw these alike is a guess, not a proof: what is renamed counts as held, so the agent is asked
whether it is the same, and what a kill between two renames leaves is fetched.
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from initpuller.volume.names import remove
from shared.tree.dir_stack import DirStack

if TYPE_CHECKING:
    from shared.tree.manifest import Entry

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Trace(NamedTuple):
    """What stays the same of a file that is renamed."""

    inode: int
    size: int
    mtime_ns: int


def trace_of(entry: Entry) -> Trace:
    """That of a file."""
    return Trace(entry.inode, entry.size, entry.mtime_ns)


class Moves:
    """Filled by :func:`initpuller.volume.reuse.matching.carry_over`.

    All files leave their old places before the first comes to its new one: they may swap them.
    """

    def __init__(self) -> None:
        self._paths: list[tuple[bytes, bytes]] = []

    def add(self, before: Entry, after: Entry) -> None:
        """Have what is at the path of ``before`` moved to that of ``after``."""
        self._paths.append((before.path, after.path))

    def set_aside(self, staging: int, aside: str) -> None:
        """Take the files from their old places; what is not there is fetched.

        Args:
            staging: descriptor of the staging folder.
            aside: an empty folder on the same volume is made here.

        Raises:
            OSError: as the filesystem says.
        """
        shutil.rmtree(aside, ignore_errors=True)
        if not self._paths:
            return
        os.mkdir(aside, 0o700)
        there = os.open(aside, _FOLDER)
        try:
            with DirStack(staging, create=True) as folders:
                for number, (before, _) in enumerate(self._paths):
                    folder, name = folders.parent(before)
                    _move(folder, name, there, b"%d" % number)
        finally:
            os.close(there)

    def put_in_place(self, staging: int, aside: str) -> None:
        """Bring the files to their new places, over whatever is there.

        Args:
            staging: descriptor of the staging folder.
            aside: where :meth:`set_aside` has put them; it is removed.

        Raises:
            OSError: as the filesystem says.
        """
        if not self._paths:
            return
        there = os.open(aside, _FOLDER)
        try:
            with DirStack(staging, create=True) as folders:
                for number, (_, after) in enumerate(self._paths):
                    folder, name = folders.parent(after)
                    remove(folder, name)
                    _move(there, b"%d" % number, folder, name)
        finally:
            os.close(there)
        shutil.rmtree(aside)


def _move(from_folder: int, old: bytes, to_folder: int, new: bytes) -> None:
    """Rename what is there; what is not is fetched."""
    with suppress(FileNotFoundError):
        os.rename(old, new, src_dir_fd=from_folder, dst_dir_fd=to_folder)
