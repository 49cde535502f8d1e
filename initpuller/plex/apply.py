"""Give Plex's sections their new folders through its own API, so that no item is deleted.

A section whose folder is replaced in one step loses its items with the first scan. So each section
first gets the new folders beside the old ones, then a scan, and only then loses the old ones.
Automatic emptying of trash is off from before the first change until after the last.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import structlog

from shared.errors import PlexRefused

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from initpuller.plex.api import PlexApi
    from initpuller.plex.paths import Section
    from initpuller.plex.trash import TrashRecord

_log = structlog.get_logger("puller")
_QUIET = 2
"""Number of checks in a row that must see no scan: one begins a moment after the request."""
_PAUSE = 2.0
_SAID = 30.0
"""Seconds between two log lines about a running scan."""


def apply_sections(
    api: PlexApi,
    sections: Sequence[Section],
    trash: TrashRecord,
    pause: Callable[[float], None] = time.sleep,
) -> list[str]:
    """Give each section the folders where its media is now, and return the changed sections' names.

    Args:
        api: the running server.
        sections: sections whose media was found in their new folders.
        trash: the note whether emptying of trash was on before the first run.
        pause: waits for a number of seconds.

    Raises:
        PlexRefused: Plex refused a change, or a section has fewer items than before. Emptying of
            trash then stays off, changed sections stay changed, and the next run continues there.
        PlexUnreachable, AuthenticationError: with the same consequences.
    """
    changing = [each for each in sections if not each.is_unchanged]
    for section in changing:
        _check_folders(api, section)
    if changing and api.empties_trash():
        trash.remember()
        api.set_empties_trash(on=False)
    for section in changing:
        _change(api, section, pause)
    if trash.was_on():
        api.set_empties_trash(on=True)
        trash.forget()
    return [each.name for each in changing]


def _check_folders(api: PlexApi, section: Section) -> None:
    absent = [each.new for each in section.folders if not api.sees(each.new)]
    if absent:
        raise PlexRefused(
            f"Plex does not see {', '.join(absent)}, where {section.name} is to be",
            hint="Mount the media in Plex's container at the same path as here.",
        )


def _change(api: PlexApi, section: Section, pause: Callable[[float], None]) -> None:
    before = api.section(section.number)
    wanted = list(dict.fromkeys(each.new for each in section.folders))
    both = list(dict.fromkeys([*before.folders, *wanted]))
    if before.folders == wanted:
        return
    if both != before.folders:
        api.set_folders(section.number, both)
    api.scan(section.number)
    _wait(api, section, pause)
    items = api.section(section.number).items
    if items < before.items:
        raise PlexRefused(
            f"{section.name} has {items} items after the scan, and had {before.items}",
            hint="Automatic emptying of trash stays off. Check the library in Plex before"
            " running this again.",
        )
    api.set_folders(section.number, wanted)
    _log.info("library moved", library=section.name, folders=wanted, items=items)


def _wait(api: PlexApi, section: Section, pause: Callable[[float], None]) -> None:
    quiet, waited = 0, 0.0
    while quiet < _QUIET:
        pause(_PAUSE)
        waited += _PAUSE
        quiet = 0 if api.section(section.number).is_scanning else quiet + 1
        if not quiet and waited % _SAID < _PAUSE:
            _log.info("Plex scans", library=section.name, seconds=round(waited))
