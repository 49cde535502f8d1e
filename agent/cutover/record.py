"""The files of a cutover: its record, the lock for changes of the record, and the fence."""

from __future__ import annotations

import os
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING

import msgspec

from agent.cutover.state import Cutover
from shared.durable import fsync_folder, write_durably
from shared.errors import StorageError
from shared.file_lock import locked_file

if TYPE_CHECKING:
    from collections.abc import Iterator

_UNDONE = ("undoing", "idle")
"""Phases of an undo, and of its end."""
_SETTLED = ("idle", "committed")
"""Phases that are left only by a step that has to be durable first."""


def witness_folder(state: str) -> str:
    """Return the folder with a second copy of the record and of the fence.

    It is beside the state folder, so it survives a restore or a loss of the state folder.
    """
    return f"{os.path.abspath(state)}-witness"


class Fence:
    """The file that keeps systemd from starting Plex, and its copy in the witness folder.

    Args:
        state: the agent's state folder.
    """

    def __init__(self, state: str) -> None:
        self.path = os.path.join(state, "fence")
        self._witness = witness_folder(state)

    def is_up(self) -> bool:
        """Return whether at least one of the files exists: that is enough."""
        return any(os.path.lexists(path) for path in self._paths())

    def is_whole(self) -> bool:
        """Return whether each file exists that can exist."""
        return all(os.path.lexists(path) for path in self._paths())

    def put_up(self, puller: str) -> None:
        """Write the files durably."""
        about = f"Moved to {puller}. The way back: plexodus-agent undo\n"
        for path in self._paths():
            write_durably(path, about.encode(), 0o644)

    def take_down(self) -> None:
        """Remove the files durably."""
        for path in self._paths():
            if os.path.lexists(path):
                os.unlink(path)
                fsync_folder(os.path.dirname(path))

    def _paths(self) -> list[str]:
        second = [os.path.join(self._witness, "fence")] if _is_usable(self._witness) else []
        return [self.path, *second]


class CutoverRecord:
    """``cutover.json`` and ``cutover.lock`` in the agent's state folder, and the witness's copy.

    An undo that cannot be recorded is remembered: the next step must not start Plex again.

    Args:
        state: path of the state folder.
    """

    def __init__(self, state: str) -> None:
        self._path = os.path.join(state, "cutover.json")
        self._lock = os.path.join(state, "cutover.lock")
        self._witness = witness_folder(state)
        self._copy = os.path.join(self._witness, "cutover.json")
        self._reached = os.path.join(state, "cutover.serial")
        self._fence = os.path.join(state, "fence")
        self._unwritten: Cutover | None = None

    def load(self) -> Cutover:
        """Return the record; without a file, that of an agent without a cutover.

        The later one of the two copies counts, because the state folder may have been restored from
        a backup, or be empty. If an administrator has removed record and fence from it, the record
        is empty, see :meth:`is_removed`. An undo is under way until its end is recorded.

        Raises:
            StorageError: If it cannot be read.
        """
        copy = self._witnessed()
        try:
            own = _read(self._path)
        except StorageError:
            if copy is None:
                raise
            own = None
        if copy is not None and self._is_removed(copy):
            return Cutover(serial=copy.serial)
        unwritten = self._unwritten and msgspec.structs.replace(self._unwritten, phase="undoing")
        found = [each for each in (own, copy, unwritten) if each]
        return max(found, key=lambda each: each.serial, default=Cutover())

    def is_behind(self) -> bool:
        """Return whether the state folder lacks a later record that the witness has."""
        try:
            copy, own = _read(self._copy), _read(self._path)
        except StorageError:
            return True
        return copy is not None and (own is None or own.serial < copy.serial)

    def has_witness(self) -> bool:
        """Return whether the witness has a copy. A record of an earlier release has none."""
        return os.path.lexists(self._copy)

    def is_removed(self) -> bool:
        """Return whether record and fence were removed by hand from the state folder.

        They are gone, but the folder still has the serial number of the last record. A folder that
        was restored has a lower one, or none.
        """
        copy = self._witnessed()
        return copy is not None and self._is_removed(copy)

    def _witnessed(self) -> Cutover | None:
        with suppress(StorageError):
            return _read(self._copy)
        return None

    def _is_removed(self, copy: Cutover) -> bool:
        is_under_way = copy.phase not in ("idle", "committed")  # Plex is to be started again
        if is_under_way or os.path.lexists(self._path) or os.path.lexists(self._fence):
            return False
        try:
            with open(self._reached, encoding="ascii") as file:
                return file.read() == str(copy.serial)
        except (OSError, UnicodeError):
            return False

    def save(self, cutover: Cutover) -> Cutover:
        """Write the record durably, and return it with its new serial number.

        Raises:
            OSError: If it cannot be written.
        """
        cutover = msgspec.structs.replace(cutover, serial=cutover.serial + 1)
        try:
            self._write(cutover)
        except OSError:
            if cutover.phase in _UNDONE and self.load().phase not in _SETTLED:
                self._unwritten = cutover
            raise
        self._unwritten = None
        return cutover

    def _write(self, cutover: Cutover) -> None:
        content = msgspec.json.encode(cutover)
        with suppress(OSError):  # a sandbox without the package's second folder
            os.mkdir(self._witness, 0o700)
        write_durably(self._path, content)
        if _is_usable(self._witness):
            write_durably(self._copy, content)
            write_durably(self._reached, str(cutover.serial).encode())

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes and threads from changing the record until the block ends.

        Raises:
            OSError: If there is no lock file.
        """
        with ExitStack() as stack:
            try:
                stack.enter_context(locked_file(self._lock, writes=False))
            except FileNotFoundError:  # the state folder is gone: Plex is started anyway
                second = os.path.join(self._witness, "cutover.lock")
                stack.enter_context(locked_file(second, writes=False))
            yield


def _is_usable(folder: str) -> bool:
    return os.path.isdir(folder) and os.access(folder, os.W_OK | os.X_OK, effective_ids=True)


def _read(path: str) -> Cutover | None:
    """Return the record at ``path``; None without one."""
    try:
        with open(path, "rb") as file:
            return msgspec.json.decode(file.read(), type=Cutover)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return None
    except msgspec.MsgspecError as error:
        raise StorageError(
            f"the record of the cutover cannot be read ({error})",
            path=path,
            hint="It is written in one step, so something else changed it. Find out whether the"
            " library has moved. If Plex is to run here, remove this file, then run"
            " 'plexodus-agent undo' and start Plex.",
        ) from error
