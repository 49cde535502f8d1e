"""The lock of the volume: one puller at a time."""

from __future__ import annotations

import os
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from initpuller.volume.filesystem import mount_of
from shared.errors import StorageError, VolumeLocked, storage_error, storage_errors
from shared.file_lock import LockRefused, locked_file

if TYPE_CHECKING:
    from collections.abc import Iterator

    from initpuller.volume.records.layout import Layout


@contextmanager
def locked(layout: Layout) -> Iterator[None]:
    """Keep other pullers off the volume until the block ends, or this process does.

    Raises:
        VolumeLocked: another puller holds it.
    """
    path = layout.lock
    with storage_errors(layout.folder):
        os.makedirs(layout.folder, mode=0o700, exist_ok=True)
    with ExitStack() as stack:
        try:
            fd = stack.enter_context(locked_file(path, waits=False))
        except BlockingIOError:
            raise VolumeLocked(
                "another puller is at work on this volume",
                path=layout.target,
                hint="Let it finish, or stop it; then run again.",
            ) from None
        except LockRefused as error:
            raise _lock_refused(error, layout) from error
        except OSError as error:
            raise storage_error(error, layout.folder) from error
        with storage_errors(layout.folder):
            is_held = _is_at(path, fd)
        if not is_held:  # a preflight created the file, and has removed it since
            raise VolumeLocked("a preflight is at work on this volume", path=layout.target)
        yield


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
