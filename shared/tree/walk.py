"""Walk of a tree: its entries in manifest order, and records of what is left out.

The agent walks the library, the puller what an earlier run left. Files are opened. That proves that
they can be read, and asking the descriptor for xattrs and holes took a third of the time that
``/proc/self/fd`` took.
"""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import msgspec

from shared.errors import IllegalPath, printable
from shared.native import native
from shared.tree.dir_stack import DirStack
from shared.tree.excludes import ends_of, matcher
from shared.tree.folder_names import folder_names
from shared.tree.manifest import Entry, Kind, format_line
from shared.tree.member_path import check_name
from shared.tree.omitted import Omitted, Reason
from shared.tree.read_ahead import read_ahead
from shared.tree.sizes import content_size, data_bytes
from shared.tree.xattrs import read_xattrs

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator
    from types import ModuleType

    from plexodus_native import Walk

_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_LINK = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_HOW = {Kind.FILE: _FILE, Kind.DIRECTORY: _FOLDER, Kind.SYMLINK: _LINK}
_LONGEST = 4096 - 257  # with a name below it, a path that system calls take
_NOT_OPEN = -1
"""Instead of the descriptor of a folder that need not be listed."""
_GONE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO})
_SECTOR = 512
_SPECIAL = {
    stat.S_IFIFO: Reason.FIFO,
    stat.S_IFSOCK: Reason.SOCKET,
    stat.S_IFCHR: Reason.CHARACTER_DEVICE,
    stat.S_IFBLK: Reason.BLOCK_DEVICE,
}


@dataclass(frozen=True)
class Tree:
    """The tree that is walked, and where its paths begin."""

    base: int
    """Descriptor of the folder that the tree is in."""
    name: bytes
    """The tree's name in that folder, which must not be a symlink."""
    top: bytes = b""
    """Path of the tree in the entries, if it is not ``name``. The folders that this puts above the
    tree are entries too, with the attributes of the tree's own folder."""


@dataclass(frozen=True)
class WalkOptions:
    """How a tree is walked."""

    exclude: tuple[str, ...] = ()
    """Patterns of what is left out, see :mod:`shared.tree.excludes`."""
    inside: bool = True
    """Read targets, holes and xattrs. Without it files are not opened, which halves the time."""
    live: bool = False
    """Ignore what disappears during the walk."""


@dataclass
class _Level:
    """A folder on the way down."""

    fd: int
    above: bytes
    """Path of the folder, with a slash at the end."""
    names: Iterator[bytes]
    """Its remaining entries."""
    is_borrowed: bool = False
    """Whether the descriptor is the accelerator's."""
    usual: Walk | None = None
    """The accelerator's walk of all that is below the folder."""

    def close(self) -> None:
        if self.fd != _NOT_OPEN and not self.is_borrowed:
            os.close(self.fd)


class Memory(Protocol):
    """Knowledge from an earlier walk, queried in the order of this one."""

    def recall(self, outside: Entry, device: int) -> Entry | None:
        """Return the whole entry if it cannot have changed. Then it is not opened.

        Args:
            outside: the entry's status, read without opening it.
            device: number of the device that it is on.
        """

    def names(self, folder: Entry) -> Iterator[bytes] | None:
        """Return the names in a recalled folder if they cannot have changed. Then it is not listed.

        The entries below a name are queried before the next name.
        """

    def omitted(self, entry: Entry) -> Iterator[Omitted]:
        """Yield what the earlier walk left out of a recalled entry itself: its xattrs."""


