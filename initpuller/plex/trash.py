"""A note that automatic emptying of trash was on before the puller switched it off."""

from __future__ import annotations

import os

from shared.durable import fsync_folder, write_durably
from shared.errors import storage_error


class TrashRecord:
    """A file that exists from before the setting is switched off until it is on again.

    It survives a kill of the puller.

    Args:
        path: the file.
    """

    def __init__(self, path: str) -> None:
        self._path = path

    def remember(self) -> None:
        """Note that the setting is on and will be switched off.

        Raises:
            StorageError: the file cannot be written.
        """
        try:
            write_durably(
                self._path, b"autoEmptyTrash was on; 'paths --apply' switches it on again\n"
            )
        except OSError as error:
            raise storage_error(error, self._path) from error

    def was_on(self) -> bool:
        """Return whether the setting has to be switched on again."""
        return os.path.exists(self._path)

    def forget(self) -> None:
        """Remove the note: the setting is on again.

        Raises:
            StorageError: the file cannot be removed.
        """
        try:
            os.unlink(self._path)
            fsync_folder(os.path.dirname(self._path))
        except OSError as error:
            raise storage_error(error, self._path) from error
