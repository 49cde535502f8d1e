"""What a careful administrator would look at on the VM before Plex is stopped. Nothing is written.

Sources of what Plex does to those who do not know: its own documentation and support threads; each
check says what to do in its advice.
"""

from __future__ import annotations

import os
import shlex
from contextlib import suppress
from typing import TYPE_CHECKING

from agent.cutover.record import CutoverRecord, Fence
from agent.cutover.stop_history import StopHistory
from agent.placement import check_artwork, check_library, check_links
from agent.plex.server import installed_version, is_running
from agent.plex.service import plex_service
from agent.source.disk_sample import read_seconds
from agent.source.plex_facts import look_at_tree
from shared.checks import CUTOVER_CHECK, LINKS_OUT_ADVICE, Check, Outcome, size, some
from shared.errors import CutoverRefused, StorageError
from shared.plex.library import (
    DATABASE_FOLDER,
    DATABASES,
    MEDIA_FOLDERS,
    OLD_MACHINE,
    PREFERENCES,
    server_folder,
)
from shared.plex.preferences import read_preferences
from shared.plex.sqlite_check import PLEX_SQLITE, DatabaseCheck, check_database
from shared.plex.sqlite_query import DatabaseError, query
from shared.wire.protocol import LibraryReport, MediaFolder, ServerReport

if TYPE_CHECKING:
    from agent.settings import Settings
    from agent.source.library import LibrarySource
    from agent.source.plex_facts import TreeFacts
    from shared.plex.sqlite_check import Soundness
    from shared.plex.version import PlexVersion

_PASS, _WARNING, _FAILURE = Outcome.PASS, Outcome.WARNING, Outcome.FAILURE
_OFF = frozenset({"0", "false"})


def preflight(
    source: LibrarySource, settings: Settings, depth: DatabaseCheck = DatabaseCheck.FULL
) -> LibraryReport:
    """Every check of the source; those of Plex only where the library is Plex's."""
    about = look_at_server(source, settings, depth)
    with source.opened() as base:
        facts = look_at_tree(base, source)
        seconds = read_seconds(base, facts.sample)
    tree = [_tree(facts), _unreadable(facts), _links(facts)]
    if _plex_folder(source) is not None:
        tree.append(_old(facts))
    return LibraryReport(
        library=about.library,
        plex_version=about.plex_version,
        media=about.media,
        checks=[*about.checks, *tree],
        entries=facts.entries,
        content_bytes=facts.content_bytes,
        read_seconds=seconds,
    )


def look_at_server(
    source: LibrarySource, settings: Settings, depth: DatabaseCheck = DatabaseCheck.FULL
) -> ServerReport:
    """The checks for which the tree need not be walked."""
    server, path = _plex_folder(source), source.about.path
    place, links = check_library(path), check_links(path)
    if server is None:
        checks = [place] if links.outcome is _PASS else [links]
        return ServerReport(source.about, None, [], checks)
    version = installed_version(server)
    databases = [_database(server, name, depth) for name in DATABASES]
    return ServerReport(
        library=source.about,
        plex_version=None if version is None else str(version),
        media=_media(server),
        checks=[
            place,
            links,
            *check_artwork(server),
            _version(version),
            *_running(settings),
            *databases,
            *_preferences(server),
        ],
    )


def _plex_folder(source: LibrarySource) -> str | None:
    """Plex' own folder, if the library is Plex'."""
    server = server_folder(source.about.path)
    return server if server is not None and os.path.isdir(server) else None


def _media(server: str) -> list[MediaFolder]:
    """None where the database cannot be read: its own check says so."""
    path = os.path.join(server, DATABASE_FOLDER, DATABASES[0])
    with suppress(DatabaseError, OSError):
        [rows] = query(path, [MEDIA_FOLDERS])
        return [MediaFolder(str(section), str(folder)) for _, section, folder in rows]
    return []


def _version(found: PlexVersion | None) -> Check:
    if found is None:
        return Check(
            "Plex version",
            _WARNING,
            "neither the server, nor its package, nor its log tells it",
            "Make sure that the pod's image is not older: the database's schema only goes forward.",
        )
    advice = f"Run the same in the pod (image tag {found}), or a newer one; never an older one."
    return Check("Plex version", _PASS, str(found), advice)


def _running(settings: Settings) -> list[Check]:
    runs = is_running()
    found = "it runs: a pull has it stopped at the end" if runs else "nothing listens on its port"
    plex = plex_service(settings.unit, settings.stop_command, settings.start_command)
    try:
        plex.check_fence(Fence(settings.state).path)
    except CutoverRefused as error:
        # A failure only for who wants it: the puller knows.
        about = str(error.what if error.path is None else f"{error.what}: {error.path}")
        can_stop = Check(CUTOVER_CHECK, _WARNING, about, error.hint)
    else:
        can_stop = _last_stop(settings.state)
    return [Check("Plex", _PASS, found), can_stop]


