"""Whether the automatic emptying of trash was on before we switched it off: kept over a kill."""

from __future__ import annotations

import os

from shared.durable import fsync_folder, write_durably
from shared.errors import storage_error


class TrashRecord:
    """A file that is there from before it is switched off until it is on again.

    Args:
        path: where.
    """

    def __init__(self, path: str) -> None:
        self._path = path

    def remember(self) -> None:
        """It is on, and will be switched off.

        Raises:
            StorageError: the volume does not take it.
        """
        try:
            write_durably(
                self._path, b"autoEmptyTrash was on; 'paths --apply' switches it on again\n"
            )
        except OSError as error:
            raise storage_error(error, self._path) from error

    def was_on(self) -> bool:
        """Whether it has to be switched on again."""
        return os.path.exists(self._path)

    def forget(self) -> None:
        """It is on again.

        Raises:
            StorageError: the volume does not take it.
        """
        try:
            os.unlink(self._path)
            fsync_folder(os.path.dirname(self._path))
        except OSError as error:
            raise storage_error(error, self._path) from error
