"""A library of a few entries in the shape of Plex's, and an oracle that reads the whole tree."""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
import stat
import subprocess
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

SERVER = "Library/Application Support/Plex Media Server"
DATABASE = "Plug-in Support/Databases/com.plexapp.plugins.library.db"
_PREFERENCES = '<?xml version="1.0"?>\n<Preferences MachineIdentifier="m" autoEmptyTrash="0"/>\n'
_TABLES = """
CREATE TABLE library_sections (id INTEGER, name TEXT, section_type INTEGER);
CREATE TABLE section_locations (id INTEGER, library_section_id INTEGER, root_path TEXT);
CREATE TABLE metadata_items (
    id INTEGER, library_section_id INTEGER, deleted_at INTEGER, parent_id INTEGER,
    metadata_type INTEGER
);
INSERT INTO library_sections VALUES (1, 'Movies', 1);
INSERT INTO metadata_items VALUES (1, 1, NULL, NULL, 1);
"""


def make_library(place: Path) -> None:
    """Make a library in ``place`` that Plex has used for a while."""
    server = place / SERVER
    database = server / DATABASE
    database.parent.mkdir(parents=True)
    connection = sqlite3.connect(database)
    connection.executescript(_TABLES)
    connection.close()
    (server / "Preferences.xml").write_text(_PREFERENCES)
    poster = server / "Metadata/Movies/poster.jpg"
    poster.parent.mkdir(parents=True)
    poster.write_bytes(b"poster" * 50)
    (server / "Metadata/Movies/_combined").symlink_to("poster.jpg")
    os.link(poster, server / "Metadata/Movies/again.jpg")
    (server / "Media").mkdir()


def write(place: Path, number: int) -> None:
    """Change the library as Plex does: add, overwrite, rename and remove in turn.

    SQLite makes a ``-shm`` for the time that Plex has the database open. The folder then gets its
    time from the clock itself, because the kernel's own times are milliseconds apart, as are two
    runs of this Plex.
    """
    server = place / SERVER
    database = server / DATABASE
    side = database.with_name(f"{database.name}-shm")
    side.touch()
    side.unlink()
    now = time.time_ns()
    os.utime(database.parent, ns=(now, now))
    folder = server / "Media"
    (server / "Metadata/history").write_text(f"{number}\n")
    (folder / f"{number}.bif").write_text(f"{number}" * 20)
    if number % 3 == 0:
        (folder / f"{number}.bif").rename(folder / f"renamed-{number}.bif")
    for old in sorted(folder.iterdir())[:-3]:
        old.unlink()
    if number % 5 == 0:
        with sqlite3.connect(database) as connection:
            connection.execute("INSERT INTO metadata_items VALUES (?, 1, NULL, NULL, 1)", (number,))
        connection.close()


def copy(place: Path, elsewhere: Path) -> None:
    """Copy the library with all its attributes and hard links."""
    elsewhere.mkdir()
    subprocess.run(["cp", "-a", place / "Library", elsewhere], check=True)


def copy_database(folder: int, name: bytes, copy: str) -> None:
    """Copy a database while no program writes to it, as a substitute for a backup by SQLite."""
    shutil.copyfile(os.path.join(b"/proc/self/fd/%d" % folder, name), copy)


def tree(library: Path) -> str:
    """Return a digest over all entries at and below ``library``, with their attributes."""
    lines = []
    inodes: dict[tuple[int, int], str] = {}
    paths = [
        os.path.join(top, name)
        for top, folders, files in os.walk(library)
        for name in (*folders, *files)
    ]
    for path in sorted([str(library), *paths]):
        info = os.lstat(path)
        name = os.path.relpath(path, library.parent)
        about: list[object] = [name, info.st_mode]
        if stat.S_ISREG(info.st_mode):
            with open(path, "rb") as file:
                about += [info.st_mtime_ns, hashlib.sha256(file.read()).hexdigest()]
            about.append(inodes.setdefault((info.st_dev, info.st_ino), name))
        elif stat.S_ISLNK(info.st_mode):
            about.append(os.readlink(path))
        else:
            about.append(info.st_mtime_ns)
        lines.append(repr(about))
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
