"""Facts about a Plex library: what never moves, and what Plex creates again."""

from __future__ import annotations

import os

import msgspec

NEVER = ("*.pid",)
"""Patterns of what must not arrive: a server that finds another one's pid file waits for ever."""

_SERVER = ("/", "/Application Support/Plex Media Server/")
"""Where Plex's own folder is, below the library: it may be the library itself."""
_REMADE = ("Cache", "Codecs", "Crash Reports", "Diagnostics", "Drivers", "Logs", "Updates")
_COPY = "Plug-in Support/Databases/com.plexapp.*.db-[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]*"

DATED = tuple(folder + _COPY for folder in _SERVER)
"""Patterns of the dated copies that Plex keeps of its databases."""

REGENERABLE = (*(folder + name for folder in _SERVER for name in _REMADE), *DATED)
"""Patterns of what Plex downloads or makes again, and of its dated copies of the databases."""

DATABASES = ("com.plexapp.plugins.library.db", "com.plexapp.plugins.library.blobs.db")
"""Below :data:`DATABASE_FOLDER`; the second may be missing in old libraries."""
MEDIA_FOLDERS = (
    "SELECT s.id, s.name, l.root_path FROM section_locations l"
    " JOIN library_sections s ON s.id = l.library_section_id ORDER BY s.name, s.id, l.root_path"
)
"""Asked of the first database: each library's number and name, and a folder of its media."""
DATABASE_FOLDER = "Plug-in Support/Databases"
PREFERENCES = "Preferences.xml"
ARTWORK_FOLDERS = ("Metadata", "Media")
"""Below Plex's own folder: pictures and texts, and previews of the media."""

_LIBRARY_NAME, _SERVER_NAME = "Library", "Plex Media Server"
_BELOW_LIBRARY = f"Application Support/{_SERVER_NAME}"
SUPPORT_FOLDER = f"{_LIBRARY_NAME}/Application Support"
"""Where Plex's image looks for Plex's own folder, below the volume."""

OLD_MACHINE = (
    "TranscoderTempDirectory",
    "ButlerDatabaseBackupPath",
    "customCertificatePath",
    "customCertificateKey",
    "HardwareDevicePath",
    "PreferredNetworkInterface",
    "LocalAppDataPath",
    "customConnections",
    "allowedNetworks",
)
"""Preferences that name paths, devices and networks of the machine that they were made on."""


class SectionFacts(msgspec.Struct, frozen=True):
    """One library of a server, as its database has it."""

    number: int
    name: str
    items: int
    """On the top level: films, shows, artists, photos and albums."""


class ServerFacts(msgspec.Struct, frozen=True):
    """What makes a server the one that it was."""

    version: str
    """Empty where it was not known."""
    machine_identifier: str
    """As ``/identity`` tells it; empty where it could not be read."""
    sections: list[SectionFacts]


def is_server_name(name: str) -> bool:
    """Return whether a library of this name is Plex's own folder."""
    return name == _SERVER_NAME


def library_name(name: str, *, placed: bool) -> str:
    """Return the name under which a library arrives on a volume.

    Args:
        name: the library's own name.
        placed: whether Plex's own folder gets the folders above it that Plex's image expects.
    """
    return _LIBRARY_NAME if placed and is_server_name(name) else name


def server_folder(library: str) -> str | None:
    """Plex's own folder in the library at this path, as it is named; None if that is not Plex's.

    Args:
        library: its path; its last name says what it is.
    """
    name = os.path.basename(library)
    if name == _LIBRARY_NAME:
        return os.path.join(library, _BELOW_LIBRARY)
    return library if name == _SERVER_NAME else None


def needed_paths(library: str) -> list[str]:
    """Return every path that must not be a symlink, so that Plex finds its files on the volume.

    Args:
        library: the library's path, or only its name; the paths begin with it.
    """
    server = server_folder(library)
    if server is None:
        return []
    above = [server]
    while len(above[0]) > len(library):
        above.insert(0, os.path.dirname(above[0]))
    databases = os.path.join(server, DATABASE_FOLDER)
    return [
        *above[1:],
        *(os.path.join(server, name) for name in (PREFERENCES, *ARTWORK_FOLDERS)),
        os.path.dirname(databases),
        databases,
        *(os.path.join(databases, name + end) for name in DATABASES for end in ("", "-wal")),
    ]


def needed_files(library: str) -> list[str]:
    """Return the paths of the files without which Plex starts as a new, empty server.

    Args:
        library: the library's path, or only its name; the paths begin with it.
    """
    server = server_folder(library)
    if server is None:
        return []
    return [
        os.path.join(server, name) for name in (PREFERENCES, f"{DATABASE_FOLDER}/{DATABASES[0]}")
    ]