def _last_stop(state: str) -> Check:
    """Return what is known of the last stop: only a real one tells whether a command works."""
    history = StopHistory()
    with suppress(StorageError):  # the start of a cutover reports it
        history = CutoverRecord(state).load().history
    if not history.is_stop_refused or history.failure is None:
        return Check(CUTOVER_CHECK, _PASS, "Plex can be stopped, and stays so")
    failure = history.failure
    found = f"the last stop was refused ({failure.at}): {failure.what}"
    advice = f"{failure.hint} Then restart the agent, or add --retry-failed to pull.".strip()
    return Check(CUTOVER_CHECK, _WARNING, found, advice)


def _database(server: str, name: str, depth: DatabaseCheck) -> Check:
    title = "blobs database" if "blobs" in name else "library database"
    path = os.path.join(server, DATABASE_FOLDER, name)
    try:
        length = os.path.getsize(path)
    except FileNotFoundError:
        outcome = _WARNING if "blobs" in name else _FAILURE
        advice = "Is this the library of a server that was ever started?"
        return Check(title, outcome, f"is not there: {path}", advice)
    except OSError as error:
        return Check(title, _FAILURE, f"cannot be looked at ({error.strerror}): {path}")
    soundness = check_database(path, depth)
    if soundness.damage:
        return Check(title, _FAILURE, f"{some(soundness.damage)}: {path}", _repair(soundness, path))
    if soundness.not_checked:
        return Check(
            title,
            _WARNING,
            f"not checked, because {soundness.not_checked}; {size(length)}: {path}",
            "The move does not need the check, but a damaged database would be as damaged in the"
            " pod. --database-check quick takes less time; skip leaves the check out.",
        )
    return Check(title, _PASS, "; ".join([f"sound, {size(length)}", *soundness.caveats]))


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


def _preferences(server: str) -> list[Check]:
    path = os.path.join(server, PREFERENCES)
    advice = "Restore it from a backup. Without it Plex starts as a new server, unclaimed."
    try:
        found = read_preferences(server)
    except OSError as error:
        return [Check(PREFERENCES, _FAILURE, f"cannot be read ({error.strerror}): {path}", advice)]
    except ValueError as error:
        return [Check(PREFERENCES, _FAILURE, f"{error}: {path}", advice)]
    if not found.get("MachineIdentifier"):
        about = f"has no MachineIdentifier: {path}"
        return [Check(PREFERENCES, _FAILURE, about, advice)]
    return [
        Check(PREFERENCES, _PASS, f"{len(found)} settings, with the server's identity"),
        _old_machine(found),
        _trash(found),
    ]


def _old_machine(preferences: dict[str, str]) -> Check:
    found = [f"{name}={preferences[name]}" for name in OLD_MACHINE if preferences.get(name)]
    if not found:
        return Check("old machine", _PASS, "no setting names a path or device of this machine")
    advice = "Change what does not exist in the pod, in the web UI, after the move."
    return Check("old machine", _WARNING, some(found), advice)


def _trash(preferences: dict[str, str]) -> Check:
    if preferences.get("autoEmptyTrash", "1").lower() in _OFF:
        return Check("automatic trash", _PASS, "autoEmptyTrash is off")
    return Check(
        "automatic trash",
        _WARNING,
        "autoEmptyTrash is on: a scan that does not find the media deletes items, history and all",
        "Switch off 'Empty trash automatically after every scan' before the move, on again after"
        " the first good scan; or mount the media at the same paths.",
    )


def _tree(facts: TreeFacts) -> Check:
    found = f"{facts.entries} entries, {size(facts.content_bytes)}"
    if facts.left_out:
        found += f"; left out: {some(facts.left_out)}"
    return Check("content", _PASS, found)


def _unreadable(facts: TreeFacts) -> Check:
    if not facts.unreadable:
        return Check("readable", _PASS, "all of it")
    advice = "Give the agent's user access, or leave them out with --exclude."
    return Check("readable", _FAILURE, some(facts.unreadable), advice)


def _links(facts: TreeFacts) -> Check:
    if not facts.links_out:
        return Check("symlinks", _PASS, "none leads out of the library")
    found = f"lead out of the library ({len(facts.links_out)}): {some(facts.links_out)}"
    return Check("symlinks", _WARNING, found, LINKS_OUT_ADVICE)


def _old(facts: TreeFacts) -> Check:
    regenerable = sum(facts.regenerable.values())
    each = "; ".join(f"{path} {size(count)}" for path, count in facts.regenerable.items())
    found = f"{size(regenerable)} that Plex makes again" + (f": {each}" if each else "")
    if regenerable * 10 < facts.content_bytes:
        return Check("regenerable", _PASS, found)
    return Check("regenerable", _WARNING, found, "--exclude-regenerable leaves it out.")
