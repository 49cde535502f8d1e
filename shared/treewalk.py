"""Looks at a tree as it is: entries in manifest order, and what is not library content.

Both sides look with this: the agent at the library, the puller at what it has assembled.
Per entry it costs one lstat, one llistxattr and one faccessat, all relative to open folders.
"""

from __future__ import annotations

import fnmatch
import os
import re
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from shared.errors import IllegalPath, printable
from shared.manifest import Entry, Kind
from shared.memberpath import check_path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_SECTOR = 512
_SPECIAL = {
    stat.S_IFIFO: "FIFO",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device",
}


@dataclass
class Sightings:
    """What a walk saw and did not make an entry of."""

    skipped: list[str] = field(default_factory=list)
    """FIFOs, sockets, devices, and xattrs with undecodable names: ``path (what)``."""
    excluded: list[str] = field(default_factory=list)
    """Paths that an exclude pattern matched; of a folder, only the folder."""
    unreadable: list[str] = field(default_factory=list)
    """``path (reason)`` of what should be content and cannot be read."""


class TreeWalk:
    """One look at the tree ``name`` in the folder ``base``.

    Args:
        base: descriptor of the folder that the tree is in.
        name: the tree's own name, the first of every path.
        exclude: patterns, see :func:`matcher`.
        must_read: list files that could not be opened as unreadable, instead of as entries.
    """

    def __init__(
        self, base: int, name: bytes, exclude: tuple[str, ...] = (), *, must_read: bool = True
    ) -> None:
        self.seen = Sightings()
        self._base = base
        self._name = name
        self._excluded = matcher(exclude)
        self._must_read = must_read
        self._links: dict[tuple[int, int], bytes] = {}

    def entries(self) -> Iterator[Entry]:
        """Every entry, sorted, parents first; none if the tree itself cannot be entered."""
        try:
            info = os.stat(self._name, dir_fd=self._base, follow_symlinks=False)
            yield from self._folder(self._base, self._name, self._name, info)
        except OSError as error:
            self._unreadable(self._name, os.strerror(error.errno or 0))

    def _below(self, fd: int, path: bytes) -> Iterator[Entry]:
        """What is in the folder ``fd``; depth is bounded by ``check_path``."""
        for name in sorted(map(os.fsencode, os.listdir(fd))):
            below = path + b"/" + name
            if self._excluded is not None and self._excluded(below):
                self.seen.excluded.append(printable(below))
                continue
            try:
                check_path(below, self._name)
                info = os.stat(name, dir_fd=fd, follow_symlinks=False)
                if stat.S_ISDIR(info.st_mode):
                    yield from self._folder(fd, name, below, info)
                elif (what := _SPECIAL.get(stat.S_IFMT(info.st_mode))) is not None:
                    self.seen.skipped.append(f"{printable(below)} ({what})")
                else:
                    yield self._entry(fd, name, below, info)
            except OSError as error:
                self._unreadable(below, os.strerror(error.errno or 0))
            except IllegalPath as error:
                self._unreadable(below[:200], error.what)

    def _folder(
        self, above: int, name: bytes, path: bytes, info: os.stat_result
    ) -> Iterator[Entry]:
        fd = os.open(name, _FLAGS, dir_fd=above)
        try:
            yield self._entry(above, name, path, info)
            yield from self._below(fd, path)
        finally:
            os.close(fd)

    def _unreadable(self, path: bytes, reason: str) -> None:
        self.seen.unreadable.append(f"{printable(path)} ({reason})")

    def _entry(self, fd: int, name: bytes, path: bytes, info: os.stat_result) -> Entry:
        mode, size, data, link = info.st_mode, 0, None, b""
        kind = Kind.DIRECTORY
        if not stat.S_ISDIR(mode):
            first = path
            if info.st_nlink > 1:
                first = self._links.setdefault((info.st_dev, info.st_ino), path)
            if first is not path:
                kind, link = Kind.HARDLINK, first
            elif stat.S_ISLNK(mode):
                kind, link = Kind.SYMLINK, os.readlink(name, dir_fd=fd)
            else:
                kind, size = Kind.FILE, info.st_size
                if self._must_read and not os.access(name, os.R_OK, dir_fd=fd, effective_ids=True):
                    raise PermissionError(13, "", path)
                if info.st_blocks * _SECTOR < size:
                    data = _data_bytes(fd, name, size)
        return Entry(
            path=path,
            kind=kind,
            mode=stat.S_IMODE(mode),
            uid=info.st_uid,
            gid=info.st_gid,
            mtime_ns=info.st_mtime_ns,
            ctime_ns=info.st_ctime_ns,
            inode=info.st_ino,
            size=size,
            data=data,
            link=link,
            xattrs=self._xattrs(fd, name, path) if kind in _WITH_XATTRS else {},
        )

    def _xattrs(self, fd: int, name: bytes, path: bytes) -> dict[str, bytes]:
        """The ``user.`` xattrs: of the namespaces, the one that is content."""
        place = b"/proc/self/fd/%d/%s" % (fd, name)
        try:
            names = os.listxattr(place, follow_symlinks=False)
        except OSError as error:
            if error.errno == _NO_XATTRS:
                return {}
            raise
        found = {}
        for key in names:
            if not key.startswith("user."):
                continue
            if not key.isprintable():
                self.seen.skipped.append(f"{printable(path)} (xattr {printable(key)})")
                continue
            found[key] = os.getxattr(place, key, follow_symlinks=False)
        return found


_WITH_XATTRS = (Kind.FILE, Kind.DIRECTORY)
_NO_XATTRS = 95  # EOPNOTSUPP


def _data_bytes(fd: int, name: bytes, size: int) -> int | None:
    """Bytes outside holes, or None where there is none (a compressing filesystem)."""
    file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
    try:
        total = position = 0
        while position < size:
            try:
                start = os.lseek(file, position, os.SEEK_DATA)
            except OSError:  # ENXIO: nothing but a hole follows
                break
            position = os.lseek(file, start, os.SEEK_HOLE)
            total += min(position, size) - start
        return total if total < size else None
    finally:
        os.close(file)


def matcher(patterns: tuple[str, ...]) -> Callable[[bytes], bool] | None:
    """A test of whether a path, library name first, is to be left out; None if none ever is.

    A pattern with a slash is matched against the whole path below the library; one without,
    against every single name. Wildcards as in :mod:`fnmatch`: ``*`` crosses slashes. What is
    below a folder that is left out is left out.
    """
    whole = [p.strip("/") for p in patterns if "/" in p.strip("/")]
    names = [p.strip("/") for p in patterns if "/" not in p.strip("/")]
    if not whole and not names:
        return None

    def compiled(globs: list[str]) -> re.Pattern[bytes]:
        either = "|".join(fnmatch.translate(glob) for glob in globs) or "(?!)"
        return re.compile(os.fsencode(either))

    whole_re, name_re = compiled(whole), compiled(names)

    def is_excluded(path: bytes) -> bool:
        below, name = path.partition(b"/")[2], path.rpartition(b"/")[2]
        return bool(whole_re.match(below) or name_re.match(name))

    return is_excluded
