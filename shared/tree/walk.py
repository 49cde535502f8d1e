"""Looks at a tree as it is: entries in manifest order, and what is not library content.

Both sides look with this: the agent at the library, the puller at what an earlier run left.
Files are opened: that proves that they can be read, and their xattrs and holes are asked of the
descriptor, which measured a third of the way through ``/proc/self/fd``.
"""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import msgspec

from shared.errors import IllegalPath, printable
from shared.tree.dir_stack import DirStack
from shared.tree.excludes import matcher
from shared.tree.manifest import Entry, Kind
from shared.tree.member_path import check_name
from shared.tree.xattrs import read_xattrs

if TYPE_CHECKING:
    from collections.abc import Iterator

_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_LINK = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_LONGEST = 4096 - 257  # with a name below it, a path that system calls take
_NOT_OPEN = -1
"""Instead of the descriptor of a folder that need not be listed."""
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


@dataclass
class _Level:
    """A folder on the way down."""

    fd: int
    above: bytes
    """Its path, with a slash at the end."""
    names: Iterator[bytes]
    """Those of its entries that are still to come."""

    def close(self) -> None:
        if self.fd != _NOT_OPEN:
            os.close(self.fd)


class Memory(Protocol):
    """What is known from an earlier walk, asked in the order of this one."""

    def recall(self, outside: Entry, device: int) -> Entry | None:
        """Return the entry if it looks as it did and has not changed unseen: it is not opened.

        Args:
            outside: as a look that opens nothing saw it.
            device: the number of the device that it is on.
        """

    def names(self, folder: Entry) -> Iterator[bytes] | None:
        """What is in a folder that was recalled, if no other name can be: nobody lists it.

        What is below a name is asked about before the next name is.
        """


