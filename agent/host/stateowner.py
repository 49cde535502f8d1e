"""Root pairs, the service serves: what root writes must belong to the service's user."""

from __future__ import annotations

import os
from contextlib import suppress


def become_owner(folder: str) -> None:
    """If we are root and ``folder`` is somebody else's, go on as they.

    Raises:
        OSError: the kernel does not let us.
    """
    with suppress(FileNotFoundError):
        owner = os.stat(folder)
        if os.geteuid() == 0 and owner.st_uid != 0:
            os.setgroups([])
            os.setgid(owner.st_gid)
            os.setuid(owner.st_uid)
