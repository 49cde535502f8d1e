"""Whether the Plex that runs is the server that was moved, with all that it had."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shared.checks import Check, Outcome
from shared.plex.version import find_version

if TYPE_CHECKING:
    from collections.abc import Sequence

    from initpuller.plex.api import ApiSection
    from shared.plex.library import SectionFacts, ServerFacts

_PASS, _WARNING, _FAILURE = Outcome.PASS, Outcome.WARNING, Outcome.FAILURE


def check_identity(facts: ServerFacts, machine_identifier: str) -> Check:
    """A server of another identity is a new one: clients, history and shares are not its own."""
    title = "identity"
    if not facts.machine_identifier:
        return Check(title, _WARNING, f"{machine_identifier}; the source's is not known")
    if facts.machine_identifier == machine_identifier:
        return Check(title, _PASS, machine_identifier)
    return Check(
        title,
        _FAILURE,
        f"this server is {machine_identifier}, the source was {facts.machine_identifier}",
        "Plex did not start on the library that was moved: is the volume mounted at /config?",
    )


def check_running_version(facts: ServerFacts, version: str) -> Check:
    """A newer one has migrated the database, an older one cannot read it."""
    title = "version"
    ours, theirs = find_version(version), find_version(facts.version)
    if ours is None or theirs is None:
        return Check(title, _WARNING, f"{version or 'unknown'}; the source's is not known")
    if ours == theirs:
        return Check(title, _PASS, f"{ours}, as the source")
    if ours > theirs:
        return Check(title, _PASS, f"{ours}, the source was {theirs}: its database is migrated")
    advice = f"Use the image's tag {theirs} or a newer one, on a fresh copy of the library."
    return Check(title, _FAILURE, f"{ours} is older than the source's {theirs}", advice)


def check_sections(moved: Sequence[SectionFacts], running: Sequence[ApiSection]) -> Check:
    """Each library is there, with as many items as the source had, or more."""
    title = "libraries"
    now = {section.number: section for section in running}
    lost = [each.name for each in moved if each.number not in now]
    fewer = [
        f"{each.name} has {now[each.number].items} items of {each.items}"
        for each in moved
        if each.number in now and now[each.number].items < each.items
    ]
    if lost:
        advice = (
            "Plex did not start on the library that was moved: is the volume mounted at /config?"
        )
        return Check(title, _FAILURE, f"not there: {', '.join(lost)}", advice)
    if fewer:
        advice = "Did a scan run while media was missing? Keep autoEmptyTrash off, mount, scan."
        return Check(title, _WARNING, "; ".join(fewer), advice)
    told = ", ".join(f"{each.name} {now[each.number].items}" for each in moved) or "none"
    return Check(title, _PASS, told)