class TreeWalk:
    """One walk of a tree.

    ``omit`` is called with each record of what is left out, in the order of the records. Without it
    sizes of excluded folders are not added up.
    """

    def __init__(
        self,
        tree: Tree,
        options: WalkOptions = WalkOptions(),
        memory: Memory | None = None,
        omit: Callable[[Omitted], None] | None = None,
    ) -> None:
        self.unreadable: list[str] = []
        """``path (reason)`` of each entry that cannot be read."""
        self.gone: list[str] = []
        """Each entry that disappeared during a walk that is not live."""
        self._memory = memory
        self._omit = omit
        self._base = tree.base
        self._name = tree.name
        self._top = tree.top or tree.name
        self._excluded = matcher(options.exclude)
        self._may_be_excluded = ends_of(options.exclude)
        self._inside = options.inside
        self._live = options.live
        self._links: dict[tuple[int, int], bytes] = {}
        self.devices: set[int] = set()
        """Numbers of the devices of all entries so far."""

    def entries(self) -> Generator[Entry, None, None]:
        """Yield each entry, sorted, parents first; none if the tree itself cannot be entered."""
        return (found for found in self._walk(None) if isinstance(found, Entry))

    def lines(self) -> Generator[bytes, None, None]:
        """Yield the lines of :meth:`entries`, one or many at a time.

        With the accelerator, which leaves the interpreter to others, a thread reads ahead. So use
        this for what does not change the tree.
        """
        if native is None or self._memory is not None:
            return (format_line(entry) for entry in self.entries())
        return read_ahead(
            format_line(found) if isinstance(found, Entry) else found
            for found in self._walk(native)
            if found
        )

    def _walk(self, accelerator: ModuleType | None) -> Iterator[Entry | bytes]:
        try:
            yield from self._folders_above()
        except OSError as error:
            self._failed(self._top, error)
        else:
            yield from self._below_them(accelerator)

    def _below_them(self, accelerator: ModuleType | None) -> Iterator[Entry | bytes]:
        above, slash, _ = self._top.rpartition(b"/")
        stack = [_Level(self._base, above + slash, iter([self._name]))]
        try:
            while stack:
                level, path = stack[-1], stack[-1].above[:-1]
                try:
                    if level.usual is not None:
                        yield _next_run(level, level.usual, stack)
                        continue
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
                        self._accelerate(accelerator, below)
                        yield entry
                    elif (content := self._no_folder(level, name, path, info)) is not None:
                        yield content
                except (OSError, IllegalPath) as error:
                    self._failed(path, error)
        finally:
            for level in stack[1:]:
                level.close()

    def _accelerate(self, accelerator: ModuleType | None, level: _Level) -> None:
        """Leave what is below the folder to the accelerator, which gives odd entries back."""
        if accelerator is not None:
            ends = self._may_be_excluded
            level.usual = accelerator.walk(level.fd, level.above, ends, self._inside)
        if level.usual is not None:
            level.names = iter(())

    def _folders_above(self) -> Iterator[Entry]:
        """Yield an entry for each folder that :attr:`_top` puts above the tree."""
        names = self._top.split(b"/")[:-1]
        top = os.stat(self._name, dir_fd=self._base, follow_symlinks=False)
        for count in range(1, len(names) + 1):
            outside = _entry(b"/".join(names[:count]), Kind.DIRECTORY, top)
            yield self._known(outside, top) or outside

    def _in_base(self, path: bytes) -> bytes:
        return self._name + path[len(self._top) :]

    def _look(
        self, level: _Level, name: bytes, path: bytes, *, is_top: bool
    ) -> os.stat_result | None:
        """Return the status of the entry; None if it is left out."""
        if level.fd == _NOT_OPEN:
            info = os.stat(self._in_base(path), dir_fd=self._base, follow_symlinks=False)
            self.devices.add(info.st_dev)
            return info
        if self._excluded is not None and not is_top and self._excluded(path, name):
            if self._omit is not None:
                self._omit(Omitted(path, Reason.EXCLUDED, content_size(level.fd, name)))
            return None
        check_name(name, path, depth=path.count(b"/") + 1)
        info = os.stat(name, dir_fd=level.fd, follow_symlinks=False)
        self.devices.add(info.st_dev)
        return info

    def _enter(
        self, level: _Level, name: bytes, path: bytes, info: os.stat_result
    ) -> tuple[Entry, _Level]:
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
        """Return the entry from memory, if it cannot have changed."""
        if self._memory is None:
            return None
        known = self._memory.recall(outside, info.st_dev)
        if known is not None and self._omit is not None:
            for record in self._memory.omitted(known):
                self._omit(record)
        return known

    def _open(self, level: _Level, name: bytes, path: bytes, flags: int) -> int:
        if level.fd != _NOT_OPEN:
            return os.open(name, flags, dir_fd=level.fd)
        with DirStack(self._base) as folders:
            folder, name = folders.parent(self._in_base(path))
            return os.open(name, flags, dir_fd=folder)

    def _no_folder(
        self, level: _Level, name: bytes, path: bytes, info: os.stat_result
    ) -> Entry | None:
        """Return the entry of anything but a folder; None if it is not library content."""
        kind = stat.S_IFMT(info.st_mode)
        if kind in _SPECIAL:
            if self._omit is not None:
                self._omit(Omitted(path, _SPECIAL[kind]))
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
        if level.fd != _NOT_OPEN:
            return self._read(outside, level.fd, name)
        with DirStack(self._base) as folders:
            return self._read(outside, *folders.parent(self._in_base(path)))

    def folders(self) -> DirStack:
        """Return the folders of the tree's base, for :meth:`look_inside`."""
        return DirStack(self._base)

    def look_inside(self, folders: DirStack, outside: Entry) -> Entry | None:
        """Return an entry of a walk that did not, with its target, holes and xattrs.

        None if it cannot be read any more, which :attr:`unreadable` says.
        """
        if len(outside.path) < len(self._top):
            return outside
        try:
            return self._read(outside, *folders.parent(self._in_base(outside.path)))
        except OSError as error:
            self._failed(outside.path, error)
            return None

    def _read(self, outside: Entry, folder: int, name: bytes) -> Entry:
        opened = os.open(name, _HOW[outside.kind], dir_fd=folder)
        try:
            info = os.fstat(opened)
            if info.st_ino != outside.inode:  # another entry has got its name since
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
            if outside.kind is Kind.SYMLINK:
                return msgspec.structs.replace(outside, link=os.readlink(b"", dir_fd=opened))
            data = None
            if info.st_blocks * _SECTOR < outside.size:
                data = data_bytes(opened, outside.size)
            xattrs = self._xattrs(opened, outside.path)
        finally:
            os.close(opened)
        is_plain = data is None and not xattrs
        return outside if is_plain else msgspec.structs.replace(outside, data=data, xattrs=xattrs)

    def _failed(self, path: bytes, error: OSError | IllegalPath) -> None:
        if isinstance(error, IllegalPath):
            self.unreadable.append(f"{printable(path[:200])} ({error.what})")
        elif self._live and error.errno in _GONE:
            pass
        elif path != self._top and error.errno in (errno.ENOENT, errno.ENOTDIR):
            self.gone.append(printable(path))
        else:
            self.unreadable.append(f"{printable(path)} ({os.strerror(error.errno or 0)})")

    def _xattrs(self, fd: int, path: bytes) -> dict[str, bytes]:
        """Return the ``user.`` xattrs; leave out those whose names cannot be printed."""
        found = read_xattrs(fd)
        for key in sorted((each for each in found if not each.isprintable()), key=os.fsencode):
            del found[key]
            if self._omit is not None:
                self._omit(Omitted(path, Reason.XATTR, xattr=os.fsencode(key)))
        return found


def _next_run(level: _Level, usual: Walk, stack: list[_Level]) -> bytes:
    """Return the lines of the next usual entries, and put the odd one after them on the stack.

    Each status is read before the content that it belongs to, as everywhere in this walk. That the
    statuses of a run are read before the caller uses the first one weakens nothing: a manifest says
    what the scan found, not what is there when its line is written. Each file is compared with its
    line again before and after a frame is read, and the second look reads every status after that.
    """
    batch = usual.batch()
    if batch is None:
        raise RuntimeError("the accelerator has failed; set PLEXODUS_NATIVE=0 to do without it")
    lines, odd, is_last = batch
    if is_last:
        level.usual = None
    if odd is not None:
        folder, above, name = odd
        stack.append(_Level(folder, above, iter([name]), is_borrowed=True))
    return lines


def _listed(folder: int) -> Iterator[bytes]:
    """Yield the names in it. They are read at the first request, after its own entry was used."""
    yield from sorted(map(os.fsencode, folder_names(folder)))


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
