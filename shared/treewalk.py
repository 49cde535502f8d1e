"""Looks at a tree as it is: entries in manifest order, and what is not library content.

Both sides look with this: the agent at the library, the puller at what an earlier run left.
Files are opened: that proves that they can be read, and their xattrs and holes are asked of the
descriptor, which measured a third of the way through ``/proc/self/fd``.
"""

from __future__ import annotations

import errno
import fnmatch
import os
import re
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from shared.errors import IllegalPath, printable
from shared.manifest import Entry, Kind
from shared.memberpath import check_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_GONE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO})
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
    """``path (size bytes)`` of what an exclude pattern matched; of a folder, only the folder."""
    unreadable: list[str] = field(default_factory=list)
    """``path (reason)`` of what should be content and cannot be read."""


class TreeWalk:
    """One look at the tree ``name`` in the folder ``base``.

    Args:
        base: descriptor of the folder that the tree is in.
        name: the tree's own name, the first of every path.
        exclude: patterns, see :func:`matcher`.
        inside: look into entries; without it they have no targets, holes and xattrs, and files
            are not opened, which takes half the time.
        live: what goes away while it is looked at was never there.
    """

    def __init__(
        self,
        base: int,
        name: bytes,
        exclude: tuple[str, ...] = (),
        *,
        inside: bool = True,
        live: bool = False,
    ) -> None:
        self.seen = Sightings()
        self._base = base
        self._name = name
        self._excluded = matcher(exclude)
        self._inside = inside
        self._live = live
        self._links: dict[tuple[int, int], bytes] = {}

    def entries(self) -> Iterator[Entry]:
        """Every entry, sorted, parents first; none if the tree itself cannot be entered."""
        stack: list[tuple[int, bytes, Iterator[bytes]]] = [(self._base, b"", iter([self._name]))]
        try:
            while stack:
                fd, above, names = stack[-1]
                name = next(names, None)
                if name is None:
                    stack.pop()
                    if stack:
                        os.close(fd)
                    continue
                path = above + name
                if self._excluded is not None and above and self._excluded(path):
                    size = _size(fd, name) if self._inside else 0
                    self.seen.excluded.append(f"{printable(path)} ({size} bytes)")
                    continue
                try:
                    check_name(name, path, depth=len(stack))
                    info = os.stat(name, dir_fd=fd, follow_symlinks=False)
                    if not stat.S_ISDIR(info.st_mode) and above:
                        if (entry := self._no_folder(fd, name, path, info)) is not None:
                            yield entry
                        continue
                    folder = os.open(name, _FOLDER, dir_fd=fd)
                    stack.append((folder, path + b"/", iter(())))
                    xattrs = self._xattrs(folder, path) if self._inside else {}
                    yield _entry(path, Kind.DIRECTORY, info, xattrs=xattrs)
                    below = sorted(map(os.fsencode, os.listdir(folder)))
                    stack[-1] = (folder, path + b"/", iter(below))
                except OSError as error:
                    self._failed(path, error)
                except IllegalPath as error:
                    self._unreadable(path[:200], error.what)
        finally:
            for fd, _, _ in stack[1:]:
                os.close(fd)

    def _failed(self, path: bytes, error: OSError) -> None:
        if not (self._live and error.errno in _GONE):
            self._unreadable(path, os.strerror(error.errno or 0))

    def _no_folder(self, fd: int, name: bytes, path: bytes, info: os.stat_result) -> Entry | None:
        """The entry of what is no folder; None if it is no content."""
        kind = stat.S_IFMT(info.st_mode)
        if kind in _SPECIAL:
            self.seen.skipped.append(f"{printable(path)} ({_SPECIAL[kind]})")
            return None
        if info.st_nlink > 1:
            first = self._links.setdefault((info.st_dev, info.st_ino), path)
            if first is not path:
                return _entry(path, Kind.HARDLINK, info, link=first)
        if not self._inside:
            if kind == stat.S_IFLNK:
                return _entry(path, Kind.SYMLINK, info)
            return _entry(path, Kind.FILE, info, size=info.st_size)
        if kind == stat.S_IFLNK:
            return _entry(path, Kind.SYMLINK, info, link=os.readlink(name, dir_fd=fd))
        file = os.open(name, _FILE, dir_fd=fd)
        try:
            size, data = info.st_size, None
            if info.st_blocks * _SECTOR < size:
                data = _data_bytes(file, size)
            xattrs = self._xattrs(file, path)
        finally:
            os.close(file)
        return _entry(path, Kind.FILE, info, size=size, data=data, xattrs=xattrs)

    def _unreadable(self, path: bytes, reason: str) -> None:
        self.seen.unreadable.append(f"{printable(path)} ({reason})")

    def _xattrs(self, fd: int, path: bytes) -> dict[str, bytes]:
        """The ``user.`` xattrs: of the namespaces, the one that is content."""
        try:
            names = os.listxattr(fd)
        except OSError as error:
            if error.errno == errno.EOPNOTSUPP:
                return {}
            raise
        found = {}
        for key in names:
            if not key.startswith("user."):
                continue
            if not key.isprintable():
                self.seen.skipped.append(f"{printable(path)} (xattr {printable(key)})")
                continue
            found[key] = os.getxattr(fd, key)
        return found


def _entry(
    path: bytes,
    kind: Kind,
    info: os.stat_result,
    *,
    size: int = 0,
    data: int | None = None,
    link: bytes = b"",
    xattrs: dict[str, bytes] | None = None,
) -> Entry:
    return Entry(
        path,
        kind,
        stat.S_IMODE(info.st_mode),
        info.st_uid,
        info.st_gid,
        info.st_mtime_ns,
        info.st_ctime_ns,
        info.st_ino,
        size,
        data,
        link,
        xattrs or {},
    )


def _data_bytes(file: int, size: int) -> int | None:
    """Bytes outside holes, or None where there is none (a compressing filesystem)."""
    total = position = 0
    while position < size:
        try:
            start = os.lseek(file, position, os.SEEK_DATA)
        except OSError:  # ENXIO: nothing but a hole follows
            break
        position = os.lseek(file, start, os.SEEK_HOLE)
        total += min(position, size) - start
    return total if total < size else None


def _size(base: int, name: bytes) -> int:
    """Bytes of content in ``name`` and all below it, as far as it can be looked at."""
    size, paths = 0, [name]
    while paths:
        path = paths.pop()
        try:
            info = os.stat(path, dir_fd=base, follow_symlinks=False)
            if not stat.S_ISDIR(info.st_mode):
                size += info.st_size
                continue
            folder = os.open(path, _FOLDER, dir_fd=base)
        except OSError:
            continue
        try:
            paths += [path + b"/" + os.fsencode(each) for each in os.listdir(folder)]
        finally:
            os.close(folder)
    return size


def matcher(patterns: tuple[str, ...]) -> Callable[[bytes], bool] | None:
    """A test of whether a path, library name first, is to be left out; None if none ever is.

    A pattern with a slash, be it the first letter, is matched against the whole path below the
    library; one without, against every single name. Wildcards as in :mod:`fnmatch`: ``*`` crosses
    slashes. What is below a folder that is left out is left out.
    """
    whole = [p.strip("/") for p in patterns if "/" in p.rstrip("/")]
    names = [p.strip("/") for p in patterns if "/" not in p.rstrip("/")]
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
