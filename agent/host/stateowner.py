"""Root pairs and undoes, the service serves: what root writes must belong to the service's user."""

from __future__ import annotations

import os
from contextlib import suppress


def become_owner(folder: str) -> None:
    """If we are root and ``folder`` is another user's, go on as that user.

    Raises:
        OSError: the kernel does not let us.
    """
    with suppress(FileNotFoundError):
        owner = os.stat(folder)
        if os.geteuid() == 0 and owner.st_uid != 0:
            os.setgroups([])
            os.setgid(owner.st_gid)
            os.setuid(owner.st_uid)


def write_as_owner(folder: str) -> None:
    """If we are root and ``folder`` is another user's, read and write files as that user.

    Programs that ask for :func:`program_user` are still run by root, whom systemd lets start Plex
    without asking polkit.

    Raises:
        OSError: the kernel does not let us.
    """
    with suppress(FileNotFoundError):
        owner = os.stat(folder)
        if os.geteuid() == 0 and owner.st_uid != 0:
            os.setegid(owner.st_gid)
            os.seteuid(owner.st_uid)


def program_user() -> tuple[int | None, int | None]:
    """Return user and group to run programs as; None where that is who we are."""
    if os.getuid() == os.geteuid():
        return None, None
    return os.getuid(), os.getgid()
