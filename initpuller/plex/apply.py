"""Give Plex's sections their new folders through its own API, so that no item is deleted.

A section whose folder is replaced in one step loses its items with the first scan. So each section
first gets the new folders beside the old ones, then a scan, and only then loses the old ones.
Automatic emptying of trash is off from before the first change until after the last. A file on the
volume, which survives a kill, notes meanwhile that it was on, and how many items sections had.
"""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import msgspec
import structlog

from shared import typed_json
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


class Note(msgspec.Struct, frozen=True):
    """The note on the volume: emptying of trash was on before the first run."""

    items: dict[int, int]
    """The number of items that each section had before its first change, by the section's id."""
    about: str = "autoEmptyTrash was on; 'paths --apply' switches it on again"


def apply_sections(api: PlexApi, sections: Sequence[Section], path: str) -> None:
    """Give each section the folders where its media is now.

    Args:
        api: the running server.
        sections: sections whose media was found in their new folders.
        path: of the note that emptying of trash was on before the first run.

    Raises:
        PlexRefused: Plex refused a change, the note cannot be read, or a section has fewer items
            than before the first run. Emptying of trash then stays off, changed sections stay
            changed, and the next run continues there.
        PlexUnreachable, AuthenticationError, StorageError: with the same consequences.
    """
    changing = [each for each in sections if not each.is_unchanged]
    for section in changing:
        _check_folders(api, section)
    note = _read(path)
    if changing and (note is not None or api.empties_trash()):
        note = _with_items(api, changing, note)
        with _on_volume(path):
            write_durably(path, msgspec.json.encode(note) + b"\n")
        api.set_empties_trash(on=False)
    noted = note.items if note is not None else {}
    for section in changing:
        _change(api, section, noted.get(section.number, 0), path)
    if note is not None:
        _require_items(api, noted, path)
        api.set_empties_trash(on=True)
        with _on_volume(path):
            os.unlink(path)
            fsync_folder(os.path.dirname(path))


def _read(path: str) -> Note | None:
    """Return the note; None if there is no file.

    Raise PlexRefused if it does not have the numbers of items, as those of older releases.
    """
    with _on_volume(path):
        try:
            with open(path, "rb") as file:
                text = file.read()
        except FileNotFoundError:
            return None
    try:
        return typed_json.decode(text, Note)
    except msgspec.DecodeError as error:
        raise PlexRefused(
            f"the note of an earlier run does not have the numbers of items ({error})",
            path=path,
            hint=_way_out(path),
        ) from error


def _with_items(api: PlexApi, changing: Sequence[Section], note: Note | None) -> Note:
    """Return the note with the sections that an earlier run had not begun with."""
    now = {each.number: api.section(each.number).items for each in changing}
    return Note(now | (note.items if note is not None else {}))


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


def _change(api: PlexApi, section: Section, noted: int, note: str) -> None:
    """Move one section, which had ``noted`` items before an earlier run, if one is noted."""
    before = api.section(section.number)
    wanted = list(dict.fromkeys(each.new for each in section.folders))
    both = list(dict.fromkeys([*before.folders, *wanted]))
    if before.folders == wanted:
        return
    if both != before.folders:
        api.set_folders(section.number, both)
    api.scan(section.number)
    _wait(api, section)
    items, least = api.section(section.number).items, max(noted, before.items)
    if items < least:
        raise _lost(section.name, items, least, note)
    api.set_folders(section.number, wanted)
    _log.info("library moved", library=section.name, folders=wanted, items=items)


def _require_items(api: PlexApi, noted: dict[int, int], note: str) -> None:
    """Raise PlexRefused if a section has lost items meanwhile, whoever has changed its folders."""
    found = {each.number: each for each in api.sections()}
    for number, least in noted.items():
        section = found.get(number)
        items = section.items if section is not None else 0
        if items < least:
            name = section.name if section is not None else f"section {number}"
            raise _lost(name, items, least, note)


def _lost(name: str, items: int, before: int, note: str) -> PlexRefused:
    return PlexRefused(
        f"{name} has {items} items after the scan, and had {before}", hint=_way_out(note)
    )


def _way_out(note: str) -> str:
    return (
        "Automatic emptying of trash stays off. Check the library in Plex. If it should stay as it"
        f" is, remove {note} and run this again. Then switch emptying on in Plex, if you want it."
    )


def _wait(api: PlexApi, section: Section) -> None:
    quiet, waited = 0, 0.0
    while quiet < _QUIET:
        time.sleep(_PAUSE)
        waited += _PAUSE
        quiet = 0 if api.section(section.number).is_scanning else quiet + 1
        if not quiet and waited % _SAID < _PAUSE:
            _log.info("Plex scans", library=section.name, seconds=round(waited))
