"""Which library this is, and where: found again for each scan, never read through an old folder.

A folder that was opened once stays what it was, whatever is mounted over its path or renamed to it
later. So nothing is held open: each use opens the path and compares device and inode.
"""

from __future__ import annotations

import os
import socket
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec
import structlog

from agent.source.identity import library_id
from agent.source.writeback import mounts_below
from shared.errors import ConfigurationError, IllegalPath, SnapshotGone, SourceUnreadable, printable
from shared.plex.library import SUPPORT_FOLDER, library_name
from shared.tree.dir_stack import DirStack
from shared.tree.member_path import check_root_name
from shared.tree.walk import Tree
from shared.wire.protocol import Library

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_log = structlog.get_logger("agent")

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class Place(msgspec.Struct, frozen=True):
    """Where a library is: another folder at the same path differs in something of this."""

    path: str
    """Absolute, without symlinks."""
    device: int
    inode: int
    mounts: dict[str, int] = {}
    """Device of each filesystem that is mounted below it, by its path in the library."""


@dataclass(frozen=True)
class LibrarySource:
    """The library as it was found once."""

    about: Library
    place: Place

    @property
    def name(self) -> bytes:
        """The folder's own name, which is not ``about.name`` where a symlink led to it."""
        return os.fsencode(os.path.basename(self.place.path))

    @property
    def top(self) -> bytes:
        """The path that the folder has in the entries of a scan."""
        given = os.path.basename(self.about.path)
        is_placed = self.about.name != given
        return os.fsencode(f"{SUPPORT_FOLDER}/{given}" if is_placed else self.about.name)

    def placed(self) -> LibrarySource:
        """Return the same library in the folders in which Plex's image expects it.

        Only Plex's own folder gets them; other libraries stay as they are.
        """
        name = library_name(self.about.name, placed=True)
        return LibrarySource(msgspec.structs.replace(self.about, name=name), self.place)

    def tree(self, base: int) -> Tree:
        """Return what a walk of the library takes.

        Args:
            base: descriptor of the folder that the library is in, see :meth:`opened`.
        """
        return Tree(base, self.name, self.top)

    @contextmanager
    def folders(self) -> Iterator[SourceFolders]:
        """Open the folders of the library, to be found by the paths of the entries of a scan.

        Raises:
            SnapshotGone: see :meth:`opened`.
        """
        with self.opened() as base, SourceFolders(base, self.name, self.top) as folders:
            yield folders

    @contextmanager
    def opened(self) -> Iterator[int]:
        """Open the folder that the library is in, if that is the same library, also at the end.

        Raises:
            SnapshotGone: another folder is at its path, or none.
        """
        path = self.place.path
        try:
            base = os.open(os.path.dirname(path), _FOLDER)
        except OSError as error:
            raise _gone(path, error.strerror) from error
        try:
            self._check_in(base)
            yield base
            self._check_in(base)
        finally:
            os.close(base)

    def check_place(self) -> None:
        """Make sure that the library is where it was, with the same disks mounted below it.

        Raises:
            SnapshotGone: it is not.
        """
        path = self.place.path
        try:
            now = _find_place(path)
        except OSError as error:
            raise _gone(path, error.strerror) from error
        if now != self.place:
            raise _gone(path, "another folder or disk is there")

    def _check_in(self, base: int) -> None:
        """Raise :class:`SnapshotGone` if something else has the library's name in ``base``."""
        path = self.place.path
        try:
            info = os.stat(self.name, dir_fd=base, follow_symlinks=False)
        except OSError as error:
            raise _gone(path, error.strerror) from error
        if (info.st_dev, info.st_ino) != (self.place.device, self.place.inode):
            raise _gone(path, "another folder is there")


class SourceFolders(DirStack):
    """Opens folders of the library by the paths that they have in the entries of a scan.

    Args:
        base: descriptor of the folder that the library is in.
        name: the library's name there.
        top: the path that it has in the entries.
    """

    def __init__(self, base: int, name: bytes, top: bytes) -> None:
        super().__init__(base)
        self._name = name
        self._top = top

    def parent(self, path: bytes) -> tuple[int, bytes]:
        """Return what :meth:`DirStack.parent` returns, for a path of an entry."""
        return super().parent(self._name + path[len(self._top) :])


