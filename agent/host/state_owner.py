"""User switching for commands that root runs, such as pair and undo.

Files that root writes must belong to the user of the service.
"""

from __future__ import annotations

import os
import subprocess
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


def become_owner(folder: str) -> None:
    """Become the owner of ``folder`` for good, if this process is root and the owner is not."""
    if user := agent_user(folder):
        os.setgroups([])
        os.setgid(user[1])
        os.setuid(user[0])


def write_as_owner(folder: str) -> None:
    """Access files as the owner of ``folder``, if this process is root and the owner is not.

    Programs started with :func:`program_user` still run as root, because systemd lets root start
    Plex without polkit.
    """
    if user := agent_user(folder):
        os.setegid(user[1])
        os.seteuid(user[0])


def agent_user(state: str) -> tuple[int, int] | None:
    """Return uid and gid of the owner of the folder ``state`` if root acts for that user, or None.

    The agent runs as the owner of its state folder.
    """
    if os.getuid() == 0:
        # Any other error must be raised: root would write files that the agent cannot read.
        with suppress(FileNotFoundError, NotADirectoryError):
            owner = os.stat(state)
            return (owner.st_uid, owner.st_gid) if owner.st_uid != 0 else None
    return None


def can_execute(program: str, user: tuple[int, int] | None) -> bool:
    """Return whether ``program`` is a file that ``user`` may execute; None is the current user."""
    if not os.path.isfile(program):
        return False
    if user is None:
        return os.access(program, os.X_OK, effective_ids=True)
    done = subprocess.run(  # noqa: S603 - no shell, and no option can be smuggled in
        ["/usr/bin/test", "-x", program], check=False, user=user[0], group=user[1], extra_groups=[]
    )
    return done.returncode == 0


def program_user() -> tuple[int | None, int | None]:
    """Return uid and gid to run programs as; None for each if they are the current ones."""
    if os.getuid() == os.geteuid():
        return None, None
    return os.getuid(), os.getgid()


@contextmanager
def as_program_user() -> Iterator[None]:
    """Act as the user that programs run as, in a process of one thread; see above."""
    user, group = os.geteuid(), os.getegid()
    if user != os.getuid():
        os.seteuid(os.getuid())
        os.setegid(os.getgid())
    try:
        yield
    finally:
        if user != os.geteuid():
            os.setegid(group)
            os.seteuid(user)
