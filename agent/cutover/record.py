"""The files of a cutover: its record, the lock for changes of the record, and the fence."""

from __future__ import annotations

import os
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING

import msgspec

from agent.cutover.state import Cutover
from shared import typed_json
from shared.durable import fsync_folder, write_durably
from shared.errors import StorageError, storage_error
from shared.file_lock import locked_file
from shared.presence import is_folder, is_there

if TYPE_CHECKING:
    from collections.abc import Iterator

_UNDONE = ("undoing", "idle")
"""Phases of an undo, and of its end."""
_SETTLED = ("idle", "committed")
"""Phases that are left only by a step that has to be durable first."""
_HOLDS = 30.0
"""Seconds in which nothing else vanishes from a folder whose record was removed by hand."""


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
        self._is_doubtful = False
        """Whether files that this process has written may not survive a power loss."""

    def is_up(self) -> bool:
        """Return whether at least one of the files exists: that is enough."""
        return any(os.path.lexists(path) for path in self._paths())

    def is_whole(self) -> bool:
        """Return whether each file that can exist does, and no write of this process has failed."""
        return not self._is_doubtful and all(os.path.lexists(path) for path in self._paths())

    def put_up(self, puller: str) -> None:
        """Write the files durably."""
        about = f"Moved to {puller}. The way back: plexodus-agent undo\n"
        self._is_doubtful = True
        for path in self._paths():
            write_durably(path, about.encode(), 0o644)
        self._is_doubtful = False

    def take_down(self) -> None:
        """Remove the files durably.

        A name that cannot be examined does not stop an undo: see :meth:`require_down`.
        """
        for path in self._paths():
            # Asked first, because a read-only disk refuses to remove even what is not there.
            if os.path.lexists(path):
                _remove(path)

    def require_down(self) -> None:
        """Remove what :meth:`take_down` has left, except in a folder that is closed to the agent.

        Raises:
            OSError: If a file may still be there. systemd would not start Plex.
        """
        is_open = is_folder(self._witness) and _may_enter(self._witness)
        for path in [self.path, *([self._second()] if is_open else [])]:
            if is_there(path):
                _remove(path)

    def _paths(self) -> list[str]:
        return [self.path, *([self._second()] if _is_usable(self._witness) else [])]

    def _second(self) -> str:
        return os.path.join(self._witness, "fence")


