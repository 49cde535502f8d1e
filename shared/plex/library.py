"""Facts about Plex's folder: its layout, excluded files, and files that Plex recreates."""

from __future__ import annotations

import os

import msgspec

NEVER = ("*.pid",)
"""Patterns of files that are never moved. A server waits forever on another server's pid file."""

_SERVER = ("/", "/Application Support/Plex Media Server/")
"""Prefixes of Plex's own folder below the library. Plex's folder may be the library itself."""
_REMADE = ("Cache", "Codecs", "Crash Reports", "Diagnostics", "Drivers", "Logs", "Updates")
_COPY = "Plug-in Support/Databases/com.plexapp.*.db-[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]*"

DATED = tuple(folder + _COPY for folder in _SERVER)
"""Patterns of the dated copies that Plex makes of its databases."""

REGENERABLE = (*(folder + name for folder in _SERVER for name in _REMADE), *DATED)
"""Patterns of files that Plex downloads or creates again, and of :data:`DATED`."""

DATABASES = ("com.plexapp.plugins.library.db", "com.plexapp.plugins.library.blobs.db")
"""Names of the databases in :data:`DATABASE_FOLDER`. Old libraries may lack the second one."""
MEDIA_FOLDERS = (
    "SELECT s.id, s.name, l.root_path FROM section_locations l"
    " JOIN library_sections s ON s.id = l.library_section_id ORDER BY s.name, s.id, l.root_path"
)
"""Query of the first database for the number, the name and a media folder of each section."""
DATABASE_FOLDER = "Plug-in Support/Databases"
PREFERENCES = "Preferences.xml"
ARTWORK_FOLDERS = ("Metadata", "Media")
"""Folders below Plex's own folder with pictures and texts, and with previews of the media."""

_LIBRARY_NAME, _SERVER_NAME = "Library", "Plex Media Server"
_BELOW_LIBRARY = f"Application Support/{_SERVER_NAME}"
SUPPORT_FOLDER = f"{_LIBRARY_NAME}/Application Support"
"""Path on the volume in which Plex's image expects Plex's own folder."""

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
"""Preferences that name paths, devices and networks of the VM."""


class SectionFacts(msgspec.Struct, frozen=True):
    """One section of a server, as recorded in its database."""

    number: int
    name: str
    items: int
    """Number of top-level items: films, shows, artists, photos and albums."""


class ServerFacts(msgspec.Struct, frozen=True):
    """Facts by which a server is recognized after the move."""

    version: str
    """Empty if it is unknown."""
    machine_identifier: str
    """Identifier that ``/identity`` reports; empty if it could not be read."""
    sections: list[SectionFacts]


def is_server_name(name: str) -> bool:
    """Return whether a library with this name is Plex's own folder."""
    return name == _SERVER_NAME


def library_name(name: str, *, placed: bool) -> str:
    """Return the name that the library ``name`` gets on a volume.

    If ``placed``, Plex's own folder is put into the parent folders that Plex's image expects.
    """
    return _LIBRARY_NAME if placed and is_server_name(name) else name


def server_folder(library: str) -> str | None:
    """Return the path of Plex's own folder in ``library``; None unless its last name is Plex's."""
    name = os.path.basename(library)
    if name == _LIBRARY_NAME:
        return os.path.join(library, _BELOW_LIBRARY)
    return library if name == _SERVER_NAME else None


def needed_paths(library: str) -> list[str]:
    """Return all paths that must not be symlinks, or Plex would not find its files on the volume.

    They begin with ``library``, the library's path or only its name.
    """
    server = server_folder(library)
    if server is None:
        return []
    above = [server]
    while len(above[0]) > len(library):
        above.insert(0, os.path.dirname(above[0]))
    databases = [f"{DATABASE_FOLDER}/{name}{end}" for name in DATABASES for end in ("", "-wal")]
    folders = (os.path.dirname(DATABASE_FOLDER), DATABASE_FOLDER)
    below = (PREFERENCES, *ARTWORK_FOLDERS, *folders, *databases)
    return [*above[1:], *(os.path.join(server, name) for name in below)]


def needed_files(library: str) -> list[str]:
    """Return the paths of the files without which Plex starts as a new, empty server.

    They begin with ``library``, the library's path or only its name.
    """
    server = server_folder(library)
    names = (PREFERENCES, f"{DATABASE_FOLDER}/{DATABASES[0]}")
    return [] if server is None else [os.path.join(server, name) for name in names]
