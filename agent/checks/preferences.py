"""Checks of Plex's Preferences.xml. Two return None if :func:`check_preferences` fails."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shared.checks import CheckId, some
from shared.plex.library import OLD_MACHINE

if TYPE_CHECKING:
    from agent.checks.source_facts import SourceFacts
    from shared.checks import Check

_OFF = frozenset({"0", "false"})


def check_preferences(facts: SourceFacts) -> Check:
    """Return whether the server keeps its identity in the pod."""
    values = facts.preferences
    if isinstance(values, str):
        return CheckId.PREFERENCES.failure(
            values, "Restore it from a backup. Without it Plex starts as a new server, unclaimed."
        )
    return CheckId.PREFERENCES.passed(f"{len(values)} settings, with the server's identity")


def check_old_machine(facts: SourceFacts) -> Check | None:
    """Return whether a setting names a path or a device of the VM."""
    values = facts.preferences
    if isinstance(values, str):
        return None
    found = [f"{name}={values[name]}" for name in OLD_MACHINE if values.get(name)]
    if not found:
        return CheckId.OLD_MACHINE.passed("no setting names a path or device of this machine")
    advice = "Change what does not exist in the pod, in the web UI, after the move."
    return CheckId.OLD_MACHINE.warning(some(found), advice)


def check_automatic_trash(facts: SourceFacts) -> Check | None:
    """Return whether a scan without the media would delete items."""
    values = facts.preferences
    if isinstance(values, str):
        return None
    if values.get("autoEmptyTrash", "1").lower() in _OFF:
        return CheckId.AUTOMATIC_TRASH.passed("autoEmptyTrash is off")
    return CheckId.AUTOMATIC_TRASH.warning(
        "autoEmptyTrash is on: a scan that does not find the media deletes items and their history",
        "Switch off 'Empty trash automatically after every scan' before the move. Switch it on"
        " again after the first good scan. Or mount the media at the same paths.",
    )
