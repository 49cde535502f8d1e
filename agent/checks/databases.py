"""Checks of Plex's databases, and the media folders that they name."""

from __future__ import annotations

import os
import shlex
from contextlib import suppress
from typing import TYPE_CHECKING

from shared.checks import CheckId, size, some
from shared.plex.library import DATABASE_FOLDER, DATABASES, MEDIA_FOLDERS
from shared.plex.sqlite_check import PLEX_SQLITE, check_database
from shared.plex.sqlite_query import DatabaseError, query
from shared.wire.protocol import MediaFolder

if TYPE_CHECKING:
    from agent.checks.source_facts import SourceFacts
    from shared.checks import Check
    from shared.plex.sqlite_check import Soundness

_LIBRARY, _BLOBS = DATABASES


def check_library_database(facts: SourceFacts) -> Check:
    """Return whether the database with the library's items is sound."""
    return _check(CheckId.LIBRARY_DATABASE, _LIBRARY, facts)


def check_blobs_database(facts: SourceFacts) -> Check:
    """Return whether the database with the library's blobs is sound."""
    return _check(CheckId.BLOBS_DATABASE, _BLOBS, facts)


def media_folders(server: str) -> list[MediaFolder]:
    """Return the media folders of each section of the Plex in the folder ``server``.

    Returns none if the database cannot be read, which its own check reports.
    """
    path = os.path.join(server, DATABASE_FOLDER, _LIBRARY)
    with suppress(DatabaseError, OSError):
        [rows] = query(path, [MEDIA_FOLDERS])
        return [MediaFolder(str(section), str(folder)) for _, section, folder in rows]
    return []


def _check(check: CheckId, name: str, facts: SourceFacts) -> Check:
    path = os.path.join(facts.server, DATABASE_FOLDER, name)
    try:
        length = os.path.getsize(path)
    except FileNotFoundError:
        report = check.warning if name == _BLOBS else check.failure  # old servers have no blobs
        return report(
            f"is not there: {path}", "Is this the library of a server that was ever started?"
        )
    except OSError as error:
        return check.failure(f"cannot be read ({error.strerror}): {path}")
    soundness = check_database(path, facts.depth)
    if soundness.damage:
        return check.failure(f"{some(soundness.damage)}: {path}", _repair(soundness, path))
    if soundness.not_checked:
        return check.warning(
            f"not checked, because {soundness.not_checked}; {size(length)}: {path}",
            "The move does not need the check, but a damaged database would be as damaged in the"
            " pod. --database-check quick takes less time; skip leaves the check out.",
        )
    return check.passed("; ".join([f"sound, {size(length)}", *soundness.caveats]))


def _repair(soundness: Soundness, path: str) -> str:
    if len(soundness.rebuild) == len(soundness.damage):
        rebuild = " ".join(
            f"INSERT INTO {table}({table}) VALUES('rebuild');" for table in soundness.rebuild
        )
        return (
            "Stop Plex and rebuild the index from the titles:"
            f" {shlex.quote(PLEX_SQLITE)} {shlex.quote(path)} {shlex.quote(rebuild)}"
        )
    return (
        "Stop Plex, then repair the database or restore one of Plex's dated copies. It would be as"
        " damaged in the pod. See 'Repair a Corrupted Database' on Plex's support pages."
    )