class CurrentLibrary:
    """The library that the settings name, or Plex's own, as it is at each moment.

    Args:
        configured: its path; empty: ``find`` says where it is.
        find: where Plex keeps it; raises :class:`ConfigurationError` if it is not there.
        state: the agent's state folder.

    Raises:
        ConfigurationError: there is no library that can be moved.
    """

    def __init__(self, configured: str, find: Callable[[], str], state: str) -> None:
        self.configured = configured
        self._find = find
        self._state = state
        self.last = self._open()
        """As it was found last."""

    def locate(self) -> LibrarySource:
        """Find it now.

        Raises:
            SourceUnreadable: it is not there, or cannot be read.
        """
        try:
            found = self._open()
        except ConfigurationError as error:
            path = error.path or self.last.about.path
            raise SourceUnreadable([f"{path} ({error.what}; is its disk mounted?)"]) from error
        if found.place != self.last.place:
            _log.warning("library replaced", path=found.place.path, before=self.last.place.path)
            self.last = found
        return found

    def _open(self) -> LibrarySource:
        return open_library(self.configured or self._find(), self._state)


def open_library(path: str, state: str = "") -> LibrarySource:
    """Find the library at ``path``.

    Args:
        path: its folder, or a symlink to it.
        state: the agent's state folder, which remembers the library's id; empty: nothing does.

    Raises:
        ConfigurationError: it is no readable folder, or has a name that cannot be moved.
    """
    real = os.path.realpath(path)
    given = _as_given(path, real)
    name = os.path.basename(given)
    try:
        check_root_name(os.fsencode(name))
        name.encode()
    except (IllegalPath, UnicodeError) as error:
        raise ConfigurationError(f"not a library that can be moved ({error})", path=path) from error
    try:
        place = _find_place(real)
    except OSError as error:
        raise ConfigurationError(
            f"the library cannot be read ({error.strerror})",
            path=path,
            hint="--library takes the folder called Library; the agent must be able to read it.",
        ) from error
    about = Library(library_id(real, state), name, socket.gethostname(), given)
    return LibrarySource(about, place)


def _as_given(path: str, real: str) -> str:
    """Return the absolute path by which the library was named.

    Its last name is the user's word for the library, even where that is a symlink to another name.
    """
    folder, name = os.path.split(path.rstrip("/"))
    if name in ("", os.curdir, os.pardir):
        return real
    return os.path.join(os.path.realpath(folder), name)


def refuse_unmounted(before: Place, now: LibrarySource) -> None:
    """Raise if a disk of the library is not mounted that was mounted at an earlier scan.

    Args:
        before: where the library was then.
        now: where it is.

    Raises:
        SourceUnreadable: its path, or what was a mount point in it, is an empty folder now.
    """
    place = now.place
    is_same = (before.device, before.inode) == (place.device, place.inode)
    suspects = [""] if before.path == place.path and not is_same else []
    suspects += [each for each in before.mounts if each not in place.mounts]
    empty = [each for each in suspects if _is_empty(os.path.join(place.path, each))]
    if empty:
        why = "an empty folder, and it was not at the last scan; is its disk mounted?"
        raise SourceUnreadable(
            [f"{printable(os.path.join(now.about.name, each))} ({why})" for each in empty]
        )


def why_unreadable(source: LibrarySource) -> str | None:
    """Return the reason why the library's top folder cannot be listed, or None."""
    try:
        os.close(os.open(source.place.path, _FOLDER | os.O_NOFOLLOW))
    except OSError as error:
        return os.strerror(error.errno or 0)
    return None


def _find_place(real: str) -> Place:
    """Return the place of the folder at ``real``, an absolute path without symlinks.

    Raises:
        OSError: it is no folder, or cannot be read.
    """
    fd = os.open(real, _FOLDER | os.O_NOFOLLOW)
    try:
        info = os.fstat(fd)
    finally:
        os.close(fd)
    mounts = {}
    for each in mounts_below(real):
        try:
            mounts[os.path.relpath(each, real)] = os.stat(each).st_dev
        except OSError:  # hidden below another one; or the scan says why it cannot be read
            continue
    return Place(real, info.st_dev, info.st_ino, mounts)


def _is_empty(path: str) -> bool:
    try:
        return not os.listdir(path)
    except OSError:
        return False


def _gone(path: str, reason: str | None) -> SnapshotGone:
    return SnapshotGone(
        f"the library is not where it was scanned ({reason}), scan again", path=path
    )
