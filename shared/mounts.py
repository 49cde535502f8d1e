"""The mount table of this process (proc_pid_mountinfo(5))."""

from __future__ import annotations

import os
import re
from typing import NamedTuple

MOUNTS = "/proc/self/mountinfo"


class Mount(NamedTuple):
    """One line of the table."""

    number: int
    """The mount's ID, as in ``/proc/PID/fdinfo``."""
    device: str
    """Major and minor number of the filesystem's device, such as ``8:1``."""
    point: str
    """The absolute path where it is mounted."""
    type: str
    """The filesystem's type, such as ``ext4`` or ``fuse.sshfs``."""
    source: str
    """What is mounted, as the filesystem names it: a device, a server, or any word."""


def read_mounts(table: str = MOUNTS) -> list[Mount]:
    """Return all mounts in the order of the table: a later one covers an earlier one."""
    with open(table, "rb") as file:
        return [_mount(line.split(b" ")) for line in file]


def _mount(fields: list[bytes]) -> Mount:
    # Spaces, tabs, newlines and backslashes in a path are escaped as three octal digits.
    point = re.sub(rb"\\([0-7]{3})", lambda found: bytes([int(found[1], 8)]), fields[4])
    kind, source = map(os.fsdecode, fields[(end := fields.index(b"-", 6)) + 1 : end + 3])
    return Mount(int(fields[0]), fields[2].decode(), os.fsdecode(point), kind, source)
