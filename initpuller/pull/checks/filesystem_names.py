"""The filesystems that people have had trouble with, and words for each of them.

The probe of the volume decides what a pull refuses. A name only words the warning: a program of
such a filesystem may be set up well, and a trial of seconds does not meet two nodes at once.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from shared.checks import Check, CheckId


class _Family(NamedTuple):
    names: re.Pattern[str]
    """The types, as the mount table has them."""
    found: str
    """What is known of them, after the type."""
    advice: str


_BLOCKS = "Use a block volume (iSCSI, Ceph RBD, Longhorn, local) for /config."
_FAMILIES = (
    # https://sqlite.org/faq.html, question 5. Ceph's own locks work; its caches of a memory-mapped
    # -shm do not (https://sqlite.org/wal.html).
    _Family(
        re.compile(
            r"nfs4?|cifs|smb3|smbfs|afs|ceph|lustre|gpfs|beegfs|ocfs2|gfs2"
            r"|fuse\.(sshfs|gluster.*|ceph.*|juicefs|lustre|beegfs)"
        ),
        "SQLite's databases do not survive on a filesystem that several machines share",
        _BLOCKS,
    ),
    _Family(
        re.compile(
            r"fuse\.(s3fs|rclone|gcsfuse|blobfuse2?|mountpoint-s3|mount-s3|goofys|seaweedfs)"
        ),
        "object storage cannot change a part of a file in place, which a database needs",
        _BLOCKS,
    ),
    _Family(
        re.compile(r"9p|virtiofs|vboxsf|fuse\.vmhgfs-fuse|prl_fs"),
        "the folder of another system: locks and memory maps may not reach it",
        "Use a disk of the node itself for /config.",
    ),
    _Family(
        re.compile(r"fuse\.mergerfs"),
        "databases need its page cache",
        "Mount it with cache.files=auto-full, or use one of its disks for /config.",
    ),
    _Family(
        re.compile(r"fuse(blk)?(\..+)?"),
        "a program makes this filesystem, and decides whether locks and memory maps work",
        "If Plex reports a malformed database later, use a block volume for /config.",
    ),
)


def check_filesystem(name: str | None) -> Check:
    """Return a warning if the volume's filesystem is one that databases often have trouble with.

    Args:
        name: its type, as the mount table has it; None if the table does not say.
    """
    if name is None:
        return CheckId.FILESYSTEM.passed("of an unknown type")
    for family in _FAMILIES:
        if family.names.fullmatch(name):
            return CheckId.FILESYSTEM.warning(f"{name}: {family.found}", family.advice)
    return CheckId.FILESYSTEM.passed(name)
