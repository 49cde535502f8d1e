"""A frame of small files all of which the volume has, from an earlier snapshot's other paths."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from shared.digest import sha256, sha256_of_all
from shared.dirstack import DirStack
from shared.frameplan import members
from shared.manifest import Kind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shared.frameplan import Frame
    from shared.manifest import Entry

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def read_packed(staging: int, frame: Frame, entries: Sequence[Entry], tag: str) -> bytearray | None:
    """The frame's files as they lie on the volume, each where it is in the frame's tar bytes.

    Args:
        staging: descriptor of the staging folder.
        frame: which frame.
        entries: the manifest's entries that it touches.
        tag: the hexadecimal digest that it has to have.

    Returns:
        Tar bytes without headers, as :func:`initpuller.volume.unpack.unpack_frame` takes them; None
        where a file is missing, or the digest is another one.
    """
    tar, sums = bytearray(frame.size), list[bytes]()
    with DirStack(staging) as folders:
        for member in members(frame, entries):
            if member.entry.kind is not Kind.FILE:
                continue
            end = member.content + member.length
            try:
                folder, name = folders.parent(member.entry.path)
                fd = os.open(name, _READ, dir_fd=folder)
                with open(fd, "rb", buffering=0) as file:
                    file.readinto(memoryview(tar)[member.content : end])
            except OSError:  # a kill between two renames, or damage: it is fetched
                return None
            sums.append(sha256(memoryview(tar)[member.content : end]))
    return tar if sha256_of_all(sums).hex() == tag else None
