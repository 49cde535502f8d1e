"""Whether the library is the right folder, and whether what Plex needs of it is really in it."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from typing import TYPE_CHECKING

from shared.checks import LIBRARY_CHECK, Check, Outcome, some
from shared.plex.library import (
    ARTWORK_FOLDERS,
    DATABASE_FOLDER,
    DATABASES,
    PREFERENCES,
    needed_paths,
    server_folder,
)
from shared.plex.sqlite_query import DatabaseError, query

if TYPE_CHECKING:
    from collections.abc import Iterator

_PASS, _WARNING, _FAILURE = Outcome.PASS, Outcome.WARNING, Outcome.FAILURE
_SUPPORT, _SERVER, _LIBRARY = "Application Support", "Plex Media Server", "Library"
_ITEMS = "SELECT count(*) FROM metadata_items WHERE metadata_type IN ({})"
_TYPES = {"Metadata": "1, 2, 8, 9", "Media": "1, 2"}
"""Of the items that have files in each folder: films 1, shows 2, artists 8, albums 9."""
_ITEMS_A_FILE = {"Metadata": 100, "Media": 0}
"""So many items with only one file are too many; 0: however many, one file is enough. Preview
thumbnails can be switched off, and then ``Media`` has few files."""
_REPLACE = (
    "A pull moves a symlink as it is, so what it leads to would stay here. Stop Plex, replace the"
    " symlink by {}, start Plex and try again."
)
_FOLDER_ITSELF = "the folder itself, or by a bind mount of it (mount --bind)"


def check_library(path: str) -> Check:
    """Return whether the folder at ``path`` is what has to be moved for Plex to be found."""
    server = server_folder(path)
    if server is not None and os.path.isdir(server):
        return Check(LIBRARY_CHECK, _PASS, f"Plex's own folder is {server}")
    better = _better(path)
    if better is None:
        return Check(
            LIBRARY_CHECK,
            _WARNING,
            f"there is no Plex Media Server in {path}",
            "A pull with a cutover is refused. Give the folder called Library with --library, or"
            " move any other folder with pull --no-cutover.",
        )
    found = f"{path} is not the folder to move: Plex would not find it in the pod"
    return Check(LIBRARY_CHECK, _FAILURE, found, better)


def _better(path: str) -> str | None:
    """Return what to do if Plex's folder is near ``path``; None if it is not."""
    above, name = os.path.split(path)
    for below in (os.path.join(_LIBRARY, _SUPPORT), _SUPPORT, ""):
        server = os.path.join(path, below, _SERVER)
        if os.path.isdir(server):
            library = os.path.join(path, _LIBRARY) if below.startswith(_LIBRARY) else server
            if name == _SUPPORT and os.path.basename(above) == _LIBRARY:
                library = above
            return f"Give --library '{library}'."
    is_server = os.path.isdir(os.path.join(path, DATABASE_FOLDER))
    if is_server and os.path.isfile(os.path.join(path, PREFERENCES)):
        return (
            f"It is Plex's own folder under another name. Make a symlink to it that is called"
            f" '{_SERVER}' and give that with --library."
        )
    return None


def check_links(path: str) -> Check:
    """Return whether a symlink stands where Plex's files have to be in the library at ``path``.

    ``Metadata`` and ``Media`` have a check of their own, :func:`check_artwork`.
    """
    title = "Plex's folders"
    artwork = tuple(os.path.join(server_folder(path) or path, each) for each in ARTWORK_FOLDERS)
    needed = [each for each in needed_paths(path) if each not in artwork]
    links = [each for each in needed if os.path.islink(each)]
    if not links:
        return Check(title, _PASS, "no symlink stands in their place")
    is_folder = any(os.path.isdir(each) for each in links)
    replaced = _FOLDER_ITSELF if is_folder else "the file itself"
    return Check(title, _FAILURE, some([_shown(each) for each in links]), _REPLACE.format(replaced))


def check_artwork(server: str) -> list[Check]:
    """Return for ``Metadata`` and ``Media`` whether they have what the database leads to expect.

    Args:
        server: Plex's own folder.
    """
    return [_artwork(server, name) for name in ARTWORK_FOLDERS]


def _artwork(server: str, name: str) -> Check:
    folder = os.path.join(server, name)
    links = [folder] if os.path.islink(folder) else list(_linked_folders(folder))
    without = f" To move without it, leave it out: pull --exclude {name}."
    if links:
        advice = _REPLACE.format(_FOLDER_ITSELF) + without
        return Check(name, _FAILURE, some([_shown(each) for each in links]), advice)
    items = _count_items(server, _TYPES[name])
    each = _ITEMS_A_FILE[name]
    enough = max(1, items // each) if each else 1
    files = _count_files(folder, enough)
    if not items or files >= enough:
        return Check(name, _PASS, f"has files for the {items} items of the database")
    return Check(
        name,
        _FAILURE,
        f"{folder} has {files or 'no'} files, but the database has {items} items",
        f"Is it on another disk, or another volume of Plex's container? Mount it there, for example"
        f" with mount --bind, and try again.{without}",
    )


def _linked_folders(folder: str) -> Iterator[str]:
    """Yield the symlinks right in ``folder`` that lead to a folder elsewhere."""
    top = os.path.realpath(folder) + os.sep
    with suppress(OSError), os.scandir(folder) as found:
        for each in found:
            is_link = each.is_symlink() and each.is_dir()
            if is_link and not os.path.realpath(each.path).startswith(top):
                yield each.path


def _count_items(server: str, types: str) -> int:
    """Return how many items of these types there are; 0 if the database cannot tell."""
    path = os.path.join(server, DATABASE_FOLDER, DATABASES[0])
    with suppress(DatabaseError, OSError):
        [[[count]]] = query(path, [_ITEMS.format(types)])
        return int(count)
    return 0


def _count_files(folder: str, most: int) -> int:
    """Return how many files are in and below ``folder``; counting ends at ``most``."""
    count = 0
    for above, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                mode = os.lstat(os.path.join(above, name)).st_mode
                count += stat.S_ISREG(mode)
        if count >= most:
            break
    return count


def _shown(link: str) -> str:
    return f"{link} is a symlink to {os.readlink(link)}"