class CutoverRecord:
    """``cutover.json`` and ``cutover.lock`` in the agent's state folder, and the witness's copy.

    An undo that cannot be recorded is remembered: the next step must not start Plex again. So is
    the record that this process has written last: what a failed write has left may be in memory
    only, and one of the two copies may be outdated.

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
        self._durable: Cutover | None = None
        """The last record that this process has written completely."""
        self._has_copy = False
        """Whether that included the witness's copy."""
        self._seen: tuple[float, set[str]] | None = None
        """The time when record and fence were first missed, and the other names then."""

    def load(self) -> Cutover:
        """Return the record; without a file, that of an agent without a cutover.

        The later one of the two copies counts, because the state folder may have been restored from
        a backup, or be empty. A damaged one does not count beside an intact one. An undo is under
        way until its end is recorded.

        Raises:
            StorageError: If no copy can be read, and this process has written none that is to be
                undone.
        """
        found, damage = list[Cutover](), None
        for read, path in ((_read, self._path), (_read_copy, self._copy)):
            try:
                each = read(path)
            except StorageError as error:
                damage = damage or error
            else:
                found += [] if each is None else [each]
        if damage is not None and not found:
            if self._durable is None or self._durable.phase in _SETTLED:
                raise damage
            found.append(self._durable)  # Plex is started even if the disk has failed
        if self._unwritten is not None:
            found.append(msgspec.structs.replace(self._unwritten, phase="undoing"))
        return max(found, key=lambda each: each.serial, default=Cutover())

    def is_behind(self) -> bool:
        """Return whether the state folder lacks a later record that the witness has."""
        if (copy := self._witnessed()) is None:
            return False
        try:
            own = _read(self._path)
        except StorageError:
            return True
        return own is None or own.serial < copy.serial

    def is_durable(self) -> bool:
        """Return whether each copy that can exist is the record that this process has written last.

        Only then does the record survive a power loss, or the loss of one copy. What another
        process has written may be in memory only, because that process may have been killed.
        """
        if self._unwritten is not None:
            return False
        paths = [self._path]
        if self._has_copy or _is_usable(self._witness) or os.path.lexists(self._copy):
            paths.append(self._copy)
        try:
            return all(_read(path) == self._durable for path in paths)
        except StorageError:
            return False

    def is_removed(self, now: float) -> bool:
        """Return whether record and fence were removed by hand, and nothing else. Call it often.

        A folder that is being deleted may have lost these two first. So nothing else may have
        vanished from it since an earlier call, half a minute ago or more.

        Args:
            now: seconds of CLOCK_BOOTTIME.
        """
        names = self._names() if self.may_be_removed() else None
        if names is None:
            self._seen = None
        elif self._seen is None or not self._seen[1] <= names:
            self._seen = now, names
        return self._seen is not None and now - self._seen[0] >= _HOLDS

    def may_be_removed(self) -> bool:
        """Return whether record and fence of a committed move are gone from the state folder.

        The folder still has the serial number of the last record. A folder that was restored has a
        lower one, or none.
        """
        copy = self._witnessed()
        if copy is None or copy.phase != "committed":
            return False
        try:
            if is_there(self._path) or is_there(self._fence):
                return False
            with open(self._reached, encoding="ascii") as file:
                return file.read() == str(copy.serial)
        except (OSError, UnicodeError):
            return False

    def require_present(self) -> None:
        """Make sure that record and fence were not removed.

        Raises:
            StorageError: If they may have been.
        """
        if self.may_be_removed():
            raise StorageError(
                "the record of the move and the fence are gone from the agent's state folder",
                path=self._path,
                hint="If you have removed them, wait for two minutes, then pull again.",
            )

    def _names(self) -> set[str] | None:
        """Return the names in the state folder; None if it cannot be listed, or has no lock."""
        with suppress(OSError):
            names = set(os.listdir(os.path.dirname(self._path)))
            return names if os.path.basename(self._lock) in names else None
        return None

    def _witnessed(self) -> Cutover | None:
        with suppress(StorageError):
            return _read(self._copy)
        return None

    def save(self, cutover: Cutover) -> Cutover:
        """Write the record durably, and return it with its new serial number.

        Raises:
            OSError: If a copy cannot be written. The other one may have the new record then.
        """
        cutover = msgspec.structs.replace(cutover, serial=cutover.serial + 1)
        try:
            self._write(cutover)
        except OSError:
            if cutover.phase in _UNDONE and self.load().phase not in _SETTLED:
                self._unwritten = cutover
            raise
        self._unwritten, self._durable = None, cutover
        return cutover

    def _write(self, cutover: Cutover) -> None:
        content = msgspec.json.encode(cutover)
        with suppress(OSError):  # a sandbox without the package's second folder
            os.mkdir(self._witness, 0o700)
        write_durably(self._path, content)
        # An outdated copy that cannot be replaced would count once the state folder is lost.
        self._has_copy = _is_usable(self._witness) or os.path.lexists(self._copy)
        if self._has_copy:
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


def _remove(path: str) -> None:
    os.unlink(path)
    fsync_folder(os.path.dirname(path))


def _is_usable(folder: str) -> bool:
    return os.path.isdir(folder) and _may_enter(folder, os.W_OK)


def _may_enter(folder: str, further: int = 0) -> bool:
    return os.access(folder, os.X_OK | further, effective_ids=True)


def _read_copy(path: str) -> Cutover | None:
    """Do as :func:`_read` for the witness's copy, which a sandbox may hide."""
    try:
        return _read(path)
    except StorageError as error:
        if isinstance(error.__cause__, PermissionError):
            return None
        raise


def _read(path: str) -> Cutover | None:
    """Return the record at ``path``; None without one.

    Raises:
        StorageError: If it cannot be read.
    """
    try:
        with open(path, "rb") as file:
            return typed_json.decode(file.read(), Cutover)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise storage_error(error, path) from error
    except msgspec.DecodeError as error:
        raise StorageError(
            f"the record of the cutover cannot be read ({error})",
            path=path,
            hint="It is written in one step, so something else changed it. Find out whether the"
            " library has moved. If Plex is to run here, remove this file, then run"
            " 'plexodus-agent undo' and start Plex.",
        ) from error
