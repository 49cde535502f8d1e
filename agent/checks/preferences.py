"""Checks of Plex's Preferences.xml."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from shared.checks import CheckId, some
from shared.plex.library import OLD_MACHINE, PREFERENCES
from shared.plex.preferences import read_preferences

if TYPE_CHECKING:
    from shared.checks import Check

_OFF = frozenset({"0", "false"})


@dataclass(frozen=True)
class PreferencesFile:
    """Plex's preferences, or why they cannot be used."""

    values: dict[str, str] = field(default_factory=dict)
    problem: str = ""
    """What is wrong, with the path; empty if the file can be used."""


def read_preferences_file(server: str) -> PreferencesFile:
    """Read the preferences in Plex's own folder."""
    path = os.path.join(server, PREFERENCES)
    try:
        values = read_preferences(server)
    except OSError as error:
        return PreferencesFile(problem=f"cannot be read ({error.strerror}): {path}")
    except ValueError as error:
        return PreferencesFile(problem=f"{error}: {path}")
    if not values.get("MachineIdentifier"):
        return PreferencesFile(problem=f"has no MachineIdentifier: {path}")
    return PreferencesFile(values)


def check_preferences(preferences: PreferencesFile) -> Check:
    """Return whether the server keeps its identity in the pod."""
    if preferences.problem:
        return CheckId.PREFERENCES.failure(
            preferences.problem,
            "Restore it from a backup. Without it Plex starts as a new server, unclaimed.",
        )
    found = f"{len(preferences.values)} settings, with the server's identity"
    return CheckId.PREFERENCES.passed(found)


def check_old_machine(preferences: PreferencesFile) -> Check | None:
    """Return whether a setting names a path or a device of the VM.

    Returns None if :func:`check_preferences` fails.
    """
    if preferences.problem:
        return None
    values = preferences.values
    found = [f"{name}={values[name]}" for name in OLD_MACHINE if values.get(name)]
    if not found:
        return CheckId.OLD_MACHINE.passed("no setting names a path or device of this machine")
    advice = "Change what does not exist in the pod, in the web UI, after the move."
    return CheckId.OLD_MACHINE.warning(some(found), advice)


def check_automatic_trash(preferences: PreferencesFile) -> Check | None:
    """Return whether a scan without the media would delete items.

    Returns None if :func:`check_preferences` fails.
    """
    if preferences.problem:
        return None
    if preferences.values.get("autoEmptyTrash", "1").lower() in _OFF:
        return CheckId.AUTOMATIC_TRASH.passed("autoEmptyTrash is off")
    return CheckId.AUTOMATIC_TRASH.warning(
        "autoEmptyTrash is on: a scan that does not find the media deletes items and their history",
        "Switch off 'Empty trash automatically after every scan' before the move. Switch it on"
        " again after the first good scan. Or mount the media at the same paths.",
    )
