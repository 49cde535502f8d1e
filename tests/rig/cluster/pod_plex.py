"""A stand-in for Plex in its pod. It needs ``/config/Library``, and serves its identity.

It runs in an image of the tests that has ``rig/plex/server.py`` and no other file of ours.
"""

from __future__ import annotations

import re
import signal
import sqlite3
import sys
from pathlib import Path

from rig.plex.server import FakePlex, Section

_SERVER = Path("/config/Library/Application Support/Plex Media Server")
_DATABASE = "Plug-in Support/Databases/com.plexapp.plugins.library.db"
_SECTIONS = """\
SELECT id, name, (
  SELECT count(*) FROM metadata_items
  WHERE library_section_id = s.id AND metadata_type = section_type AND parent_id IS NULL
) FROM library_sections s"""


def main() -> None:
    """Serve until SIGTERM."""
    text = (_SERVER / "Preferences.xml").read_text()
    found = re.search(r'ProcessedMachineIdentifier="([^"]*)"', text)
    assert found is not None
    # Immutable, so no file is written: the test compares the volume with the VM's library.
    place = f"{(_SERVER / _DATABASE).as_uri()}?immutable=1"
    found_there = sqlite3.connect(place, uri=True).execute(_SECTIONS)
    sections = [Section(number, name, [], items) for number, name, items in found_there]
    with FakePlex(found[1], sys.argv[1], sections=sections, port=32400):
        signal.sigwait({signal.SIGTERM, signal.SIGINT})


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    main()
