"""Reads and writes at an offset, whole: a filesystem may transfer a part of them, and not say why.

Source: POSIX.1-2017, pread() and pwrite().
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shared.digest import Buffer


def read_at(fd: int, length: int, offset: int) -> bytes:
    """Return ``length`` bytes from ``offset`` on, or fewer if the file ends before that."""
    content = os.pread(fd, length, offset)
    while (left := length - len(content)) > 0:
        more = os.pread(fd, left, offset + len(content))
        if not more:
            break
        content += more
    return content


def write_at(fd: int, content: Buffer, offset: int) -> None:
    """Write all of ``content`` from ``offset`` on."""
    left = memoryview(content)
    while left:
        done = os.pwrite(fd, left, offset)
        left, offset = left[done:], offset + done
