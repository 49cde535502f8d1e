"""A mounted filesystem on a disk that forgets what was not flushed when its power is cut."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import rig
from rig.power.write_log import apply, read_log, survivors

if TYPE_CHECKING:
    import random

_OPTIONS = {
    "ext4": ("-q", "-m", "0", "-E", "lazy_itable_init=0,lazy_journal_init=0"),
    "xfs": ("-q", "-m", "rmapbt=0,reflink=0"),
    "btrfs": ("-q",),
}
"""How filesystems are made: nothing is written later in the background."""
MOUNT_OPTIONS = {"ext4": "defaults", "xfs": "nouuid", "btrfs": "defaults"}
"""Of XFS: also while a file is open on what the power cut has left mounted."""
_SECTORS = {"ext4": 512, "xfs": 512, "btrfs": 4096}
"""The sector that a filesystem needs: Btrfs has a superblock of 4096 bytes with a checksum."""
SIZE = 320 * 1024 * 1024
"""Bytes of the disk: no smaller XFS can be made."""


@dataclass(frozen=True)
class Remains:
    """Numbers of writes since the last flush: those that a power cut has left, and all."""

    left: int
    unflushed: int

    def __str__(self) -> str:
        return f"{self.left} of {self.unflushed} writes since the last flush are left"


class ForgetfulDisk:
    """A filesystem on a loop device, on a file that a program serves by FUSE (``disk_server.py``).

    The loop device passes each flush of the filesystem on as a sync of the file. It has no cache
    of its own, and neither has the file.

    Args:
        folder: is created, for what belongs to the disk. It is a tmpfs, because nothing has to
            survive the machine.
        place: the mount point of the filesystem, which exists.
        kind: of the filesystem, ``ext4``, ``xfs`` or ``btrfs``.
    """

    def __init__(self, folder: Path, place: Path, kind: str) -> None:
        self.place = place
        self.log = folder / "log"
        """Each write and flush since the power was switched on."""
        self.base = folder / "base"
        """The content of the disk at that time."""
        self.kind, self.sector = kind, _SECTORS[kind]
        self._folder = folder
        self._now, self._file = folder / "now", folder / "disk"
        self._server: subprocess.Popen[bytes] | None = None

    def make(self) -> None:
        """Make the filesystem, and mount it."""
        self._folder.mkdir()
        _run("mount", "-t", "tmpfs", "plexodus-disk", self._folder)
        self._file.touch()
        with self.base.open("wb") as base:
            base.truncate(SIZE)
        _run(f"mkfs.{self.kind}", *_OPTIONS[self.kind], self.base)
        self.switch_on()
        for each in self.place.iterdir():
            each.rmdir()

    def switch_on(self) -> None:
        """Serve the content of the disk, and mount the filesystem, which recovers it."""
        _run("cp", "--sparse=always", self.base, self._now)
        self.log.write_bytes(b"")
        self._server = subprocess.Popen(
            [
                *(sys.executable, "-S", "-m", "rig.power.disk_server"),
                *(self._file, self._now, self.log),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": str(Path(rig.__file__).parent.parent)},
        )
        assert self._server.stdout is not None
        if not self._server.stdout.readline():
            raise RuntimeError("the disk could not be mounted")
        loop = _run("losetup", "--find", "--show", "--direct-io=on", self._file).strip()
        try:
            _run("mount", "-t", self.kind, "-o", MOUNT_OPTIONS[self.kind], loop, self.place)
        finally:
            _run("losetup", "--detach", loop)  # as soon as nothing is mounted from it

    def write_back(self) -> None:
        """Have the kernel write what is only in memory, as it does now and then."""
        _run("sync", "--file-system", self.place)

    def cut(self) -> None:
        """Cut the power: nothing reaches the disk after this, and nothing is mounted."""
        if self._server is None:
            return
        self._server.kill()
        self._server.communicate()
        self._server = None
        for each in (self.place, self._file):
            subprocess.run(["umount", "--lazy", each], check=False, capture_output=True)

    def forget(self, chance: random.Random, earliest: int) -> Remains:
        """Decide when the cut was, and what it has left on the disk.

        Args:
            chance: decides it.
            earliest: length of the log at the earliest moment.
        """
        moment = chance.randint(earliest, self.log.stat().st_size)
        *flushed, unflushed = read_log(self.log, moment)
        left = list(survivors(chance, unflushed, self.sector))
        apply(self.log, [*(write for each in flushed for write in each), *left], self.base)
        return Remains(len(left), len(unflushed))

    def remove(self) -> None:
        """Cut the power for good."""
        self.cut()
        subprocess.run(["umount", "--lazy", self._folder], check=False, capture_output=True)


def _run(*command: str | Path) -> str:
    """Run a command that must succeed; return what it prints."""
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
