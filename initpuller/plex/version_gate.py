"""Whether the pod's Plex can run on the source's database."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from shared.checks import Check, Outcome
from shared.plex.version import find_version


class VersionPolicy(Enum):
    """What it means that the pod's Plex is older than the source's."""

    REFUSE = "refuse"
    WARN = "warn"


@dataclass(frozen=True)
class VersionGate:
    """Which Plex the pod will run, and how strictly that is taken."""

    plex_version: str = ""
    """Of the pod's Plex, or its image's tag; empty if nobody said."""
    policy: VersionPolicy = VersionPolicy.REFUSE

    def check(self, source: str | None) -> Check:
        """The database's schema goes forward by itself, and never back.

        Args:
            source: the version that the agent has found, if it has.
        """
        title = "version"
        ours, theirs = find_version(self.plex_version), find_version(source or "")
        if theirs is None or ours is None:
            whose = "the source's" if theirs is None else "the pod's"
            return Check(
                title,
                Outcome.WARNING,
                f"{whose} Plex version is not known",
                "Give --plex-version or PLEXODUS_PLEX_VERSION, the tag of the image: it must not be"
                " older than the source.",
            )
        if ours == theirs:
            return Check(title, Outcome.PASS, f"{ours} on both sides")
        if ours > theirs:
            return Check(
                title,
                Outcome.WARNING,
                f"the pod's {ours} is newer than the source's {theirs}",
                "Plex will migrate its database at the first start: give it time, with no liveness"
                f" probe; or begin with {theirs} and upgrade later.",
            )
        return Check(
            title,
            Outcome.FAILURE if self.policy is VersionPolicy.REFUSE else Outcome.WARNING,
            f"the pod's {ours} is older than the source's {theirs}",
            f"Use the image's tag {theirs} or a newer one: an older Plex cannot read the database.",
        )
