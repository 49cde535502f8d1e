"""Checks that the library is the right folder, and that Plex's files are really in it."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from typing import TYPE_CHECKING

from shared.checks import CheckId, Outcome, some
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

    from agent.checks.source_facts import SourceFacts
    from shared.checks import Check

_SUPPORT, _SERVER, _LIBRARY = "Application Support", "Plex Media Server", "Library"
_ITEMS = "SELECT count(*) FROM metadata_items WHERE metadata_type IN ({})"
_ARTWORK = {
    CheckId.METADATA_FOLDER: ("Metadata", "1, 2, 8, 9", 100),
    CheckId.MEDIA_FOLDER: ("Media", "1, 2", 0),
}
"""A folder's name, the types of the items that have files in it, and the items per file that are
too many. Types: films 1, shows 2, artists 8, albums 9. 0 items: one file is always enough, because
preview thumbnails can be switched off, and then ``Media`` has few files."""
_REPLACE = (
    "A pull moves a symlink as it is, so what it leads to would stay here. Stop Plex, replace the"
    " symlink by {}, start Plex and retry."
)
_FOLDER_ITSELF = "the folder itself, or by a bind mount of it (mount --bind)"


def check_top(facts: SourceFacts) -> Check | None:
    """Check the library's place, unless a symlink hides Plex's folder: that has its own check."""
    is_hidden = not facts.is_plex and check_links(facts.path).outcome is not Outcome.PASS
    return None if is_hidden else check_library(facts.path)


def check_folders(facts: SourceFacts) -> Check | None:
    """Check Plex's folders. A folder without any of them is not Plex's."""
    links = check_links(facts.path)
    return links if facts.is_plex or links.outcome is not Outcome.PASS else None


def check_library(path: str) -> Check:
    """Return whether the folder at ``path`` is the one to move so that Plex finds its files."""
    server = server_folder(path)
    if server is not None and os.path.isdir(server):
        return CheckId.LIBRARY.passed(f"Plex's own folder is {server}")
    better = _better(path)
    if better is None:
        return CheckId.LIBRARY.warning(
            f"there is no Plex Media Server in {path}",
            "A pull with a cutover is refused. Give the folder called Library with --library, or"
            " move any other folder with pull --no-cutover.",
        )
    found = f"{path} is not the folder to move: Plex would not find it in the pod"
    return CheckId.LIBRARY.failure(found, better)


def _better(path: str) -> str | None:
    """Return advice that names Plex's folder if it is near ``path``; otherwise None."""
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
    """Return whether a symlink is in the place of a file or folder that the library needs.

    ``Metadata`` and ``Media`` have checks of their own.
    """
    artwork = tuple(os.path.join(server_folder(path) or path, each) for each in ARTWORK_FOLDERS)
    needed = [each for each in needed_paths(path) if each not in artwork]
    links = [each for each in needed if os.path.islink(each)]
    if not links:
        return CheckId.PLEX_FOLDERS.passed("no symlink stands in their place")
    is_folder = any(os.path.isdir(each) for each in links)
    replacement = _FOLDER_ITSELF if is_folder else "the file itself"
    found = some([_shown(each) for each in links])
    return CheckId.PLEX_FOLDERS.failure(found, _REPLACE.format(replacement))


def check_artwork(check: CheckId, server: str) -> Check:
    """Return whether a folder of :data:`_ARTWORK` has the files that the database's items need.

    Args:
        check: identifies the folder.
        server: Plex's own folder.
    """
    name, types, items_per_file = _ARTWORK[check]
    folder = os.path.join(server, name)
    links = [folder] if os.path.islink(folder) else list(_linked_folders(folder))
    without = f" To move without it, leave it out: pull --exclude {name}."
    if links:
        advice = _REPLACE.format(_FOLDER_ITSELF) + without
        return check.failure(some([_shown(each) for each in links]), advice)
    items = _count_items(server, types)
    enough = max(1, items // items_per_file) if items_per_file else 1
    files = _count_files(folder, enough)
    if not items or files >= enough:
        return check.passed(f"has files for the {items} items of the database")
    return check.failure(
        f"{folder} has {files or 'no'} files, but the database has {items} items",
        "Is it on another disk, or another volume of Plex's container? Mount it there, for example"
        f" with mount --bind, and retry.{without}",
    )


def _linked_folders(folder: str) -> Iterator[str]:
    """Yield the symlinks directly in ``folder`` that lead to a folder elsewhere."""
    top = os.path.realpath(folder) + os.sep
    with suppress(OSError), os.scandir(folder) as found:
        for each in found:
            is_link = each.is_symlink() and each.is_dir()
            if is_link and not os.path.realpath(each.path).startswith(top):
                yield each.path


def _count_items(server: str, types: str) -> int:
    """Return the number of items of these types; 0 if the database cannot be read."""
    path = os.path.join(server, DATABASE_FOLDER, DATABASES[0])
    with suppress(DatabaseError, OSError):
        [[[count]]] = query(path, [_ITEMS.format(types)])
        return int(count)
    return 0


def _count_files(folder: str, most: int) -> int:
    """Return the number of files in and below ``folder``. Stops counting at ``most``."""
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