class TreeWalk:
    """One look at the tree ``name`` in the folder ``base``.

    Args:
        base: descriptor of the folder that the tree is in.
        name: the tree's name in that folder, which must not be a symlink.
        exclude: patterns, see :mod:`shared.tree.excludes`.
        top: the path that the tree has in the entries, if it is not ``name``. The folders that this
            puts above the tree are entries too, with the attributes of the tree's own folder.
        inside: look into entries; without it they have no targets, holes and xattrs, and files
            are not opened, which takes half the time.
        live: what goes away while it is looked at was never there.
        memory: of an earlier walk.
    """

    def __init__(
        self,
        base: int,
        name: bytes,
        exclude: tuple[str, ...] = (),
        *,
        top: bytes = b"",
        inside: bool = True,
        live: bool = False,
        memory: Memory | None = None,
    ) -> None:
        self.seen = Sightings()
        self._memory = memory
        self._base = base
        self._name = name
        self._top = top or name
        self._excluded = matcher(exclude)
        self._inside = inside
        self._live = live
        self._links: dict[tuple[int, int], bytes] = {}

    def entries(self) -> Iterator[Entry]:
        """Every entry, sorted, parents first; none if the tree itself cannot be entered."""
        yield from self._folders_above()
        above, slash, _ = self._top.rpartition(b"/")
        stack = [_Level(self._base, above + slash, iter([self._name]))]
        try:
            while stack:
                level, path = stack[-1], stack[-1].above[:-1]
                try:
                    name = next(level.names, None)
                    if name is None:
                        stack.pop()
                        if stack:
                            level.close()
                        continue
                    is_top = len(stack) == 1
                    path = self._top if is_top else level.above + name
                    info = self._look(level, name, path, is_top=is_top)
                    if info is None:
                        continue
                    if stat.S_ISDIR(info.st_mode) or is_top:
                        entry, below = self._enter(level, name, path, info)
                        stack.append(below)
                        yield entry
                    elif (content := self._no_folder(level, name, path, info)) is not None:
                        yield content
                except OSError as error:
                    self._failed(path, error)
                except IllegalPath as error:
                    self._unreadable(path[:200], error.what)
        finally:
            for level in stack[1:]:
                level.close()

    def _folders_above(self) -> Iterator[Entry]:
        """Yield an entry for each folder that :attr:`_top` puts above the tree."""
        names = self._top.split(b"/")[:-1]
        try:
            top = os.stat(self._name, dir_fd=self._base, follow_symlinks=False)
        except OSError:
            return  # the look at the tree itself says why
        for count in range(1, len(names) + 1):
            outside = _entry(b"/".join(names[:count]), Kind.DIRECTORY, top)
            yield self._known(outside, top) or outside

    def _in_base(self, path: bytes) -> bytes:
        """Return where ``path``, of an entry, is below the base."""
        return self._name + path[len(self._top) :]

    def _look(
        self, level: _Level, name: bytes, path: bytes, *, is_top: bool
    ) -> os.stat_result | None:
        """What is called so; None if it is left out."""
        if level.fd == _NOT_OPEN:
            return os.stat(self._in_base(path), dir_fd=self._base, follow_symlinks=False)
        if self._excluded is not None and not is_top and self._excluded(path, name):
            size = _size(level.fd, name) if self._inside else 0
            self.seen.excluded.append(f"{printable(path)} ({size} bytes)")
            return None
        check_name(name, path, depth=path.count(b"/") + 1)
        return os.stat(name, dir_fd=level.fd, follow_symlinks=False)

    def _enter(
        self, level: _Level, name: bytes, path: bytes, info: os.stat_result
    ) -> tuple[Entry, _Level]:
        """The folder's entry, and what is below it."""
        outside = _entry(path, Kind.DIRECTORY, info)
        known, above = self._known(outside, info), path + b"/"
        if known is not None and self._memory is not None and len(path) < _LONGEST:
            names = self._memory.names(known)
            if names is not None:
                return known, _Level(_NOT_OPEN, above, names)
        below = _Level(self._open(level, name, path, _FOLDER), above, iter(()))
        try:
            xattrs = self._xattrs(below.fd, path) if self._inside and known is None else {}
        except OSError:
            below.close()
            raise
        below.names = _listed(below.fd)
        if xattrs:
            outside = msgspec.structs.replace(outside, xattrs=xattrs)
        return known or outside, below

    def _known(self, outside: Entry, info: os.stat_result) -> Entry | None:
        return self._memory.recall(outside, info.st_dev) if self._memory is not None else None

    def _open(self, level: _Level, name: bytes, path: bytes, flags: int) -> int:
        if level.fd != _NOT_OPEN:
            return os.open(name, flags, dir_fd=level.fd)
        with DirStack(self._base) as folders:
            folder, name = folders.parent(self._in_base(path))
            return os.open(name, flags, dir_fd=folder)

    def _failed(self, path: bytes, error: OSError) -> None:
        if not (self._live and error.errno in _GONE):
            self._unreadable(path, os.strerror(error.errno or 0))

    def _no_folder(
        self, level: _Level, name: bytes, path: bytes, info: os.stat_result
    ) -> Entry | None:
        """The entry of what is no folder; None if it is no content."""
        kind = stat.S_IFMT(info.st_mode)
        if kind in _SPECIAL:
            self.seen.skipped.append(f"{printable(path)} ({_SPECIAL[kind]})")
            return None
        if info.st_nlink > 1:
            first = self._links.setdefault((info.st_dev, info.st_ino), path)
            if first is not path:
                outside = _entry(path, Kind.HARDLINK, info, link=first)
                known = self._known(outside, info) if self._inside else None
                return known if known is not None and known.link == first else outside
        is_link = kind == stat.S_IFLNK
        outside = _entry(path, Kind.SYMLINK if is_link else Kind.FILE, info)
        if not self._inside:
            return outside
        if (known := self._known(outside, info)) is not None:
            return known
        if is_link:
            link = self._open(level, name, path, _LINK)
            try:
                return msgspec.structs.replace(outside, link=os.readlink(b"", dir_fd=link))
            finally:
                os.close(link)
        file = self._open(level, name, path, _FILE)
        try:
            data = None
            if info.st_blocks * _SECTOR < info.st_size:
                data = _data_bytes(file, info.st_size)
            xattrs = self._xattrs(file, path)
        finally:
            os.close(file)
        is_plain = data is None and not xattrs
        return outside if is_plain else msgspec.structs.replace(outside, data=data, xattrs=xattrs)

    def _unreadable(self, path: bytes, reason: str) -> None:
        self.seen.unreadable.append(f"{printable(path)} ({reason})")

    def _xattrs(self, fd: int, path: bytes) -> dict[str, bytes]:
        """Return the ``user.`` xattrs; note those whose names cannot be moved."""
        found = read_xattrs(fd)
        for key in [each for each in found if not each.isprintable()]:
            del found[key]
            self.seen.skipped.append(f"{printable(path)} (xattr {printable(key)})")
        return found


def _listed(folder: int) -> Iterator[bytes]:
    """Its names, read when the first of them is asked for: after its entry has been used."""
    yield from sorted(map(os.fsencode, os.listdir(folder)))


def _entry(path: bytes, kind: Kind, info: os.stat_result, *, link: bytes = b"") -> Entry:
    return Entry(
        path,
        kind,
        stat.S_IMODE(info.st_mode),
        info.st_uid,
        info.st_gid,
        info.st_mtime_ns,
        info.st_ctime_ns,
        info.st_ino,
        info.st_size if kind is Kind.FILE else 0,
        link=link,
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
