"""A frame of small files all of which the volume has, from an earlier snapshot's other paths."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from shared.digest import sha256, sha256_of_all
from shared.frames.plan import members
from shared.tree.dir_stack import DirStack
from shared.tree.manifest import Kind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shared.frames.plan import Frame
    from shared.tree.manifest import Entry

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def read_packed(staging: int, frame: Frame, entries: Sequence[Entry], tag: str) -> bytearray | None:
    """The frame's files as they lie on the volume, each where it is in the frame's tar bytes.

    Args:
        staging: descriptor of the staging folder.
        frame: which frame.
        entries: the manifest's entries that it touches.
        tag: the hexadecimal digest that it has to have.

    Returns:
        Tar bytes without headers, for :func:`initpuller.volume.staging.unpack.unpack_frame`; None
        if a file is missing or the digest differs.
    """
    tar, sums = bytearray(frame.size), list[bytes]()
    with DirStack(staging) as folders:
        for member in members(frame, entries):
            if member.entry.kind is not Kind.FILE:
                continue
            place = memoryview(tar)[member.content : member.content + member.length]
            if place and not _read(folders, member.entry.path, place):
                return None
            sums.append(sha256(place))
    return tar if sha256_of_all(sums).hex() == tag else None


def _read(folders: DirStack, path: bytes, place: memoryview) -> bool:
    """Whether there is a file at ``path``; a kill between two renames, or damage, leaves none."""
    try:
        folder, name = folders.parent(path)
        fd = os.open(name, _READ, dir_fd=folder)
    except OSError:
        return False
    try:
        os.preadv(fd, [place], 0)
    except OSError:
        return False
    else:
        return True
    finally:
        os.close(fd)
