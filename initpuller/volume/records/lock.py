"""The lock of the volume: one puller at a time."""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from initpuller.volume.filesystem import mount_of
from shared.errors import StorageError, VolumeLocked, storage_error

if TYPE_CHECKING:
    from collections.abc import Iterator

    from initpuller.volume.records.layout import Layout


@contextmanager
def locked(layout: Layout) -> Iterator[None]:
    """Hold the volume for this process alone; the lock ends with the process, however it ends.

    Raises:
        VolumeLocked: another puller holds it.
        StorageError: the volume cannot be written, or its filesystem cannot lock files.
    """
    path = layout.lock
    try:
        os.makedirs(layout.folder, mode=0o700, exist_ok=True)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise storage_error(error, layout.folder) from error
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise VolumeLocked(
                "another puller is at work on this volume",
                path=layout.target,
                hint="Let it finish, or stop it; then run again.",
            ) from None
        except OSError as error:
            raise _lock_refused(error, layout) from error
        if not _is_at(path, fd):  # a preflight that made it has removed it
            raise VolumeLocked("a preflight is at work on this volume", path=layout.target)
        yield
    finally:
        os.close(fd)


def _is_at(path: str, fd: int) -> bool:
    try:
        return os.path.samestat(os.stat(path, follow_symlinks=False), os.fstat(fd))
    except FileNotFoundError:
        return False


def _lock_refused(error: OSError, layout: Layout) -> StorageError:
    """Return the error for a filesystem whose flock(2) fails: NFS 3 without a lock service."""
    reason = os.strerror(error.errno) if error.errno else str(error)
    return StorageError(
        f"the volume mounted at {mount_of(layout.folder)} cannot lock files ({reason})",
        path=layout.lock,
        hint="Use a volume with working locks: a block volume, or NFS 4. On NFS 3, start the lock"
        " service (rpc.statd) on both sides, or mount with 'local_lock=all' if only one node"
        " uses the volume. Then run again.",
    )
