"""The library's place on disk, which is found again for each scan.

An open folder stays the same even if another one is later mounted over its path or renamed to it.
So no folder stays open between uses. Each use opens the path and compares device and inode.
"""

from __future__ import annotations

import os
import socket
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec
import structlog

from agent.source.identity import library_id
from agent.source.writeback import mounts_below
from shared.errors import (
    ConfigurationError,
    IllegalPath,
    PreflightRefused,
    SnapshotGone,
    SourceUnreadable,
    printable,
)
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
    """The place of a library. Another folder at the same path differs in at least one field."""

    path: str
    """Absolute path without symlinks."""
    device: int
    inode: int
    mounts: dict[str, int] = {}
    """Device of each filesystem mounted below it, by path relative to the library."""


@dataclass(frozen=True)
class LibrarySource:
    """The library as found at one time."""

    about: Library
    place: Place

    @property
    def name(self) -> bytes:
        """The folder's own name, which differs from ``about.name`` if a symlink led to it."""
        return os.fsencode(os.path.basename(self.place.path))

    @property
    def top(self) -> bytes:
        """The path of the folder in the entries of a scan."""
        given = os.path.basename(self.about.path)
        is_placed = self.about.name != given
        return os.fsencode(f"{SUPPORT_FOLDER}/{given}" if is_placed else self.about.name)

    def placed(self) -> LibrarySource:
        """Return Plex's own folder inside the parent folders that Plex's image expects.

        Other libraries are unchanged.
        """
        name = library_name(self.about.name, placed=True)
        return LibrarySource(msgspec.structs.replace(self.about, name=name), self.place)

    def tree(self, base: int) -> Tree:
        """Return the tree for a walk, with ``base`` from :meth:`opened`."""
        return Tree(base, self.name, self.top)

    @contextmanager
    def folders(self) -> Iterator[SourceFolders]:
        """Open the folders of the library; errors are those of :meth:`opened`."""
        with self.opened() as base, SourceFolders(base, self) as folders:
            yield folders

    @contextmanager
    def opened(self) -> Iterator[int]:
        """Open the folder that contains the library, and check the library before and after use.

        Raises:
            SnapshotGone: If another folder, or none, is at the library's path.
        """
        with self._missing_is_gone():
            base = os.open(os.path.dirname(self.place.path), _FOLDER)
        try:
            self._check_in(base)
            yield base
            self._check_in(base)
        finally:
            os.close(base)

    def check_place(self) -> None:
        """Raise :class:`SnapshotGone` unless folder and disks of the library are the same."""
        with self._missing_is_gone():
            now = _find_place(self.place.path)
        if now != self.place:
            raise self._gone("another folder or disk is there")

    def _check_in(self, base: int) -> None:
        with self._missing_is_gone():
            info = os.stat(self.name, dir_fd=base, follow_symlinks=False)
        if (info.st_dev, info.st_ino) != (self.place.device, self.place.inode):
            raise self._gone("another folder is there")

    @contextmanager
    def _missing_is_gone(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise self._gone(error.strerror) from error

    def _gone(self, reason: str | None) -> SnapshotGone:
        return SnapshotGone(
            f"the library is not where it was scanned ({reason}); scan again", path=self.place.path
        )


class SourceFolders(DirStack):
    """Folders of ``source``, opened by their paths in the entries of a scan."""

    def __init__(self, base: int, source: LibrarySource) -> None:
        super().__init__(base)
        self._name, self._cut = source.name, len(source.top)

    def parent(self, path: bytes) -> tuple[int, bytes]:
        """Return the result of :meth:`DirStack.parent` for a path of an entry."""
        return super().parent(self._name + path[self._cut :])


class CurrentLibrary:
    """The library that the settings name, or Plex's own, looked up again at each use.

    Args:
        configured: path from the settings; empty to use ``find``.
        find: returns the path of Plex's library, or raises :class:`PreflightRefused`.
        state: path of the agent's state folder.
    """

    def __init__(self, configured: str, find: Callable[[], str], state: str) -> None:
        self.configured = configured
        self._find = find
        self._state = state
        self.last = self._open()
        """The library as it was last found."""

    def locate(self) -> LibrarySource:
        """Find the library now, or raise :class:`SourceUnreadable` with its path."""
        try:
            found = self._open()
        except (ConfigurationError, PreflightRefused) as error:
            path = error.path or self.last.about.path
            raise SourceUnreadable([f"{path} ({error.what}; is its disk mounted?)"]) from error
        if found.place != self.last.place:
            _log.warning("library replaced", path=found.place.path, before=self.last.place.path)
            self.last = found
        return found

    def _open(self) -> LibrarySource:
        return open_library(self.configured or self._find(), self._state)


def open_library(path: str, state: str = "") -> LibrarySource:
    """Return the library at ``path``, which may be a symlink. Store its id in ``state``, if any.

    Raises:
        ConfigurationError: If its name is illegal.
        PreflightRefused: If ``path`` is not a readable folder. Its disk may be mounted later.
    """
    real = os.path.realpath(path)
    given = _as_given(path, real)
    name = os.path.basename(given)
    try:
        check_root_name(os.fsencode(name))
        name.encode()
    except (IllegalPath, UnicodeError) as error:
        raise ConfigurationError(f"the library cannot be moved ({error})", path=path) from error
    try:
        place = _find_place(real)
    except OSError as error:
        raise PreflightRefused(
            f"the library cannot be read ({error.strerror})",
            path=path,
            hint="Mount its disk. If the path is wrong, set --library to the folder called"
            " Library. Give the agent's user read access to it.",
        ) from error
    about = Library(library_id(real, state), name, socket.gethostname(), given)
    return LibrarySource(about, place)


def _as_given(path: str, real: str) -> str:
    """Return the absolute path with the last name that the user gave, even if it is a symlink."""
    folder, name = os.path.split(path.rstrip("/"))
    if name in ("", os.curdir, os.pardir):
        return real
    return os.path.join(os.path.realpath(folder), name)


def refuse_unmounted(before: Place, now: LibrarySource) -> None:
    """Raise an error if a disk of the library was mounted at an earlier scan and is not now.

    Raises:
        SourceUnreadable: If the library, or a former mount point in it, is now an empty folder.
    """
    place = now.place
    is_same = (before.device, before.inode) == (place.device, place.inode)
    suspects = [""] if before.path == place.path and not is_same else []
    suspects += [each for each in before.mounts if each not in place.mounts]
    empty = [each for each in suspects if _is_empty(os.path.join(place.path, each))]
    if empty:
        why = "an empty folder, but not at the last scan; is its disk mounted?"
        raise SourceUnreadable(
            [f"{printable(os.path.join(now.about.name, each))} ({why})" for each in empty]
        )


def why_unreadable(source: LibrarySource) -> str | None:
    """Return the reason why the library's top folder cannot be listed; None if it can."""
    try:
        os.close(os.open(source.place.path, _FOLDER | os.O_NOFOLLOW))
    except OSError as error:
        return os.strerror(error.errno or 0)
    return None


def _find_place(real: str) -> Place:
    """Return the place of the readable folder at ``real``, an absolute path without symlinks."""
    fd = os.open(real, _FOLDER | os.O_NOFOLLOW)
    try:
        info = os.fstat(fd)
    finally:
        os.close(fd)
    mounts = {}
    for each in mounts_below(real):
        with suppress(OSError):  # hidden below another mount, or the scan reports it
            mounts[os.path.relpath(each, real)] = os.stat(each).st_dev
    return Place(real, info.st_dev, info.st_ino, mounts)


def _is_empty(path: str) -> bool:
    with suppress(OSError):
        return not os.listdir(path)
    return False
