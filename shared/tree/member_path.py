"""Which names and link targets may be written: the one place that decides.

Paths are bytes, separated by ``/``, and begin with the library's own name: ``Library/a/b``.
The check is lexical. :mod:`shared.tree.dir_stack` makes sure that no symlink moves what is checked.
"""

from __future__ import annotations

from shared.errors import IllegalLink, IllegalPath

MAX_NAME = 255
"""Bytes of one name (NAME_MAX of every filesystem in question)."""
MAX_PATH = 16 * 1024
"""Bytes of a whole path."""
MAX_DEPTH = 256
"""Names in a path: one open directory descriptor each while a tree is walked."""
MAX_LINK_TARGET = 4095
"""Bytes of a symlink's target (PATH_MAX less its NUL)."""
_NO_NAMES = frozenset((b"", b".", b".."))
STATE_FOLDER = b".plexodus"
"""The puller's own folder on the volume; no library may be called so."""


def check_root_name(name: bytes) -> None:
    """Refuse a library name that is not a single, plain name.

    Raises:
        IllegalPath: it is empty, a dot name, has a slash or NUL, or is the puller's own folder.
    """
    if b"/" in name or name == STATE_FOLDER:
        raise IllegalPath("a library cannot have this name", path=name)
    check_name(name, name, depth=1)


def check_name(name: bytes, path: bytes, depth: int) -> None:
    """Refuse what the last name adds to a path whose other names have been checked.

    Args:
        name: the last one.
        path: the whole.
        depth: how many names it has.

    Raises:
        IllegalPath: as for :func:`check_path`.
    """
    if len(path) > MAX_PATH:
        raise IllegalPath(f"a path of more than {MAX_PATH} bytes", path=path[:200])
    if depth > MAX_DEPTH:
        raise IllegalPath(f"a path of more than {MAX_DEPTH} levels", path=path[:200])
    if name in _NO_NAMES or len(name) > MAX_NAME or b"\0" in name:
        raise _illegal(name, path)


def check_path(path: bytes, root: bytes) -> None:
    """Refuse a path that is not ``root`` or plainly below it.

    Raises:
        IllegalPath: absolute, ``.`` or ``..`` or empty names, NUL, too long, or not below root.
    """
    if len(path) > MAX_PATH:
        raise IllegalPath(f"a path of more than {MAX_PATH} bytes", path=path[:200])
    names = path.split(b"/")
    if len(names) > MAX_DEPTH:
        raise IllegalPath(f"a path of more than {MAX_DEPTH} levels", path=path[:200])
    for name in names:
        if name in _NO_NAMES or len(name) > MAX_NAME or b"\0" in name:
            raise _illegal(name, path)
    if names[0] != root:
        raise IllegalPath("a path outside the library", path=path)


def _illegal(name: bytes, path: bytes) -> IllegalPath:
    if name in _NO_NAMES:
        return IllegalPath("a path with an empty, '.' or '..' name", path=path)
    if len(name) > MAX_NAME:
        return IllegalPath(f"a name of more than {MAX_NAME} bytes", path=path)
    return IllegalPath("a path with a NUL byte", path=path)


def check_symlink_target(target: bytes, path: bytes) -> None:
    """Refuse a target that no symlink can hold; where it points to is the library's business.

    Raises:
        IllegalLink: empty, too long, or with a NUL byte.
    """
    if not target or len(target) > MAX_LINK_TARGET or b"\0" in target:
        raise IllegalLink("a symlink with an impossible target", path=path)


def sort_key(path: bytes) -> bytes:
    """Orders paths name by name, parents first: NUL stands in for ``/`` and sorts below all."""
    return path.replace(b"/", b"\0")
