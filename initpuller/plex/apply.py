"""Give Plex's sections their new folders through its own API, so that no item is deleted.

A section whose folder is replaced in one step loses its items with the first scan. So each section
first gets the new folders beside the old ones, then a scan, and only then loses the old ones.
Automatic emptying of trash is off from before the first change until after the last. A file on the
volume, which survives a kill, notes meanwhile that it was on.
"""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import structlog

from shared.durable import fsync_folder, write_durably
from shared.errors import PlexRefused, storage_error

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from initpuller.plex.api import PlexApi
    from initpuller.plex.paths import Section

_log = structlog.get_logger("puller")
_QUIET = 2
"""Number of checks in a row that must see no scan: one begins a moment after the request."""
_PAUSE = 2.0
_SAID = 30.0
"""Seconds between two log lines about a running scan."""


def apply_sections(api: PlexApi, sections: Sequence[Section], note: str) -> None:
    """Give each section the folders where its media is now.

    Args:
        api: the running server.
        sections: sections whose media was found in their new folders.
        note: path of the file that notes that emptying of trash was on before the first run.

    Raises:
        PlexRefused: Plex refused a change, or a section has fewer items than before. Emptying of
            trash then stays off, changed sections stay changed, and the next run continues there.
        PlexUnreachable, AuthenticationError, StorageError: with the same consequences.
    """
    changing = [each for each in sections if not each.is_unchanged]
    for section in changing:
        _check_folders(api, section)
    if changing and api.empties_trash():
        with _on_volume(note):
            write_durably(note, b"autoEmptyTrash was on; 'paths --apply' switches it on again\n")
        api.set_empties_trash(on=False)
    for section in changing:
        _change(api, section)
    if os.path.exists(note):
        api.set_empties_trash(on=True)
        with _on_volume(note):
            os.unlink(note)
            fsync_folder(os.path.dirname(note))


@contextmanager
def _on_volume(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise storage_error(error, path) from error


def _check_folders(api: PlexApi, section: Section) -> None:
    absent = [each.new for each in section.folders if not api.sees(each.new)]
    if absent:
        raise PlexRefused(
            f"Plex does not see {', '.join(absent)}, where {section.name} is to be",
            hint="Mount the media in Plex's container at the same path as here.",
        )


def _change(api: PlexApi, section: Section) -> None:
    before = api.section(section.number)
    wanted = list(dict.fromkeys(each.new for each in section.folders))
    both = list(dict.fromkeys([*before.folders, *wanted]))
    if before.folders == wanted:
        return
    if both != before.folders:
        api.set_folders(section.number, both)
    api.scan(section.number)
    _wait(api, section)
    items = api.section(section.number).items
    if items < before.items:
        raise PlexRefused(
            f"{section.name} has {items} items after the scan, and had {before.items}",
            hint="Automatic emptying of trash stays off. Check the library in Plex before"
            " running this again.",
        )
    api.set_folders(section.number, wanted)
    _log.info("library moved", library=section.name, folders=wanted, items=items)


def _wait(api: PlexApi, section: Section) -> None:
    quiet, waited = 0, 0.0
    while quiet < _QUIET:
        time.sleep(_PAUSE)
        waited += _PAUSE
        quiet = 0 if api.section(section.number).is_scanning else quiet + 1
        if not quiet and waited % _SAID < _PAUSE:
            _log.info("Plex scans", library=section.name, seconds=round(waited))
