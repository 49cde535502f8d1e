"""Whether a name is there. An error is no answer, unlike with os.path.exists and its like."""

from __future__ import annotations

import os
import stat


def mode_at(path: str, *, follow_symlinks: bool = True) -> int:
    """Return the type and mode of what has the name ``path``; 0 if nothing has it.

    Any other failure of the call is raised, because it is no answer. os.path.isdir and its like
    return False for each. One failed read would turn a library that is there into one that is not.
    """
    try:
        return os.stat(path, follow_symlinks=follow_symlinks).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return 0


def is_there(path: str) -> bool:
    """Return whether anything has the name ``path``, also a symlink that leads nowhere."""
    return mode_at(path, follow_symlinks=False) != 0


def is_folder(path: str) -> bool:
    """Return whether ``path`` is a folder, or a symlink to one."""
    return stat.S_ISDIR(mode_at(path))
