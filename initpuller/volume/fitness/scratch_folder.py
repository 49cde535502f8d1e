"""Create and remove the scratch folder of a probe, also after a killed run."""

from __future__ import annotations

import os
import stat
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from initpuller.volume.filesystem import opened
from shared.errors import StorageError, storage_errors
from shared.presence import is_folder
from shared.tree.folder_names import folder_names

if TYPE_CHECKING:
    from collections.abc import Iterator

    from initpuller.volume.records.layout import Layout

MARKER = "probe"
"""The one file in the folder that the probe renames to the library's place, as publication does."""


@contextmanager
def scratch_folder(layout: Layout) -> Iterator[int]:
    """Yield a descriptor of an empty folder where files will be assembled; remove it at the end.

    The caller holds the volume's lock. An OSError in the block becomes a StorageError.
    """
    with storage_errors(layout.folder):
        _remove_published(layout)
        for path in layout.probes:
            _remove_tree(path)
        place = layout.probes[0] if is_folder(layout.staging) else layout.probes[1]
        os.mkdir(place, 0o700)
    try:
        with storage_errors(place), opened(place) as folder:
            yield folder
    finally:
        with suppress(OSError):  # the next probe tries again
            _remove_published(layout)
            _remove_tree(place)


def _remove_published(layout: Layout) -> None:
    """Remove the folder that the trial rename has put beside the library."""
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
    with suppress(FileNotFoundError):
        with opened(path) as folder:
            empty(folder)
        os.rmdir(path)  # closed before, because some network filesystems keep an open folder


def empty(folder: int) -> None:
    """Remove everything in a folder, including folders that their owner may not enter.

    The folder is opened again, because Linux's SMB client lists again what it listed at first
    through a descriptor (``cifs_readdir`` searches again only if it knows of a change).
    """
    with opened(b".", dir_fd=folder) as fresh:
        names = folder_names(fresh)
    for name in names:
        if not stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
            os.unlink(name, dir_fd=folder)
            continue
        with suppress(OSError):
            os.chmod(name, 0o700, dir_fd=folder)
        with opened(name, dir_fd=folder) as inside:
            empty(inside)
        os.rmdir(name, dir_fd=folder)
