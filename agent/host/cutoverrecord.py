"""What of a cutover is on disk: its record, the lock of those who change that, and the fence."""

from __future__ import annotations

import fcntl
import os
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import msgspec

from agent.host.cutoverstate import Cutover
from shared.durable import fsync_folder, write_durably
from shared.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Iterator


def boottime() -> float:
    """Seconds since the machine started: nobody can set that clock, and sleep counts."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Fence:
    """The file that keeps systemd from starting Plex.

    Args:
        state: the agent's state folder, in which it is.
    """

    def __init__(self, state: str) -> None:
        self.path = os.path.join(state, "fence")

    def is_up(self) -> bool:
        """Whether it is there."""
        return os.path.lexists(self.path)

    def put_up(self, puller: str) -> None:
        """Have it there, durably.

        Raises:
            OSError: it cannot be written.
        """
        about = f"Moved to {puller}. The way back: plexodus-agent undo\n"
        write_durably(self.path, about.encode(), 0o644)

    def take_down(self) -> None:
        """Have it gone, durably.

        Raises:
            OSError: it cannot be removed.
        """
        if self.is_up():
            os.unlink(self.path)
            fsync_folder(os.path.dirname(self.path))


class CutoverRecord:
    """``cutover.json`` and ``cutover.lock`` in the agent's state folder.

    Args:
        state: that folder.
    """

    def __init__(self, state: str) -> None:
        self._path = os.path.join(state, "cutover.json")
        self._lock = os.path.join(state, "cutover.lock")

    def load(self) -> Cutover:
        """Read it; where there is none, there was no cutover yet.

        Raises:
            StorageError: it cannot be read.
        """
        try:
            with open(self._path, "rb") as file:
                return msgspec.json.decode(file.read(), type=Cutover)
        except FileNotFoundError:
            return Cutover()
        except msgspec.MsgspecError as error:
            raise StorageError(
                f"the record of the cutover cannot be read ({error})",
                path=self._path,
                hint="It is written in one step, so something else changed it. Is Plex running? If"
                " it shall, remove this file and the file called fence, and start it.",
            ) from error

    def save(self, cutover: Cutover) -> None:
        """Write it, durably.

        Raises:
            OSError: it cannot be written.
        """
        write_durably(self._path, msgspec.json.encode(cutover))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Wait until no other process or thread changes it; none does until the block ends.

        Raises:
            OSError: there can be no lock.
        """
        fd = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)
