"""The rules for names and link targets that may be written; no other module decides this.

Paths are bytes, separated by ``/``, and begin with the library's own name: ``Library/a/b``.
The checks are lexical. :mod:`shared.tree.dir_stack` makes sure that no symlink redirects a path.
"""

from __future__ import annotations

from shared.errors import IllegalLink, IllegalPath

MAX_NAME = 255
"""Longest name, in bytes (NAME_MAX of every filesystem that matters here)."""
MAX_PATH = 16 * 1024
"""Longest path, in bytes."""
MAX_DEPTH = 256
"""Most names in a path. Each one is an open directory descriptor while a tree is walked."""
MAX_LINK_TARGET = 4095
"""Longest target of a symlink, in bytes (PATH_MAX without its NUL)."""
NO_NAMES = frozenset((b"", b".", b".."))
STATE_FOLDER = b".plexodus"
"""The puller's own folder on the volume; no library may have this name."""


def check_root_name(name: bytes) -> None:
    """Raise IllegalPath if no library can have ``name``, or if it is the puller's own folder's."""
    if b"/" in name or name == STATE_FOLDER:
        raise IllegalPath("the library cannot have this name", path=name)
    check_name(name, name, depth=1)


def check_name(name: bytes, path: bytes, depth: int) -> None:
    """Raise IllegalPath if ``name``, the ``depth``-th of ``path``, makes it illegal.

    The names above it are checked already.
    """
    if len(path) > MAX_PATH:
        raise IllegalPath(f"a path has more than {MAX_PATH} bytes", path=path[:200])
    if depth > MAX_DEPTH:
        raise IllegalPath(f"a path has more than {MAX_DEPTH} levels", path=path[:200])
    if name in NO_NAMES:
        raise IllegalPath("a path has an empty, '.' or '..' name", path=path)
    if len(name) > MAX_NAME:
        raise IllegalPath(f"a path has a name of more than {MAX_NAME} bytes", path=path)
    if b"\0" in name:
        raise IllegalPath("a path has a NUL byte", path=path)


def check_path(path: bytes, root: bytes) -> None:
    """Raise IllegalPath unless ``path`` is ``root`` or a plain, not too long path below it."""
    names = path.split(b"/")
    for depth, name in enumerate(names, 1):
        check_name(name, path, depth)
    if names[0] != root:
        raise IllegalPath("a path is outside the library", path=path)


def check_symlink_target(target: bytes, path: bytes) -> None:
    """Raise IllegalLink if no symlink can hold ``target``. The target may point anywhere."""
    if not target or len(target) > MAX_LINK_TARGET or b"\0" in target:
        raise IllegalLink("a symlink has a target that no filesystem can hold", path=path)


def sort_key(path: bytes) -> bytes:
    """Return a key that sorts paths name by name, parents first.

    NUL replaces ``/``, because it sorts before every byte of a name.
    """
    return path.replace(b"/", b"\0")
