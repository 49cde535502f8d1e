"""The throw-away folder of a probe: made, removed, and what a killed run left of it, too."""

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
"""The one file in the folder that is renamed to beside the library, as publication will do."""


@contextmanager
def throw_away(layout: Layout) -> Iterator[int]:
    """Make an empty folder where files will be assembled, and remove it at the end.

    Args:
        layout: the volume. The caller holds its lock.

    Yields:
        Its descriptor.

    Raises:
        StorageError: it cannot be made, or something in it failed with an OSError.
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
    """Remove what the trial of the rename has left beside the library.

    Raises:
        StorageError: something else has its name.
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
    """Remove everything in a folder, also what was closed for its owner.

    Args:
        folder: its descriptor.

    Raises:
        OSError: as the filesystem says.
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
