"""The volume: a filesystem of its own that can run full, and what is published on it."""

from __future__ import annotations

import json
import os
import subprocess
from contextlib import suppress
from enum import Enum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import random
    from pathlib import Path

    from rig.power.disk import ForgetfulDisk

_LARGE = 4 * 1024 * 1024
"""Bytes above which a file has frames of its own."""
_SIZE = 160 * 1024 * 1024


class Kind(Enum):
    """An answer to what has the library's name."""

    ABSENT = "nothing"
    FOREIGN = "the library that was there before"
    REHEARSAL = "a rehearsal"
    MOVED = "the moved library"


class Volume:
    """A mounted filesystem with one target folder.

    Args:
        place: the mount point, which is created.
        disk: the disk of the filesystem if its power will be cut; otherwise it is a tmpfs.
    """

    def __init__(self, place: Path, disk: ForgetfulDisk | None = None) -> None:
        self.place, self.disk = place, disk
        self.target = place / "config"
        self.library = self.target / "Library"
        self._ours = self.target / ".plexodus"
        self.staged = self._ours / "staging" / "Library"
        self.foreign: Path | None = None
        """A copy of the library that was there before; None if there was none."""
        self._foreign_inode = 0
        self.flipped: set[Path] = set()
        """The files with flipped bits, relative to the library."""
        self._filler = place / "filler"
        self._fillings = 0

    def mount(self) -> None:
        """Mount the filesystem."""
        self.place.mkdir()
        if self.disk is not None:
            self.disk.make()
        else:
            what = ["-t", "tmpfs", "-o", f"size={_SIZE}", "plexodus-campaign"]
            subprocess.run(["mount", *what, self.place], check=True)
        self.target.mkdir()
        self._sync()

    def unmount(self) -> None:
        """Unmount it, also while a file is open."""
        if self.disk is not None:
            self.disk.remove()
            return
        subprocess.run(["umount", "--lazy", self.place], check=False, capture_output=True)

    def put_foreign(self, copy: Path) -> None:
        """Put a library there that plexodus has not moved, and a copy of it to ``copy``."""
        (self.library / "Application Support").mkdir(parents=True)
        for number in range(20):
            content = b"not of the VM\n" * (number + 1)
            (self.library / "Application Support" / f"file{number}").write_bytes(content)
        subprocess.run(["cp", "-a", self.library, copy], check=True)
        self.foreign, self._foreign_inode = copy, self.library.stat().st_ino
        self._sync()

    def fill(self, left: int) -> int:
        """Have another file take all but about ``left`` bytes; return its number."""
        free = os.statvfs(self.place)
        size = free.f_bavail * free.f_frsize - left
        with suppress(OSError), self._filler.open("wb") as filler:
            os.posix_fallocate(filler.fileno(), 0, max(1, size))
        self._fillings += 1
        return self._fillings

    def empty(self, filling: int | None = None) -> None:
        """Remove that file; with ``filling``, only if it is the one of this number."""
        if filling in (None, self._fillings):
            self._filler.unlink(missing_ok=True)

    def _sync(self) -> None:
        subprocess.run(["sync", "--file-system", self.place], check=True)

    def kind(self) -> Kind:
        """Return what has the library's name."""
        try:
            inode = self.library.lstat().st_ino
        except FileNotFoundError:
            return Kind.ABSENT
        if inode == self._foreign_inode:
            return Kind.FOREIGN
        receipt = self.receipt() or self._read("state.json").get("receipt") or {}
        return Kind.REHEARSAL if receipt.get("rehearsal") else Kind.MOVED

    def receipt(self) -> dict[str, Any]:
        """Return the receipt; empty without one."""
        return self._read("receipt.json")

    def is_moved(self) -> bool:
        """Return whether a receipt says that Plex may start on the library."""
        receipt = self.receipt()
        return bool(receipt) and not receipt.get("rehearsal")

    def set_aside(self) -> Path | None:
        """Return the library that was there before, under either of its names; None if gone."""
        names = [self.library, *self.target.glob("Library.set-aside-*")]
        for each in names:
            try:
                if each.lstat().st_ino == self._foreign_inode:
                    return each
            except FileNotFoundError:
                continue
        return None

    def phase(self) -> str:
        """Return the phase of the pull's record; empty without one."""
        return str(self._read("state.json").get("phase", ""))

    def journal_lines(self) -> int:
        """Return how many frames the journals have."""
        found = 0
        for each in self._ours.glob("journal-*"):
            try:
                found += each.read_bytes().count(b"\ndone ")
            except FileNotFoundError:
                continue
        return found

    def flip(self, chance: random.Random) -> str:
        """Flip one bit of a file in staging; return its name, or an empty string without one.

        Every second file is a large one. Small files share their frames with those that Plex
        changes, and are fetched again with them.
        """
        paths = [each for each in sorted(self.staged.rglob("*")) if _can_be_damaged(each)]
        if not paths:
            return ""
        large = [each for each in paths if each.stat().st_size > _LARGE]
        path = chance.choice(large if large and chance.random() < 0.5 else paths)
        info = path.stat()
        names = [each for each in paths if each.samefile(path)]
        self.flipped |= {each.relative_to(self.staged) for each in names}
        with path.open("r+b") as file:
            place = chance.randrange(info.st_size)
            file.seek(place)
            byte = file.read(1)[0]
            file.seek(place)
            file.write(bytes([byte ^ (1 << chance.randrange(8))]))
        os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))
        return path.name

    def _read(self, name: str) -> dict[str, Any]:
        try:
            found: dict[str, Any] = json.loads((self._ours / name).read_bytes())
        except (OSError, ValueError):
            return {}
        return found


def _can_be_damaged(path: Path) -> bool:
    return path.is_file() and not path.is_symlink() and path.stat().st_size > 0
