"""Probe what a volume can do, in a scratch folder on it.

The probe makes every call that the move of a manifest will make, and then reads the result, because
many volumes accept a change and ignore it. It removes the folder afterwards. The next probe removes
the folder of a killed run.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING

import msgspec
import structlog

from initpuller.volume.filesystem import FOLDER, FULL, SECTOR, opened
from initpuller.volume.fitness.capabilities import Abilities
from initpuller.volume.fitness.database_trial import WHAT, Verdict, try_database
from initpuller.volume.fitness.scratch_folder import MARKER, empty, scratch_folder
from initpuller.volume.fitness.time_range import time_fidelity
from shared.checks import CheckId
from shared.durable import rename_noreplace
from shared.errors import printable
from shared.presence import is_folder
from shared.tree.dir_stack import DirStack
from shared.tree.folder_names import folder_names

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from initpuller.volume.fitness.requirements import Needs
    from initpuller.volume.ownership import Ownership
    from initpuller.volume.records.layout import Layout

_log = structlog.get_logger("puller")
_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_USUAL_OWNER = (1000, 1000)
_NAME = b"object"
"""The name of what is created to try something with it."""
_HOLE = 1024 * 1024
_SPECIAL_NAMES = ((b"case Probe", b"CASE pROBE"), ("\u00e9".encode(), "e\u0301".encode()))
_LISTED = 5
_SHOWN = 80


def probe(
    layout: Layout, needs: Needs, ownership: Ownership, *, has_databases: bool = True
) -> Abilities:
    """Try everything that a library needs of the volume, whose lock the caller holds.

    Args:
        layout: the volume.
        needs: what the library has.
        ownership: the owners that its entries get.
        has_databases: whether to try a database, which takes a fifth of a second. Once is enough.

    Raises:
        NoSpace: the volume is full, so that nothing can be tried.
    """
    with scratch_folder(layout) as folder:
        trial = _Trial(folder, needs, ownership)
        trial.run()
        if has_databases:
            trial.try_database()
        trial.try_rename(layout)
        return trial.found


def colliding(
    layout: Layout, pairs: Iterable[tuple[bytes, bytes]], most: int = _LISTED
) -> list[tuple[str, str]]:
    """Return the first pairs of paths in one folder whose last names are one file on the volume."""
    with scratch_folder(layout) as folder:
        found = (
            (printable(one), printable(other))
            for one, other in pairs
            if _is_one_file(folder, one.rpartition(b"/")[2], other.rpartition(b"/")[2])
        )
        return list(islice(found, most))


class _Trial:
    def __init__(self, folder: int, needs: Needs, ownership: Ownership) -> None:
        self.found = Abilities()
        self._folder = folder
        self._needs = needs
        self._owners = [ownership.fixed] if ownership.fixed else sorted(needs.owners)
        self._owners = self._owners or [_USUAL_OWNER]

    def run(self) -> None:
        """Try everything except the rename."""
        self._owners_and_modes()
        self._times()
        self._links()
        self._xattrs()
        self._holes()
        self._names()
        self._paths()
        self.found.folds_names = any(_is_one_file(self._folder, *each) for each in _SPECIAL_NAMES)

    def try_rename(self, layout: Layout) -> None:
        """Try the rename that publishes: a folder, to the place of the library."""
        os.mkdir(_NAME, 0o700, dir_fd=self._folder)
        with opened(_NAME, dir_fd=self._folder) as inside, opened(MARKER, _NEW, dir_fd=inside):
            pass
        source = next(path for path in layout.probes if is_folder(path))
        what = f"a folder cannot be renamed from {os.path.dirname(source)} to {layout.target}"
        with self._trying(CheckId.VOLUME_RENAME, what):
            rename_noreplace(os.path.join(source, os.fsdecode(_NAME)), layout.published_probe)

    @contextmanager
    def _trying(self, ability: CheckId, what: str) -> Iterator[None]:
        """Record ``what`` if the block fails. Raise if the volume is full: that hides abilities."""
        try:
            yield
        except OSError as error:
            if error.errno in FULL:
                raise
            reason = f" ({os.strerror(error.errno)})" if error.errno else ""
            self._fails(ability, what + reason)

    def _fails(self, ability: CheckId, what: str) -> None:
        """Record a failure; the first one of each ability is reported."""
        self.found.shortfalls.setdefault(ability, what)

    def _owners_and_modes(self) -> None:
        needs = self._needs
        for owner in self._owners:
            with _created(self._folder) as fd:
                self._give(fd, owner, 0o600)
        for modes in (needs.file_modes, needs.folder_modes):
            for mode in sorted(modes):
                with _created(self._folder, is_folder=modes is needs.folder_modes) as fd:
                    self._give(fd, self._owners[0], mode)

    def _give(self, fd: int, owner: tuple[int, int], mode: int) -> None:
        wanted = f"{owner[0]}:{owner[1]}"
        with self._trying(CheckId.VOLUME_OWNER, f"the owner cannot be set to {wanted}"):
            if _owner(os.fstat(fd)) != owner:
                os.fchown(fd, *owner)
            uid, gid = _owner(os.fstat(fd))
            if (uid, gid) != owner:
                what = f"setting the owner to {wanted} has no effect: it is {uid}:{gid}"
                self._fails(CheckId.VOLUME_OWNER, what)
        with self._trying(CheckId.VOLUME_MODE, f"the mode cannot be set to {mode:04o}"):
            os.fchmod(fd, mode)
            found = stat.S_IMODE(os.fstat(fd).st_mode)
            if found != mode:
                what = f"setting the mode to {mode:04o} has no effect: it is {found:04o}"
                self._fails(CheckId.VOLUME_MODE, what)

    def _times(self) -> None:
        wanted = self._needs.earliest_ns, self._needs.latest_ns
        cannot = self._trying(CheckId.VOLUME_TIMES, "the times of a file cannot be set")
        with _created(self._folder) as fd, cannot:
            found = time_fidelity(fd, wanted)
            if found is None:
                self._fails(CheckId.VOLUME_TIMES, "the times of files are not kept as they are set")
            else:
                self.found.fidelity = found

    def _links(self) -> None:
        folder, needs = self._folder, self._needs
        cannot = self._trying(CheckId.VOLUME_HARD_LINKS, "hard links cannot be made")
        if needs.has_hard_links:
            with _created(folder) as fd, cannot:
                os.link(_NAME, b"hard", src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
                if os.stat(b"hard", dir_fd=folder).st_ino != os.fstat(fd).st_ino:
                    self._fails(CheckId.VOLUME_HARD_LINKS, "a hard link is another file")
        if needs.link:
            self._symlink(needs.link)

    def _symlink(self, target: bytes) -> None:
        folder, name = self._folder, b"soft"
        what, is_made = f"symlinks of {len(target)} bytes cannot be made", False
        with self._trying(CheckId.VOLUME_SYMLINKS, what):
            os.symlink(target, name, dir_fd=folder)
            if os.readlink(name, dir_fd=folder) != target:
                self._fails(CheckId.VOLUME_SYMLINKS, "the target of a symlink is changed")
            is_made = True
        if not is_made:
            return
        owner, wanted_ns = self._owners[0], self.found.fidelity.time(1_600_000_001_987_654_321)
        with self._trying(CheckId.VOLUME_OWNER, "the owner of a symlink cannot be set"):
            if _owner(os.stat(name, dir_fd=folder, follow_symlinks=False)) != owner:
                os.chown(name, *owner, dir_fd=folder, follow_symlinks=False)
        with self._trying(CheckId.VOLUME_TIMES, "the time of a symlink cannot be set"):
            os.utime(name, ns=(wanted_ns, wanted_ns), dir_fd=folder, follow_symlinks=False)
        info = os.stat(name, dir_fd=folder, follow_symlinks=False)
        if _owner(info) != owner:
            self._fails(CheckId.VOLUME_OWNER, "setting the owner of a symlink has no effect")
        if info.st_mtime_ns != wanted_ns:
            self._fails(CheckId.VOLUME_TIMES, "setting the time of a symlink has no effect")

    def _xattrs(self) -> None:
        """Try the largest set first: a set that is not kept is larger than all sets that are."""
        for cost, lengths in sorted(self._needs.xattrs.items(), reverse=True):
            if not self._keeps({name: bytes(length) for name, length in lengths.items()}):
                limit = cost - 1 if self._keeps({"user.plexodus": b"x"}) else 0
                self.found.fidelity = msgspec.structs.replace(
                    self.found.fidelity, xattr_bytes=limit
                )
                if limit == 0:
                    return

    def _keeps(self, xattrs: dict[str, bytes]) -> bool:
        with _created(self._folder) as fd:
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
        with _created(self._folder) as fd:
            os.ftruncate(fd, _HOLE)
            has_holes = os.fstat(fd).st_blocks * SECTOR < _HOLE
            if not has_holes and needs.has_holes:
                self._fails(CheckId.VOLUME_HOLES, "holes of sparse files are filled with zeros")
            if has_holes and needs.largest > _HOLE:
                try:
                    os.ftruncate(fd, needs.largest)
                except OSError as error:
                    if error.errno in (errno.EFBIG, errno.EINVAL):
                        what = f"a file of {needs.largest} bytes is too large"
                        what += f" ({os.strerror(error.errno)})"
                        self._fails(CheckId.VOLUME_FILE_SIZE, what)

    def _names(self) -> None:
        names = {f"{len(self._needs.name)} bytes": self._needs.name, **self._needs.odd_names}
        for what, name in names.items():
            if not name:
                continue
            shown = printable(name[:_SHOWN])
            with (
                _created(self._folder, is_folder=True) as inside,
                self._trying(CheckId.VOLUME_NAMES, f"a name with {what} is refused: {shown}"),
                opened(name, _NEW, dir_fd=inside),
            ):
                if [os.fsencode(each) for each in folder_names(inside)] != [name]:
                    self._fails(CheckId.VOLUME_NAMES, f"a name with {what} is changed: {shown}")

    def _paths(self) -> None:
        path = self._needs.path
        what = f"a path of {len(path)} bytes is refused: {printable(path[:_SHOWN])}\u2026"
        with (
            self._trying(CheckId.VOLUME_PATHS, what),
            DirStack(self._folder, create=True) as folders,
        ):
            above, name = folders.parent(b"path/" + path)
            os.close(os.open(name, _NEW, 0o600, dir_fd=above))
        empty(self._folder)

    def try_database(self) -> None:
        """Try locks, and a database, in processes that can be killed."""
        verdict = try_database(os.readlink(f"/proc/self/fd/{self._folder}"))
        empty(self._folder)
        if verdict is Verdict.FULL:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if verdict is Verdict.NOT_TRIED:
            _log.warning("no database was tried on the volume, because no process can be started")
        elif verdict is not Verdict.WORKS:
            self._fails(CheckId.VOLUME_LOCKS, WHAT[verdict])


@contextmanager
def _created(above: int, *, is_folder: bool = False) -> Iterator[int]:
    """Create a file or folder, yield its descriptor, and empty the folder ``above`` at the end.

    A small volume may have few inodes left.
    """
    if is_folder:
        os.mkdir(_NAME, 0o700, dir_fd=above)
    try:
        with opened(_NAME, FOLDER if is_folder else _NEW, dir_fd=above) as fd:
            yield fd
    finally:
        empty(above)


def _owner(info: os.stat_result) -> tuple[int, int]:
    return info.st_uid, info.st_gid


def _is_one_file(folder: int, one: bytes, other: bytes) -> bool:
    """Return whether two names are one file. A name that is refused is not."""
    with _created(folder, is_folder=True) as inside:
        try:
            for name in (one, other):
                os.close(os.open(name, _NEW, 0o600, dir_fd=inside))
            return len(folder_names(inside)) == 1
        except FileExistsError:
            return True
        except OSError as error:
            if error.errno in FULL:
                raise
            return False
