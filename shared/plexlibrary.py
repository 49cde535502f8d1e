"""What is known of a Plex library: which of it never moves, and which Plex makes anew."""

from __future__ import annotations

NEVER = ("*.pid",)
"""Patterns of what must not arrive: a server that finds another one's pid file waits for ever."""

_SERVER = ("/", "/Application Support/Plex Media Server/")
"""Where Plex' own folder is, below the library: it may be the library itself."""
_REMADE = ("Cache", "Codecs", "Crash Reports", "Diagnostics", "Drivers", "Logs", "Updates")
_DATED = "Plug-in Support/Databases/com.plexapp.*.db-[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]*"

REGENERABLE = tuple(folder + name for folder in _SERVER for name in (*_REMADE, _DATED))
"""Patterns of what Plex downloads or makes again, and of its dated copies of the databases."""
