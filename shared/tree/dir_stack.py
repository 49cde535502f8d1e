"""Opens the folders of a tree one name at a time, never through a symlink.

Paths come sorted, so the folder of the next entry is mostly the one of the last, or near it: the
descriptors on the way down are kept. Nothing that is renamed or linked meanwhile can lead outside
(``O_NOFOLLOW`` at every step, as openat(2) has it).
"""

from __future__ import annotations

import contextlib
import errno
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OWNER = 0o700


class DirStack:
    """Descriptors of the folders from a base down to the last one asked for.

    Args:
        base: a descriptor of the folder that paths are relative to; it is duplicated.
        create: make folders that are missing, mode 0700, replace what is in their place, and
            make folders writable for their owner. Only for a tree of our own making.
    """

    def __init__(self, base: int, *, create: bool = False) -> None:
        self._path: bytes | None = b""
        self._names: list[bytes] = []
        self._fds = [os.dup(base)]
        self._create = create

    def __enter__(self) -> Self:
        """The stack itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close all descriptors."""
        for fd in self._fds:
            os.close(fd)
        self._fds = []

    def parent(self, path: bytes) -> tuple[int, bytes]:
        """A descriptor of the folder that ``path`` is in, and ``path``'s last name.

        The descriptor is valid until the next call.

        Raises:
            OSError: a folder on the way is missing or unreadable, or is no folder.
        """
        above, _, last = path.rpartition(b"/")
        if above == self._path:
            return self._fds[-1], last
        return self.folder(above), last

    def folder(self, path: bytes) -> int:
        """A descriptor of the folder ``path`` itself, valid until the next call.

        Raises:
            OSError: as for :meth:`parent`.
        """
        if path == self._path:
            return self._fds[-1]
        self._path = None  # until it is known that we got there
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
        """Most folders that are asked for are new: making one comes before looking for it."""
        above = self._fds[-1]
        try:
            os.mkdir(name, _OWNER, dir_fd=above)
        except FileExistsError:
            pass
        else:
            return os.open(name, _FLAGS, dir_fd=above)
        try:
            return self._open_writable(name)
        except OSError as error:
            if error.errno not in (errno.ENOTDIR, errno.ELOOP):
                raise
            os.unlink(name, dir_fd=above)
        with contextlib.suppress(FileExistsError):  # another worker was first
            os.mkdir(name, _OWNER, dir_fd=above)
        return self._open_writable(name)

    def _open_writable(self, name: bytes) -> int:
        """Open ``name``, which an earlier run may have given its final, read-only mode."""
        above = self._fds[-1]
        try:
            fd = os.open(name, _FLAGS, dir_fd=above)
        except PermissionError:
            os.chmod(name, _OWNER, dir_fd=above)
            fd = os.open(name, _FLAGS, dir_fd=above)
        if os.geteuid() and os.fstat(fd).st_mode & _OWNER != _OWNER:
            os.fchmod(fd, _OWNER)
        return fd
