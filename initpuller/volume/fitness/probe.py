"""Probe what a volume can do, in a scratch folder on it.

The probe makes every call that the move of a manifest will make, and then reads the result, because
many volumes accept a change and ignore it. It removes the folder afterwards. The next probe removes
the folder of a killed run.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from contextlib import contextmanager
from typing import TYPE_CHECKING

from initpuller.volume.fidelity import Fidelity
from initpuller.volume.fitness.capabilities import Abilities, Ability
from initpuller.volume.fitness.scratch_folder import FOLDER, MARKER, empty, scratch_folder
from initpuller.volume.fitness.time_range import time_fidelity
from shared.durable import rename_noreplace
from shared.errors import printable
from shared.tree.dir_stack import DirStack

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from initpuller.volume.fitness.requirements import Needs
    from initpuller.volume.ownership import Ownership
    from initpuller.volume.records.layout import Layout

_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_USUAL_OWNER = (1000, 1000)
_HOLE = 1024 * 1024
_SECTOR = 512
_SPECIAL_NAMES = ((b"case Probe", b"CASE pROBE"), ("\u00e9".encode(), "e\u0301".encode()))
_FULL = (errno.ENOSPC, errno.EDQUOT)
_LISTED = 5
_SHOWN = 80


def probe(layout: Layout, needs: Needs, ownership: Ownership) -> Abilities:
    """Try everything that a library needs of the volume. The caller holds the volume's lock.

    Args:
        layout: the volume.
        needs: what to try.
        ownership: the owner that files will get.

    Raises:
        NoSpace: the volume is full, so that nothing can be tried.
        StorageError: the volume cannot be written.
    """
    with scratch_folder(layout) as folder:
        trial = _Trial(folder, needs, ownership)
        trial.run()
        trial.try_rename(layout)
        return Abilities(trial.fidelity, trial.shortfalls, folds_names=trial.folds_names)


def colliding(
    layout: Layout, pairs: Iterable[tuple[bytes, bytes]], most: int = _LISTED
) -> list[tuple[str, str]]:
    """Return the first pairs whose last names are one file on the volume.

    Args:
        layout: the volume. The caller holds its lock.
        pairs: each has two paths in the same folder.
        most: number of pairs to return.

    Raises:
        StorageError: the volume cannot be written.
    """
    found: list[tuple[str, str]] = []
    with scratch_folder(layout) as folder:
        for one, other in pairs:
            if _is_one_file(folder, one.rpartition(b"/")[2], other.rpartition(b"/")[2]):
                found.append((printable(one), printable(other)))
                if len(found) >= most:
                    break
    return found


class _Trial:
    """Trials of a volume. Failures are in :attr:`shortfalls`.

    Args:
        folder: descriptor of an empty folder on the volume.
        needs: what to try.
        ownership: the owner that files will get.
    """

    def __init__(self, folder: int, needs: Needs, ownership: Ownership) -> None:
        self.fidelity = Fidelity()
        self.shortfalls: dict[Ability, str] = {}
        self.folds_names = False
        self._folder = folder
        self._needs = needs
        self._owners = [ownership.fixed] if ownership.fixed else sorted(needs.owners)
        self._owners = self._owners or [_USUAL_OWNER]
        self._number = 0

    def run(self) -> None:
        """Try everything except the rename."""
        for step in (
            self._owners_and_modes,
            self._times,
            self._links,
            self._xattrs,
            self._holes,
            self._names,
            self._paths,
            self._locks,
        ):
            step()
        self.folds_names = any(_is_one_file(self._folder, *each) for each in _SPECIAL_NAMES)

    def try_rename(self, layout: Layout) -> None:
        """Try the rename that publishes: a folder, to the place of the library."""
        name = b"published"
        os.mkdir(name, 0o700, dir_fd=self._folder)
        inside = os.open(name, FOLDER, dir_fd=self._folder)
        try:
            os.close(os.open(MARKER, _NEW, 0o600, dir_fd=inside))
        finally:
            os.close(inside)
        source = next(path for path in layout.probes if os.path.isdir(path))
        try:
            rename_noreplace(os.path.join(source, os.fsdecode(name)), layout.published_probe)
        except OSError as error:
            self._fails(
                Ability.RENAME,
                f"a folder cannot be renamed from {os.path.dirname(source)} to {layout.target}",
                error,
            )

    def _fails(self, ability: Ability, what: str, error: OSError | None = None) -> None:
        """Record a failure. Raise instead if the volume is full, which hides what it can do."""
        if error is not None and error.errno in _FULL:
            raise error
        reason = f" ({os.strerror(error.errno)})" if error is not None and error.errno else ""
        self.shortfalls.setdefault(ability, what + reason)

    @contextmanager
    def _object(self, make: Callable[[bytes, int], int]) -> Iterator[tuple[int, bytes]]:
        """Create a file or folder; yield its descriptor and name."""
        self._number += 1
        name = b"%d" % self._number
        fd = make(name, self._folder)
        try:
            yield fd, name
        finally:
            os.close(fd)
            empty(self._folder)  # a small volume may have few inodes left

    def _owners_and_modes(self) -> None:
        needs = self._needs
        for owner in self._owners:
            with self._object(_new_file) as (fd, _):
                self._give(fd, owner, 0o600)
        for make, modes in ((_new_file, needs.file_modes), (_new_folder, needs.folder_modes)):
            for mode in sorted(modes):
                with self._object(make) as (fd, _):
                    self._give(fd, self._owners[0], mode)

    def _give(self, fd: int, owner: tuple[int, int], mode: int) -> None:
        wanted = f"{owner[0]}:{owner[1]}"
        try:
            if _owner(os.fstat(fd)) != owner:
                os.fchown(fd, *owner)
        except OSError as error:
            self._fails(Ability.OWNER, f"the owner cannot be set to {wanted}", error)
        else:
            have = _owner(os.fstat(fd))
            if have != owner:
                what = f"setting the owner to {wanted} has no effect: it is {have[0]}:{have[1]}"
                self._fails(Ability.OWNER, what)
        try:
            os.fchmod(fd, mode)
        except OSError as error:
            self._fails(Ability.MODE, f"the mode cannot be set to {mode:04o}", error)
        else:
            found = stat.S_IMODE(os.fstat(fd).st_mode)
            if found != mode:
                what = f"setting the mode to {mode:04o} has no effect: it is {found:04o}"
                self._fails(Ability.MODE, what)

    def _times(self) -> None:
        with self._object(_new_file) as (fd, _):
            try:
                found = time_fidelity(fd, (self._needs.earliest_ns, self._needs.latest_ns))
            except OSError as error:
                self._fails(Ability.TIMES, "the times of a file cannot be set", error)
                return
        if found is None:
            self._fails(Ability.TIMES, "the times of files are not kept as they are set")
        else:
            self.fidelity = found

    def _links(self) -> None:
        folder, needs = self._folder, self._needs
        with self._object(_new_file) as (fd, name):
            if needs.has_hard_links:
                try:
                    os.link(name, b"hard", src_dir_fd=folder, dst_dir_fd=folder,
                            follow_symlinks=False)  # fmt: skip
                    if os.stat(b"hard", dir_fd=folder).st_ino != os.fstat(fd).st_ino:
                        self._fails(Ability.HARD_LINKS, "a hard link is another file")
                except OSError as error:
                    self._fails(Ability.HARD_LINKS, "hard links cannot be made", error)
        if needs.link:
            self._symlink(needs.link)

    def _symlink(self, target: bytes) -> None:
        folder, name = self._folder, b"soft"
        what = f"symlinks of {len(target)} bytes cannot be made"
        try:
            os.symlink(target, name, dir_fd=folder)
            if os.readlink(name, dir_fd=folder) != target:
                self._fails(Ability.SYMLINKS, "the target of a symlink is changed")
        except OSError as error:
            self._fails(Ability.SYMLINKS, what, error)
            return
        owner, wanted_ns = self._owners[0], self.fidelity.time(1_600_000_001_987_654_321)
        try:
            if _owner(os.stat(name, dir_fd=folder, follow_symlinks=False)) != owner:
                os.chown(name, *owner, dir_fd=folder, follow_symlinks=False)
        except OSError as error:
            self._fails(Ability.OWNER, "the owner of a symlink cannot be set", error)
        try:
            os.utime(name, ns=(wanted_ns, wanted_ns), dir_fd=folder, follow_symlinks=False)
        except OSError as error:
            self._fails(Ability.TIMES, "the time of a symlink cannot be set", error)
        info = os.stat(name, dir_fd=folder, follow_symlinks=False)
        if _owner(info) != owner:
            self._fails(Ability.OWNER, "setting the owner of a symlink has no effect")
        if info.st_mtime_ns != wanted_ns:
            self._fails(Ability.TIMES, "setting the time of a symlink has no effect")

    def _xattrs(self) -> None:
        """Try the largest set first: a set that is not kept is larger than all sets that are."""
        for cost, lengths in sorted(self._needs.xattrs.items(), reverse=True):
            if not self._keeps({name: bytes(length) for name, length in lengths.items()}):
                limit = cost - 1 if self._keeps({"user.plexodus": b"x"}) else 0
                self.fidelity = Fidelity(
                    self.fidelity.time_step_ns,
                    self.fidelity.earliest_ns,
                    self.fidelity.latest_ns,
                    limit,
                )
                if limit == 0:
                    return

    def _keeps(self, xattrs: dict[str, bytes]) -> bool:
        with self._object(_new_file) as (fd, _):
            try:
                for name, value in xattrs.items():
                    os.setxattr(fd, name, value)
                return all(os.getxattr(fd, name) == value for name, value in xattrs.items())
            except OSError:
                return False

    def _holes(self) -> None:
        needs = self._needs
        if not needs.has_holes and not needs.largest:
            return
        with self._object(_new_file) as (fd, _):
            os.ftruncate(fd, _HOLE)
            has_holes = os.fstat(fd).st_blocks * _SECTOR < _HOLE
            if not has_holes and needs.has_holes:
                self._fails(Ability.HOLES, "holes of sparse files are filled with zeros")
            if has_holes and needs.largest > _HOLE:
                try:
                    os.ftruncate(fd, needs.largest)
                except OSError as error:
                    if error.errno in (errno.EFBIG, errno.EINVAL):
                        what = f"a file of {needs.largest} bytes is too large"
                        self._fails(Ability.FILE_SIZE, what, error)

    def _names(self) -> None:
        folder = os.open(b".", FOLDER, dir_fd=self._folder)
        try:
            names = {f"{len(self._needs.name)} bytes": self._needs.name, **self._needs.odd_names}
            for what, name in names.items():
                if name:
                    self._name(what, name)
        finally:
            os.close(folder)

    def _name(self, what: str, name: bytes) -> None:
        shown = printable(name[:_SHOWN])
        inside = _new_folder(b"names", self._folder)
        try:
            os.close(os.open(name, _NEW, 0o600, dir_fd=inside))
            found = [os.fsencode(each) for each in os.listdir(inside)]
            if found != [name]:
                self._fails(Ability.NAMES, f"a name with {what} is changed: {shown}")
        except OSError as error:
            self._fails(Ability.NAMES, f"a name with {what} is refused: {shown}", error)
        finally:
            empty(inside)
            os.close(inside)
            os.rmdir(b"names", dir_fd=self._folder)

    def _paths(self) -> None:
        path = b"path/" + self._needs.path
        try:
            with DirStack(self._folder, create=True) as folders:
                above, name = folders.parent(path)
                os.close(os.open(name, _NEW, 0o600, dir_fd=above))
        except OSError as error:
            shown = printable(self._needs.path[:_SHOWN])
            what = f"a path of {len(self._needs.path)} bytes is refused: {shown}\u2026"
            self._fails(Ability.PATHS, what, error)
        empty(self._folder)

    def _locks(self) -> None:
        with self._object(_new_file) as (fd, _):
            for what, lock in (("flock", fcntl.flock), ("fcntl", fcntl.lockf)):
                try:
                    lock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError as error:
                    self._fails(Ability.LOCKS, f"files cannot be locked with {what}", error)


def _new_file(name: bytes, folder: int) -> int:
    return os.open(name, _NEW, 0o600, dir_fd=folder)


def _new_folder(name: bytes, folder: int) -> int:
    os.mkdir(name, 0o700, dir_fd=folder)
    return os.open(name, FOLDER, dir_fd=folder)


def _owner(info: os.stat_result) -> tuple[int, int]:
    return info.st_uid, info.st_gid


def _is_one_file(folder: int, one: bytes, other: bytes) -> bool:
    """Return whether two names are one file. A name that is refused is not."""
    inside = _new_folder(b"pair", folder)
    try:
        os.close(os.open(one, _NEW, 0o600, dir_fd=inside))
        try:
            os.close(os.open(other, _NEW, 0o600, dir_fd=inside))
        except FileExistsError:
            return True
        return len(os.listdir(inside)) == 1
    except OSError as error:
        if error.errno in _FULL:
            raise
        return False
    finally:
        empty(inside)
        os.close(inside)
        os.rmdir(b"pair", dir_fd=folder)
