"""Root pairs and undoes, the service serves: what root writes must belong to the service's user."""

from __future__ import annotations

import os
import subprocess
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


def agent_user(state: str) -> tuple[int, int] | None:
    """Return user and group of the agent, whose state folder ``state`` is; None for our own."""
    with suppress(OSError):
        owner = os.stat(state)
        if os.getuid() == 0 and owner.st_uid != 0:
            return owner.st_uid, owner.st_gid
    return None


def can_execute(program: str, user: tuple[int, int] | None) -> bool:
    """Return whether ``program`` is a file that ``user`` may execute.

    Args:
        program: its path.
        user: user and group to ask for; None for who we are.
    """
    if not os.path.isfile(program):
        return False
    if user is None:
        return os.access(program, os.X_OK, effective_ids=True)
    done = subprocess.run(  # noqa: S603 - no shell, and no option can be smuggled in
        ["/usr/bin/test", "-x", program], check=False, user=user[0], group=user[1], extra_groups=[]
    )
    return done.returncode == 0


def program_user() -> tuple[int | None, int | None]:
    """Return user and group to run programs as; None where that is who we are."""
    if os.getuid() == os.geteuid():
        return None, None
    return os.getuid(), os.getgid()
