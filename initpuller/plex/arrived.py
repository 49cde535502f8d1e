"""Check that the running Plex is the server that was moved, with all of its content."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shared.checks import CheckId
from shared.plex.version import find_version

if TYPE_CHECKING:
    from collections.abc import Sequence

    from initpuller.plex.api import ApiSection
    from shared.checks import Check
    from shared.plex.library import SectionFacts, ServerFacts

_OTHER_LIBRARY = (
    "Plex did not start on the library that was moved: is the volume mounted at /config?"
)


def check_identity(facts: ServerFacts, machine_identifier: str) -> Check:
    """Return whether the running server has the moved server's identity.

    A server of another identity is a new one, without the clients, history and shares.
    """
    if not facts.machine_identifier:
        return CheckId.RUNNING_IDENTITY.warning(f"{machine_identifier}; the source's is not known")
    if facts.machine_identifier == machine_identifier:
        return CheckId.RUNNING_IDENTITY.passed(machine_identifier)
    return CheckId.RUNNING_IDENTITY.failure(
        f"this server is {machine_identifier}, the source was {facts.machine_identifier}",
        _OTHER_LIBRARY,
    )


def check_running_version(facts: ServerFacts, version: str) -> Check:
    """Return whether the running version can read the moved database."""
    ours, theirs = find_version(version), find_version(facts.version)
    if ours is None or theirs is None:
        return CheckId.RUNNING_VERSION.warning(f"{version or 'unknown'}; the source's is not known")
    if ours == theirs:
        return CheckId.RUNNING_VERSION.passed(f"{ours}, as the source")
    if ours > theirs:
        return CheckId.RUNNING_VERSION.passed(
            f"{ours}, the source was {theirs}: its database is migrated"
        )
    advice = f"Use the image's tag {theirs} or a newer one, on a fresh copy of the library."
    return CheckId.RUNNING_VERSION.failure(f"{ours} is older than the source's {theirs}", advice)


def check_sections(moved: Sequence[SectionFacts], running: Sequence[ApiSection]) -> Check:
    """Return whether each section is there, with at least as many items as the source had."""
    now = {section.number: section for section in running}
    lost = [each.name for each in moved if each.number not in now]
    fewer = [
        f"{each.name} has {now[each.number].items} items of {each.items}"
        for each in moved
        if each.number in now and now[each.number].items < each.items
    ]
    if lost:
        return CheckId.RUNNING_SECTIONS.failure(f"not there: {', '.join(lost)}", _OTHER_LIBRARY)
    if fewer:
        advice = "Did a scan run while media was missing? Keep autoEmptyTrash off, mount, scan."
        return CheckId.RUNNING_SECTIONS.warning("; ".join(fewer), advice)
    counts = ", ".join(f"{each.name} {now[each.number].items}" for each in moved) or "none"
    return CheckId.RUNNING_SECTIONS.passed(counts)
