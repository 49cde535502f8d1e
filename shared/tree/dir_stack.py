"""Open folders of a tree, reached one name at a time and never through a symlink.

Paths arrive sorted, so the next entry is usually in the folder of the previous one, or near it. The
descriptors on the way down therefore stay open. Every step uses ``O_NOFOLLOW`` (openat(2)), so a
rename or symlink made meanwhile cannot lead out of the tree.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from typing import Self

_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OWNER = 0o700


class DirStack:
    """Descriptors of the folders from a base down to the last requested one.

    Args:
        base: a descriptor of the folder that paths are relative to; it is duplicated.
        create: whether to create missing folders (mode 0700), to replace other entries in their
            place, and to make folders writable for their owner. Only for staging, never for a
            user's folders.
    """

    def __init__(self, base: int, *, create: bool = False) -> None:
        self._path: bytes | None = b""
        self._names: list[bytes] = []
        self._fds = [os.dup(base)]
        self._create = create

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for fd in self._fds:
            os.close(fd)
        self._fds = []

    def parent(self, path: bytes) -> tuple[int, bytes]:
        """Return the :meth:`folder` that contains ``path``, and the last name of ``path``."""
        above, _, last = path.rpartition(b"/")
        if above == self._path:
            return self._fds[-1], last
        return self.folder(above), last

    def folder(self, path: bytes) -> int:
        """Return a descriptor of the folder ``path`` itself, valid until the next call."""
        if path == self._path:
            return self._fds[-1]
        self._path = None  # if the descent fails, no path matches the open descriptors
        fd = self._descend(path.split(b"/") if path else [])
        self._path = path
        return fd

    def _descend(self, names: list[bytes]) -> int:
        same = 0
        for mine, theirs in zip(self._names, names, strict=False):
            if mine != theirs:
                break
            same += 1
        while len(self._names) > same:
            self._names.pop()
            os.close(self._fds.pop())
        for name in names[same:]:
            fd = self._make(name) if self._create else os.open(name, _FLAGS, dir_fd=self._fds[-1])
            self._fds.append(fd)
            self._names.append(name)
        return self._fds[-1]

    def _make(self, name: bytes) -> int:
        """Create the folder ``name``, or open it if it exists.

        Creation comes first, because most requested folders are new.
        """
        above = self._fds[-1]
        with suppress(FileExistsError):
            os.mkdir(name, _OWNER, dir_fd=above)
            return os.open(name, _FLAGS, dir_fd=above)
        try:
            return self._open_writable(name)
        except OSError as error:
            if error.errno not in (errno.ENOTDIR, errno.ELOOP):
                raise
            os.unlink(name, dir_fd=above)
        with suppress(FileExistsError):  # another worker created it
            os.mkdir(name, _OWNER, dir_fd=above)
        return self._open_writable(name)

    def _open_writable(self, name: bytes) -> int:
        """Open the folder ``name``, even if an earlier run gave it its final, read-only mode."""
        above = self._fds[-1]
        try:
            fd = os.open(name, _FLAGS, dir_fd=above)
        except PermissionError:
            os.chmod(name, _OWNER, dir_fd=above)
            fd = os.open(name, _FLAGS, dir_fd=above)
        if os.geteuid() and os.fstat(fd).st_mode & _OWNER != _OWNER:
            os.fchmod(fd, _OWNER)
        return fd
