"""Checks of the library's entries: what moves, what cannot be read, and what is not needed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shared.checks import LINKS_OUT_ADVICE, CheckId, size, some

if TYPE_CHECKING:
    from agent.checks.source_facts import SourceFacts
    from shared.checks import Check


def check_content(facts: SourceFacts) -> Check:
    """Return how much moves, and which entries never move."""
    tree = facts.tree
    found = f"{tree.entries} entries, {size(tree.content_bytes)}"
    if tree.left_out:
        found += f"; left out: {some(tree.left_out)}"
    return CheckId.CONTENT.passed(found)


def check_readable(facts: SourceFacts) -> Check:
    """Return whether the agent can read every entry."""
    if not facts.tree.unreadable:
        return CheckId.READABLE.passed("all of it")
    advice = "Give the agent's user access, or leave them out with --exclude."
    return CheckId.READABLE.failure(some(facts.tree.unreadable), advice)


def check_symlinks(facts: SourceFacts) -> Check:
    """Return whether symlinks lead out of the library."""
    links = facts.tree.links_out
    if not links:
        return CheckId.SYMLINKS.passed("none leads out of the library")
    found = f"lead out of the library ({len(links)}): {some(links)}"
    return CheckId.SYMLINKS.warning(found, LINKS_OUT_ADVICE)


def check_regenerable(facts: SourceFacts) -> Check:
    """Return how much Plex would make again if it were left out; a tenth or more is a warning."""
    total = sum(facts.tree.regenerable.values())
    each = "; ".join(f"{path} {size(count)}" for path, count in facts.tree.regenerable.items())
    found = f"{size(total)} that Plex makes again" + (f": {each}" if each else "")
    if total * 10 < facts.tree.content_bytes:
        return CheckId.REGENERABLE.passed(found)
    return CheckId.REGENERABLE.warning(found, "--exclude-regenerable leaves it out.")
