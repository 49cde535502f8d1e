"""Create and remove the scratch folder of a probe, also after a killed run."""

from __future__ import annotations

import os
import stat
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from shared.errors import StorageError, storage_error

if TYPE_CHECKING:
    from collections.abc import Iterator

    from initpuller.volume.records.layout import Layout

FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
MARKER = "probe"
"""The one file in the folder that the probe renames to the library's place, as publication does."""


@contextmanager
def scratch_folder(layout: Layout) -> Iterator[int]:
    """Create an empty folder where files will be assembled, and remove it at the end.

    Args:
        layout: the volume. The caller holds its lock.

    Yields:
        The folder's descriptor.

    Raises:
        StorageError: the folder cannot be created, or an OSError happened in the block.
    """
    try:
        _remove_published(layout)
        for path in layout.probes:
            _remove_tree(path)
        place = layout.probes[0] if os.path.isdir(layout.staging) else layout.probes[1]
        os.mkdir(place, 0o700)
    except OSError as error:
        raise storage_error(error, layout.folder) from error
    try:
        folder = os.open(place, FOLDER)
        try:
            yield folder
        finally:
            os.close(folder)
    except OSError as error:
        raise storage_error(error, place) from error
    finally:
        with suppress(OSError):  # the next probe tries again
            _remove_published(layout)
            _remove_tree(place)


def _remove_published(layout: Layout) -> None:
    """Remove the folder that the trial rename has put beside the library.

    Raises:
        StorageError: something else has the folder's name.
    """
    path = layout.published_probe
    try:
        with suppress(FileNotFoundError):
            os.unlink(os.path.join(path, MARKER))
        with suppress(FileNotFoundError):
            os.rmdir(path)
    except OSError as error:
        raise StorageError(
            f"the name is needed to probe the volume ({os.strerror(error.errno or 0)})",
            path=path,
            hint="Move it away, then run again.",
        ) from error


def _remove_tree(path: str) -> None:
    try:
        folder = os.open(path, FOLDER)
    except FileNotFoundError:
        return
    try:
        empty(folder)
    finally:
        os.close(folder)
    os.rmdir(path)


def empty(folder: int) -> None:
    """Remove everything in a folder, including folders that their owner may not enter.

    Args:
        folder: the folder's descriptor.

    Raises:
        OSError: the filesystem refuses.
    """
    for name in os.listdir(folder):
        if not stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
            os.unlink(name, dir_fd=folder)
            continue
        with suppress(OSError):
            os.chmod(name, 0o700, dir_fd=folder)
        inside = os.open(name, FOLDER, dir_fd=folder)
        try:
            empty(inside)
        finally:
            os.close(inside)
        os.rmdir(name, dir_fd=folder)
